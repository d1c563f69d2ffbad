"""The data contract in prose (`docs/data-contract.md`) is the contract that the code enforces."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lakehouse import contract

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "data-contract.md").read_text()


def sections() -> dict[str, str]:
    """The page's sections by heading."""
    parts = re.split(r"^#{2,3} (.+)$", PAGE, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def described(section: str) -> list[list[str]]:
    """The columns that a section's first table describes: the cells of each row."""
    rows = re.findall(r"^\| (`\w+` \|.*) \|$", section, flags=re.MULTILINE)
    return [[cell.strip(" `") for cell in row.split("|")] for row in rows]


@pytest.mark.parametrize("table", contract.TABLES.values(), ids=lambda table: table.name)
def test_a_silver_table_is_described_as_it_is(table):
    keys = ", ".join(f"`{name}`" for name in table.key)
    common = described(sections()["Every Silver table also has"])
    own = described(sections()[f"{table.name} → `silver.{table.silver}`: {table.grain}; key {keys}"])
    assert own + common == [
        [column.name, column.type, "yes" if column.required else "", column.comment]
        for column in contract.silver_columns(table)
    ]


@pytest.mark.parametrize(
    ("heading", "columns"),
    [
        ("Bronze", contract.bronze_columns(contract.TABLES["orders"])[len(contract.TABLES["orders"].columns) :]),
        ("`silver.quarantine`", contract.QUARANTINE),
        ("`gold.sales_analytics`: one row a row of `silver.fact_orders`", contract.SALES_ANALYTICS),
        (
            "`gold.agg_daily_sales`: one row a business day that has an order, of whatever status",
            contract.AGG_DAILY_SALES,
        ),
    ],
)
def test_a_table_is_described_as_it_is(heading, columns):
    assert described(sections()[heading]) == [[column.name, column.type, column.comment] for column in columns]
