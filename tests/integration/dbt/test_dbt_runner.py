"""dbt-runner on the warm sandbox, with a Gold of a few rows whose KPIs are known by hand.

A dbt command is ten seconds of start-up, so each run is looked at from many sides: the module's fixtures run it once,
and the project's own unit tests beside them.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest
from tests.support.daily_refresh import PROJECT, Stage, make_gold, until


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def lives(pid: int) -> bool:
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rsplit(") ", 1)[1][0] != "Z"


def kpi_tables(sandbox) -> list:
    try:
        return sandbox.query("SHOW TABLES IN kpi LIKE 'agg_*'")
    except Exception:  # noqa: BLE001 (before the first run there is no schema)
        return []


@pytest.fixture(scope="module")
def unit_tests(sandbox, tmp_path_factory):
    """The project's unit tests, under way; they need no table, and a second core has time for them."""
    folder = tmp_path_factory.mktemp("unit-tests")
    words = ["test", "--select", "test_type:unit", "--project-dir", str(PROJECT), "--profiles-dir", str(PROJECT)]
    places = ["--target-path", str(folder), "--log-path", str(folder)]
    dbt = subprocess.Popen(
        [str(Path(sys.executable).with_name("dbt")), *words, *places],
        env={**os.environ, **sandbox.env},
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    yield dbt
    dbt.kill()
    dbt.communicate()


@pytest.fixture(scope="module")
def gold(sandbox, unit_tests):
    make_gold(sandbox)
    return sandbox


@pytest.fixture(scope="module")
def killed(gold):
    """A run that was killed as soon as it had built a table, with all that it left."""
    stage = Stage(gold, 1)
    process = stage.start()
    until(lambda: kpi_tables(gold))
    (dbt,) = children(process.pid)
    process.kill()
    process.communicate()
    return stage, dbt


@pytest.fixture(scope="module")
def built(killed, gold):
    """The same command again."""
    stage, dbt = killed
    until(lambda: not lives(dbt), 30)
    return stage, stage.run()


def test_a_killed_run_leaves_no_dbt_behind(killed):
    _, dbt = killed
    until(lambda: not lives(dbt), 30)


def test_the_same_command_again_builds_and_tests_all(built):
    stage, done = built
    assert done.returncode == 0, done.stderr
    record = stage.record()
    assert record["outcome"] == "succeeded"
    assert record["figures"]["resumed"] is False
    nodes = record["figures"]["nodes"]
    assert {name: node["rows"] for name, node in nodes.items() if node["kind"] == "model"} == {
        "agg_sales_kpi": 4, "agg_product_kpi": 6, "agg_customer_kpi": 2,
    }  # fmt: skip
    assert {node["status"] for name, node in nodes.items() if name != "unknown_status"} == {"success", "pass"}
    assert all(node["seconds"] > 0 for node in nodes.values())
    assert (record["rows_in"], record["rows_out"]) == (12, 12)


def test_a_status_that_nobody_knows_is_a_finding_and_no_failure(built):
    stage, _ = built
    record = stage.record()
    assert record["figures"]["nodes"]["unknown_status"]["status"] == "warn"
    assert [(finding["priority"], finding["kind"]) for finding in record["findings"]] == [("P3", "unknown_status")]


def test_the_invocation_and_the_artifacts_can_be_found(built):
    stage, _ = built
    results = json.loads(stage.artifact("run_results.json"))
    assert results["metadata"]["invocation_id"] == stage.record()["remote"]["invocation_id"]
    assert json.loads(stage.artifact("manifest.json"))["nodes"]["model.ecomm.agg_sales_kpi"]["schema"] == "kpi"
    assert b"agg_sales_kpi" in stage.artifact("dbt.log")


def test_sales_kpis_are_what_they_are_by_hand(built, gold):
    rows = gold.query(
        "SELECT sales_date, orders, cancelled_orders, average_order_value, cancellation_rate, units_per_order,"
        " net_revenue_7d, net_revenue_change_7d FROM kpi.agg_sales_kpi ORDER BY sales_date"
    )
    assert [[str(row[0]), *(None if v is None else Decimal(str(v)) for v in row[1:])] for row in rows] == [
        ["2026-01-01", 1, 0, 100, 0, 3, 100, None],
        ["2026-01-02", 2, 0, Decimal("32.5"), 0, 2, 165, None],
        ["2026-01-08", 0, 1, None, 1, None, Decimal("57.5"), Decimal("-0.425")],
        ["2026-01-09", 1, 0, Decimal("10.0001"), 0, 1, Decimal("2.5001"), Decimal("-0.984848")],
    ]


def test_product_and_customer_kpis_are_what_they_are_by_hand(built, gold):
    products = gold.query(
        "SELECT sales_date, product_id, units, net_revenue, orders, revenue_rank FROM kpi.agg_product_kpi ORDER BY 1, 6"
    )
    assert [(str(r[0]), r[1], int(r[2]), Decimal(str(r[3])), int(r[4]), int(r[5])) for r in products] == [
        ("2026-01-01", "A", 2, 50, 1, 1), ("2026-01-01", "B", 1, 50, 1, 2), ("2026-01-02", "A", 3, 60, 1, 1),
        ("2026-01-02", "unknown", 1, 5, 1, 2),
        ("2026-01-08", "A", 0, Decimal("-7.5"), 0, 1), ("2026-01-09", "B", 1, Decimal("10.0001"), 1, 1),
    ]  # fmt: skip
    customers = gold.query(
        "SELECT customer_id, first_order_date, last_order_date, orders, net_revenue, recency_days, rfm_segment"
        " FROM kpi.agg_customer_kpi ORDER BY customer_id"
    )
    assert [(int(r[0]), str(r[1]), str(r[2]), int(r[3]), Decimal(str(r[4])), int(r[5]), r[6]) for r in customers] == [
        (7, "2026-01-01", "2026-01-01", 1, 100, 8, "new"),
        (8, "2026-01-09", "2026-01-09", 1, Decimal("2.5001"), 0, "new"),
    ]


def test_comments_and_types_of_the_contract_are_on_the_tables(built, gold):
    found = {row[0]: (row[1], row[2]) for row in gold.query("DESCRIBE TABLE kpi.agg_sales_kpi")}
    assert found["sales_date"] == ("date", "Business day of the orders, in the business zone. Unit: date.")
    assert found["net_revenue_change_7d"][0] == "decimal(25,6)"
    assert all("Unit: " in (comment or "") for name, (_, comment) in found.items() if name.isidentifier())


def test_only_the_marts_are_in_the_schema(built, gold):
    names = sorted(row[1] for row in gold.query("SHOW TABLES IN kpi"))
    assert names == ["agg_customer_kpi", "agg_product_kpi", "agg_sales_kpi"]


@pytest.fixture(scope="module")
def failed(built, gold):
    """A selective run on a Gold in which a day is there twice."""
    gold.query("INSERT INTO gold.agg_daily_sales SELECT * FROM gold.agg_daily_sales WHERE sales_date = '2026-01-02'")
    stage = Stage(gold, 2)
    return stage, stage.run("--select", "agg_sales_kpi")


def test_a_failing_test_is_named_with_its_file_and_rows(failed):
    stage, done = failed
    assert done.returncode == 65, done.stderr
    told = "error: dbt: test unique_agg_sales_kpi_sales_date (models/marts/agg_sales_kpi.yml): 1 row fails it"
    assert told in done.stderr.splitlines()
    assert stage.record()["failure_class"] == "bad_data"


def test_a_selective_run_touches_only_what_was_selected(failed):
    stage, _ = failed
    nodes = stage.record()["figures"]["nodes"]
    assert [name for name, node in nodes.items() if node["kind"] == "model"] == ["agg_sales_kpi"]
    assert not any("product" in name or "customer" in name for name in nodes)


def test_the_same_run_again_runs_only_what_failed(failed):
    stage, _ = failed
    before = stage.record()["figures"]["nodes"]
    assert stage.run("--select", "agg_sales_kpi").returncode == 65
    results = json.loads(stage.artifact("run_results.json"))["results"]
    assert [result["unique_id"].split(".")[2] for result in results] == ["unique_agg_sales_kpi_sales_date"]
    record = stage.record()
    assert record["figures"]["resumed"] is True
    assert record["figures"]["nodes"].keys() == before.keys()


def test_sigterm_stops_dbt_and_keeps_what_it_has_done(failed, gold):
    stage = Stage(gold, 3)
    process = stage.start()
    until(lambda: children(process.pid))
    until(lambda: "invocation_id" in stage.record()["remote"])
    (dbt,) = children(process.pid)
    process.send_signal(signal.SIGTERM)
    _, log = process.communicate(timeout=60)
    assert process.returncode == 143, log
    assert not lives(dbt)
    assert stage.record()["outcome"] == "cancelled"
    assert stage.artifact("dbt.log")


def test_missing_gold_tables_are_named_before_dbt_starts(failed, gold):
    gold.query("DROP TABLE gold.agg_daily_sales")
    gold.query("DROP TABLE gold.sales_analytics")
    stage = Stage(gold, 4)
    done = stage.run()
    assert done.returncode == 65
    assert "missing in catalog ecomm: gold.agg_daily_sales, gold.sales_analytics" in done.stderr
    assert "invocation_id" not in stage.record()["remote"]


def test_the_unit_tests_of_the_project_pass(unit_tests):
    told, _ = unit_tests.communicate(timeout=300)
    assert unit_tests.returncode == 0, told
    assert "PASS=6" in told
