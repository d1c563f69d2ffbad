"""Every value that Postgres can hold arrives in Bronze as it was, and in Silver as it was or in quarantine."""

from __future__ import annotations

import io
import json
import secrets
from contextlib import closing
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from tests.support.shop import Shop

DATE = "2026-03-02"
STAMP = "2026-03-02 03:00:00.000001+00"
KEYS = {
    "customers": ("customer_id",),
    "products": ("product_id",),
    "orders": ("order_id",),
    "order_items": ("order_id", "line_number"),
}
SILVER = {
    "customers": "dim_customer",
    "products": "dim_product",
    "orders": "dim_orders",
    "order_items": "fact_orders",
}
COLUMNS = {
    "customers": {"customer_id": int, "email": str, "country": str},
    "products": {"product_id": str, "description": str, "unit_price": Decimal},
    "orders": {"order_id": str, "customer_id": int, "status": str, "ordered_at": datetime},
    "order_items": {
        "order_id": str,
        "line_number": int,
        "product_id": str,
        "quantity": int,
        "unit_price": Decimal,
    },
}
"""The columns that differ from row to row; `created_at` differs too."""

AWKWARD = [
    None, "", " ", " a ", "NULL", "null", "\\N", "\\", "\\.", '"', '""', '","', ",", "'", "\n", "\r\n", "\r", "a\rb",
    "a\r\nb\n", '"\n"', "\t", "🛒👩‍👩‍👧", "\ufeff", "e\u0301", "\u0085\u2028", "\u0001\u001f\u007f", "Ω" * 1000,
    'x,"\n' * 262144,
]  # fmt: skip
NUMBERS = ["99999999.9999", "-99999999.9999", "0", "0.0001", "-0.0001", "1.1", "NaN"]
INTEGERS = [-(2**31), -1, 0, 1, 2**31 - 1]
BIGINTS = [-(2**63), -1, 0, 1, 2**63 - 1]
MOMENTS = [
    "2026-03-02 00:00:00.000001+00", "1969-12-31 23:59:59.999999+00", "1883-11-18 12:00:00+00", "infinity",
    "-infinity", "0044-03-15 12:00:00+00 BC", "20000-01-01 00:00:00+00", "9999-12-31 23:59:59.999999+00",
    "9999-12-30 23:59:59.999999+00", "0001-01-02 00:00:00+00", "0001-01-01 00:00:00+00", "1900-02-28 23:59:59+00",
]  # fmt: skip


def made_up_texts(count: int) -> list[str]:
    """Make texts that Postgres can hold, the same ones each time."""
    found: dict[str, None] = {}
    texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40)

    @seed(20260302)
    @settings(max_examples=count, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    @given(texts)
    def collect(text: str) -> None:
        found[text] = None

    collect()
    return list(found)


class OddShop(Shop):
    """A shop without its constraints."""

    def held(self, table: str) -> list[tuple[str | None, ...]]:
        """Give all rows as Postgres writes them, each value as text."""
        names = ", ".join(f"{name}::text" for name in names_of(table))
        return self.sql(f"SET TIME ZONE 'UTC'; SELECT {names} FROM {table}")

    def fill(self, table: str, rows: list[tuple[Any, ...]]) -> None:
        """Copy rows into a table, whatever its constraints say."""
        lines = io.StringIO()
        for row in rows:
            fields = (
                "" if value is None else '"' + str(value).replace('"', '""') + '"' for value in (*row, STAMP, STAMP)
            )
            lines.write(",".join(fields) + "\n")
        lines.seek(0)
        with closing(self.sandbox.connect("postgres")) as connection, connection, connection.cursor() as cursor:
            cursor.execute("SET session_replication_role = replica")  # no foreign keys
            cursor.copy_expert(f"COPY {table} FROM STDIN (FORMAT csv)", lines)


def names_of(table: str) -> list[str]:
    """Name a table's columns."""
    return [*COLUMNS[table], "created_at", "updated_at"]


@pytest.fixture(scope="module")
def shop(sandbox: Any) -> Any:
    """A shop of odd values in every column, extracted and loaded once."""
    sandbox.reset()
    made = OddShop(sandbox, f"20260302T180000Z-{secrets.token_hex(4)}")
    made.sql("ALTER TABLE orders DROP CONSTRAINT orders_status_check")
    made.sql("ALTER TABLE order_items DROP CONSTRAINT order_items_line_number_check")
    texts = [*AWKWARD, *made_up_texts(150)]

    def pick(values: list[Any], at: int) -> Any:
        return values[at % len(values)]

    made.fill("customers", [(n, pick(texts, n), pick(texts[::-1], n)) for n in range(len(texts))])
    made.fill("customers", [(n, "a@example.com", None) for n in (-(2**63), -1, 2**63 - 1)])
    made.fill("products", [(f"P{n}", text, pick([*NUMBERS, None], n)) for n, text in enumerate(texts)])
    short = [text for text in dict.fromkeys(texts) if text is not None and len(text) < 1000]  # an index holds no more
    made.fill("products", [(f"k{text}", None, "1") for text in short])
    made.fill("orders", [(text, pick([*BIGINTS, None], n), "completed", STAMP) for n, text in enumerate(short)])
    made.fill("orders", [(f"S{n}", 1, text, STAMP) for n, text in enumerate(texts) if text is not None])
    made.fill("orders", [(f"T{n}", 1, "adjusted", moment) for n, moment in enumerate(MOMENTS)])
    lines = [
        (f"Q{n}", line, pick(short, n), quantity, number)
        for n, (quantity, number) in enumerate((quantity, number) for quantity in INTEGERS for number in NUMBERS)
        for line in INTEGERS
    ]
    made.fill("order_items", lines)
    made.extract(DATE)
    made.ecomm("dlt-trigger", "--date", DATE)
    yield made
    sandbox.reset()


def by_key(table: str, rows: Any) -> dict[tuple[str, ...], tuple[str | None, ...]]:
    """Give rows, which begin with the key, by it; no key twice."""
    size = len(KEYS[table])
    found = {tuple(row[:size]): tuple(row) for row in rows}
    assert len(found) == len(list(rows))
    return found


@pytest.mark.parametrize("table", KEYS)
def test_bronze_holds_every_value_as_postgres_writes_it(shop: OddShop, table: str) -> None:
    held = by_key(table, shop.held(table))
    bronze = by_key(table, shop.sandbox.query(f"SELECT {', '.join(names_of(table))} FROM bronze.{table}"))
    assert bronze.keys() == held.keys()
    different = {key: (bronze[key], held[key]) for key in held if bronze[key] != held[key]}
    assert not different, str(list(different.items())[:2])[:2000]
    assert shop.sandbox.query(f"SELECT count(_rescued_data) AS n FROM bronze.{table}") == [["0"]]


def value_of(kind: type, text: str | None) -> Any:
    """Read what Postgres or the warehouse writes as a value of its kind."""
    if text is None or kind is str:
        return text
    if kind is datetime:
        moment = datetime.fromisoformat(text)
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return kind(text)


@pytest.mark.parametrize("table", KEYS)
def test_every_row_is_in_silver_with_the_same_value_or_in_quarantine_with_a_reason(shop: OddShop, table: str) -> None:
    held = by_key(table, shop.held(table))
    names = names_of(table)
    kinds = [*COLUMNS[table].values(), datetime, datetime]
    silver = by_key(table, shop.sandbox.query(f"SELECT {', '.join(names)} FROM silver.{SILVER[table]}"))
    refused: dict[tuple[str, ...], str] = {}
    for row, reason in shop.sandbox.query(f"SELECT row, reason FROM silver.quarantine WHERE table_name = '{table}'"):
        values = json.loads(row)
        key = tuple(values[name] for name in KEYS[table])
        assert tuple(values[name] for name in names) == held[key]
        assert reason
        refused[key] = reason
    assert not silver.keys() & refused.keys()
    assert silver.keys() | refused.keys() == held.keys()
    for key, row in silver.items():
        found = [value_of(kind, text) for kind, text in zip(kinds, row, strict=True)]
        assert found == [value_of(kind, text) for kind, text in zip(kinds, held[key], strict=True)]
    expected = expected_refusals(table, held)
    assert refused.keys() == expected


def expected_refusals(table: str, held: dict[tuple[str, ...], tuple[str | None, ...]]) -> set[tuple[str, ...]]:
    """Tell, from docs/data-contract.md alone, which rows fit no type of Silver."""

    def fits(row: dict[str, str | None]) -> bool:
        price = row.get("unit_price")
        moment = row.get("ordered_at")
        if price == "NaN" or moment in {"infinity", "-infinity"}:
            return False
        if moment and (moment.endswith("BC") or moment[4] != "-"):
            return False
        if moment and not "0001-01-02" <= moment < "9999-12-31":
            return False
        amount = Decimal(row["quantity"] or 0) * Decimal(price or 0) if "quantity" in row else Decimal(0)
        return abs(amount) < 10**14

    return {key for key, row in held.items() if not fits(dict(zip(names_of(table), row, strict=True)))}


def test_the_reconciler_agrees(shop: Shop) -> None:
    shop.ecomm("reconciler", "--date", DATE, "--through", "gold")
    record = shop.record("reconciler-gold", DATE)
    assert record["figures"]["balanced"]
    assert {finding["kind"] for finding in record["findings"]} == {"rows_quarantined"}
