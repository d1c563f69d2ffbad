"""The OpenLineage event of each stage, from its record of the ledger."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import get_type_hints

import pytest
from openlineage.client.serde import Serde
from tests.support.lineage import MANIFEST, WHERE, problems_of

from ecomm_pipeline import settings
from ecomm_pipeline.ledger import Record
from ecomm_pipeline.lineage.places import Places
from ecomm_pipeline.lineage.plan import Where, event, parent_id

RUN = "20260102T180000Z-1f3a"
BEGAN = datetime(2026, 1, 2, 18, 0, 5, tzinfo=UTC)


def record(stage, outcome="succeeded", **more):
    ended = None if outcome == "running" else BEGAN + timedelta(seconds=61)
    days = {"first_date": date(2026, 1, 2), "last_date": date(2026, 1, 2)}
    whole = {
        **days,
        "run_id": RUN,
        "trigger": "cron",
        "started_at": BEGAN,
        "tried_at": BEGAN,
        "ended_at": ended,
        **more,
    }
    return Record(stage=stage, outcome=outcome, **whole)


def told(stage, outcome="succeeded", *, manifest=None, **more):
    """Give the event as it is sent, which the specification and backends accept."""
    made = event(record(stage, outcome, **more), WHERE, manifest)
    sent = Serde.to_dict(made)
    assert problems_of(sent) == []
    return sent


def names(datasets):
    return [(one["namespace"], one["name"]) for one in datasets]


def rows(datasets, facets, facet):
    return {one["name"]: one[facets][facet]["rowCount"] for one in datasets if facet in one.get(facets, {})}


SOURCE = ("postgres://db:6432", "shop.sales.orders")
FOLDER = ("s3://lake", "night/ecomm_db_extracts/daily_extracts/orders")


def lake(name):
    return "unitycatalog://dbc-1.cloud.databricks.com", f"ecomm.{name}"


def test_an_extraction_reads_a_table_and_writes_a_folder_with_the_columns_of_the_table():
    sent = told(
        "extractor", table="orders", rows_in=12, rows_out=12, bytes=345, figures={"manifest": "k"}, manifest=MANIFEST
    )
    assert sent["job"]["name"] == "batch-ecomm-pipeline.extractor.orders"
    (read,), (written,) = sent["inputs"], sent["outputs"]
    assert names([read, written]) == [SOURCE, FOLDER]
    assert [field["name"] for field in written["facets"]["schema"]["fields"]] == ["order_id", "updated_at"]
    assert read["facets"]["schema"] == written["facets"]["schema"]
    assert read["inputFacets"]["inputStatistics"]["rowCount"] == 12
    statistics = written["outputFacets"]["outputStatistics"]
    assert (statistics["rowCount"], statistics["size"], statistics["fileCount"]) == (12, 345, 1)


def test_what_a_stage_begins_with_is_told_at_its_start_without_figures():
    sent = told("extractor", "running", table="orders")
    assert (sent["eventType"], sent["eventTime"]) == ("START", "2026-01-02T18:00:05+00:00")
    assert names(sent["inputs"] + sent["outputs"]) == [SOURCE, FOLDER]
    assert "outputStatistics" not in sent["outputs"][0]["outputFacets"]


def test_an_update_reads_the_folders_of_extracts_and_writes_tables_of_the_lakehouse():
    expectations = [{"dataset": "bronze.orders", "name": "no_rescued_data", "passed": 11, "failed": 1}]
    sent = told(
        "dlt-trigger", figures={"tables": {"bronze.orders": 12, "silver.dim_orders": 7}, "expectations": expectations}
    )
    assert names(sent["inputs"]) == [FOLDER, (FOLDER[0], FOLDER[1].replace("orders", "customers"))]
    assert names(sent["outputs"]) == [lake("bronze.orders"), lake("silver.dim_orders")]
    assert rows(sent["outputs"], "outputFacets", "outputStatistics") == {
        "ecomm.bronze.orders": 12, "ecomm.silver.dim_orders": 7,
    }  # fmt: skip
    (test,) = sent["run"]["facets"]["test"]["tests"]
    assert (test["name"], test["status"], test["params"]) == (
        "bronze.orders.no_rescued_data", "fail", {"passed": 11, "failed": 1},
    )  # fmt: skip


def test_dbt_reads_gold_and_writes_the_kpi_tables_that_it_built_and_tells_its_tests():
    nodes = {
        "agg_sales_kpi": {"kind": "model", "file": "a.sql", "status": "success", "seconds": 1.0, "rows": 365},
        "agg_product_kpi": {"kind": "model", "file": "b.sql", "status": "error", "seconds": 1.0},
        "unique_day": {"kind": "test", "file": "a.yml", "status": "pass", "seconds": 0.1, "failures": 0},
        "few_returns": {"kind": "test", "file": "a.yml", "status": "warn", "seconds": 0.1, "failures": 3},
        "after_the_error": {"kind": "test", "file": "b.yml", "status": "skipped", "seconds": 0.0},
    }
    sources = {"gold.agg_daily_sales": {"rows": 365, "newest": None}}
    sent = told(
        "dbt-runner", "failed", figures={"sources": sources, "nodes": nodes}, error="dbt: model agg_product_kpi"
    )
    assert names(sent["inputs"]) == [lake("gold.agg_daily_sales")]
    assert names(sent["outputs"]) == [lake("kpi.agg_sales_kpi")]
    assert rows(sent["outputs"], "outputFacets", "outputStatistics") == {"ecomm.kpi.agg_sales_kpi": 365}
    tests = {test["name"]: (test["status"], test["severity"]) for test in sent["run"]["facets"]["test"]["tests"]}
    assert tests == {
        "unique_day": ("pass", "error"), "few_returns": ("fail", "warn"), "after_the_error": ("skip", "error"),
    }  # fmt: skip


def test_a_refresh_reads_kpi_tables_and_writes_what_tableau_calls_its_own():
    targets = {
        "agg_sales_kpi": {"tables": ["agg_sales_kpi"]},
        "workbook:Daily": {"tables": ["agg_sales_kpi", "agg_product_kpi"]},
    }
    sent = told("tableau-refresher", figures={"targets": targets})
    assert names(sent["inputs"]) == [lake("kpi.agg_product_kpi"), lake("kpi.agg_sales_kpi")]
    server = "tableau://tableau.example.com:8443"
    assert names(sent["outputs"]) == [(server, "finance/agg_sales_kpi"), (server, "finance/workbook:Daily")]


@pytest.mark.parametrize("balanced", [True, False])
def test_a_reconciliation_asserts_something_of_all_that_it_compares(balanced):
    figures = {"balanced": balanced, "tables": ["bronze.orders", "kpi.agg_sales_kpi"]}
    sent = told("reconciler", through="kpi", figures=figures)
    assert sent["job"]["name"] == "batch-ecomm-pipeline.reconciler-kpi"
    assert {SOURCE, FOLDER, lake("bronze.orders"), lake("kpi.agg_sales_kpi")} <= set(names(sent["inputs"]))
    found = {one["inputFacets"]["dataQualityAssertions"]["assertions"][0]["success"] for one in sent["inputs"]}
    assert found == {balanced}
    assert sent["outputs"] == []


def test_the_kpi_gate_asserts_of_each_kpi_whether_it_is_within_its_bound():
    move = {"date": "2026-01-02", "kpi": "net_revenue", "value": "10", "expected": "99.5", "bound": "0.5", "held": True}
    sent = told("kpi-gate", figures={"verdict": "held", "kpis": [move, move | {"kpi": "orders", "held": False}]})
    (read,) = sent["inputs"]
    assert names([read]) == [lake("kpi.agg_sales_kpi")]
    held, within = read["inputFacets"]["dataQualityAssertions"]["assertions"]
    assert (held["column"], held["success"], held["expected"], held["actual"]) == ("net_revenue", False, "99.5", "10")
    assert (within["column"], within["success"]) == ("orders", True)


# --- the run


def test_the_window_of_the_business_date_is_the_nominal_time():
    nominal = told("dlt-trigger", last_date=date(2026, 1, 31))["run"]["facets"]["nominalTime"]
    assert nominal["nominalStartTime"] == "2026-01-01T17:00:00+00:00"
    assert nominal["nominalEndTime"] == "2026-01-31T17:00:00+00:00"


def test_start_and_end_of_a_try_are_of_one_run_and_the_next_try_is_another():
    start, end = (told("extractor", outcome, table="orders")["run"]["runId"] for outcome in ("running", "succeeded"))
    again = told("extractor", table="orders", tried_at=BEGAN + timedelta(minutes=5))["run"]["runId"]
    assert start == end
    assert again != start


def test_no_two_stages_tables_or_dates_have_one_run():
    runs = [
        told("extractor", table="orders"), told("extractor", table="customers"), told("dbt-runner"),
        told("reconciler", through="gold"), told("reconciler", through="kpi"),
        told("extractor", table="orders", first_date=date(2026, 1, 1), last_date=date(2026, 1, 1)),
    ]  # fmt: skip
    assert len({sent["run"]["runId"] for sent in runs}) == len(runs)


def test_all_stages_of_a_run_and_their_tries_have_one_parent_which_is_the_root():
    parents = [
        told("extractor", table="orders"), told("dbt-runner", tried_at=BEGAN + timedelta(hours=2)),
    ]  # fmt: skip
    facets = [sent["run"]["facets"]["parent"] for sent in parents]
    assert facets[0] == facets[1]
    assert facets[0]["job"]["name"] == "batch-ecomm-pipeline"
    assert facets[0]["run"]["runId"] == facets[0]["root"]["run"]["runId"] == str(parent_id(RUN))
    assert parent_id(RUN) != parent_id("20260102T180000Z-9999")


@pytest.mark.parametrize(("outcome", "state"), [("failed", "FAIL"), ("cancelled", "ABORT")])
def test_an_end_without_success_tells_why(outcome, state):
    sent = told("dlt-trigger", outcome, error="no compute", failure_class="unavailable")
    assert (sent["eventType"], sent["eventTime"]) == (state, "2026-01-02T18:01:06+00:00")
    assert sent["run"]["facets"]["errorMessage"]["message"] == "no compute"
    tags = {tag["key"]: tag["value"] for tag in sent["run"]["facets"]["tags"]["tags"]}
    assert tags == {
        "ecomm_run_id": RUN, "ecomm_dates": "2026-01-02", "ecomm_trigger": "cron", "ecomm_failure_class": "unavailable",
    }  # fmt: skip


FIGURES = {
    "extractor": {},
    "dlt-trigger": {"tables": {"bronze.orders": 12}},
    "dbt-runner": {"sources": {"gold.agg_daily_sales": {"rows": 365}}},
    "tableau-refresher": {"targets": {"sales": {"tables": ["agg_sales_kpi"]}}},
    "reconciler": {"tables": ["bronze.orders"]},
    "kpi-gate": {},
}


@pytest.mark.parametrize("stage", FIGURES)
def test_a_stage_s_own_settings_name_all_its_data_sets(stage):
    kind = getattr(settings, "".join(part.capitalize() for part in stage.split("-")) + "Settings")
    groups = {group: WHERE.places.groups.get(group) for group in get_type_hints(kind).values()}
    made = event(
        record(stage, table="orders" if stage == "extractor" else None, figures=FIGURES[stage]),
        Where("prod", Places(groups), WHERE.tz),
    )
    assert made.inputs


@pytest.mark.parametrize("stage", [stage for stage in FIGURES if stage != "extractor"])
@pytest.mark.parametrize("outcome", ["running", "failed"])
def test_a_stage_that_has_recorded_nothing_yet_has_an_event_too(stage, outcome):
    told(stage, outcome, **({"error": "x"} if outcome == "failed" else {}))


def test_no_event_holds_a_secret():
    for stage in ("extractor", "dlt-trigger", "dbt-runner", "tableau-refresher", "reconciler"):
        assert "hush" not in str(told(stage, table="orders" if stage == "extractor" else None))
