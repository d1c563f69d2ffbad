"""What `ecomm status` makes of records."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

from ecomm_pipeline.ledger import Record
from ecomm_pipeline.status.plan import as_json, as_table, cell_of, newest

DAY = date(2026, 1, 2)
BEGAN = datetime(2026, 1, 2, 18, tzinfo=UTC)
TABLES = ("orders", "products", "customers", "order_items")


def record(stage, after=0, *, seconds=2.5, outcome="succeeded", run_id="20260102T180000Z-aaaa", **fields):
    """A record that began `after` seconds into the night."""
    began = BEGAN + timedelta(seconds=after)
    return Record(
        stage=stage,
        first_date=DAY,
        last_date=DAY,
        run_id=run_id,
        started_at=began,
        ended_at=None if outcome == "running" else began + timedelta(seconds=seconds),
        outcome=outcome,
        **fields,
    )


def whole_day():
    return [
        *(record("extractor", n, table=table, rows_out=100_000) for n, table in enumerate(TABLES)),
        record("dlt-trigger", 10, rows_out=400_000, seconds=8130),
        record("dbt-runner", 20, rows_out=12),
        record("tableau-refresher", 30),
        record("reconciler", 40),
    ]


def test_the_newest_run_of_each_stage_and_table_counts():
    old = record("extractor", table="orders", run_id="20260101T180000Z-zzzz", outcome="failed")
    other = record("extractor", 1, table="products", run_id="20260101T180000Z-zzzz")
    new = record("extractor", 2, table="orders", run_id="20260102T180000Z-aaaa")
    assert newest([new, other, old]) == [other, new]


def test_of_the_two_proofs_of_a_run_the_later_one_counts():
    gold = record("reconciler", 10, through="gold", rows_out=7)
    kpi = record("reconciler", 40, through="kpi", rows_out=7)
    assert newest([gold, kpi]) == [kpi]
    assert newest([gold]) == [gold]


def test_a_cell_is_the_worst_outcome_the_whole_time_and_all_rows():
    cell = cell_of([record("extractor", n, table=t, rows_out=n) for n, t in enumerate(TABLES)])
    assert (cell.outcome, cell.seconds, cell.rows) == ("succeeded", 5.5, 6)
    assert str(cell) == "ok 5.5s 6"
    for outcome in ("running", "cancelled", "failed"):
        worse = cell_of([record("extractor", outcome=outcome), record("extractor", table="orders")])
        assert str(worse) == outcome
    assert cell_of([record("extractor", outcome="running")]).seconds is None


def test_a_table_has_a_row_a_date_and_a_column_a_stage_in_the_order_of_the_day():
    lines = as_table({DAY: newest(whole_day()), date(2026, 1, 3): []})
    assert lines[0].split() == [
        "date",
        "extractor",
        "dlt-trigger",
        "dbt-runner",
        "tableau-refresher",
        "reconciler",
        "findings",
    ]
    assert lines[1].startswith("2026-01-02  ok 5.5s 400 000  ok 8130.0s 400 000  ok 2.5s 12")
    assert lines[2].split() == ["2026-01-03", *"------"]
    assert len(lines) == 3


def test_the_table_of_large_days_fits_a_hundred_columns():
    assert max(map(len, as_table({DAY: newest(whole_day())}))) <= 100


def test_failures_and_findings_are_told_below_with_what_to_do():
    failed = record(
        "reconciler",
        40,
        outcome="failed",
        failure_class="not_reconciled",
        error="3 rows of orders are missing",
        next_step="extract orders again",
    )
    drifted = record("extractor", table="orders")
    drifted.find("P3", "schema_drift", "orders has a new column coupon")
    lines = as_table({DAY: newest([drifted, failed])})
    assert lines[1].split()[-2:] == ["failed", "1"]
    assert lines[2:] == [
        "",
        "2026-01-02 extractor orders: P3 schema_drift: orders has a new column coupon",
        "2026-01-02 reconciler: not_reconciled: 3 rows of orders are missing; extract orders again",
    ]


def test_json_has_an_object_for_each_date_stage_and_table():
    objects = as_json({DAY: newest(whole_day())})
    assert len(objects) == 8
    first = objects[0]
    assert (first["date"], first["stage"], first["table"], first["seconds"]) == (
        "2026-01-02",
        "extractor",
        "orders",
        2.5,
    )
    assert first["started_at"] == "2026-01-02T18:00:00Z"
