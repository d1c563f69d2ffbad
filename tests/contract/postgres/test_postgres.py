"""What the extractor relies on of Postgres, with the role it has; nothing is written."""

from __future__ import annotations

import io
import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import psycopg2
import pytest
from psycopg2 import errors

from ecomm_pipeline.contract import CONTRACT, differences
from ecomm_pipeline.extractor import plan
from ecomm_pipeline.settings import Postgres

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TABLE = "orders"


@pytest.fixture(scope="module")
def postgres(settings: Callable[[type[Any]], Any]) -> Postgres:
    return settings(Postgres)


@pytest.fixture(scope="module")
def source(postgres: Postgres) -> plan.Source:
    return plan.Source(postgres.host, postgres.port, postgres.database, postgres.user, postgres.db_schema, TABLE)


@pytest.fixture
def connect(postgres: Postgres) -> Iterator[Callable[[], Any]]:
    made = []

    def open_one() -> Any:
        one = psycopg2.connect(
            host=postgres.host,
            port=postgres.port,
            dbname=postgres.database,
            user=postgres.user,
            password=postgres.password.get_secret_value(),
            sslmode=postgres.sslmode,
            client_encoding="UTF8",
        )
        one.set_session(isolation_level="REPEATABLE READ", readonly=True)
        made.append(one)
        return one.cursor()

    yield open_one
    for one in made:
        one.close()


@pytest.fixture
def cursor(connect: Callable[[], Any], source: plan.Source) -> Any:
    """A transaction as the extractor opens it."""
    opened = connect()
    opened.execute(plan.opening_statements(source, statement_timeout=1, lock_timeout=1))
    return opened


def copied(cursor: Any, query: str) -> bytes:
    buffer = io.BytesIO()
    cursor.copy_expert(f"COPY ({query}) TO STDOUT (FORMAT csv, HEADER, ENCODING 'UTF8')", buffer)
    return buffer.getvalue()


def test_the_snapshot_is_named_and_stays_for_the_transaction(cursor):
    cursor.execute(plan.SNAPSHOT_STATEMENT)
    snapshot, at = cursor.fetchone()
    low, high, running = snapshot.split(":")
    assert int(low) <= int(high)
    assert all(int(low) <= int(xid) < int(high) for xid in running.split(",") if xid)
    assert abs((datetime.now(UTC) - at).total_seconds()) < 3600
    cursor.execute(plan.SNAPSHOT_STATEMENT)
    assert cursor.fetchone() == (snapshot, at)


def test_copy_writes_a_header_tells_null_from_empty_and_times_in_utc(cursor):
    query = (
        "SELECT NULL::pg_catalog.text AS a, ''::pg_catalog.text AS b, E'x,\"y\\n€'::pg_catalog.text AS c,"
        " '2011-03-01 15:30:00.5+07'::pg_catalog.timestamptz AS d, 1.50::pg_catalog.numeric(12,4) AS e"
    )
    expected = 'a,b,c,d,e\n,"","x,""y\n€",2011-03-01 08:30:00.5+00,1.5000\n'
    assert copied(cursor, query) == expected.encode()


def test_a_copy_without_rows_has_its_header(cursor, source):
    assert copied(cursor, f"SELECT order_id FROM {source.relation} WHERE false") == b"order_id\n"


def test_a_statement_that_takes_too_long_is_ended(cursor):
    with pytest.raises(errors.QueryCanceled):
        cursor.execute("SELECT pg_catalog.pg_sleep(5)")


def test_a_cancel_from_another_thread_ends_the_statement(cursor):
    cursor.execute("SET LOCAL statement_timeout = '20s'")
    threading.Timer(0.2, cursor.connection.cancel).start()
    with pytest.raises(errors.QueryCanceled, match="user request"):
        cursor.execute("SELECT pg_catalog.pg_sleep(10)")


def test_nothing_can_be_written(cursor, source):
    with pytest.raises((errors.ReadOnlySqlTransaction, errors.InsufficientPrivilege)):
        cursor.execute(f"DELETE FROM {source.relation}")


@pytest.mark.parametrize("table", list(CONTRACT))
def test_the_catalog_tells_the_columns_as_the_contract_has_them(cursor, postgres, table):
    cursor.execute(plan.COLUMNS_STATEMENT, (postgres.db_schema, table))
    rows = cursor.fetchall()
    assert differences(table, {name: kind for name, kind, *_ in rows}) == []
    assert [indexed for name, *_, indexed in rows if name == "updated_at"] == [True]


def test_a_table_that_is_missing_has_a_code_of_its_own(connect, postgres):
    with pytest.raises(errors.UndefinedTable):
        connect().execute(f"SELECT 1 FROM {plan.quote(postgres.db_schema)}.contract_no_such_table")
