"""dbt-runner with the job in dbt Cloud: the sandbox's account runs the project's dbt on the warm sandbox's warehouse.

What needs no warehouse is in tests/unit/dbt_runner/test_cloud.py. A run of dbt is ten seconds: there are three.
"""

from __future__ import annotations

import json
import signal
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import SecretStr
from tests.support.command import run_ecomm
from tests.support.daily_refresh import Stage, make_gold, until

from ecomm_pipeline.clock import SystemClock
from ecomm_pipeline.dbt_runner.cloud_api import CloudApi
from ecomm_pipeline.settings import DbtCloud

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ecomm_pipeline.dbt_runner.cloud_plan import CloudRun

QUICK = {"ECOMM_DBT_CLOUD_POLL_INTERVAL": "0.2"}


class Cloud:
    """The warm sandbox while dbt Cloud is up, and what dbt Cloud tells of the job."""

    def __init__(self, sandbox: Any) -> None:
        self.sandbox = sandbox
        self.env = sandbox.env
        given = {
            name: self.env[f"ECOMM_DBT_CLOUD_{name.upper()}"] for name in ("host", "token", "account_id", "job_id")
        }
        token = SecretStr(given.pop("token"))
        self.settings = DbtCloud(**given, token=token)

    def stage(self, number: int, **settings: str) -> Stage:
        return Stage(self.sandbox, number, **QUICK, **settings)

    def runs_of(self, stage: Stage) -> list[CloudRun]:
        """Give the runs that a stage began, the oldest first."""
        with closing(CloudApi(self.settings, SystemClock())) as api:
            return [run for run in reversed(api.runs()) if stage.run_id in run.cause]


@pytest.fixture(scope="module")
def cloud(sandbox: Any) -> Iterator[Cloud]:
    with sandbox.service("dbt-cloud"):
        make_gold(sandbox)
        yield Cloud(sandbox)
    assert not [name for name in sandbox.env if name.startswith("ECOMM_DBT_CLOUD_")]


@pytest.fixture(scope="module")
def killed(cloud: Cloud) -> Stage:
    """A run of all, whose stage was killed while dbt Cloud ran the job."""
    stage = cloud.stage(5)
    process = stage.start()
    until(lambda: "cloud_run_id" in stage.remote() and cloud.runs_of(stage)[0].phase == "running")
    process.kill()
    process.communicate()
    return stage


@pytest.fixture(scope="module")
def built(killed: Stage) -> tuple[Stage, Any]:
    """The same command again."""
    return killed, killed.run()


def test_a_killed_stage_comes_back_to_the_run_that_it_began(built, cloud):
    stage, done = built
    assert done.returncode == 0, done.stderr
    (run,) = cloud.runs_of(stage)
    record = stage.record()
    assert (record["remote"]["cloud_run_id"], record["outcome"]) == (run.id, "succeeded")
    assert record["remote"]["cloud_run_url"] == run.url


def test_the_record_is_that_of_a_build_beside_us(built):
    stage, _ = built
    record = stage.record()
    nodes = record["figures"]["nodes"]
    assert {name: node["rows"] for name, node in nodes.items() if node["kind"] == "model"} == {
        "agg_sales_kpi": 4, "agg_product_kpi": 6, "agg_customer_kpi": 2,
    }  # fmt: skip
    assert {node["status"] for name, node in nodes.items() if name != "unknown_status"} == {"success", "pass"}
    assert (record["rows_in"], record["rows_out"]) == (12, 12)
    assert [(finding["priority"], finding["kind"]) for finding in record["findings"]] == [("P3", "unknown_status")]
    results = json.loads(stage.artifact("run_results.json"))
    assert results["metadata"]["invocation_id"] == record["remote"]["invocation_id"]
    assert json.loads(stage.artifact("manifest.json"))["nodes"]["model.ecomm.agg_sales_kpi"]["schema"] == "kpi"
    assert b"agg_sales_kpi" in stage.artifact("dbt.log")


@pytest.fixture(scope="module")
def failed(built: Any, cloud: Cloud) -> tuple[Stage, Any]:
    """A selective run on a Gold in which a day is there twice."""
    twice = "INSERT INTO gold.agg_daily_sales SELECT * FROM gold.agg_daily_sales WHERE sales_date = '2026-01-02'"
    cloud.sandbox.query(twice)
    stage = cloud.stage(6)
    return stage, stage.run("--select", "agg_sales_kpi")


def test_a_failing_test_is_named_with_its_file_its_rows_and_the_page_of_the_run(failed, cloud):
    stage, done = failed
    assert done.returncode == 65, done.stderr
    told = "error: dbt: test unique_agg_sales_kpi_sales_date (models/marts/agg_sales_kpi.yml): 1 row fails it"
    assert told in done.stderr.splitlines()
    (run,) = cloud.runs_of(stage)
    assert any(line.startswith("next: ") and line.endswith(run.url) for line in done.stderr.splitlines())
    nodes = stage.record()["figures"]["nodes"]
    assert [name for name, node in nodes.items() if node["kind"] == "model"] == ["agg_sales_kpi"]
    assert stage.record()["failure_class"] == "bad_data"


def test_the_same_run_again_goes_on_where_it_failed(failed, cloud):
    stage, _ = failed
    before = stage.record()
    assert stage.run("--select", "agg_sales_kpi").returncode == 65
    record = stage.record()
    assert record["figures"]["resumed"] is True
    assert record["figures"]["nodes"].keys() == before["figures"]["nodes"].keys()
    assert record["remote"]["cloud_run_id"] > before["remote"]["cloud_run_id"]
    with closing(CloudApi(cloud.settings, SystemClock())) as api:
        retry = api.run(record["remote"]["cloud_run_id"])
        assert retry.retries == before["remote"]["cloud_run_id"]
        results = json.loads(api.artifact(retry.id, "run_results.json", retry.steps[-1].index))["results"]
    assert [result["unique_id"].split(".")[2] for result in results] == ["unique_agg_sales_kpi_sales_date"]


def test_sigterm_cancels_the_run_that_waits(failed, cloud):
    stage = cloud.stage(7)
    with cloud.sandbox.fault("dbt-cloud", "stuck"):
        process = stage.start()
        until(lambda: "cloud_run_id" in stage.remote())
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=60)
    assert process.returncode == 143, log
    assert [run.phase for run in cloud.runs_of(stage)] == ["cancelled"]


def test_a_run_that_does_not_begin_is_given_up_and_goes_on(failed, cloud):
    stage = cloud.stage(8, ECOMM_DBT_CLOUD_QUEUE_TIMEOUT="1")
    with cloud.sandbox.fault("dbt-cloud", "stuck"):
        done = stage.run()
        (run,) = cloud.runs_of(stage)
        with closing(CloudApi(cloud.settings, SystemClock())) as api:
            api.cancel(run.id)
    assert done.returncode == 75
    assert "ECOMM_DBT_CLOUD_QUEUE_TIMEOUT is 1 s" in done.stderr
    assert (stage.record()["failure_class"], run.phase) == ("timed_out", "queued")


@pytest.mark.parametrize(
    ("variable", "value", "code", "words"),
    [
        ("ECOMM_DBT_CLOUD_TOKEN", "wrong", 77, "401 Invalid token"),
        ("ECOMM_DBT_CLOUD_JOB_ID", "41", 78, "job 41 of account 10"),
        ("ECOMM_DBT_CLOUD_HOST", "http://127.0.0.1:9", 75, "dbt Cloud at http://127.0.0.1:9"),
        ("ECOMM_DBT_CLOUD_ACCOUNT_ID", "", 78, "set ECOMM_DBT_CLOUD_ACCOUNT_ID"),
    ],
)
def test_check_tells_what_is_wrong(cloud, variable, value, code, words):
    done = run_ecomm("check", "dbt-cloud", env={**cloud.env, variable: value}, code=code)
    assert words in done.stdout + done.stderr


def test_check_tells_the_job_that_answered(cloud):
    assert "DailyRefresh is job 40 of account 10" in run_ecomm("check", "dbt-cloud", env=cloud.env).stdout
