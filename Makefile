# Two commands set everything up and run it: `make demo` and `make test`. What they install: tools/setup.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

# make demo: a generated shop, or DATA=DIR DATES=FROM..TO with Online Retail day files. KEEP=0 ends the sandbox afterwards.
DATA  ?=
DATES ?=
DAYS  ?= 14
KEEP  ?= 1
REPORT ?= report.html

BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest

.PHONY: help
help: ## Tell what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  \1|\2/' | column -t -s '|'

.PHONY: demo
demo: ## Sandbox up, load, run, reconcile, report
	@tools/setup demo
	@$(BIN)/ecomm-sandbox demo --days $(DAYS) --report $(REPORT) \
	  $(if $(DATA),--data $(DATA)) $(if $(DATES),--dates $(DATES)) $(if $(filter 0,$(KEEP)),--no-keep)

.PHONY: test
test: check ## Everything: check, Spark, the pipeline on a warm sandbox, chart and alerts, images, the pipeline on a cluster
	@tools/setup test
	$(PYTEST) tests/spark
	$(PYTEST) tests/integration tests/contract
	$(PYTEST) tests/workflows tests/chart tests/alerts tests/alertmanager
	@$(MAKE) --no-print-directory test-cluster

.PHONY: test-cluster
test-cluster: ## The images, and the pipeline on a kind cluster; a line says how to get one where there is none
	@tools/setup check
	status=0; $(PYTEST) tests/cluster tests/images || status=$$?; \
	if [ "$${CI:-}" = true ]; then cluster/down || echo "the cluster stays: see above"; fi; exit $$status

.PHONY: check
check: ## Lint, types, architecture and unit tests, under two minutes
	@tools/setup check
	$(BIN)/ruff format --check -q .
	$(BIN)/ruff check -q .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m workflows.render --check
	$(BIN)/python tools/render_docs.py --check
	$(PYTEST) tests/unit

.PHONY: format
format: ## Format, and mend what ruff can mend
	@tools/setup check
	$(BIN)/ruff check --fix -q . || true
	$(BIN)/ruff format -q .

.PHONY: render
render: ## Write again what is made from code: the rendered workflows, docs/settings.md
	@tools/setup check
	$(BIN)/python -m workflows.render
	$(BIN)/python tools/render_docs.py

.PHONY: bench bench-extract bench-run bench-exporter bench-cluster
bench: bench-extract bench-run bench-exporter ## Measure, and write docs/benchmarks.md
bench-extract: ## The extractor against psql COPY and its peers
	@tools/setup bench
	$(BIN)/python benchmarks/bench_extract.py --write
bench-run: ## One day and 31 days on a warm sandbox, by stage; the demo; start-up times
	@tools/setup bench
	$(BIN)/python benchmarks/bench_run.py --write --demo
bench-exporter: ## `ecomm exporter` over a year's ledger: requests of S3, seconds, memory
	@tools/setup bench
	$(BIN)/python benchmarks/bench_exporter.py --write
bench-cluster: ## What Argo and Kubernetes add to a day, on the cluster of `make cluster`
	@tools/setup bench
	$(BIN)/python benchmarks/bench_orchestration.py --write

STAGES := $(notdir $(patsubst %/requirements.txt,%,$(wildcard images/*/requirements.txt)))

.PHONY: cluster cluster-down images
cluster: ## A kind cluster with Argo, the sandbox and the pipeline's chart (cluster/README.md)
	@cluster/up
	@BASE_IMAGE=$$(cluster/base-image) images/build $(STAGES) sandbox
	@cluster/deploy
cluster-down: ## Remove that cluster; what it was made from stays cached
	@cluster/down
images: ## Build the image of each stage (docs/images.md)
	@cluster/engine
	@BASE_IMAGE=$$(cluster/base-image) images/build

.PHONY: clean
clean: ## End the sandbox and remove what was made; caches and .venv stay
	@[ ! -x $(BIN)/ecomm-sandbox ] || $(BIN)/ecomm-sandbox down --purge
	rm -rf report.html .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache dist dbt/target dbt/logs
