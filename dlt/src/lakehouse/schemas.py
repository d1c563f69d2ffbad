"""The contract's columns as Spark schemas, with their comments."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyspark.sql import types as t

from lakehouse import contract

if TYPE_CHECKING:
    from collections.abc import Iterable

_TYPES: dict[str, t.DataType] = {
    contract.TEXT: t.StringType(),
    contract.INT: t.IntegerType(),
    contract.BIGINT: t.LongType(),
    contract.PRICE: t.DecimalType(12, 4),
    contract.MONEY: t.DecimalType(18, 4),
    contract.TIMESTAMP: t.TimestampType(),
    contract.DATE: t.DateType(),
}


def struct(columns: Iterable[contract.Column]) -> t.StructType:
    """The columns as a StructType whose fields carry the comments that catalogs show."""
    return t.StructType(
        [t.StructField(c.name, _TYPES[c.type], nullable=True, metadata={"comment": c.comment}) for c in columns]
    )


def raw(table: contract.Table) -> t.StructType:
    """The schema that a table's CSV files are read with: every column text, so that no reader changes a value."""
    return t.StructType([t.StructField(name, t.StringType()) for name in table.names])
