"""A night whose KPIs moved too far: suspended before Tableau, and let go on by a person."""

from __future__ import annotations

import shlex
from contextlib import closing

import pytest
from tests.support.cluster import PIPELINE

DATE = "2019-06-14"
"""A Friday long before any other order."""
SALES = f"""
INSERT INTO products (product_id, description, unit_price, created_at, updated_at)
VALUES ('GATE', 'a gate', 10, '{DATE} 03:00Z', '{DATE} 03:00Z')
ON CONFLICT DO NOTHING;
INSERT INTO orders (order_id, customer_id, status, ordered_at, created_at, updated_at)
SELECT 'GATE-' || day || '-' || n, NULL, 'completed', at, '{DATE} 03:00Z', '{DATE} 03:00Z'
FROM (VALUES ('2019-05-24', 4), ('2019-05-31', 4), ('2019-06-07', 4), ('{DATE}', 1)) AS days (day, orders),
  generate_series(1, orders) AS n, LATERAL (SELECT (day || ' 02:00Z')::timestamptz AS at) AS moment
ON CONFLICT DO NOTHING;
INSERT INTO order_items (order_id, line_number, product_id, quantity, unit_price, created_at, updated_at)
SELECT order_id, 1, 'GATE', 1, 10, updated_at, updated_at FROM orders WHERE order_id LIKE 'GATE-%'
ON CONFLICT DO NOTHING;
"""
"""Four orders on each of three Fridays, and one on the next: all changed on that, so that one extract has them."""


@pytest.mark.timeout(600)
def test_a_night_whose_kpis_moved_waits_for_a_person_and_then_ends_green(cluster):
    with closing(cluster.sandbox.connect()) as connection, connection, connection.cursor() as cursor:
        cursor.execute(SALES)
    run = cluster.submit(f"wftmpl/{PIPELINE}", date=DATE, bounds="orders=50%,units=300%")

    def waits(run):
        return next((node for node in run.nodes("hold") if node.phase == "Running"), None)

    hold = run.until("it is suspended", waits, within=400)
    assert hold.kind == "Suspend"
    assert hold.inputs["reason"].startswith("held: orders of 2019-06-14 is 1, −75.0 % against 4 (median of 3 Fridays")
    [verdict] = [record for record in run.records(DATE) if record.stage == "kpi-gate"]
    assert (verdict.outcome, verdict.figures["verdict"], verdict.figures["moved"]) == ("succeeded", "held", 1)
    assert verdict.next_step == f"argo resume -n ecomm {run.name}"
    assert run.tries("tableau-refresher") == []
    assert run.phase == "Running"

    cluster.run(*shlex.split(verdict.next_step))
    run.ends("Succeeded", within=240)
    assert [node.exit_code for node in run.tries("tableau-refresher")] == [0]
    assert {record.outcome for record in run.records(DATE)} == {"succeeded"}


@pytest.mark.timeout(600)
def test_without_bounds_no_pod_is_made(good_day):
    assert good_day.run.tries("kpi-gate") == []
    assert [node.phase for node in good_day.run.nodes() if node.name == "kpi-gate"] == ["Skipped"]
