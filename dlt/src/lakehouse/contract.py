"""The data contract of the source tables: names, keys, types and what they mean. Plain data, no Spark.

`docs/data-contract.md` is the same in prose; a test compares the two.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

TEXT: Final = "string"
INT: Final = "int"
BIGINT: Final = "bigint"
PRICE: Final = "decimal(12,4)"
TIMESTAMP: Final = "timestamp"
DATE: Final = "date"
MONEY: Final = "decimal(18,4)"


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table: its Spark type, its meaning with the unit, and whether Silver refuses NULL in it."""

    name: str
    type: str
    comment: str
    required: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """A source table and the Silver table that holds the newest version of each of its keys."""

    name: str
    silver: str
    grain: str
    key: tuple[str, ...]
    columns: tuple[Column, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The source columns' names, in order."""
        return tuple(column.name for column in self.columns)


CREATED_AT: Final = Column("created_at", TIMESTAMP, "When the source inserted the row; UTC, microseconds.")
UPDATED_AT: Final = Column(
    "updated_at", TIMESTAMP, "When the source last changed the row; UTC, microseconds.", required=True
)

TABLES: Final[dict[str, Table]] = {
    table.name: table
    for table in (
        Table(
            "customers",
            "dim_customer",
            "one row a customer",
            ("customer_id",),
            (
                Column("customer_id", BIGINT, "The customer's number in the shop.", required=True),
                Column("email", TEXT, "The e-mail address; NULL where the customer gave none."),
                Column("country", TEXT, "The country of the customer, by name, as last seen."),
                CREATED_AT,
                UPDATED_AT,
            ),
        ),
        Table(
            "products",
            "dim_product",
            "one row a product",
            ("product_id",),
            (
                Column("product_id", TEXT, "The stock code.", required=True),
                Column("description", TEXT, "The product's name, as last seen; NULL where it never had one."),
                Column("unit_price", PRICE, "The list price of one unit, as last seen; the shop's currency."),
                CREATED_AT,
                UPDATED_AT,
            ),
        ),
        Table(
            "orders",
            "dim_orders",
            "one row an order",
            ("order_id",),
            (
                Column("order_id", TEXT, "The invoice number.", required=True),
                Column("customer_id", BIGINT, "Who ordered; NULL for a guest without an account."),
                Column(
                    "status",
                    TEXT,
                    "completed, cancelled (a return) or adjusted (a correction of the books).",
                    required=True,
                ),
                Column("ordered_at", TIMESTAMP, "When the order was placed; UTC, microseconds.", required=True),
                CREATED_AT,
                UPDATED_AT,
            ),
        ),
        Table(
            "order_items",
            "fact_orders",
            "one row an order line",
            ("order_id", "line_number"),
            (
                Column("order_id", TEXT, "The order that the line belongs to.", required=True),
                Column("line_number", INT, "The line's number in its order, from 1.", required=True),
                Column("product_id", TEXT, "What was sold, by stock code."),
                Column("quantity", INT, "Units sold; negative where they came back.", required=True),
                Column("unit_price", PRICE, "The price of one unit on this line; the shop's currency.", required=True),
                CREATED_AT,
                UPDATED_AT,
            ),
        ),
    )
}

STATUSES: Final = ("completed", "cancelled", "adjusted")

RESCUED: Final = Column("_rescued_data", TEXT, "JSON of what the file held beside the contract's columns; else NULL.")
SOURCE_FILE: Final = Column("_source_file", TEXT, "The CSV file that the row was read from.")
RUN_ID: Final = Column("_run_id", TEXT, "The run that extracted the row; sorts by the run's start.")
BUSINESS_DATE: Final = Column("_date", DATE, "The business date that the row was extracted for.")
LOADED_AT: Final = Column("_loaded_at", TIMESTAMP, "When Bronze read the file; UTC.")
PROCESSED_AT: Final = Column("processed_at", TIMESTAMP, "When Silver processed the newest version in this row; UTC.")


def bronze_columns(table: Table) -> tuple[Column, ...]:
    """The columns of a Bronze table: the source's, each as the text that Postgres wrote, then the row's origin."""
    raw = (Column(column.name, TEXT, f"As Postgres wrote it: {column.comment}") for column in table.columns)
    return (*raw, RESCUED, SOURCE_FILE, RUN_ID, BUSINESS_DATE, LOADED_AT)


def silver_columns(table: Table) -> tuple[Column, ...]:
    """The columns of a Silver table: the source's, typed, then the version's origin."""
    return (*table.columns, SOURCE_FILE, RUN_ID, BUSINESS_DATE, PROCESSED_AT)


QUARANTINE: Final = (
    Column("table_name", TEXT, "The source table of the row."),
    Column("reason", TEXT, "What is wrong, as `column: problem: 'value'`; several are joined by `; `."),
    Column("row", TEXT, "JSON of the source columns, each as the text that Postgres wrote."),
    RESCUED,
    SOURCE_FILE,
    RUN_ID,
    BUSINESS_DATE,
    Column("processed_at", TIMESTAMP, "When Silver refused the row; UTC."),
)

SALES_ANALYTICS: Final = (
    Column("order_id", TEXT, "The order."),
    Column("line_number", INT, "The line's number in its order, from 1."),
    Column("sales_date", DATE, "The business day of ordered_at; NULL while the line's order has not arrived."),
    Column("ordered_at", TIMESTAMP, "When the order was placed; UTC. NULL while the order has not arrived."),
    Column("status", TEXT, "The order's status; NULL while the order has not arrived."),
    Column("customer_id", BIGINT, "Who ordered; NULL for a guest."),
    Column("country", TEXT, "The customer's country; NULL for a guest or a customer who has not arrived."),
    Column("product_id", TEXT, "What was sold, by stock code."),
    Column("description", TEXT, "The product's name; NULL for a product that has not arrived."),
    Column("quantity", INT, "Units sold; negative where they came back."),
    Column("unit_price", PRICE, "The price of one unit on this line; the shop's currency."),
    Column("gross_revenue", MONEY, "quantity × unit_price where the order is completed, else 0; the shop's currency."),
    Column("refund", MONEY, "−quantity × unit_price where the order is cancelled, else 0; the shop's currency."),
    PROCESSED_AT,
)

AGG_DAILY_SALES: Final = (
    Column("sales_date", DATE, "The business day of ordered_at."),
    Column("orders", BIGINT, "Completed orders."),
    Column("cancelled_orders", BIGINT, "Cancelled orders."),
    Column("customers", BIGINT, "Distinct customers with an account who have a completed order."),
    Column("units", BIGINT, "Units on lines of completed orders with a positive quantity."),
    Column("gross_revenue", MONEY, "Σ quantity × unit_price over lines of completed orders; the shop's currency."),
    Column("refunds", MONEY, "−Σ quantity × unit_price over lines of cancelled orders; the shop's currency."),
    Column("net_revenue", MONEY, "gross_revenue − refunds; the shop's currency."),
    PROCESSED_AT,
)
