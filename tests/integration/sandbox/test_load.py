"""Loading: day files become rows by the rules of the contract; loading twice changes nothing."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest

from ecomm_sandbox import loader
from ecomm_sandbox.generator import Plan, generate
from ecomm_sandbox.state import SandboxError

HEADER = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country\n"
FIRST = '''\
1001,85123A,WHITE HANGING HEART,6,2011-03-26 08:26:00,2.55,17850.0,United Kingdom
1001,71053,"LANTERN, 9"" ""WHITE""",6,2011-03-26 08:27:00,3.39,17850.0,United Kingdom
1002,85123A,,1,2011-03-26 09:00:00,0.0,,France
C1003,85123A,WHITE HEART,-1,2011-03-26 10:00:00,2.55,17850.0,France
A1004,B,Adjust bad debt,1,2011-03-26 11:00:00,-11062.06,,United Kingdom
1001,71053,LANTERN,2,2011-03-26 12:00:00,3.45,17850.0,United Kingdom
'''
SECOND = """\
1005,71053,,3,2011-03-28 08:00:00,3.5,17850.0,Spain
"""


@pytest.fixture
def connection(sandbox):
    sandbox.empty_shop()
    connection = sandbox.connect()
    yield connection
    connection.close()
    sandbox.empty_shop()


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "2011-03-26.csv").write_text(HEADER + FIRST)
    (tmp_path / "2011-03-28.csv").write_text(HEADER + SECOND)
    (tmp_path / "notes.csv").write_text("not a day")
    return tmp_path


def load(connection, folder, **span):
    return loader.load_files(connection, loader.day_files(folder, **span), "Europe/London")


def rows(connection, sql):
    with connection, connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchall()


def content(connection):
    return {table: sorted(rows(connection, f"SELECT {table}::text, xmin FROM {table}")) for table in loader.TABLES}


def utc(*parts):
    return datetime(*parts, tzinfo=UTC)


def test_orders_have_the_status_of_their_number_and_the_times_of_their_lines(connection, folder):
    load(connection, folder)
    columns = "order_id, customer_id, status, ordered_at, created_at, updated_at"
    assert rows(connection, f"SELECT {columns} FROM orders ORDER BY 1") == [
        ("1001", 17850, "completed", *2 * [utc(2011, 3, 26, 8, 26)], utc(2011, 3, 26, 12)),
        ("1002", None, "completed", *3 * [utc(2011, 3, 26, 9)]),
        ("1005", 17850, "completed", *3 * [utc(2011, 3, 28, 7)]),  # summer time began on the 27th
        ("A1004", None, "adjusted", *3 * [utc(2011, 3, 26, 11)]),
        ("C1003", 17850, "cancelled", *3 * [utc(2011, 3, 26, 10)]),
    ]


def test_lines_are_numbered_by_file_order_within_an_order(connection, folder):
    load(connection, folder)
    columns = "line_number, product_id, quantity, unit_price"
    assert rows(connection, f"SELECT {columns} FROM order_items WHERE order_id = '1001' ORDER BY 1") == [
        (1, "85123A", 6, Decimal("2.55")),
        (2, "71053", 6, Decimal("3.39")),
        (3, "71053", 2, Decimal("3.45")),
    ]


def test_products_and_customers_are_as_last_seen_but_an_empty_description_replaces_nothing(connection, folder):
    load(connection, folder)
    columns = "product_id, description, unit_price, created_at, updated_at"
    assert rows(connection, f"SELECT {columns} FROM products ORDER BY 1") == [
        ("71053", "LANTERN", Decimal("3.5"), utc(2011, 3, 26, 8, 27), utc(2011, 3, 28, 7)),
        ("85123A", "WHITE HEART", Decimal("2.55"), utc(2011, 3, 26, 8, 26), utc(2011, 3, 26, 10)),
        ("B", "Adjust bad debt", Decimal("-11062.06"), *2 * [utc(2011, 3, 26, 11)]),
    ]
    assert rows(connection, "SELECT customer_id, email, country, created_at, updated_at FROM customers") == [
        (17850, None, "Spain", utc(2011, 3, 26, 8, 26), utc(2011, 3, 28, 7))
    ]


def test_loading_days_again_in_any_order_writes_no_row(connection, folder):
    load(connection, folder)
    before = content(connection)
    assert sum(load(connection, folder, first=date(2011, 3, 28)).written.values()) == 0
    assert sum(load(connection, folder, last=date(2011, 3, 26)).written.values()) == 0
    assert sum(load(connection, folder).written.values()) == 0
    assert content(connection) == before


def test_days_one_by_one_give_what_all_at_once_gives(connection, folder):
    load(connection, folder)
    together = {table: [row[0] for row in found] for table, found in content(connection).items()}
    loader.empty(connection)
    load(connection, folder, last=date(2011, 3, 26))
    load(connection, folder, first=date(2011, 3, 28))
    assert {table: [row[0] for row in found] for table, found in content(connection).items()} == together


def test_an_order_over_two_day_files_is_numbered_on_and_refused_out_of_order(connection, folder):
    (folder / "2011-03-29.csv").write_text(HEADER + "1005,71053,X,1,2011-03-29 08:00:00,1,,Spain\n")
    load(connection, folder, last=date(2011, 3, 28))
    load(connection, folder, first=date(2011, 3, 29))
    assert sum(load(connection, folder, first=date(2011, 3, 29)).written.values()) == 0
    found = rows(connection, "SELECT line_number, quantity FROM order_items WHERE order_id = '1005' ORDER BY 1")
    assert found == [(1, 3), (2, 1)]
    loader.empty(connection)
    load(connection, folder, first=date(2011, 3, 29))
    with pytest.raises(SandboxError, match="order 1005 has lines in several day files"):
        load(connection, folder, last=date(2011, 3, 28))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (HEADER + "1001,71053,X,six,2011-03-30 08:00:00,1,,Spain\n", "six"),
        ("A,B\n1,2\n", "header"),
        (HEADER + "1001,71053\n", "missing data"),
    ],
)
def test_a_file_that_is_no_day_file_is_named_and_nothing_of_it_is_loaded(connection, folder, text, told):
    (folder / "2011-03-30.csv").write_text(text)
    with pytest.raises(SandboxError, match=f"(?s)2011-03-30.csv.*{told}") as caught:
        load(connection, folder)
    assert "2011-03-30.csv" in caught.value.message
    assert rows(connection, "SELECT count(*) FROM orders") == [(0,)]


def test_days_that_are_not_there_are_told_with_those_that_are(folder):
    with pytest.raises(SandboxError, match="from 2012-01-01 to None: it holds 2011-03-26 to 2011-03-28"):
        loader.day_files(folder, date(2012, 1, 1))


def test_a_made_up_shop_arrives_whole_and_again_changes_nothing(connection):
    plan = Plan(20, date(2026, 1, 20), ZoneInfo("Asia/Ho_Chi_Minh"), orders_per_day=30, seed=5)
    days = list(generate(plan))
    loaded = loader.load_days(connection, days)
    assert loaded.days == 20
    newest = {row[:2]: row for day in days for row in sorted(day.order_items, key=lambda row: row[-1])}
    found = rows(connection, "SELECT * FROM order_items")
    assert sorted(found) == sorted(newest.values())
    orders = {row[0]: row for day in days for row in sorted(day.orders, key=lambda row: row[-1])}
    assert sorted(rows(connection, "SELECT * FROM orders")) == sorted(orders.values(), key=lambda row: row[0])
    assert sum(loader.load_days(connection, days).written.values()) == 0


def test_days_of_a_longer_plan_add_to_those_of_a_shorter(connection):
    plan = Plan(6, date(2026, 1, 6), ZoneInfo("Asia/Ho_Chi_Minh"), orders_per_day=30, seed=5)
    longer = Plan(9, date(2026, 1, 9), plan.zone, orders_per_day=30, seed=5)
    loader.load_days(connection, generate(plan))
    before = rows(connection, "SELECT count(*), max(updated_at) FROM orders")
    loader.load_days(connection, generate(longer))
    after = rows(connection, "SELECT count(*), max(updated_at) FROM orders")
    assert after[0][0] > before[0][0]
    assert after[0][1] - before[0][1] > timedelta(days=2)
