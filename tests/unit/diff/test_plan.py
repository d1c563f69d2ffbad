"""What differs between two sides."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest

from ecomm_pipeline.diff.plan import Difference, Side, as_table, choose_run, compare
from ecomm_pipeline.errors import ConfigurationError
from ecomm_pipeline.ledger import Finding, Record
from ecomm_pipeline.manifest import Column, Manifest, ManifestWindow

NOON = datetime(2026, 1, 9, 12, tzinfo=UTC)
RUNS = ("20260102T180000Z-aaaa", "20260102T190000Z-bbbb", "20260103T180000Z-cccc")


def record(stage, *, seconds=60.0, day=2, **fields):
    return Record(
        stage=stage,
        first_date=date(2026, 1, day),
        last_date=date(2026, 1, day),
        run_id=RUNS[0],
        started_at=NOON,
        ended_at=NOON + timedelta(seconds=seconds),
        **{"outcome": "succeeded", **fields},
    )


def manifest(*columns, size=10):
    return Manifest(
        table="orders",
        date="2026-01-02",
        run_id=RUNS[0],
        window=ManifestWindow(since=NOON, until=NOON),
        snapshot="1:1:",
        snapshot_at=NOON,
        rows=1,
        bytes=size,
        files=(),
        columns=tuple(Column(name=name, type=kind) for name, kind in columns),
        max_updated_at=None,
    )


def side(*records, day="2026-01-02", sheet=(), **manifests):
    return Side(day, day, records, manifests, sheet)


def differences(one, other):
    found, _ = compare(one, other)
    return [(each.group, each.what, each.one, each.other) for each in found]


def test_a_side_does_not_differ_from_itself_and_it_says_how_much_was_compared():
    one = side(record("extractor", table="orders", rows_out=5), orders=manifest(("order_id", "text")))
    assert compare(one, one) == ([], 6)
    assert as_table(one, one, [], 6) == "2026-01-02 and 2026-01-02 do not differ: 6 figures are equal"
    assert as_table(one, one, [], 1).endswith("1 figure is equal")


def test_rows_outcomes_and_findings_that_differ_are_told():
    one = side(record("extractor", table="orders", rows_out=5), record("dbt-runner", rows_out=7))
    other = side(
        record(
            "extractor",
            table="orders",
            rows_out=3,
            findings=[Finding(priority="P3", kind="schema_drift", message="new")],
        ),
        record("dbt-runner", outcome="failed", failure_class="bad_data"),
    )
    assert differences(one, other) == [
        ("outcome", "dbt-runner", "succeeded", "failed: bad_data"),
        ("rows", "extractor orders", 5, 3),
        ("rows", "dbt-runner", 7, None),
        ("findings", "P3 schema_drift", None, 1),
    ]


def test_columns_that_came_went_or_changed_their_type_are_told():
    one = side(orders=manifest(("order_id", "text"), ("status", "text"), ("amount", "integer")))
    other = side(orders=manifest(("order_id", "text"), ("amount", "bigint"), ("channel", "text")))
    assert differences(one, other) == [
        ("columns", "orders.status", "text", None),
        ("columns", "orders.amount", "integer", "bigint"),
        ("columns", "orders.channel", None, "text"),
    ]


def test_of_what_one_side_did_not_do_the_outcome_tells_enough():
    sheet = [{"table": "orders", "date": "2026-01-02", "hop": "bronze", "rows": 3}]
    drift = [Finding(priority="P3", kind="schema_drift", message="new")]
    extract = record("extractor", table="orders", rows_out=5, findings=drift)
    both = record("tableau-refresher")
    one = side(extract, both, sheet=sheet, orders=manifest(("order_id", "text")))
    assert differences(one, side(both)) == [("outcome", "extractor orders", "succeeded", None)]
    assert differences(side(both), one) == [("outcome", "extractor orders", None, "succeeded")]


def test_rows_of_more_dates_are_said_to_be_of_more_dates():
    of_range = record("dlt-trigger", rows_out=20, day=2).model_copy(update={"last_date": date(2026, 1, 4)})
    assert differences(side(record("dlt-trigger", rows_out=7)), side(of_range)) == [
        ("dates", "dlt-trigger", 1, 3),
        ("rows", "dlt-trigger", 7, 20),
    ]


def test_for_people_hops_that_say_the_same_share_a_line():
    def sheet(**hops):
        return [{"table": "orders", "date": "2026-01-02", "hop": hop, "rows": rows} for hop, rows in hops.items()]

    one = side(sheet=sheet(source=1, extracted=1, bronze=1, kept=1))
    other = side(sheet=sheet(source=2, extracted=2, bronze=2, kept=5))
    found, equal = compare(one, other)
    lines = [line.split() for line in as_table(one, other, found, equal).splitlines()]
    assert [line[:6] for line in lines if line[0] == "rows"] == [
        ["rows", "orders", "source", "…", "bronze", "1"],
        ["rows", "orders", "kept", "1", "5", "+4"],
    ]


def test_money_is_of_the_sides_own_date_and_exact():
    sheet = [
        {"table": "order_items", "date": "2026-01-02", "hop": "bronze", "rows": 3, "money": "5.3333"},
        {"table": "sales", "date": "2026-01-01", "hop": "silver", "rows": 9, "money": "99.00"},
    ]
    other = [{**sheet[0], "money": "5.3334"}, sheet[1]]
    assert differences(side(sheet=sheet), side(sheet=other)) == [
        ("money", "order_items bronze", Decimal("5.3333"), Decimal("5.3334"))
    ]


def test_only_a_duration_that_people_would_notice_is_told():
    def seconds(one, other):
        return differences(side(record("dlt-trigger", seconds=one)), side(record("dlt-trigger", seconds=other)))

    assert seconds(60, 71) == []
    assert seconds(0.5, 1.4) == []
    assert seconds(60, 90) == [("seconds", "dlt-trigger", Decimal("60.0"), Decimal("90.0"))]


def test_a_change_is_written_with_its_share():
    assert Difference("rows", "x", 1000, 2500).change == "+1 500 (+150.0 %)"
    assert Difference("rows", "x", 0, 5).change == "+5"
    assert Difference("money", "x", Decimal(10), Decimal("7.5")).change == "-2.5 (-25.0 %)"
    assert Difference("columns", "x", "text", None).change == ""


def test_a_run_is_named_by_the_beginning_of_its_id():
    assert choose_run(RUNS, "20260103", "2026-01-02") == RUNS[2]
    with pytest.raises(ConfigurationError, match="2 runs whose id begins with '20260102'") as refused:
        choose_run(RUNS, "20260102", "2026-01-02")
    assert RUNS[0] in refused.value.next_step
    with pytest.raises(ConfigurationError, match="no run"):
        choose_run(RUNS, "2027", "2026-01-02")
