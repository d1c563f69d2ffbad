"""A value is in Silver exactly as Postgres held it, or its row is in quarantine with the reason; never both."""

from __future__ import annotations

import datetime as dt
import json
import re
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from lakehouse import contract, silver

ITEMS = contract.TABLES["order_items"]
UTC = "+00"


def fate(frame, table, column):
    """For each row, in order: the typed value as text (None where refused), and the reason (None where accepted)."""
    typed = silver.accepted(frame, table).selectExpr(
        f"CAST({column} AS string) AS value",
        f"{' AND '.join(silver.DROPPING.values())} AS kept",
        "_key_problem",
        "_type_problem",
    )
    return [
        (row.value if row.kept else None, None if row.kept else row._key_problem or row._type_problem)
        for row in typed.collect()
    ]


# --- what fits -------------------------------------------------------------------------------------------------------

FITS = [
    ("order_items", "quantity", "0", "0"),
    ("order_items", "quantity", "-1", "-1"),
    ("order_items", "quantity", "2147483647", "2147483647"),
    ("order_items", "quantity", "-2147483648", "-2147483648"),
    ("customers", "customer_id", "9223372036854775807", "9223372036854775807"),
    ("customers", "customer_id", "-9223372036854775808", "-9223372036854775808"),
    ("products", "unit_price", "99999999.9999", "99999999.9999"),
    ("products", "unit_price", "-99999999.9999", "-99999999.9999"),
    ("products", "unit_price", "0.0001", "0.0001"),
    ("products", "unit_price", "5", "5.0000"),
    ("products", "unit_price", "1.2300000", "1.2300"),  # a wider numeric, the same number
    ("products", "unit_price", "1." + "0" * 16383, "1.0000"),  # the largest scale that Postgres has
    ("products", "unit_price", None, None),
    ("orders", "ordered_at", "2011-03-01 08:30:00+00", "2011-03-01 08:30:00"),
    ("orders", "ordered_at", "2011-03-01 08:30:00.123456+00", "2011-03-01 08:30:00.123456"),
    ("orders", "ordered_at", "2011-03-01 08:30:00.1+00", "2011-03-01 08:30:00.1"),
    ("orders", "ordered_at", "1969-12-31 23:59:59.999999+00", "1969-12-31 23:59:59.999999"),
    ("orders", "ordered_at", "1582-10-10 00:00:00+00", "1582-10-10 00:00:00"),  # a day that the Julian switch skipped
    ("orders", "ordered_at", "0001-01-02 00:00:00+00", "0001-01-02 00:00:00"),
    ("orders", "ordered_at", "9999-12-30 23:59:59.999999+00", "9999-12-30 23:59:59.999999"),
    ("orders", "ordered_at", "2011-03-01 08:30:00+05:30", "2011-03-01 03:00:00"),
    ("orders", "ordered_at", "1890-01-01 00:00:00+07:06:30", "1889-12-31 16:53:30"),  # local mean time
    ("orders", "order_id", "", ""),
    ("orders", "customer_id", None, None),
    ("orders", "status", "odd", "odd"),
    ("customers", "email", "", ""),
    ("customers", "email", None, None),
    ("products", "description", '\\N "q" \r\n 🙂 ', '\\N "q" \r\n 🙂 '),
]  # fmt: skip
REFUSED = [
    *(("order_items", "quantity", text) for text in (
        "2147483648", "-2147483649", "1.0", "1.5", "", " 1", "1 ", "1\n", "+1", "007", "-0", "1e3", "0x1", "NaN", "١",
        "x" * 500)),
    *(("customers", "customer_id", text) for text in ("9223372036854775808", "-9223372036854775809", "17850.0")),
    *(("products", "unit_price", text) for text in (
        "100000000", "-100000000.0000", "1.00001", "0.00009999", "NaN", "Infinity", "-Infinity", "1e3", "", "1,5", ".5",
        "5.", "1.5\n")),
    *(("orders", "ordered_at", text) for text in (
        "infinity", "-infinity", "0044-03-15 12:00:00+00 BC", "10000-01-01 00:00:00+00", "294276-12-31 00:00:00+00",
        "0000-01-01 00:00:00+00", "0001-01-01 00:00:00+00", "9999-12-31 00:00:00+00", "2011-02-30 00:00:00+00",
        "2011-03-01 24:00:00+00",
        "2011-03-01 08:30:60+00", "2011-03-01 08:30:00", "2011-03-01", "2011-03-01 08:30:00.1234567+00",
        "2011-03-01 08:30:00Z", "2011-03-01 08:30:00+00\n", "now", "")),
]  # fmt: skip
MISSING = {
    "customers": ("customer_id", "updated_at"),
    "products": ("product_id", "updated_at"),
    "orders": ("order_id", "status", "ordered_at", "updated_at"),
    "order_items": ("order_id", "line_number", "quantity", "unit_price", "updated_at"),
}


@pytest.mark.parametrize("table", contract.TABLES)
def test_a_value_at_the_edge_of_its_type_is_kept_exactly_and_one_beyond_it_is_refused(bronze_frame, table):
    fits = [(column, text, value) for name, column, text, value in FITS if name == table]
    refused = [(column, text) for name, column, text in REFUSED if name == table]
    missing = list(MISSING[table])
    changes = [{column: text} for column, text, _ in fits] + [{column: text} for column, text in refused]
    frame = bronze_frame(table, changes + [{column: None} for column in missing]).coalesce(1)
    described = contract.TABLES[table]
    rows = silver.accepted(frame, described).selectExpr("to_json(struct(*)) AS row").collect()
    got = [json.loads(row.row) for row in rows]

    columns = dict.fromkeys(column for column, *_ in fits)
    values = {column: fate(frame, described, column) for column in columns}
    for n, (column, text, value) in enumerate(fits):
        assert values[column][n] == (value, None), (column, text)
    types = {column.name: column.type for column in described.columns}
    for row, (column, text) in zip(got[len(fits) :], refused, strict=False):
        shown = text if len(text) <= silver.SHOWN else text[: silver.SHOWN] + "…"
        problem = "_key_problem" if column in described.key else "_type_problem"
        assert row[problem] == f"{column}: does not fit {types[column]}: '{shown}'", (column, text)
        assert column not in row, "a refused value is not replaced by another"
    for row, column in zip(got[len(fits) + len(refused) :], missing, strict=True):
        problem = "_key_problem" if column in described.key else "_type_problem"
        assert row[problem] == f"{column}: missing"


# --- any text, against a judge that knows nothing of Spark -----------------------------------------------------------

DIGITS = st.integers(min_value=-(10**22), max_value=10**22).map(str)
NUMERICS = st.decimals(allow_nan=False, allow_infinity=False, places=5, min_value=-(10**9), max_value=10**9).map(
    lambda number: format(number, "f")
)
INSTANTS = st.datetimes(dt.datetime(1, 1, 1), dt.datetime(9999, 12, 31)).map(lambda t: t.isoformat(" ") + UTC)  # noqa: DTZ001
NOISE = st.text("0123456789.-+: eNaN\n", max_size=30)
TEXTS = st.lists(DIGITS | NUMERICS | INSTANTS | NOISE, min_size=100, max_size=300)


def judged_int(text: str) -> int | None:
    value = int(text) if re.fullmatch(r"0|-?[1-9]\d*", text, re.ASCII) else None
    return value if value is not None and -(2**31) <= value < 2**31 else None


def judged_price(text: str) -> Decimal | None:
    if not re.fullmatch(r"-?(0|[1-9]\d*)(\.\d+)?", text, re.ASCII):
        return None
    value = Decimal(text)
    return value if abs(value) < 10**8 and value == value.quantize(Decimal("0.0001")) else None


def judged_instant(text: str) -> dt.datetime | None:
    if not re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d{1,6})?[+]00", text, re.ASCII):
        return None
    try:
        value = dt.datetime.fromisoformat(text).replace(tzinfo=None)
    except ValueError:
        return None
    return value if dt.datetime(1, 1, 2) <= value < dt.datetime(9999, 12, 31) else None  # noqa: DTZ001


@settings(
    max_examples=4, deadline=None, phases=[Phase.generate], suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(TEXTS)
def test_any_text_is_judged_as_python_judges_it(bronze_frame, texts):
    rows = [{"quantity": text, "unit_price": text, "created_at": text} for text in texts]
    typed = silver.accepted(bronze_frame("order_items", rows).coalesce(1), ITEMS)
    got = typed.selectExpr("quantity", "unit_price", "CAST(created_at AS string) AS at", "_type_problem").collect()
    for text, row in zip(texts, got, strict=True):
        instant = judged_instant(text)
        at = None if row.at is None else dt.datetime.fromisoformat(row.at)
        assert (row.quantity, row.unit_price, at) == (judged_int(text), judged_price(text), instant), text
        reason = row._type_problem or ""
        for problem, value in (
            ("quantity: does not fit int:", row.quantity),
            ("unit_price: does not fit decimal(12,4):", row.unit_price),
            ("created_at: does not fit timestamp:", at),
        ):
            assert (problem in reason) == (value is None), (text, reason)


# --- the quarantine --------------------------------------------------------------------------------------------------


def test_every_row_of_bronze_is_either_kept_or_quarantined(bronze_frame):
    for name, table in contract.TABLES.items():
        changes = [{column: text} for other, column, text in REFUSED if other == name]
        changes += [{column: None} for column in MISSING[name]]
        changes += [{column: text} for other, column, text, _ in FITS if other == name] * 2
        changes = [{**change, "_run_id": f"r{n}"} for n, change in enumerate(changes)]
        frame = bronze_frame(name, changes)
        accepted = silver.accepted(frame, table)
        for condition in silver.DROPPING.values():
            accepted = accepted.where(condition)
        kept = {row._run_id for row in accepted.select("_run_id").collect()}
        refused = [row._run_id for row in silver.quarantined(frame, table).select("_run_id").collect()]
        assert len(refused) == len(set(refused))
        assert kept.isdisjoint(refused)
        assert kept | set(refused) == {change["_run_id"] for change in changes}


def test_a_quarantined_row_shows_every_problem_and_keeps_every_text(bronze_frame):
    change = {
        "line_number": None,
        "quantity": 'two\r\n"🙂"',
        "unit_price": "NaN",
        "product_id": "",
        "_rescued_data": '{"x":"1"}',
    }
    (row,) = silver.quarantined(bronze_frame("order_items", [change]), ITEMS).collect()
    assert row.table_name == "order_items"
    assert row.reason.split("; ") == [
        "line_number: missing",
        "quantity: does not fit int: 'two\r\n\"🙂\"'",
        "unit_price: does not fit decimal(12,4): 'NaN'",
    ]
    raw = json.loads(row.row)
    assert list(raw) == list(ITEMS.names)
    assert {name: raw[name] for name in change if name in raw} == {n: v for n, v in change.items() if n in raw}
    assert row._rescued_data == '{"x":"1"}'
    assert row.__fields__ == [column.name for column in contract.QUARANTINE]


def test_a_line_whose_amount_gold_cannot_hold_is_refused(bronze_frame):
    most = {"quantity": "1000000", "unit_price": "99999999.9999"}
    changes = [most, {**most, "quantity": "1000001"}, {**most, "quantity": "-1000001"}, {**most, "quantity": "x"}]
    problems = [
        row._type_problem for row in silver.accepted(bronze_frame("order_items", changes).coalesce(1), ITEMS).collect()
    ]
    assert problems == [
        None,
        "quantity × unit_price: does not fit decimal(18,4): '1000001 × 99999999.9999'",
        "quantity × unit_price: does not fit decimal(18,4): '-1000001 × 99999999.9999'",
        "quantity: does not fit int: 'x'",
    ]


def test_a_row_whose_file_lies_outside_the_layout_is_refused(bronze_frame):
    frame = bronze_frame("orders", [{"_run_id": None, "_source_file": "s3://b/x.csv"}, {"_date": None}])
    reasons = [row.reason for row in silver.quarantined(frame.coalesce(1), contract.TABLES["orders"]).collect()]
    assert reasons[0] == "_source_file: not …/date=…/run=…/part-…: 's3://b/x.csv'"
    assert reasons[1].startswith("_source_file: ")


# --- versions --------------------------------------------------------------------------------------------------------


def test_a_version_is_newer_by_updated_at_then_by_run_then_by_file(bronze_frame):
    versions = [
        {"updated_at": "2011-03-01 10:00:00+00", "_run_id": "20110302T000000Z-a", "_source_file": "f0"},
        {"updated_at": "2011-03-01 09:00:00+00", "_run_id": "20110303T000000Z-b", "_source_file": "f1"},
        {"updated_at": "2011-03-01 10:00:00.000001+00", "_run_id": "20110301T000000Z-c", "_source_file": "f2"},
        {"updated_at": "2011-03-01 10:00:00+00", "_run_id": "20110302T000000Z-b", "_source_file": "f3"},
        {"updated_at": "2011-03-01 10:00:00+00", "_run_id": "20110302T000000Z-a", "_source_file": "f4"},
    ]
    typed = silver.accepted(bronze_frame("orders", versions), contract.TABLES["orders"])
    order = [row._source_file for row in typed.orderBy(silver.version()).collect()]
    assert order == ["f1", "f0", "f4", "f3", "f2"]


def test_a_status_outside_the_list_is_kept_and_counted(bronze_frame):
    table = contract.TABLES["orders"]
    typed = silver.accepted(bronze_frame("orders", [{"status": s} for s in (*contract.STATUSES, "lost")]), table)
    assert typed.where(f"NOT ({silver.warnings(table)['known_status']})").count() == 1
