"""Gold: the tables that people and dbt read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyspark import pipelines as dp

from lakehouse import contract, gold, schemas, settings

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    spark: SparkSession  # a global of every pipeline source

timezone = settings.read(lambda key: spark.conf.get(key, None)).business_timezone


@dp.materialized_view(
    name="gold.sales_analytics",
    comment=f"Order lines with their order, customer and product; grain: one row an order line; days in {timezone}.",
    schema=schemas.struct(contract.SALES_ANALYTICS),
    table_properties=gold.TABLE_PROPERTIES,
    cluster_by=["sales_date"],
)
def sales_analytics() -> DataFrame:
    """`gold.sales_analytics`: see lakehouse.gold.sales_analytics."""
    return gold.sales_analytics(
        lines=spark.read.table("silver.fact_orders"),
        orders=spark.read.table("silver.dim_orders"),
        customers=spark.read.table("silver.dim_customer"),
        products=spark.read.table("silver.dim_product"),
        timezone=timezone,
    )


@dp.materialized_view(
    name="gold.agg_daily_sales",
    comment=f"Orders, units and money by day; grain: one row a business day ({timezone}) with an order.",
    schema=schemas.struct(contract.AGG_DAILY_SALES),
    table_properties=gold.TABLE_PROPERTIES,
    cluster_by=["sales_date"],
)
def agg_daily_sales() -> DataFrame:
    """`gold.agg_daily_sales`: see lakehouse.gold.agg_daily_sales."""
    return gold.agg_daily_sales(
        orders=spark.read.table("silver.dim_orders"),
        sales=spark.read.table("gold.sales_analytics"),
        timezone=timezone,
    )
