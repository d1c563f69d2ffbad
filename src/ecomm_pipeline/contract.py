"""The contract of the source tables: keys, columns and money, as producers and this pipeline agreed on them.

Extraction copies whatever columns a table has, and reports where they differ from these; reconciliation counts by
these keys and sums this money. A table that is not listed here may be extracted too: nothing is checked of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["CONTRACT", "UPDATED_AT", "TableContract", "differences"]

UPDATED_AT: Final = "updated_at"
"""The column, a timestamptz, by which a row belongs to a window; every table has it, and an index on it."""


@dataclass(frozen=True, slots=True)
class TableContract:
    """A source table. Types are written as Postgres' `format_type` writes them.

    `money` is an SQL expression over the table's columns, numeric, that is the money of one row in the shop's
    currency; None where a row has none.
    """

    name: str
    key: tuple[str, ...]
    columns: dict[str, str]
    money: str | None = None


def _table(name: str, key: tuple[str, ...], columns: dict[str, str], money: str | None = None) -> TableContract:
    stamps = {"created_at": "timestamp with time zone", UPDATED_AT: "timestamp with time zone"}
    return TableContract(name, key, {**columns, **stamps}, money)


CONTRACT: Final[dict[str, TableContract]] = {
    table.name: table
    for table in (
        _table(
            "orders",
            ("order_id",),
            {"order_id": "text", "customer_id": "bigint", "status": "text", "ordered_at": "timestamp with time zone"},
        ),
        _table(
            "products",
            ("product_id",),
            {"product_id": "text", "description": "text", "unit_price": "numeric(12,4)"},
            money="unit_price",
        ),
        _table("customers", ("customer_id",), {"customer_id": "bigint", "email": "text", "country": "text"}),
        _table(
            "order_items",
            ("order_id", "line_number"),
            {
                "order_id": "text",
                "line_number": "integer",
                "product_id": "text",
                "quantity": "integer",
                "unit_price": "numeric(12,4)",
            },
            money="quantity * unit_price",
        ),
    )
}


def differences(table: str, columns: dict[str, str]) -> list[str]:
    """Tell how a table's `columns` (name → type) differ from its contract, a sentence each; none for other tables.

    The order of columns is not part of the contract: downstream reads by name.
    """
    contract = CONTRACT.get(table)
    if contract is None:
        return []
    missing = [f"{table}.{name} is gone" for name in contract.columns if name not in columns]
    added = [f"{table}.{name} is new ({kind})" for name, kind in columns.items() if name not in contract.columns]
    changed = [
        f"{table}.{name} was {kind} and is {columns[name]}"
        for name, kind in contract.columns.items()
        if name in columns and columns[name] != kind
    ]
    return missing + added + changed
