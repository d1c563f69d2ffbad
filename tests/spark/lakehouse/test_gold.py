"""Gold against plain Python over the same orders: same days, same counts, same money to the last decimal."""

from __future__ import annotations

import datetime as dt
import random
from collections import defaultdict
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import pytest
from pyspark.sql import functions as F  # noqa: N812  # its usual name

from lakehouse import contract, gold, schemas

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

AT = dt.datetime(2011, 4, 1, tzinfo=dt.UTC)
ZONES = ("Asia/Ho_Chi_Minh", "Europe/London", "America/New_York", "Pacific/Kiritimati")


@dataclass
class Shop:
    """The four Silver tables, as the columns of the contract (origin aside)."""

    customers: list[tuple] = field(default_factory=list)
    products: list[tuple] = field(default_factory=list)
    orders: list[tuple] = field(default_factory=list)
    order_items: list[tuple] = field(default_factory=list)

    def frame(self, spark: SparkSession, name: str) -> DataFrame:
        table = contract.TABLES[name]
        schema = schemas.struct((*table.columns, contract.PROCESSED_AT))
        return spark.createDataFrame([(*row, AT, AT, AT) for row in getattr(self, name)], schema)

    def sales(self, spark: SparkSession, zone: str) -> DataFrame:
        lines, orders, customers, products = (
            self.frame(spark, name) for name in ("order_items", "orders", "customers", "products")
        )
        return gold.sales_analytics(lines, orders, customers, products, zone)

    def daily(self, spark: SparkSession, zone: str) -> DataFrame:
        return gold.agg_daily_sales(self.frame(spark, "orders"), self.sales(spark, zone), zone)


def utc(*parts: int) -> dt.datetime:
    return dt.datetime(*parts, tzinfo=dt.UTC)


def generated(seed: int) -> Shop:
    """A shop with guests, returns, adjustments, late orders, empty orders, unknown products and both ends of money."""
    chance = random.Random(seed)  # not for secrets
    shop = Shop([(n, None, f"country {n % 5}") for n in range(1, 20)])
    shop.products = [(f"p{n}", f"product {n}", Decimal(n)) for n in range(20)]
    start = utc(2011, 3, 25)  # London's clocks go forward on the 27th
    for n in range(300):
        customer = chance.choice([None, *range(1, 25)])  # 20 to 24 have not arrived
        status = chance.choices(contract.STATUSES, (8, 2, 1))[0]
        at = start + dt.timedelta(microseconds=chance.randrange(6 * 86_400_000_000))
        if n % 11:
            shop.orders.append((f"o{n}", customer, status, at))
        for line in range(chance.randrange(5)):
            quantity = chance.choice([1, 2, 12, 100_000, 0, -1, -100])
            price = Decimal(chance.randrange(-100, 10 ** chance.randrange(1, 11))) / 10_000
            shop.order_items.append(
                (f"o{n}", line + 1, chance.choice([None, *(f"p{m}" for m in range(25))]), quantity, price)
            )
    return shop


def expected_daily(shop: Shop, zone: str) -> dict[dt.date, tuple]:
    """agg_daily_sales by its definition, order by order."""
    lines = defaultdict(list)
    for order_id, _, _, quantity, price in shop.order_items:
        lines[order_id].append((quantity, price))
    days: dict[dt.date, list[tuple]] = defaultdict(list)
    for order in shop.orders:
        days[order[3].astimezone(ZoneInfo(zone)).date()].append(order)
    result = {}
    for day, orders in days.items():
        done = [order for order in orders if order[2] == "completed"]
        back = [order for order in orders if order[2] == "cancelled"]
        gross = sum((q * p for order in done for q, p in lines[order[0]]), Decimal(0))
        refunds = -sum((q * p for order in back for q, p in lines[order[0]]), Decimal(0))
        customers = {order[1] for order in done} - {None}
        units = sum(q for order in done for q, _ in lines[order[0]] if q > 0)
        result[day] = (len(done), len(back), len(customers), units, gross, refunds, gross - refunds)
    return result


@pytest.mark.parametrize("zone", ZONES[:2])
def test_the_daily_figures_are_those_of_plain_python(spark, zone):
    shop = generated(seed=len(zone))
    rows = shop.daily(spark, zone).collect()
    got = {row.sales_date: tuple(row)[1:-1] for row in rows}
    assert got == expected_daily(shop, zone)
    assert len(rows) == len(got), "one row a day"
    assert any(row.net_revenue.as_tuple().digits[-1] for row in rows), "the last decimal is looked at"


def test_every_line_has_one_row_with_what_is_known_of_it(spark):
    shop, zone = generated(seed=1), "Asia/Ho_Chi_Minh"
    orders = {order[0]: order for order in shop.orders}
    countries = {customer[0]: customer[2] for customer in shop.customers}
    names = {product[0]: product[1] for product in shop.products}
    expected = {}
    for order_id, line, product, quantity, price in shop.order_items:
        _, customer, status, at = orders.get(order_id, (None, None, None, None))
        amount = quantity * price
        expected[order_id, line] = (
            at and at.astimezone(ZoneInfo(zone)).date(),
            status,
            customer,
            countries.get(customer),
            product,
            names.get(product),
            quantity,
            price,
            amount if status == "completed" else 0,
            -amount if status == "cancelled" else 0,
        )
    rows = shop.sales(spark, zone).drop("ordered_at", "processed_at").collect()
    assert {(row.order_id, row.line_number): tuple(row)[2:] for row in rows} == expected
    assert len(rows) == len(shop.order_items)


def test_a_line_whose_order_is_late_waits_without_a_day_or_money_and_counts_when_the_order_comes(spark):
    shop = Shop(order_items=[("late", 1, "p", 2, Decimal("1.5"))])
    (row,) = shop.sales(spark, "UTC").collect()
    assert (row.sales_date, row.status, row.gross_revenue, row.refund) == (None, None, 0, 0)
    assert shop.daily(spark, "UTC").count() == 0
    shop.orders.append(("late", None, "completed", utc(2011, 3, 1, 12)))
    (day,) = shop.daily(spark, "UTC").collect()
    assert (day.sales_date, day.orders, day.units, day.gross_revenue) == (dt.date(2011, 3, 1), 1, 2, Decimal("3.0000"))


def test_an_adjusted_order_has_a_day_and_counts_in_no_figure(spark):
    shop = Shop(orders=[("a", 7, "adjusted", utc(2011, 3, 1))], order_items=[("a", 1, "p", 1, Decimal(-11062))])
    (day,) = shop.daily(spark, "UTC").collect()
    assert tuple(day)[1:-1] == (0, 0, 0, 0, 0, 0, 0)


def test_an_order_without_lines_is_an_order(spark):
    shop = Shop(orders=[("a", 7, "completed", utc(2011, 3, 1))])
    (day,) = shop.daily(spark, "UTC").collect()
    assert tuple(day)[1:-1] == (1, 0, 1, 0, 0, 0, 0)


def test_money_beyond_what_a_double_can_hold_is_exact(spark):
    shop = Shop(orders=[("a", 7, "completed", utc(2011, 3, 1))])
    shop.order_items = [("a", 1, "p", 999_999, Decimal("99999999.9999")), ("a", 2, "p", 1, Decimal("0.0002"))]
    (day,) = shop.daily(spark, "UTC").collect()
    assert day.gross_revenue == Decimal("99999899999900.0003")
    assert float(day.gross_revenue) != day.gross_revenue, "a double would have lost the last decimal"


@pytest.mark.parametrize("session", ["UTC", "America/New_York", "Asia/Tokyo"])
def test_the_business_day_does_not_depend_on_the_sessions_zone(spark, session):
    moments = [
        utc(2011, 3, 26, 23, 59, 59, 999_999),
        utc(2011, 3, 27, 0, 30),
        utc(2011, 3, 27, 16, 59, 59, 999_999),  # 23:59:59.999999 in Ho Chi Minh
        utc(2011, 3, 27, 17),  # midnight there
        utc(2011, 3, 27, 22, 59, 59, 999_999),  # 23:59:59.999999 in London, in summer time since this morning
        utc(2011, 3, 27, 23),  # midnight there
        utc(1960, 1, 1, 16, 59, 59, 999_999),
        utc(1969, 12, 31, 23, 59, 59, 999_999),
        utc(1800, 1, 1),  # local mean time
        utc(9999, 12, 30, 23, 59, 59, 999_999),
    ]
    before = spark.conf.get("spark.sql.session.timeZone")
    try:
        spark.conf.set("spark.sql.session.timeZone", session)
        frame = spark.createDataFrame([(moment,) for moment in moments], "at timestamp").coalesce(1)
        rows = frame.select(*(gold.business_day(F.col("at"), zone).alias(zone) for zone in ZONES)).collect()
    finally:
        spark.conf.set("spark.sql.session.timeZone", before)
    assert [tuple(row) for row in rows] == [
        tuple(moment.astimezone(ZoneInfo(zone)).date() for zone in ZONES) for moment in moments
    ]


def test_a_row_of_gold_is_as_new_as_its_newest_part(spark):
    shop = Shop([(7, None, "France")], [], [("a", 7, "completed", utc(2011, 3, 1))], [("a", 1, "p", 1, Decimal(1))])
    newer = AT + dt.timedelta(hours=1)
    customers = shop.frame(spark, "customers").withColumn("processed_at", F.lit(newer))
    lines, orders, products = (shop.frame(spark, name) for name in ("order_items", "orders", "products"))
    sales = gold.sales_analytics(lines, orders, customers, products, "UTC")
    days = gold.agg_daily_sales(orders, sales, "UTC")
    for frame in (sales, days):
        assert frame.where(F.col("processed_at") == F.lit(newer)).count() == 1
