"""The shop changes its tables, each in another way: extraction goes on, no row is lost, and the change is told."""

from __future__ import annotations

import secrets
from typing import Any

import pytest
from tests.support.shop import Shop

from ecomm_pipeline.contract import CONTRACT

DATE = "2026-03-02"
AT = "2026-03-02 03:00:00+00"
CHANGED = f"""
ALTER TABLE customers ADD loyalty text;
ALTER TABLE products DROP description;
ALTER TABLE orders RENAME status TO state;
ALTER TABLE order_items ALTER quantity TYPE bigint, ALTER unit_price TYPE numeric(20, 8);
INSERT INTO customers VALUES (1, 'a@example.com', 'Vietnam', '{AT}', '{AT}', 'gold, "1st"'),
  (2, NULL, '', '{AT}', '{AT}', NULL);
INSERT INTO products VALUES ('P1', 2.5, '{AT}', '{AT}');
INSERT INTO orders VALUES ('O1', 1, 'completed', '{AT}', '{AT}', '{AT}');
INSERT INTO order_items VALUES ('O1', 1, 'P1', 3, 2.50000000, '{AT}', '{AT}'),
  ('O1', 2, 'P1', 2147483648, 1, '{AT}', '{AT}'), ('O1', 3, 'P1', 1, 0.00001, '{AT}', '{AT}');
"""
"""Added (with a value and without), dropped, a required one renamed, widened (to what fits and what does not)."""


class ChangedShop(Shop):
    """A shop whose tables changed."""

    def drift(self, stage: str) -> list[str]:
        """Give what a stage's record in the ledger tells of changed schemas."""
        record = self.record(stage, DATE)
        assert record["outcome"] == "succeeded"
        found = [finding for finding in record["findings"] if finding["kind"] == "schema_drift"]
        assert {finding["priority"] for finding in found} <= {"P3"}
        return [finding["message"] for finding in found]


@pytest.fixture(scope="module")
def shop(sandbox: Any) -> Any:
    """A shop whose four tables changed, extracted and loaded once."""
    sandbox.reset()
    made = ChangedShop(sandbox, f"20260302T180000Z-{secrets.token_hex(4)}")
    made.sql(CHANGED)
    made.extract(DATE)
    made.ecomm("dlt-trigger", "--date", DATE)
    yield made
    sandbox.reset()


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ("customers", ["customers.loyalty is new (text)"]),
        ("products", ["products.description is gone"]),
        ("orders", ["orders.status is gone", "orders.state is new (text)"]),
        (
            "order_items",
            [
                "order_items.quantity was integer and is bigint",
                "order_items.unit_price was numeric(12,4) and is numeric(20,8)",
            ],
        ),
    ],
)
def test_the_extractor_goes_on_and_tells_each_change(shop: ChangedShop, table: str, told: list[str]) -> None:
    assert shop.drift(f"extractor-{table}") == told


def test_dlt_trigger_tells_of_rows_with_rescued_values(shop: ChangedShop) -> None:
    told = " ".join(shop.drift("dlt-trigger"))
    assert "customers" in told
    assert "orders" in told
    assert "products" not in told


def test_bronze_has_every_row_and_what_has_no_column_is_rescued(shop: ChangedShop) -> None:
    for table in CONTRACT:
        ((count,),) = shop.sql(f"SELECT count(*) FROM {table}")
        assert shop.rows(f"SELECT count(*) AS n FROM bronze.{table}") == [(str(count),)]
    loyalty = "SELECT customer_id, get_json_object(_rescued_data, '$.loyalty') AS v FROM bronze.customers ORDER BY 1"
    assert shop.rows(loyalty) == [("1", 'gold, "1st"'), ("2", None)]
    renamed = "SELECT status, get_json_object(_rescued_data, '$.state') AS v FROM bronze.orders"
    assert shop.rows(renamed) == [(None, "completed")]
    assert shop.rows("SELECT product_id, description, unit_price FROM bronze.products") == [("P1", None, "2.5000")]
    assert shop.rows("SELECT line_number, quantity, unit_price FROM bronze.order_items ORDER BY 1") == [
        ("1", "3", "2.50000000"),
        ("2", "2147483648", "1.00000000"),
        ("3", "1", "0.00001000"),
    ]


def test_silver_holds_what_still_fits_and_quarantine_the_rest(shop: ChangedShop) -> None:
    assert shop.rows("SELECT customer_id, email, country FROM silver.dim_customer ORDER BY 1") == [
        ("1", "a@example.com", "Vietnam"),
        ("2", None, ""),
    ]
    assert shop.rows("SELECT product_id, description, unit_price FROM silver.dim_product") == [("P1", None, "2.5000")]
    assert shop.rows("SELECT order_id FROM silver.dim_orders") == []
    assert shop.rows("SELECT line_number, quantity, unit_price FROM silver.fact_orders") == [("1", "3", "2.5000")]
    assert set(shop.rows("SELECT table_name, reason FROM silver.quarantine")) == {
        ("orders", "status: missing"),
        ("order_items", "quantity: does not fit int: '2147483648'"),
        ("order_items", "unit_price: does not fit decimal(12,4): '0.00001000'"),
    }


def test_the_reconciler_finds_every_row(shop: ChangedShop) -> None:
    shop.ecomm("reconciler", "--date", DATE, "--through", "gold")
    record = shop.record("reconciler-gold", DATE)
    assert record["figures"]["balanced"]
    assert {finding["kind"] for finding in record["findings"]} == {"rows_quarantined"}
