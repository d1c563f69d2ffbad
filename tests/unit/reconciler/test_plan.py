"""The arithmetic of the balance sheet."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecomm_pipeline.dates import BusinessDate
from ecomm_pipeline.errors import MissingSourceError, NotReconciledError
from ecomm_pipeline.manifest import ExtractFile, Manifest, ManifestWindow
from ecomm_pipeline.reconciler import sheet
from ecomm_pipeline.reconciler.amounts import Amount, plain
from ecomm_pipeline.reconciler.keys import Bucket, Changes, LateRow, Version, bucket_groups, compare_keys, cover
from ecomm_pipeline.reconciler.plan import Day, error_of, newest, problems_of_day
from ecomm_pipeline.reconciler.sales import DAILY, MONEY, SalesDay, problems_of_customers, problems_of_sales

DATE = BusinessDate(date(2026, 1, 2))
UNTIL = datetime(2026, 1, 2, 17, tzinfo=UTC)


def manifest(rows, run_id="20260102T180000Z-aaaa"):
    file = ExtractFile(name="part-00000.csv.gz", rows=rows, bytes=1, uncompressed_bytes=1, sha256="0")
    window = ManifestWindow(since=UNTIL - timedelta(days=1), until=UNTIL)
    return Manifest(
        table="order_items",
        date=str(DATE),
        run_id=run_id,
        window=window,
        snapshot="1:1:",
        snapshot_at=UNTIL,
        rows=rows,
        bytes=1,
        files=(file,),
        columns=(),
        max_updated_at=None,
    )


money = st.decimals("-9999", "9999", places=4)
amounts = st.builds(Amount, st.integers(0, 50), money)
late_rows = st.lists(
    st.builds(LateRow, st.tuples(st.uuids().map(str)), st.just("2026-01-02 16:00:00+00"), money, st.just("covered")),
    max_size=3,
)


@st.composite
def balanced_days(draw):
    """Days whose figures agree at every hop, with every kind of explanation."""
    kept, superseded = draw(amounts), draw(amounts)
    quarantined = draw(st.dictionaries(st.sampled_from(["order_id: missing", "quantity: not a int"]), amounts))
    bronze = kept + superseded + Amount.total(quarantined.values())
    bronze = replace(bronze, money=bronze.money or Decimal(0))
    changes = Changes(tuple(draw(late_rows)), draw(amounts), draw(amounts))
    return Day(
        "order_items",
        DATE,
        manifest(bronze.rows),
        source=draw(st.sampled_from([None, bronze + changes.late_amount - changes.moved - changes.deleted])),
        changes=changes,
        extracted=bronze,
        bronze=bronze,
        kept=kept,
        kept_in_silver=kept.money,
        superseded=superseded,
        quarantined=quarantined,
        in_quarantine=sum(amount.rows for amount in quarantined.values()),
    )


@given(balanced_days())
def test_a_balanced_day_has_no_problem(day):
    assert problems_of_day(day) == []
    assert error_of([], DATE) is None


differences = st.one_of(
    st.builds(Amount, st.integers(-9, 9).filter(bool), st.just(Decimal(0))),
    st.builds(Amount, st.just(0), money.filter(bool)),
)


@given(balanced_days(), differences, st.sampled_from(["source", "extracted", "bronze", "kept", "superseded", "lost"]))
def test_a_single_difference_is_always_named_with_its_place_and_next_step(day, difference, hop):
    amount = getattr(day, hop)
    if amount is None:
        amount = day.extracted
        day = replace(day, changes=None)
    problems = problems_of_day(replace(day, **{hop: amount + difference}))
    assert problems
    for problem in problems:
        assert "order_items of 2026-01-02" in problem.message
        assert problem.next_step.startswith("ecomm ")
        assert "2026-01-02" in problem.next_step
    error = error_of(problems, DATE)
    assert isinstance(error, NotReconciledError)
    assert error.next_step == problems[0].next_step


@given(balanced_days(), st.integers(1, 9))
def test_a_row_too_many_in_quarantine_is_named(day, count):
    problems = problems_of_day(replace(day, in_quarantine=day.in_quarantine + count))
    assert [problem.difference.rows for problem in problems] == [count]


@given(balanced_days(), money.filter(bool))
def test_a_value_that_changed_on_the_way_to_silver_is_named(day, change):
    (problem,) = problems_of_day(replace(day, kept_in_silver=day.kept_in_silver + change))
    assert problem.difference == Amount(0, change)


def test_the_difference_is_told_in_rows_and_money():
    amount = Amount(12, Decimal("34.5000"))
    day = Day("order_items", DATE, manifest(12), extracted=amount, bronze=Amount(10, Decimal("30.2500")))
    problem = problems_of_day(day)[0]
    assert "Bronze holds 2 rows fewer, 4.25 of money less" in problem.message
    assert problem.next_step == "ecomm dlt-trigger --date 2026-01-02"


def test_a_date_without_a_manifest_is_a_missing_source():
    problems = problems_of_day(Day("orders", DATE))
    error = error_of(problems, DATE)
    assert isinstance(error, MissingSourceError)
    assert error.message == "orders of 2026-01-02: there is no extract: no manifest of any run"
    assert error.next_step == "ecomm extractor --table orders --date 2026-01-02"


def test_an_error_tells_the_worst_first_and_counts_the_rest():
    missing = problems_of_day(Day("orders", DATE))
    lost = problems_of_day(Day("order_items", DATE, manifest(1), extracted=Amount(1), bronze=Amount(1), lost=Amount(1)))
    error = error_of([*missing, *lost], DATE)
    assert isinstance(error, NotReconciledError)
    assert "(and 1 more" in error.message


def test_the_runs_own_extract_counts_and_else_the_newest():
    first, second = manifest(1, "20260102T180000Z-aaaa"), manifest(2, "20260103T180000Z-bbbb")
    assert newest([second, first], first.run_id) is first
    assert newest([second, first], "20260104T180000Z-cccc") is second
    assert newest([], first.run_id) is None


def test_a_damaged_file_is_named_and_not_counted_twice():
    one = Amount(1)
    day = Day("orders", DATE, manifest(3), extracted=one, damaged=("not what was written",), bronze=one, kept=one)
    assert [problem.hop for problem in problems_of_day(day)] == ["extracted"]


# --- by key ---


def test_rows_are_told_apart_by_key_and_version():
    extracted = {
        ("a",): Version("1", Decimal(1)),
        ("b",): Version("1"),
        ("c",): Version("1"),
        ("d",): Version("1", Decimal(5)),
    }
    now = [
        (("a",), Version("1", Decimal(1))),
        (("b",), Version("2")),
        (("d",), Version("1", Decimal(7))),
        (("e",), Version("3")),
    ]
    found = compare_keys(now, extracted)
    assert [(row.key, row.updated_at) for row in found.late] == [(("b",), "2"), (("e",), "3")]
    assert set(found.gone) == {("b",), ("c",)}
    assert found.altered == {("d",): Amount(0, Decimal(2))}


versions = st.dictionaries(
    st.tuples(st.sampled_from("abcdef")), st.builds(Version, st.sampled_from("12"), st.integers(0, 3).map(Decimal))
)


@given(versions, versions)
def test_what_is_found_by_key_accounts_for_the_whole_difference(now, extracted):
    def total(chosen):
        return Amount.total(Amount(1, version.money) for version in chosen.values())

    found = compare_keys(now.items(), extracted)
    late = Amount.total(Amount(1, row.money) for row in found.late)
    altered = Amount.total(found.altered.values())
    expected = total(now) - late + total(found.gone) - altered
    assert not total(extracted) - expected


@pytest.mark.parametrize(
    ("updated_at", "next_extracted", "loaded", "covered"),
    [
        ("2026-01-02 15:00:00+00", False, [], True),
        ("2026-01-02 14:59:59.999999+00", False, [], False),
        ("2026-01-02 16:00:00+00", True, [], False),
        ("2026-01-02 16:00:00+00", True, [(("k",), "2026-01-02 16:00:00+00")], True),
        ("2026-01-02 01:00:00+00", True, [(("k",), "2026-01-02 01:00:00+00")], True),
    ],
)
def test_a_late_row_is_covered_by_another_extract_or_by_the_next_windows_look_back(
    updated_at, next_extracted, loaded, covered
):
    (row,) = cover(
        [LateRow(("k",), updated_at)],
        loaded=frozenset(loaded),
        until=UNTIL,
        lookback=timedelta(hours=2),
        next_extracted=next_extracted,
    )
    assert bool(row.covered) is covered


def test_a_late_row_that_nothing_covers_asks_for_the_date_again():
    late = LateRow(("O7", "1"), "2026-01-02 01:00:00+00", Decimal("12.5"))
    day = Day(
        "order_items",
        DATE,
        manifest(0),
        source=Amount(1, Decimal("12.5")),
        changes=Changes((late,)),
        extracted=Amount(0, Decimal(0)),
    )
    (problem,) = problems_of_day(day)
    assert "O7/1" in problem.message
    assert "1 row, 12.50 of money committed after the extract" in problem.message
    assert problem.next_step == "ecomm extractor --table order_items --date 2026-01-02"


# --- sales ---

measures = st.fixed_dictionaries({name: st.integers(0, 99).map(Decimal) for name in ("lines", *DAILY)})


def sales_day(of_day):
    products = {name: of_day[name] for name in ("units", *MONEY)}
    daily = {name: of_day[name] for name in DAILY}
    lines = {name: of_day[name] for name in ("lines", *MONEY)}
    tables = {"silver": of_day, "sales_analytics": lines, "agg_daily_sales": daily}
    return SalesDay("2026-01-02", {**tables, "agg_sales_kpi": daily, "agg_product_kpi": products})


@given(measures)
def test_equal_measures_have_no_problem(of_day):
    assert problems_of_sales(sales_day(of_day), through="kpi", dates=DATE) == []


@given(measures, st.data())
def test_a_single_measure_that_differs_is_named(of_day, data):
    day = sales_day(of_day)
    table = data.draw(st.sampled_from(sorted(set(day.tables) - {"silver"})))
    name = data.draw(st.sampled_from(sorted(day.tables[table])))
    tables = {**day.tables, table: {**day.tables[table], name: day.tables[table][name] + 1}}
    problems = problems_of_sales(SalesDay(day.date, tables), through="kpi", dates=DATE)
    assert any(table in problem.hop and name in problem.message for problem in problems)


def test_a_missing_row_counts_as_zeros_and_names_the_stage_that_builds_it():
    of_day = {name: Decimal(1) for name in ("lines", *DAILY)}
    day = sales_day(of_day)
    tables = {name: table for name, table in day.tables.items() if name != "agg_sales_kpi"}
    (problem,) = problems_of_sales(SalesDay(day.date, tables), through="kpi", dates=DATE)
    assert problem.next_step == "ecomm dbt-runner --date 2026-01-02"
    assert problems_of_sales(SalesDay(day.date, tables), through="gold", dates=DATE) == []


def test_customers_totals_are_compared():
    assert problems_of_customers({"net_revenue": Decimal(5)}, {"net_revenue": Decimal(5)}, dates=DATE) == []
    (problem,) = problems_of_customers({"net_revenue": Decimal(5)}, {"net_revenue": Decimal("4.5")}, dates=DATE)
    assert "net_revenue −0.50" in problem.message


# --- what is told ---


@given(balanced_days())
def test_the_sheet_adds_up_as_it_is_written(day):
    rows = {row["hop"]: row for row in sheet.sheet([day])}
    assert list(rows) == [hop for hop in sheet.HOPS if hop in rows]
    parts = [rows.get(hop, {"rows": 0, "money": "0"}) for hop in ("kept", "superseded", "quarantined", "lost")]
    assert sum(row["rows"] for row in parts) == rows["bronze"]["rows"] == rows["extracted"]["rows"]
    assert sum(Decimal(row.get("money", 0)) for row in parts) == Decimal(rows["bronze"]["money"])


def test_a_missing_extract_is_in_the_sheet():
    assert sheet.sheet([Day("orders", DATE)]) == [
        {"table": "orders", "date": "2026-01-02", "hop": "extracted", "rows": None, "missing": True}
    ]


def test_findings_sum_a_table_over_the_dates_that_have_any():
    days = [
        Day("order_items", DATE.plus(n), manifest(1), quarantined={"order_id: missing": Amount(2 * n)}, rescued=n)
        for n in range(3)
    ]
    (found,) = sheet.findings(days)
    assert (found.kind, found.priority) == ("rows_quarantined", "P2")
    assert found.message == (
        "order_items, 2 dates from 2026-01-03 to 2026-01-04: 6 rows in silver.quarantine: order_id: missing (6)"
    )


def test_a_row_deleted_in_the_source_is_told():
    day = Day("orders", DATE, manifest(1), source=Amount(), changes=Changes(deleted=Amount(1)), extracted=Amount(1),
              bronze=Amount(1), kept=Amount(1))  # fmt: skip
    assert problems_of_day(day) == []
    assert [finding.kind for finding in sheet.findings([day])] == ["deleted_in_source"]


@pytest.mark.parametrize(
    ("value", "text"), [("12.5", "12.50"), ("0.0125", "0.0125"), ("1E+3", "1000.00"), ("7", "7.00")]
)
def test_money_is_written_plainly(value, text):
    assert plain(Decimal(value)) == text


def test_a_row_in_place_of_another_moves_a_window_on():
    day = Day("orders", DATE, manifest(1), source=Amount(1), source_checksum=7, checksum=8, extracted=Amount(1))
    assert day.moved_on
    assert not replace(day, checksum=7).moved_on
    assert not replace(day, checksum=None).moved_on
    assert replace(day, checksum=None, source=Amount(2)).moved_on
    assert not replace(day, source=None).moved_on


def test_only_buckets_that_differ_are_read_and_never_more_than_may_be_held():
    extracted = {number: Bucket(Amount(10), number) for number in range(9)}
    now = {**extracted, 2: Bucket(Amount(10), 99), 5: Bucket(Amount(11), 5), 9: Bucket(Amount(1), 9)}
    del now[7]
    assert list(bucket_groups(now, extracted, held=20)) == [{2, 5}, {7, 9}]
    assert list(bucket_groups(now, extracted, held=1)) == [{2}, {5}, {7}, {9}]
    assert list(bucket_groups(extracted, extracted)) == []


def test_changes_add_up():
    late = LateRow(("k",), "2026-01-01 00:00:00+00")
    one = Changes((late,), Amount(1), Amount(2), {("a",): Amount(0, Decimal(1))})
    other = Changes((late,), Amount(3), Amount(4), {("b",): Amount(0, Decimal(2))})
    altered = {("a",): Amount(0, Decimal(1)), ("b",): Amount(0, Decimal(2))}
    assert one + other == Changes((late, late), Amount(4), Amount(6), altered)


def test_a_damaged_file_is_named_first_whatever_its_rows_say():
    day = Day("orders", DATE, manifest(3), source=Amount(3), extracted=Amount(1), damaged=("not what was written",))
    assert "not what was written" in problems_of_day(day)[0].message
