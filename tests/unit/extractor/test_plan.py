"""What the extractor decides, without a database or a store."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecomm_pipeline.contract import CONTRACT, UPDATED_AT, differences
from ecomm_pipeline.dates import BusinessDate, Window
from ecomm_pipeline.errors import BadDataError
from ecomm_pipeline.extractor import plan
from ecomm_pipeline.manifest import Column, Manifest, ManifestWindow
from ecomm_pipeline.postgres import session_settings

SOURCE = plan.Source("db.example", 5432, "shop", "reader", "public", "orders")
DAY = BusinessDate(date(2026, 1, 2))
WINDOW = DAY.window(ZoneInfo("Asia/Ho_Chi_Minh"), timedelta(hours=2))
STAMP = Column(name=UPDATED_AT, type="timestamp with time zone")

names = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=63)
zones = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
instants = st.datetimes(datetime(1, 1, 3), datetime(9999, 12, 29), timezones=zones)  # noqa: DTZ001 (hypothesis adds it)


def unquote(sql: str) -> list[str]:
    """Read all quoted identifiers of a piece of SQL, as Postgres' lexer does."""
    return [found.replace('""', '"') for found in re.findall(r'"((?:[^"]|"")*)"', sql)]


@given(names)
def test_a_quoted_name_reads_back_as_itself(name: str) -> None:
    assert unquote(plan.quote(name)) == [name]


@pytest.mark.parametrize("name", ["", "a\0b"])
def test_a_name_that_postgres_cannot_hold_is_refused(name: str) -> None:
    with pytest.raises(BadDataError, match="cannot be the name"):
        plan.quote(name)


def test_the_copy_names_columns_window_and_format() -> None:
    columns = [Column(name="order_id", type="text"), Column(name="select", type="text"), STAMP]
    assert plan.copy_statement(SOURCE, columns, WINDOW) == (
        'COPY (SELECT "order_id", "select", "updated_at" FROM "public"."orders"'
        " WHERE \"updated_at\" >= '2026-01-01 15:00:00+00:00'::pg_catalog.timestamptz"
        " AND \"updated_at\" < '2026-01-02 17:00:00+00:00'::pg_catalog.timestamptz)"
        " TO STDOUT (FORMAT csv, HEADER, ENCODING 'UTF8')"
    )


@given(st.lists(names, min_size=1, max_size=5), names, names)
def test_no_name_can_end_its_quotes(columns: list[str], schema: str, table: str) -> None:
    source = plan.Source("h", 1, "d", "u", schema, table)
    sql = plan.copy_statement(source, [Column(name=name, type="text") for name in columns], WINDOW)
    assert unquote(sql) == [*columns, schema, table, UPDATED_AT, UPDATED_AT]


@given(instants, instants)
def test_the_window_is_written_to_the_microsecond_in_utc(since: datetime, until: datetime) -> None:
    sql = plan.newest_statement(SOURCE, Window(since, until))
    written = re.findall(r"'([^']*)'::pg_catalog\.timestamptz", sql)
    assert [datetime.fromisoformat(text) for text in written] == [since, until]
    assert all(text.endswith("+00:00") for text in written)


def test_the_transaction_begins_with_its_settings_and_locks_the_table_last() -> None:
    statements = plan.opening_statements(SOURCE, statement_timeout=7, lock_timeout=3).split("; ")
    assert statements[-1] == 'LOCK TABLE "public"."orders" IN ACCESS SHARE MODE'
    assert "; ".join(statements[:-1]) == session_settings(statement_timeout=7, lock_timeout=3, idle_timeout=7)


def test_the_session_tells_what_it_is_for_and_is_not_cut_for_the_contracts_tables() -> None:
    longest = max(CONTRACT, key=len)
    name = plan.application_name(longest, DAY, "20260102T180000Z-1f3a")
    assert name == f"ecomm-extractor/{longest}/2026-01-02/20260102T180000Z-1f3a"
    assert len(name) < 64


@pytest.mark.parametrize(
    ("keys", "compression", "expected"),
    [
        ([], "gzip", "part-00000.csv.gz"),
        ([], "none", "part-00000.csv"),
        (["a/run=1/part-00000.csv.gz"], "gzip", "part-00001.csv.gz"),
        (["a/run=1/part-00000.csv.gz"], "none", "part-00001.csv"),
        (["a/run=1/part-00007.csv", "a/run=1/part-00002.csv.gz"], "gzip", "part-00008.csv.gz"),
        (["a/run=1/_manifest.json", "a/run=1/part-x.csv"], "gzip", "part-00000.csv.gz"),
        (["a/run=1/part-99999.csv"], "none", "part-100000.csv"),
    ],
)
def test_the_next_part_has_a_number_above_all_others(keys: list[str], compression: str, expected: str) -> None:
    assert plan.next_part(keys, compression) == expected


@given(st.lists(st.sampled_from(["gzip", "none"]), max_size=20))
def test_parts_are_numbered_without_gaps_whatever_their_compression(compressions: list[str]) -> None:
    keys: list[str] = []
    for compression in compressions:
        keys.append(f"folder/{plan.next_part(keys, compression)}")
    assert [int(key[12:17]) for key in keys] == list(range(len(keys)))


@pytest.mark.parametrize("kind", ["timestamp with time zone", "timestamp(3) with time zone"])
def test_an_updated_at_with_a_zone_is_accepted(kind: str) -> None:
    plan.check_columns(SOURCE, [Column(name=UPDATED_AT, type=kind)])


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ([], "has no column updated_at"),
        ([Column(name="Updated_At", type=STAMP.type)], "has no column updated_at"),
        ([Column(name=UPDATED_AT, type="timestamp without time zone")], "updated_at as timestamp without time zone"),
        ([Column(name=UPDATED_AT, type="text")], "updated_at as text"),
    ],
)
def test_a_table_whose_rows_have_no_instant_breaks_the_contract(columns: list[Column], words: str) -> None:
    with pytest.raises(BadDataError, match=words) as caught:
        plan.check_columns(SOURCE, columns)
    assert caught.value.next_step


def test_the_catalog_keeps_the_order_of_columns_and_asks_constraints_of_tables_only() -> None:
    rows = [("b", "text", False, True, False), (UPDATED_AT, STAMP.type, True, True, False)]
    table = plan.read_catalog(rows)
    assert [column.name for column in table.columns] == ["b", UPDATED_AT]
    assert (table.updated_at_not_null, table.updated_at_indexed) == (True, False)
    view = plan.read_catalog([(name, kind, False, False, False) for name, kind, *_ in rows])
    assert plan.catalog_findings(SOURCE, view) == []


def test_a_table_whose_windows_are_slow_or_incomplete_is_found() -> None:
    catalog = plan.Catalog((STAMP,), updated_at_not_null=False, updated_at_indexed=False)
    messages = [finding.message for finding in plan.catalog_findings(SOURCE, catalog)]
    assert ["may be null" in messages[0], "no index" in messages[1]] == [True, True]


def manifest(table: str, columns: dict[str, str], *, snapshot_at: datetime) -> Manifest:
    return Manifest(
        table=table,
        date=str(DAY),
        run_id="20260102T180000Z-1f3a",
        window=ManifestWindow(since=WINDOW.since, until=WINDOW.until),
        snapshot="1:1:",
        snapshot_at=snapshot_at,
        rows=0,
        bytes=0,
        files=(),
        columns=tuple(Column(name=name, type=kind) for name, kind in columns.items()),
        max_updated_at=None,
    )


def test_a_table_as_the_contract_has_it_read_after_its_date_has_no_findings() -> None:
    for name, contract in CONTRACT.items():
        assert plan.manifest_findings(manifest(name, contract.columns, snapshot_at=WINDOW.until)) == []


def test_each_difference_from_the_contract_is_a_finding_of_its_own() -> None:
    columns = dict(CONTRACT["order_items"].columns) | {"quantity": "bigint", "gift": "boolean"}
    del columns["product_id"]
    found = plan.manifest_findings(manifest("order_items", columns, snapshot_at=WINDOW.until))
    assert {(finding.priority, finding.kind) for finding in found} == {("P3", "schema_drift")}
    assert [finding.message for finding in found] == [
        "order_items.product_id is gone",
        "order_items.gift is new (boolean)",
        "order_items.quantity was integer and is bigint",
    ]


def test_a_date_that_had_not_ended_is_a_finding() -> None:
    early = WINDOW.until - timedelta(microseconds=1)
    (found,) = plan.manifest_findings(manifest("unknown", {}, snapshot_at=early))
    assert found.kind == "unfinished_date"


def test_the_order_of_columns_and_unknown_tables_are_not_checked() -> None:
    reverse = dict(reversed(CONTRACT["orders"].columns.items()))
    assert differences("orders", reverse) == []
    assert differences("coupons", {"anything": "text"}) == []


def test_the_contract_is_whole() -> None:
    for name, table in CONTRACT.items():
        assert table.name == name
        assert set(table.key) <= set(table.columns)
        assert table.columns[UPDATED_AT] == STAMP.type


def test_the_window_of_a_date_is_in_the_business_zone() -> None:
    assert datetime(2026, 1, 1, 15, tzinfo=UTC) == WINDOW.since
    assert datetime(2026, 1, 2, 17, tzinfo=UTC) == WINDOW.until
