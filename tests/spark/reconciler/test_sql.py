"""The statements of reconciliation, run by Spark over tables as the lakehouse has them."""

from __future__ import annotations

from datetime import date
from decimal import Decimal

import pytest

from ecomm_pipeline.dates import BusinessDate, DateRange
from ecomm_pipeline.reconciler import sql

DATES = DateRange(BusinessDate(date(2026, 1, 1)), BusinessDate(date(2026, 1, 3)))
ORIGIN = "_source_file STRING, _run_id STRING, _date DATE"
EARLY, LATE, ORPHAN = "20260101T180000Z-aaaa", "20260102T180000Z-bbbb", "20260102T190000Z-cccc"
DDL = {
    "bronze.orders": "order_id STRING, customer_id STRING, status STRING, ordered_at STRING, created_at STRING, "
    f"updated_at STRING, _rescued_data STRING, {ORIGIN}",
    "bronze.order_items": "order_id STRING, line_number STRING, product_id STRING, quantity STRING, unit_price STRING, "
    f"created_at STRING, updated_at STRING, _rescued_data STRING, {ORIGIN}",
    "silver.dim_orders": "order_id STRING, customer_id BIGINT, status STRING, ordered_at TIMESTAMP, "
    f"updated_at TIMESTAMP, {ORIGIN}",
    "silver.fact_orders": "order_id STRING, line_number INT, product_id STRING, quantity INT, "
    f"unit_price DECIMAL(12,4), updated_at TIMESTAMP, {ORIGIN}",
    "silver.quarantine": f"table_name STRING, reason STRING, row STRING, {ORIGIN}",
    "gold.sales_analytics": "order_id STRING, sales_date DATE, customer_id BIGINT, gross_revenue DECIMAL(18,4), "
    "refund DECIMAL(18,4)",
    "gold.agg_daily_sales": "sales_date DATE, orders BIGINT, cancelled_orders BIGINT, customers BIGINT, units BIGINT, "
    "gross_revenue DECIMAL(18,4), refunds DECIMAL(18,4), net_revenue DECIMAL(18,4)",
    "kpi.agg_sales_kpi": "sales_date DATE, orders BIGINT, cancelled_orders BIGINT, customers BIGINT, units BIGINT, "
    "gross_revenue DECIMAL(18,4), refunds DECIMAL(18,4), net_revenue DECIMAL(18,4)",
    "kpi.agg_product_kpi": "sales_date DATE, product_id STRING, units BIGINT, gross_revenue DECIMAL(18,4), "
    "refunds DECIMAL(18,4), net_revenue DECIMAL(18,4)",
    "kpi.agg_customer_kpi": "customer_id BIGINT, gross_revenue DECIMAL(18,4), refunds DECIMAL(18,4), "
    "net_revenue DECIMAL(18,4)",
}


def stamp(day, hour=8):
    return f"2026-01-{day:02} {hour:02}:00:00.5+00"


def origin(table, run_id, day, part=0):
    folder = f"s3://bucket/ecomm_db_extracts/daily_extracts/{table}/date=2026-01-{day:02}/run={run_id}"
    return f"{folder}/part-{part:05}.csv.gz", run_id, date(2026, 1, day)


def item(order, line, quantity, price, run_id, day, *, rescued=None):
    return (
        *(order, line, "P", quantity, price, stamp(day), stamp(day), rescued),
        *origin("order_items", run_id, day),
    )


ITEMS = [
    item("O1", "1", "2", "1.2500", EARLY, 1),  # kept
    item("O1", "2", "3", "2.0000", EARLY, 1),  # superseded by a later version
    item("O1", "2", "4", "2.0000", LATE, 2, rescued="{}"),  # which is kept
    item("O2", "1", "5", "0.3333", EARLY, 1),  # an identical row of another run stays
    item("O2", "1", "5", "0.3333", LATE, 1),
    item(None, "1", "7", "1.0000", LATE, 2),  # no key: quarantined
    item("O3", "1", "1e3", "1.0000", LATE, 2),  # no number: quarantined, and worth nothing
    item("O4", "1", "9", "1.0000", LATE, 2),  # lost
    item("O5", "1", "1", "9.0000", ORPHAN, 2),  # of a file that no manifest lists
]


@pytest.fixture(scope="module")
def lakehouse(spark):
    schemas = dict.fromkeys(name.partition(".")[0] for name in DDL)
    for schema in schemas:
        spark.sql(f"DROP SCHEMA IF EXISTS {schema} CASCADE")
        spark.sql(f"CREATE SCHEMA {schema}")
    for name, columns in DDL.items():
        spark.sql(f"CREATE TABLE {name} ({columns}) USING parquet")

    def insert(name, *rows):
        spark.createDataFrame(list(rows), spark.table(name).schema).write.insertInto(name)

    insert("bronze.order_items", *ITEMS)
    insert("bronze.orders", ("O1", "7", "completed", *[stamp(1)] * 3, None, *origin("orders", EARLY, 1)))
    spark.sql(f"""
        INSERT INTO silver.fact_orders
        SELECT order_id, int(line_number), product_id, int(quantity), CAST(unit_price AS DECIMAL(12, 4)),
          timestamp(updated_at), _source_file, _run_id, _date
        FROM bronze.order_items
        WHERE (order_id = 'O1' AND quantity IN ('2', '4')) OR (order_id = 'O2' AND _run_id = '{LATE}')
    """)
    spark.sql("""
        INSERT INTO silver.quarantine
        SELECT 'order_items', "order_id: missing; quantity: not a int: 'a; ''b'", to_json(struct(order_id, line_number,
          quantity, unit_price, updated_at)), _source_file, _run_id, _date
        FROM bronze.order_items WHERE order_id IS NULL OR quantity = '1e3'
    """)
    orders = (("O1", "completed", 1), ("O2", "cancelled", 2), ("O9", "adjusted", 9))
    for order, status, day in orders:
        spark.sql(f"""
            INSERT INTO silver.dim_orders VALUES ('{order}', 7, '{status}', TIMESTAMP'2026-01-{day:02} 18:00:00Z',
              TIMESTAMP'2026-01-{day:02} 18:00:00Z', 'f', '{EARLY}', DATE'2026-01-01')
        """)
    spark.sql("INSERT INTO gold.agg_daily_sales VALUES (DATE'2026-01-02', 1, 0, 1, 6, 10.5, 0, 10.5)")
    spark.sql("INSERT INTO gold.sales_analytics VALUES ('O8', NULL, NULL, 0, 0)")
    spark.sql("INSERT INTO gold.sales_analytics VALUES ('O1', DATE'2026-01-02', 7, 10.5, 0)")
    spark.sql("INSERT INTO kpi.agg_sales_kpi VALUES (DATE'2026-01-02', 1, 0, 1, 6, 10.5, 0, 10.5)")
    spark.sql("INSERT INTO kpi.agg_product_kpi VALUES (DATE'2026-01-02', 'P', 6, 10.5, 0.5, 10)")
    spark.sql("INSERT INTO kpi.agg_customer_kpi VALUES (7, 10.5, 0, 10.5)")
    yield spark
    for schema in schemas:
        spark.sql(f"DROP SCHEMA {schema} CASCADE")


def test_bronze_counts_rows_and_money_by_file(lakehouse):
    found = lakehouse.sql(sql.bronze(["orders", "order_items"], DATES)).collect()
    rows = {(r.table_name, r.date, r.run_id): r for r in found if r.layer == "bronze"}
    early = rows["order_items", "2026-01-01", EARLY]
    assert (early.file, early.row_count, Decimal(early.money)) == ("part-00000.csv.gz", 3, Decimal("10.1665"))
    assert rows["order_items", "2026-01-02", LATE].rescued == 1
    assert rows["orders", "2026-01-01", EARLY].money is None
    assert [(r.table_name, r.date, r.row_count) for r in found if r.layer == "quarantine"] == [
        ("order_items", "2026-01-02", 2)
    ]


def test_silver_tells_what_became_of_every_row_of_a_listed_file(lakehouse):
    listed = {"order_items": [("2026-01-01", EARLY, "part-00000.csv.gz"), ("2026-01-02", LATE, "part-00000.csv.gz")]}
    found = lakehouse.sql(sql.silver(listed, {"order_items"}, DATES)).collect()
    states = {(r.date, r.state): (r.row_count, r.money and Decimal(r.money)) for r in found}
    assert states == {
        ("2026-01-01", "kept"): (1, Decimal("2.5")),
        ("2026-01-01", "superseded"): (2, Decimal("7.6665")),
        ("2026-01-02", "kept"): (1, Decimal(8)),
        ("2026-01-02", "quarantined"): (2, Decimal(7)),
        ("2026-01-02", "lost"): (1, Decimal(9)),
    }
    assert {r.reason for r in found if r.state == "quarantined"} == {"order_id: missing; quantity: not a int"}
    assert all(Decimal(r.silver_money) == Decimal(r.money) for r in found if r.state == "kept")


def test_a_version_counts_as_loaded_only_when_all_of_it_matches(lakehouse):
    wanted = [
        sql.SEPARATOR.join(parts)
        for parts in (
            ("order_items", "O1", "2", stamp(2)),
            ("order_items", "O1", "2", stamp(3)),
            ("orders", "O1", stamp(1)),
            ("orders", "O1"),
        )
    ]
    rows = lakehouse.sql(sql.late_in_bronze(["order_items", "orders"], wanted)).collect()
    assert sorted(row.version for row in rows) == [wanted[0], wanted[2]]


def test_sales_are_of_the_business_day_and_of_every_order_that_the_range_touched(lakehouse):
    rows = lakehouse.sql(sql.sales(DATES, "Asia/Ho_Chi_Minh")).collect()
    silver = {r.date: r for r in rows if r.table_name == "silver"}
    # 18:00 UTC is the next day in Ho Chi Minh City; O9 was ordered outside of the range and updated in it.
    assert set(silver) == {"2026-01-02", "2026-01-03", "2026-01-10"}
    assert (silver["2026-01-02"].lines, silver["2026-01-02"].units) == (2, 6)
    assert Decimal(silver["2026-01-02"].gross_revenue) == Decimal("10.5")
    assert Decimal(silver["2026-01-03"].refunds) == Decimal("-1.6665")
    assert silver["2026-01-10"].orders == 0
    assert [r.lines for r in rows if r.date == ""] == [1]
    assert {r.date for r in rows if r.table_name == "agg_daily_sales"} == {"2026-01-02"}


def test_kpis_are_summed_to_what_gold_is_compared_with(lakehouse):
    rows = {(r.table_name, r.date): r for r in lakehouse.sql(sql.kpis(["2026-01-02"])).collect()}
    assert Decimal(rows["agg_product_kpi", "2026-01-02"].refunds) == Decimal("0.5")
    assert rows["agg_sales_kpi", "2026-01-02"].orders == 1
    assert Decimal(rows["sales_analytics", ""].net_revenue) == Decimal(rows["agg_customer_kpi", ""].net_revenue)
