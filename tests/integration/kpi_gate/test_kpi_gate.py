"""The gate's command against the sandbox's warehouse; the tests below are in the order of this file."""

from __future__ import annotations

import json
import os

import pytest
from tests.support.command import run_ecomm

DATE = "2026-03-06"
RUN = "20260306T180000Z-gate"
PREFIX = "kpi-gate-test"
WEEKS = {"2026-02-06": 80, "2026-02-13": 90, "2026-02-20": 80, "2026-02-27": 70, "2026-03-05": 9000, DATE: 40}
"""Orders by sales date: on Fridays, and on the day before, which does not count."""


@pytest.fixture(scope="module")
def gate(sandbox):
    """Run the gate on the date, whatever comes of it; gives the process, and the record in the ledger."""

    def run(bounds, *options, **env):
        given = {"ECOMM_STORE_PREFIX": PREFIX, "ECOMM_RUN_ID": RUN, "ECOMM_KPI_GATE_BOUNDS": bounds, **env}
        command = ["kpi-gate", "--date", DATE, *options]
        done = run_ecomm(*command, env={**os.environ, **sandbox.env, **given}, code=None, timeout=120)
        return done, json.loads(sandbox.get(f"{PREFIX}/ledger/date={DATE}/kpi-gate/{RUN}.json"))

    sandbox.reset_lakehouse()
    yield run
    sandbox.empty_bucket(PREFIX)


@pytest.fixture(scope="module")
def kpis(sandbox, gate):
    """The KPI table, as dbt would have built it; it is gone after the last test."""
    rows = ", ".join(f"(DATE'{day}', {orders}, {orders}.5, 0.05)" for day, orders in WEEKS.items())
    sandbox.query("CREATE SCHEMA IF NOT EXISTS kpi")
    sandbox.query(
        "CREATE TABLE kpi.agg_sales_kpi AS SELECT sales_date, CAST(orders AS BIGINT) AS orders, "
        "CAST(net_revenue AS DECIMAL(18,4)) AS net_revenue, CAST(rate AS DECIMAL(9,6)) AS cancellation_rate, "
        f"current_timestamp() AS processed_at FROM VALUES {rows} AS t (sales_date, orders, net_revenue, rate)"
    )
    yield
    sandbox.query("DROP TABLE kpi.agg_sales_kpi")


def test_before_dbt_has_built_the_table_the_step_fails_and_names_it(gate):
    done, record = gate("orders=30%")
    assert done.returncode == 65
    assert "agg_sales_kpi" in done.stderr
    assert (done.stdout, record["outcome"], record["failure_class"]) == ("", "failed", "bad_data")


def test_kpis_within_their_bounds_pass(gate, kpis):
    done, record = gate("orders=60%,cancellation_rate=0%")
    assert (done.returncode, done.stdout) == (0, "passed\n"), done.stderr
    assert (record["outcome"], record["findings"], record["next_step"]) == ("succeeded", [], None)
    assert (record["figures"]["verdict"], record["figures"]["compared"]) == ("passed", 2)
    orders, rate = record["figures"]["kpis"]
    assert (orders["value"], orders["expected"], orders["move"], orders["weeks"]) == ("40", "80", "-0.5000", 4)
    assert (rate["value"], rate["held"]) == ("0.050000", False)


def test_a_kpi_beyond_its_bound_is_held_which_is_no_failure_and_says_what_goes_on(gate, kpis):
    done, record = gate("orders=30%,net_revenue=90%", "--workflow", "ecomm/batch-1")
    said = f"orders of {DATE} is 40, −50.0 % against 80 (median of 4 Fridays; bound 30 %)"
    assert (done.returncode, done.stdout) == (0, f"held: {said}. If that is right: argo resume -n ecomm batch-1\n")
    assert (record["outcome"], record["next_step"]) == ("succeeded", "argo resume -n ecomm batch-1")
    assert record["findings"] == [{"priority": "P2", "kind": "kpi_held", "message": said}]
    assert (record["figures"]["verdict"], record["figures"]["moved"]) == ("held", 1)
    assert record["figures"]["held_until"] > record["ended_at"]


def test_a_bound_of_a_column_that_is_not_there_is_refused_with_those_that_are(gate, kpis):
    done, _ = gate("revenue=30%")
    assert done.returncode == 78
    assert "ECOMM_KPI_GATE_BOUNDS: kpi.agg_sales_kpi has no revenue" in done.stderr
    assert "next:  bound one of orders, net_revenue, cancellation_rate" in done.stderr


def test_without_a_bound_there_is_nothing_to_do(gate):
    done, _ = gate("")
    assert done.returncode == 78
    assert "ECOMM_KPI_GATE_BOUNDS is not set" in done.stderr
