"""Imported from the pipeline's root, as a package beside its transformations."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyspark.sql import functions as F  # noqa: N812

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


def typed(rows: DataFrame) -> DataFrame:
    """Text as values."""
    return rows.select(
        F.col("id").try_cast("bigint").alias("id"),
        "name",
        F.col("version").try_cast("int").alias("version"),
        (F.col("deleted") == "true").alias("gone"),
        "_rescued_data",
    )
