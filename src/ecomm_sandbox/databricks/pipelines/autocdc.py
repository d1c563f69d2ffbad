"""AUTO CDC, SCD type 1: one MERGE a batch into a table that keeps each row's sequence and its deletion beside it.

The target that others read is a view over that table, without the two columns and the deleted rows; Databricks
stores its AUTO CDC targets in the same way. A row only gives way to one with a larger sequence, so a batch that is
applied twice, or out of order, changes nothing.
https://docs.databricks.com/ldp/cdc
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from delta.tables import DeltaTable
from pyspark.sql import Window
from pyspark.sql import functions as F  # noqa: N812 - its usual name

from ecomm_sandbox.databricks import sqltext

if TYPE_CHECKING:
    from pathlib import Path

    from pyspark.sql import Column, DataFrame

    from ecomm_sandbox.databricks.pipelines.graph import CdcFlow

SEQUENCE = "__sequence"
DELETED = "__deleted"
_RANK = "__rank"


def target_columns(source: list[str], flow: CdcFlow) -> list[str]:
    """The target's columns: those of the source that the flow's lists leave."""
    dropped = {name.lower() for name in flow.except_column_list}
    if flow.column_list is not None:
        return list(flow.column_list)
    return [name for name in source if name.lower() not in dropped]


def changes(rows: DataFrame, flow: CdcFlow) -> DataFrame:
    """The newest row of each key in a batch, with its sequence and whether it is a deletion."""
    columns = target_columns(rows.columns, flow)
    delete = F.lit(False) if flow.apply_as_deletes is None else _column(flow.apply_as_deletes)  # noqa: FBT003 - a literal
    marked = rows.select(
        *(F.col(sqltext.quote_name(name)) for name in columns),
        _column(flow.sequence_by).alias(SEQUENCE),
        F.coalesce(delete, F.lit(False)).alias(DELETED),  # noqa: FBT003 - as above
    )
    newest = Window.partitionBy(*map(sqltext.quote_name, flow.keys)).orderBy(F.desc(SEQUENCE))
    return marked.withColumn(_RANK, F.row_number().over(newest)).where(F.col(_RANK) == 1).drop(_RANK)


def merge(rows: DataFrame, path: Path, flow: CdcFlow, *, empty: bool) -> dict[str, int]:
    """Apply a batch (as `changes` gives it) to the table at `path`; returns rows upserted and deleted.

    `empty` says that the table has no rows yet: then the batch is appended, which is quicker.
    """
    if empty:
        rows.write.format("delta").mode("append").save(str(path))
        return {}
    same = " AND ".join(f"t.{quoted} <=> s.{quoted}" for quoted in map(sqltext.quote_name, flow.keys))
    table = DeltaTable.forPath(rows.sparkSession, str(path))
    newer = f"s.{SEQUENCE} > t.{SEQUENCE}"
    builder = table.alias("t").merge(rows.alias("s"), same)
    if flow.ignore_null_updates:
        quoted = {name: sqltext.quote_name(name) for name in rows.columns}
        sets = {name: F.expr(f"coalesce(s.{column}, t.{column})") for name, column in quoted.items()}
        builder = builder.whenMatchedUpdate(newer, set=sets)
    else:
        builder = builder.whenMatchedUpdateAll(newer)
    done = builder.whenNotMatchedInsertAll().execute()
    counted = done.first() if done is not None else None
    return {} if counted is None else {"num_upserted_rows": int(counted["num_affected_rows"])}


def _column(expression: Column | str) -> Column:
    return F.expr(expression) if isinstance(expression, str) else expression
