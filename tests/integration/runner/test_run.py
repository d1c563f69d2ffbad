"""`ecomm run` and `ecomm status` with real stages, Postgres and S3: retries, failures and going on.

The rendered pipeline is cut down to its extraction, and its pauses to a blink; tests/integration/test_end_to_end.py
runs it whole.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
import yaml
from tests.support.command import run_ecomm

RENDERED = Path(__file__).parents[3] / "helm" / "ecomm-data-pipeline" / "workflows"
DATE = "2026-01-02"
KILLED = 'exec timeout -s KILL 5 "$0" -m ecomm_pipeline.cli "$@"'
TABLES = ["customers", "order_items", "orders", "products"]


def extraction_only(folder):
    """Write the daily workflow without what comes after extraction."""
    workflow = yaml.safe_load((RENDERED / "batch-ecomm-pipeline.yaml").read_text())
    for template in workflow["spec"]["templates"]:
        if template["name"] == "main":
            template["dag"]["tasks"] = [task for task in template["dag"]["tasks"] if task["name"] == "extractor"]
        if "retryStrategy" in template:
            template["retryStrategy"]["backoff"] = {"duration": "0.1s", "factor": 1}
    (folder / "batch-ecomm-pipeline.yaml").write_text(yaml.safe_dump(workflow))
    return folder


class Ecomm:
    """The command, with the sandbox's environment and a folder of its own."""

    def __init__(self, sandbox, folder):
        (folder / "workflows").mkdir()
        self.env = {
            **os.environ,
            **sandbox.env,
            "ECOMM_BUSINESS_TIMEZONE": "Asia/Ho_Chi_Minh",
            "ECOMM_WORKFLOWS_DIR": str(extraction_only(folder / "workflows")),
            "ECOMM_RUNS_DIR": str(folder / "runs"),
        }

    def __call__(self, *args):
        return run_ecomm(*args, env=self.env, code=None, timeout=180)

    def status(self, *args):
        done = self("status", *args, "--format", "json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@pytest.fixture(scope="module")
def shop(sandbox):
    sandbox.reset()
    sandbox.load("--generate", "2", "--orders-per-day", "20", "--seed", "1", "--until", DATE)
    return sandbox


@pytest.fixture
def ecomm(shop, tmp_path):
    shop.empty_bucket()
    return Ecomm(shop, tmp_path)


def test_a_date_runs_and_the_ledger_tells_of_it(ecomm):
    done = ecomm("run", DATE)
    assert done.returncode == 0, done.stderr
    records = ecomm.status(DATE)
    assert sorted(record["table"] for record in records) == TABLES
    assert {(record["outcome"], record["trigger"]) for record in records} == {("succeeded", "local")}
    assert len({record["run_id"] for record in records}) == 1
    table = ecomm("status").stdout.splitlines()
    assert table[0].split() == ["date", "extractor", "findings"]
    assert table[1].startswith(f"{DATE}  ok ")


def test_a_dropped_connection_is_tried_again(ecomm, shop):
    with shop.fault("postgres", "drop", times=2):
        done = ecomm("run", DATE)
    assert done.returncode == 0, done.stderr
    assert "again" in done.stdout
    assert {record["outcome"] for record in ecomm.status(DATE)} == {"succeeded"}


def test_a_refused_permission_fails_at_once_and_the_run_goes_on_when_it_is_given(ecomm, shop):
    run_id = "20260103T010203Z-perm"
    with shop.fault("postgres", "permission", table="orders"):
        done = ecomm("run", DATE, "--run-id", run_id)
    assert done.returncode == 77
    assert f"error: extractor {DATE} orders failed (credentials, exit code 77): " in done.stderr
    assert f"ecomm run {DATE} --run-id {run_id}" in done.stderr
    outcomes = {record["table"]: record["outcome"] for record in ecomm.status(DATE)}
    assert outcomes == {table: "failed" if table == "orders" else "succeeded" for table in TABLES}
    assert "credentials: " in ecomm("status", DATE).stdout

    done = ecomm("run", DATE, "--run-id", run_id)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("before") == 3, "the three tables that had succeeded"
    assert {record["outcome"] for record in ecomm.status(DATE)} == {"succeeded"}


def test_the_end_of_a_run_is_on_record_and_another_end_replaces_it(ecomm, shop):
    run_id = "20260103T010203Z-ends"
    key = f"runs/date={DATE}/{run_id}.json"
    with shop.fault("postgres", "permission", table="orders"):
        ecomm("run", DATE, "--run-id", run_id)
    failed = json.loads(shop.get(key))
    assert (failed["status"], failed["outcome"], failed["failure_class"]) == ("Failed", "failed", "credentials")
    assert failed["error"].startswith("extractor: ")
    assert [failure["template"] for failure in failed["failures"]] == ["extractor"]
    ecomm("run", DATE, "--run-id", run_id)
    mended = json.loads(shop.get(key))
    assert (mended["status"], mended["outcome"], mended["error"]) == ("Succeeded", "succeeded", None)


def test_a_process_that_was_killed_leaves_no_stage_open(ecomm, shop):
    """The extractor kills itself as the kernel does when memory is short: it can say nothing, and is not retried."""
    workflow = Path(ecomm.env["ECOMM_WORKFLOWS_DIR"]) / "batch-ecomm-pipeline.yaml"
    rendered = yaml.safe_load(workflow.read_text())
    extractor = next(template for template in rendered["spec"]["templates"] if template["name"] == "extractor")
    extractor["container"]["command"] = ["sh", "-c", KILLED, sys.executable]
    del extractor["retryStrategy"]
    workflow.write_text(yaml.safe_dump(rendered))
    with shop.fault("postgres", "delay", delay=60):
        done = ecomm("run", DATE)
    assert done.returncode == 137, done.stderr
    records = ecomm.status(DATE)
    assert {(record["outcome"], record["failure_class"]) for record in records} == {("failed", "lost")}
    assert all("exit code 137" in record["error"] for record in records)
