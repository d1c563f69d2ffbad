"""The stored datasets of a pipeline: created with their schema and comments, reset, and shown to others."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

from pyspark.sql.types import StructField, StructType

from ecomm_sandbox.databricks import deltalog, infoschema, sqltext
from ecomm_sandbox.databricks.catalog import BACKING_PREFIX
from ecomm_sandbox.databricks.pipelines import autocdc

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from pyspark.sql import DataFrame, SparkSession

    from ecomm_sandbox.databricks.catalog import Catalog
    from ecomm_sandbox.databricks.pipelines.graph import Dataset


class Tables:
    """Creates what a pipeline writes to, in one session."""

    def __init__(self, session: SparkSession, catalog: Catalog) -> None:
        """Tables are managed ones of `catalog`."""
        self.session, self.catalog = session, catalog

    def path(self, dataset: Dataset, *, backing: bool = False) -> Path:
        """The table's folder, or that of the table behind an AUTO CDC target."""
        schema, table = dataset.name
        return self.catalog.folder(schema, BACKING_PREFIX + table if backing else table)

    def ensure(self, dataset: Dataset, rows: DataFrame, kind: str) -> StructType:
        """Create the table unless it exists; returns the schema its rows are written in."""
        wanted = declared(dataset) or _nullable(rows.schema)
        state = deltalog.read(self.path(dataset))
        if state is None:
            self._create(dataset.label, wanted, dataset)
        self._remember(dataset, kind)
        return wanted

    def ensure_target(self, dataset: Dataset, batch: DataFrame) -> None:
        """Create an AUTO CDC target: the table behind it and the view; `batch` is what `autocdc.changes` gives."""
        schema, table = dataset.name
        columns = [field for field in batch.schema if field.name not in (autocdc.SEQUENCE, autocdc.DELETED)]
        wanted = declared(dataset) or _nullable(columns)
        backing = f"{schema}.{BACKING_PREFIX}{table}"
        if deltalog.read(self.path(dataset, backing=True)) is None:
            fields = list(wanted)
            fields.append(StructField(autocdc.SEQUENCE, batch.schema[autocdc.SEQUENCE].dataType))
            fields.append(StructField(autocdc.DELETED, batch.schema[autocdc.DELETED].dataType))
            self._create(backing, StructType(fields), None)
        self._expose(dataset, wanted, backing)
        self._remember(dataset, "STREAMING_TABLE")

    def _expose(self, dataset: Dataset, wanted: StructType, backing: str) -> None:
        names = ", ".join(sqltext.quote_name(field.name) for field in wanted)
        text = f"SELECT {names} FROM {_quoted(backing)} WHERE NOT {autocdc.DELETED}"
        existing = self.catalog.relations(*dataset.name)
        listed = [(field.name, field.metadata.get("comment")) for field in wanted]
        if existing and [(c.name, c.comment) for c in existing[0].state.columns] == listed:
            return
        columns = ", ".join(sqltext.quote_name(name) + _comment(comment) for name, comment in listed)
        self.catalog.ensure_schema(dataset.name[0])
        self.session.sql(
            f"CREATE OR REPLACE VIEW {_quoted(dataset.label)} ({columns}){_comment(dataset.comment)}"
            f"{_properties(dataset.properties)} AS {text}"
        )
        self.catalog.views_changed()

    def _create(self, name: str, schema: StructType, dataset: Dataset | None) -> None:
        self.catalog.ensure_schema(name.split(".", maxsplit=1)[0])
        columns = ", ".join(
            f"{sqltext.quote_name(field.name)} {_sql_type(field)}"
            f"{'' if field.nullable else ' NOT NULL'}{_comment(field.metadata.get('comment'))}"
            for field in schema
        )
        partitions = ", ".join(map(sqltext.quote_name, dataset.partition_by)) if dataset else ""
        self.session.sql(
            f"CREATE TABLE IF NOT EXISTS {_quoted(name)} ({columns}) USING delta"
            f"{f' PARTITIONED BY ({partitions})' if partitions else ''}"
            f"{_comment(dataset.comment) if dataset else ''}{_properties(dataset.properties) if dataset else ''}"
        )

    def _remember(self, dataset: Dataset, kind: str) -> None:
        if self.catalog.kinds.get(dataset.label) != kind:
            self.catalog.kinds[dataset.label] = kind
            self.catalog.save()

    def reset(self, dataset: Dataset, checkpoints: Path) -> bool:
        """Drop the dataset's rows and what its streams have read; False where its properties forbid that."""
        if dataset.properties.get("pipelines.reset.allowed", "true").lower() == "false":
            return False
        schema, table = dataset.name
        if self.path(dataset, backing=True).is_dir():
            self.session.sql(f"DROP VIEW IF EXISTS {_quoted(dataset.label)}")
            self.session.sql(f"DROP TABLE IF EXISTS {_quoted(f'{schema}.{BACKING_PREFIX}{table}')}")
            self.catalog.views_changed()
        else:
            self.session.sql(f"DROP TABLE IF EXISTS {_quoted(dataset.label)}")
        shutil.rmtree(checkpoints, ignore_errors=True)
        return True


def declared(dataset: Dataset) -> StructType | None:
    """The schema that the source gives for a dataset, if it does."""
    if dataset.schema is None:
        return None
    if isinstance(dataset.schema, str):
        return StructType.fromDDL(dataset.schema)
    return dataset.schema


def _nullable(fields: Iterable[StructField]) -> StructType:
    """The fields, each of which may be NULL: a query's own nullability is no promise."""
    return StructType([StructField(f.name, f.dataType, metadata=f.metadata) for f in fields])


def same_columns(path: Path, schema: StructType) -> bool:
    """Whether a table's columns have these names and types."""
    state = deltalog.read(path)
    if state is None:
        return False
    wanted = [(field.name, infoschema.type_text(json.loads(field.json())["type"])) for field in schema]
    return [(column.name, infoschema.type_text(column.json_type)) for column in state.columns] == wanted


def _quoted(name: str) -> str:
    return ".".join(sqltext.quote_name(part) for part in name.split(".") if part)


def _comment(text: str | None) -> str:
    return f" COMMENT {sqltext.quote_string(text)}" if text else ""


# Features that only cost time on a table of some thousand rows, and that no reader of it can tell apart.
_COSTLY = ("delta.enablerowtracking", "delta.enabledeletionvectors", "delta.enablechangedatafeed")


def _properties(properties: dict[str, str]) -> str:
    kept = {key: value for key, value in properties.items() if key.lower() not in _COSTLY}
    listed = ", ".join(f"{sqltext.quote_string(k)} = {sqltext.quote_string(v)}" for k, v in sorted(kept.items()))
    return f" TBLPROPERTIES ({listed})" if listed else ""


def _sql_type(field: StructField) -> str:
    return str(field.dataType.simpleString())
