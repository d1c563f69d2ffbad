"""The whole pipeline on the warm sandbox: a month of days, against an independent computation.

The transactions are the real ones of Online Retail where ECOMM_TEST_DATA names a folder that has them, and a generated
shop elsewhere. Either way the expected tables are computed in plain Python by tests/support/oracle.py.
"""

from __future__ import annotations

import os
import random
import tarfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from tests.support import oracle
from tests.support.command import run_ecomm

ROOT = Path(__file__).parents[2]
ARCHIVE = "online-retail.tar.xz"
LONDON = "Europe/London"
# Any other range of the files by ECOMM_TEST_DATES=2010-12-01..2011-09-30, say.
MONTH = os.environ.get("ECOMM_TEST_DATES", "2011-03-01..2011-03-31")
FIRST, LAST = (date.fromisoformat(day) for day in MONTH.split(".."))
DAYS = (LAST - FIRST).days + 1


def real_data() -> Path | None:
    """Find the archive of real transactions: Online Retail, one CSV a day."""
    named = os.environ.get("ECOMM_TEST_DATA")
    return Path(named).resolve() / ARCHIVE if named else None


class Pipeline:
    """The commands a person types, with the sandbox's environment."""

    def __init__(self, sandbox):
        self.sandbox = sandbox
        self.env = {**os.environ, **sandbox.env}

    def __call__(self, *args, code=0, **env):
        return run_ecomm(*args, env={**self.env, **env}, code=code, timeout=1200, cwd=ROOT).stdout

    def rows(self, sql):
        return self.sandbox.query(sql)


@pytest.fixture(scope="module")
def transactions(tmp_path_factory):
    """The day files of the month, or None where there is no copy of the real ones."""
    archive = real_data()
    if archive is None:
        return None
    folder = tmp_path_factory.mktemp("transactions")
    wanted = {f"online-retail/{FIRST + timedelta(days=n)}.csv" for n in range(DAYS)}
    with tarfile.open(archive) as tar:
        tar.extractall(folder, members=[member for member in tar if member.name in wanted], filter="data")
    return folder / "online-retail"


@pytest.fixture(scope="module")
def month(sandbox, transactions):
    """The month, loaded and run once."""
    sandbox.reset(LONDON)
    if transactions is None:
        sandbox.load(
            "--generate", str(DAYS), "--orders-per-day", "40", "--seed", "7", "--until", str(LAST), "--timezone", LONDON
        )
    else:
        sandbox.load(str(transactions), "--timezone", LONDON)
    pipeline = Pipeline(sandbox)
    pipeline("run", MONTH)
    return pipeline


@pytest.fixture(scope="module")
def lines(month, transactions):
    """The month's order lines, as the raw data have them."""
    if transactions is not None:
        return oracle.read_lines(sorted(transactions.glob("*.csv")))
    with month.sandbox.connect() as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT i.order_id, i.line_number, i.product_id, i.quantity, i.unit_price, "
            "o.customer_id, o.status, o.ordered_at FROM order_items i JOIN orders o USING (order_id)"
        )
        return [oracle.Line(*row[:7], row[7].astimezone(ZoneInfo(LONDON)).date()) for row in cursor]


@pytest.fixture(scope="module")
def expected(lines):
    return oracle.daily_sales(lines)


TABLES = {
    "silver.dim_customer": "customer_id, email, country, updated_at",
    "silver.dim_product": "product_id, description, unit_price, updated_at",
    "silver.dim_orders": "order_id, customer_id, status, ordered_at, updated_at",
    "silver.fact_orders": "order_id, line_number, product_id, quantity, unit_price, updated_at",
    "silver.quarantine": "table_name, reason, row",
    "gold.sales_analytics": "order_id, line_number, sales_date, status, customer_id, country, product_id, "
    "description, quantity, gross_revenue, refund",
    "gold.agg_daily_sales": "sales_date, orders, cancelled_orders, customers, units, gross_revenue, refunds",
    "kpi.agg_sales_kpi": "sales_date, orders, net_revenue, average_order_value, cancellation_rate, net_revenue_7d, "
    "net_revenue_change_7d",
    "kpi.agg_product_kpi": "sales_date, product_id, units, gross_revenue, refunds, net_revenue, orders, revenue_rank",
    "kpi.agg_customer_kpi": "customer_id, first_order_date, last_order_date, orders, gross_revenue, net_revenue, "
    "recency_days, rfm_segment",
}


def fingerprint(pipeline):
    """A number for each table's content, whatever the order of its rows and the times at which they were made."""
    each = (
        f"SELECT '{table}' AS name, count(*) AS n, sum(cast(xxhash64({columns}) AS decimal(38,0))) AS h FROM {table}"
        for table, columns in TABLES.items()
    )
    return {tuple(map(str, row)) for row in pipeline.rows(" UNION ALL ".join(each))}


def test_each_day_of_agg_daily_sales_equals_the_independent_computation(month, expected):
    rows = month.rows(
        "SELECT sales_date, orders, cancelled_orders, customers, units, gross_revenue, refunds, net_revenue "
        "FROM gold.agg_daily_sales ORDER BY sales_date"
    )
    found = {
        date.fromisoformat(str(day)): (*map(int, counts), *map(Decimal, money))
        for day, *counts_and_money in rows
        for counts, money in [(counts_and_money[:4], counts_and_money[4:])]
    }
    assert found == {
        day: (
            len(sales.completed),
            len(sales.cancelled),
            len(sales.known),
            sales.units,
            sales.gross,
            sales.refunds,
            sales.net,
        )
        for day, sales in expected.items()
    }


def test_each_day_of_agg_sales_kpi_equals_the_independent_computation(month, expected):
    rows = month.rows(
        "SELECT sales_date, average_order_value, cancellation_rate, units_per_order, net_revenue_7d, "
        "net_revenue_change_7d FROM kpi.agg_sales_kpi ORDER BY sales_date"
    )
    found = {
        date.fromisoformat(str(row[0])): tuple(None if value is None else Decimal(value) for value in row[1:])
        for row in rows
    }

    def kpis(day, sales):
        orders, cancelled = len(sales.completed), len(sales.cancelled)
        return (
            oracle.rounded(oracle.ratio(sales.gross, orders), 4),
            oracle.rounded(oracle.ratio(cancelled, orders + cancelled), 6),
            oracle.rounded(oracle.ratio(sales.units, orders), 4),
            oracle.net_of_week(expected, day),
            oracle.rounded(oracle.week_change(expected, day), 6),
        )

    assert found == {day: kpis(day, sales) for day, sales in expected.items()}


def test_agg_product_kpi_equals_the_independent_computation(month, lines):
    rows = month.rows(
        "SELECT sales_date, product_id, units, gross_revenue, refunds, net_revenue, orders FROM kpi.agg_product_kpi"
    )
    found = {(date.fromisoformat(str(r[0])), r[1]): (int(r[2]), *map(Decimal, r[3:6]), int(r[6])) for r in rows}
    products: dict = {}
    for line in lines:
        if line.status == "adjusted":
            continue
        units, gross, refunds, orders = products.setdefault(
            (line.day, line.product_id), [0, Decimal(0), Decimal(0), set()]
        )
        amount = line.quantity * line.unit_price
        completed = line.status == "completed"
        products[line.day, line.product_id] = [
            units + (max(line.quantity, 0) if completed else 0),
            gross + (amount if completed else 0),
            refunds - (0 if completed else amount),
            orders | ({line.order_id} if completed else set()),
        ]
    assert found == {key: (u, g, r, g - r, len(o)) for key, (u, g, r, o) in products.items()}


def test_agg_customer_kpi_sums_each_known_customer(month, lines):
    rows = month.rows("SELECT customer_id, orders, gross_revenue, refunds, net_revenue FROM kpi.agg_customer_kpi")
    found = {int(r[0]): (int(r[1]), *map(Decimal, r[2:])) for r in rows}
    customers: dict = {}
    for line in lines:
        if line.customer_id is None or line.status == "adjusted":
            continue
        entry = customers.setdefault(line.customer_id, [set(), Decimal(0), Decimal(0)])
        amount = line.quantity * line.unit_price
        if line.status == "completed":
            entry[0].add(line.order_id)
            entry[1] += amount
        else:
            entry[2] -= amount
    assert found == {customer: (len(o), g, r, g - r) for customer, (o, g, r) in customers.items()}


def test_fact_orders_has_exactly_the_lines_of_the_source(month, lines):
    rows = month.rows("SELECT order_id, line_number, product_id, quantity, unit_price FROM silver.fact_orders")
    found = Counter((r[0], int(r[1]), r[2], int(r[3]), Decimal(r[4])) for r in rows)
    assert found == Counter(
        (line.order_id, line.line_number, line.product_id, line.quantity, line.unit_price) for line in lines
    )


def test_nothing_is_quarantined_or_rescued(month):
    assert [list(map(str, row)) for row in month.rows("SELECT count(*) FROM silver.quarantine")] == [["0"]]
    rescued = " UNION ALL ".join(
        f"SELECT count(_rescued_data) AS n FROM bronze.{table}"
        for table in ("orders", "products", "customers", "order_items")
    )
    assert {int(row[0]) for row in month.rows(rescued)} == {0}


def test_status_and_report_tell_of_the_month(month, tmp_path):
    status = month("status", MONTH)
    assert str(FIRST) in status
    page = tmp_path / "report.html"
    month("report", MONTH, "-o", str(page))
    html = page.read_text()
    assert "<svg" in html
    assert str(FIRST) in html


def test_running_a_date_again_changes_nothing(month):
    before = fingerprint(month)
    month("run", str(FIRST + timedelta(days=14)))
    assert fingerprint(month) == before


def test_days_in_random_order_some_of_them_twice_with_updates_between_give_the_same_tables(month):
    before = fingerprint(month)
    month.sandbox.reset_lakehouse()
    days = [FIRST + timedelta(days=n) for n in range(DAYS)]
    random.Random(20110301).shuffle(days)
    for some in (days[:3], days[3:17], days[10:]):
        jobs = [(table, day) for day in some for table in ("orders", "products", "customers", "order_items")]
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda job: month("extractor", "--table", job[0], "--date", str(job[1])), jobs))
        month("dlt-trigger", "--date", str(some[-1]))
    month("dbt-runner", "--date", MONTH)
    assert fingerprint(month) == before


def test_the_oracle_rounds_half_up():
    assert oracle.rounded(Fraction(1, 8), 2) == Decimal("0.13")
    assert oracle.rounded(Fraction(-1, 8), 2) == Decimal("-0.13")
    assert oracle.rounded(None, 2) is None
