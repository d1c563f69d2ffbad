"""Faults that live in Postgres or before it: each does what it says, and is taken back without a trace."""

from __future__ import annotations

import time

import psycopg2
import pytest
from psycopg2.errors import InsufficientPrivilege, LockNotAvailable, UndefinedColumn

from ecomm_sandbox.state import SandboxError

COLUMNS = """
SELECT table_name, column_name, data_type, numeric_precision, numeric_scale, is_nullable FROM information_schema.columns
WHERE table_schema = 'public' ORDER BY 1, 2
"""
REST = """
SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint
WHERE connamespace = 'public'::regnamespace
UNION ALL SELECT tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1, 2, 3
"""


@pytest.fixture(autouse=True)
def shop(sandbox):
    sandbox.empty_shop()
    connection = sandbox.connect()
    with connection, connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO customers VALUES (1, 'a@example.com', 'Japan', now(), now()), (2, NULL, NULL, now(), now())"
        )
        cursor.execute("INSERT INTO products VALUES ('p', 'P', 1, now(), now())")
        cursor.execute("INSERT INTO orders VALUES ('o', 1, 'completed', now(), now(), now())")
        cursor.execute("INSERT INTO order_items VALUES ('o', 1, 'p', 2, 1, now(), now())")
    connection.close()


def ask(sandbox, sql, user="extractor"):
    connection = sandbox.connect(user)
    try:
        with connection.cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetchall()
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("add-column", {}),
        ("drop-column", {}),
        ("drop-column", {"table": "order_items", "column": "product_id"}),
        ("drop-column", {"table": "orders", "column": "updated_at"}),
        ("rename-column", {}),
        ("rename-column", {"table": "orders", "column": "status", "to": "select"}),
        ("widen-column", {}),
        ("widen-column", {"table": "products", "column": "unit_price", "type": "numeric(20, 6)"}),
    ],
)
def test_drift_changes_the_columns_and_is_taken_back_with_all_values(sandbox, kind, options):
    def picture():
        tables = ("customers", "orders", "order_items")
        values = [ask(sandbox, f"SELECT to_jsonb({table}) FROM {table} ORDER BY 1") for table in tables]
        return ask(sandbox, COLUMNS), ask(sandbox, REST), values

    before = picture()
    with sandbox.fault("postgres", kind, **options):
        assert ask(sandbox, COLUMNS) != before[0]
    assert picture() == before


def test_faults_in_the_database_are_taken_back_last_one_first(sandbox):
    before = ask(sandbox, COLUMNS)
    with sandbox.fault("postgres", "add-column"):
        with sandbox.fault("postgres", "rename-column", table="orders", column="channel", to="source"):
            assert ("orders", "source") in {row[:2] for row in ask(sandbox, COLUMNS)}
        assert ask(sandbox, COLUMNS) == before


def test_a_changed_password_refuses_the_reader_and_no_one_else(sandbox):
    with sandbox.fault("postgres", "password"):
        with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
            ask(sandbox, "SELECT 1")
        assert ask(sandbox, "SELECT 1", "shop") == [(1,)]
    assert ask(sandbox, "SELECT 1") == [(1,)]


def test_a_revoked_permission_is_of_one_table(sandbox):
    with sandbox.fault("postgres", "permission", table="products"):
        with pytest.raises(InsufficientPrivilege):
            ask(sandbox, "SELECT * FROM products")
        assert ask(sandbox, "SELECT order_id FROM orders") == [("o",)]
    assert ask(sandbox, "SELECT product_id FROM products") == [("p",)]


def test_a_locked_table_keeps_readers_out_until_cleared(sandbox):
    with sandbox.fault("postgres", "lock"), pytest.raises(LockNotAvailable):
        ask(sandbox, "SET lock_timeout = '100ms'; SELECT * FROM orders")
    assert ask(sandbox, "SELECT order_id FROM orders") == [("o",)]


def test_a_long_transaction_commits_late_what_it_wrote_early(sandbox):
    newest = "SELECT max(updated_at) FROM orders"
    (before,) = ask(sandbox, newest)
    with sandbox.fault("postgres", "long-transaction"):
        began = time.time()
        time.sleep(0.3)
        assert ask(sandbox, newest) == [before]
    ((after,),) = ask(sandbox, newest)
    assert before[0] < after
    assert after.timestamp() < began + 0.2


def test_a_fault_that_cannot_be_done_is_told_and_leaves_nothing(sandbox):
    for kind, options in (
        ("rename-column", {"column": "nothing"}),
        ("drop-column", {"column": "nothing"}),
        ("drop-column", {"table": "orders", "column": "order_id"}),
        ("lock", {"table": "nothing"}),
        ("add-column", {"colour": "red"}),
        ("add-column", {"times": 1}),
        ("nothing", {}),
    ):
        with pytest.raises(SandboxError), sandbox.fault("postgres", kind, **options):
            pass
    assert ask(sandbox, "SELECT email FROM customers WHERE customer_id = 1") == [("a@example.com",)]


def test_a_column_that_was_dropped_is_gone_for_the_reader(sandbox):
    with sandbox.fault("postgres", "drop-column"), pytest.raises(UndefinedColumn):
        ask(sandbox, "SELECT email FROM customers")


def test_a_dropped_connection_is_seen_as_such(sandbox):
    with (
        sandbox.fault("postgres", "drop", after_bytes=20_000),
        pytest.raises(psycopg2.OperationalError, match=r"closed the connection|reset by peer"),
    ):
        ask(sandbox, "SELECT repeat('x', 1000) FROM generate_series(1, 1000)")
    assert ask(sandbox, "SELECT 1") == [(1,)]


def test_a_refused_store_comes_back(sandbox):
    from botocore.exceptions import EndpointConnectionError

    with sandbox.fault("s3", "refuse"), pytest.raises(EndpointConnectionError):
        sandbox.keys()
    assert isinstance(sandbox.keys(), list)
