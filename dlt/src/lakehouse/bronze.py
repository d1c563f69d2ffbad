"""Bronze: the extracts as they are, every value as the text that Postgres wrote, with where it came from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pyspark.sql import functions as F  # noqa: N812  # its usual name

from lakehouse import contract, schemas

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

CSV_OPTIONS: Final[dict[str, str]] = {
    # COPY … (FORMAT csv, HEADER): quotes are doubled, records end in \n, text may hold any line ending.
    "header": "true",
    "encoding": "UTF-8",
    "quote": '"',
    "escape": '"',
    "multiLine": "true",
    "lineSep": "\n",
    # NULL is an unquoted empty field, the empty string is "". The reader gives an unquoted empty field the text of
    # nullValue and then turns that text into NULL wherever it stands: NUL is the one text that Postgres cannot hold.
    "nullValue": "\u0000",
    "emptyValue": "",
    "ignoreLeadingWhiteSpace": "false",
    "ignoreTrailingWhiteSpace": "false",
    "maxCharsPerColumn": "-1",
    "mode": "PERMISSIVE",
}
"""How Postgres' CSV is read without changing a value: https://spark.apache.org/docs/latest/sql-data-sources-csv.html"""

AUTO_LOADER_OPTIONS: Final[dict[str, str]] = {
    "cloudFiles.format": "csv",
    "cloudFiles.schemaEvolutionMode": "rescue",
    "cloudFiles.partitionColumns": "",  # date= and run= come from the path itself, below
    "rescuedDataColumn": contract.RESCUED.name,
    "pathGlobFilter": "part-*.csv*",  # not the manifests
}
"""https://docs.databricks.com/ingestion/cloud-object-storage/auto-loader/options.html"""

PATH: Final = r"/date=(\d{4}-\d{2}-\d{2})/run=([^/]+)/part-[^/]+$"

TABLE_PROPERTIES: Final[dict[str, str]] = {
    "quality": "bronze",
    # A full refresh would keep only what S3 still holds.
    "pipelines.reset.allowed": "false",
}

EXPECTATIONS: Final[dict[str, str]] = {
    "no_rescued_data": f"{contract.RESCUED.name} IS NULL",
    "known_path": f"{contract.BUSINESS_DATE.name} IS NOT NULL AND {contract.RUN_ID.name} IS NOT NULL",
}
"""Counted, never dropped: Bronze keeps every row."""


def extracts(spark: SparkSession, landing: str, table: contract.Table) -> DataFrame:
    """A stream of a table's CSV files under `landing`: its columns as text, and `_rescued_data`."""
    return (
        spark.readStream.format("cloudFiles")
        .options(**CSV_OPTIONS)
        .options(**AUTO_LOADER_OPTIONS)
        .schema(schemas.raw(table))
        .load(f"{landing}/{table.name}")
    )


def with_origin(raw: DataFrame, table: contract.Table) -> DataFrame:
    """The rows of a table's files (columns as text, `_rescued_data`, `_metadata`) with the file, run and date.

    Grain: one row a row of a file. `_date` and `_run_id` are NULL where the path does not follow the layout.
    """
    path = F.col("_metadata.file_path")
    return raw.select(
        *table.names,
        contract.RESCUED.name,
        path.alias(contract.SOURCE_FILE.name),
        F.nullif(F.regexp_extract(path, PATH, 2), F.lit("")).alias(contract.RUN_ID.name),
        F.regexp_extract(path, PATH, 1).try_cast("date").alias(contract.BUSINESS_DATE.name),
        F.current_timestamp().alias(contract.LOADED_AT.name),
    )
