"""Gold: what was sold, line by line and day by day. Money is decimal(18,4), never floating point."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pyspark.sql import functions as F  # noqa: N812  # its usual name

from lakehouse import contract

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

TABLE_PROPERTIES: Final[dict[str, str]] = {"quality": "gold"}

_DAY: Final = 86_400
"""Seconds."""


def business_day(instant: Column, timezone: str) -> Column:
    """The calendar day of an instant (timestamp) in a zone (IANA name), whatever the session's own zone is."""
    # to_date would use the session's zone. Seconds are exact in the quotient's double for every year to 9999.
    seconds = F.unix_seconds(F.from_utc_timestamp(instant, timezone))
    return F.date_from_unix_date(F.floor(seconds / _DAY).cast("int"))


def sales_analytics(
    lines: DataFrame, orders: DataFrame, customers: DataFrame, products: DataFrame, timezone: str
) -> DataFrame:
    """Every order line with its order's, customer's and product's attributes.

    Grain: one row a row of `silver.fact_orders`, so that the two always have as many rows. A line whose order has not
    arrived is kept with a NULL `sales_date` and `status` and no revenue; the update that brings the order fills them.
    """
    joined = (
        lines.alias("l")
        .join(orders.alias("o"), F.col("l.order_id") == F.col("o.order_id"), "left")
        .join(customers.alias("c"), F.col("o.customer_id") == F.col("c.customer_id"), "left")
        .join(products.alias("p"), F.col("l.product_id") == F.col("p.product_id"), "left")
    )
    amount = F.col("l.quantity") * F.col("l.unit_price")
    return joined.select(
        "l.order_id",
        "l.line_number",
        business_day(F.col("o.ordered_at"), timezone).alias("sales_date"),
        "o.ordered_at",
        "o.status",
        "o.customer_id",
        "c.country",
        "l.product_id",
        "p.description",
        "l.quantity",
        "l.unit_price",
        _where("completed", amount).alias("gross_revenue"),
        _where("cancelled", -amount).alias("refund"),
        F.greatest("l.processed_at", "o.processed_at", "c.processed_at", "p.processed_at").alias("processed_at"),
    )


def agg_daily_sales(orders: DataFrame, sales: DataFrame, timezone: str) -> DataFrame:
    """The day's orders, customers, units and money.

    Grain: one row a business day that has an order, of whatever status; `adjusted` orders count in no figure.
    Orders are counted from `silver.dim_orders`, so that one without lines counts; money and units are summed from
    `gold.sales_analytics`.
    """
    days = (
        orders.withColumn("sales_date", business_day(F.col("ordered_at"), timezone))
        .groupBy("sales_date")
        .agg(
            F.count_if(F.col("status") == "completed").alias("orders"),
            F.count_if(F.col("status") == "cancelled").alias("cancelled_orders"),
            F.count_distinct(F.when(F.col("status") == "completed", F.col("customer_id"))).alias("customers"),
            F.max("processed_at").alias("orders_at"),
        )
    )
    money = (
        sales.where(F.col("sales_date").isNotNull())
        .groupBy("sales_date")
        .agg(
            F.sum(F.when((F.col("status") == "completed") & (F.col("quantity") > 0), F.col("quantity"))).alias("units"),
            F.sum("gross_revenue").alias("gross"),
            F.sum("refund").alias("refunds"),
            F.max("processed_at").alias("lines_at"),
        )
    )
    gross, refunds = F.coalesce("gross", F.lit(0)), F.coalesce("refunds", F.lit(0))
    return days.join(money, "sales_date", "left").select(
        "sales_date",
        "orders",
        "cancelled_orders",
        "customers",
        F.coalesce("units", F.lit(0)).cast(contract.BIGINT).alias("units"),
        gross.cast(contract.MONEY).alias("gross_revenue"),
        refunds.cast(contract.MONEY).alias("refunds"),
        (gross - refunds).cast(contract.MONEY).alias("net_revenue"),
        F.greatest("orders_at", "lines_at").alias("processed_at"),
    )


def _where(status: str, amount: Column) -> Column:
    return F.when(F.col("o.status") == status, amount).otherwise(F.lit(0)).cast(contract.MONEY)
