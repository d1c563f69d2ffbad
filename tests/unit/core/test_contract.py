"""The contract of the source tables is written twice, for two runtimes: the two must agree."""

from __future__ import annotations

import pytest

from ecomm_pipeline import contract
from ecomm_pipeline.settings import DEFAULT_TABLES
from lakehouse import contract as lakehouse

SPARK_TYPES = {
    "text": "string",
    "bigint": "bigint",
    "integer": "int",
    "numeric(12,4)": "decimal(12,4)",
    "timestamp with time zone": "timestamp",
}


def test_pipeline_and_lakehouse_know_the_same_tables():
    assert set(contract.CONTRACT) == {table.name for table in lakehouse.TABLES.values()} == set(DEFAULT_TABLES)


@pytest.mark.parametrize("table", lakehouse.TABLES.values(), ids=lambda table: table.name)
def test_a_table_has_the_same_keys_columns_and_types_in_both(table):
    source = contract.CONTRACT[table.name]
    assert tuple(table.key) == source.key
    assert {column.name: column.type for column in table.columns} == {
        name: SPARK_TYPES[kind] for name, kind in source.columns.items()
    }


def test_a_difference_is_a_sentence_that_names_table_and_column():
    columns = {**contract.CONTRACT["orders"].columns, "note": "text", "status": "integer"}
    del columns["ordered_at"]
    assert contract.differences("orders", columns) == [
        "orders.ordered_at is gone",
        "orders.note is new (text)",
        "orders.status was text and is integer",
    ]
    assert contract.differences("events", {"x": "text"}) == []
