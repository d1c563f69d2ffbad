"""Auto Loader: `spark.readStream.format("cloudFiles")` for CSV with a schema of text columns, in rescue mode.

New files are read here, in the driver, into one Parquet file an update, which Spark's own file stream then reads
with its checkpoint: no Python worker, one small task instead of a thousand. A stage is complete when its manifest is
there, and a path that a manifest names is never read again; a Parquet file without one is what a kill left.
https://docs.databricks.com/ingestion/cloud-object-storage/auto-loader/options
"""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql.types import (
    LongType,
    StringType,
    StructField,
    StructType,
    TimestampType,
)

from ecomm_sandbox.databricks.errors import SandboxError
from ecomm_sandbox.databricks.pipelines import csvfile

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from pyspark.sql import DataFrame, SparkSession

    from ecomm_sandbox.databricks.pipelines.landing import File, Landing

READERS = 8
ROW_GROUP_BYTES = 32 << 20

METADATA = "_metadata"
METADATA_TYPE = StructType(
    [
        StructField("file_path", StringType()),
        StructField("file_name", StringType()),
        StructField("file_size", LongType()),
        StructField("file_block_start", LongType()),
        StructField("file_block_length", LongType()),
        StructField("file_modification_time", TimestampType()),
    ]
)
_ARROW_METADATA = pa.struct(
    [
        ("file_path", pa.string()),
        ("file_name", pa.string()),
        ("file_size", pa.int64()),
        ("file_block_start", pa.int64()),
        ("file_block_length", pa.int64()),
        ("file_modification_time", pa.timestamp("us", tz="UTC")),
    ]
)

# Option values that the reader honours as they stand; another value would be read wrongly, so it is refused.
FIXED = {
    "cloudfiles.format": "csv",
    "cloudfiles.schemaevolutionmode": "rescue",
    "cloudfiles.partitioncolumns": "",
    "header": "true",
    "quote": '"',
    "escape": '"',
    "nullvalue": "\u0000",
    "emptyvalue": "",
    "mode": "PERMISSIVE",
}
REQUIRED = ("cloudfiles.format", "header", "nullvalue")


@dataclass(frozen=True, slots=True)
class Source:
    """One `cloudFiles` source of one flow."""

    landing: Landing
    folder: Path
    url: str
    schema: StructType
    rescued: str | None
    name_glob: str | None

    @property
    def columns(self) -> list[str]:
        """The text columns, without the rescued one."""
        return [field.name for field in self.schema.fields if field.name != self.rescued]


def source(landing: Landing, folder: Path, url: str, schema: StructType | None, options: dict[str, str]) -> Source:
    """A source from a reader's options; a `SandboxError` names what is missing or not known here."""
    given = {key.lower(): value for key, value in options.items()}
    if schema is None:
        message = f"cloudFiles over {url}: the sandbox needs .schema(…) (schema inference is not built)"
        raise SandboxError(message)
    for field in schema.fields:
        if not isinstance(field.dataType, StringType):
            message = f"cloudFiles over {url}: column {field.name} must be a string in the sandbox; cast it afterwards"
            raise SandboxError(message)
    for name in REQUIRED:
        if name not in given:
            message = f"cloudFiles over {url}: option {name} must be {FIXED[name]!r} in the sandbox"
            raise SandboxError(message)
    for name, value in given.items():
        if name in FIXED and value.lower() != FIXED[name].lower():
            message = f"cloudFiles over {url}: option {name}={value!r}; the sandbox knows {FIXED[name]!r} only"
            raise SandboxError(message)
    rescued = given.get("rescueddatacolumn", given.get("cloudfiles.rescueddatacolumn", "_rescued_data"))
    return Source(landing, folder, url.rstrip("/"), schema, rescued, given.get("pathglobfilter"))


def stream(session: SparkSession, wanted: Source) -> DataFrame:
    """A stream of the rows that `stage` has read: the schema's columns, the rescued one, and `_metadata`."""
    fields = [StructField(name, StringType()) for name in wanted.columns]
    if wanted.rescued is not None:
        fields.append(StructField(wanted.rescued, StringType()))
    fields.append(StructField(METADATA, METADATA_TYPE))
    reader = session.readStream.format("parquet").schema(StructType(fields)).option("pathGlobFilter", "*.parquet")
    return reader.load(wanted.folder.as_uri())


def stage(wanted: Source) -> int:
    """Read the files that no manifest names into the next stage; returns how many rows they hold."""
    wanted.folder.mkdir(parents=True, exist_ok=True)
    seen, number = _recover(wanted.folder)
    new = [file for file in wanted.landing.files(wanted.url, wanted.name_glob) if file.url not in seen]
    if not new:
        return 0
    name = f"{number:08d}"
    rows = _write(wanted.folder / f"{name}.parquet", _tables(wanted, new), _schema(wanted))
    _publish(wanted.folder / f"{name}.json", {"rows": rows, "files": [file.url for file in new]})
    return rows


def consumed(folder: Path) -> None:
    """Drop the rows of stages that a stream has read to its end; the manifests stay."""
    for data in folder.glob("*.parquet"):
        if data.with_suffix(".json").exists():
            data.unlink()


def _recover(folder: Path) -> tuple[set[str], int]:
    """The paths already read, and the next stage's number; removes what a kill left."""
    seen: set[str] = set()
    numbers = [-1]
    for manifest in folder.glob("*.json"):
        numbers.append(int(manifest.stem))
        seen.update(json.loads(manifest.read_text(encoding="utf-8"))["files"])
    for data in [*folder.glob("*.parquet"), *folder.glob("*.tmp")]:
        if not data.with_suffix(".json").exists():
            data.unlink()
    return seen, max(numbers) + 1


def _schema(wanted: Source) -> pa.Schema:
    names = [*wanted.columns, *([wanted.rescued] if wanted.rescued is not None else [])]
    return pa.schema([*((name, pa.string()) for name in names), (METADATA, _ARROW_METADATA)])


def _tables(wanted: Source, files: Sequence[File]) -> Iterator[pa.Table]:
    """Each file's rows, in the files' order, read some at a time."""
    with ThreadPoolExecutor(READERS, thread_name_prefix="autoloader") as pool:
        for start in range(0, len(files), READERS * 4):
            yield from pool.map(lambda file: _table(wanted, file), files[start : start + READERS * 4])


def _table(wanted: Source, file: File) -> pa.Table:
    name = file.key.rsplit("/", 1)[-1]
    try:
        content = csvfile.decompress(name, wanted.landing.read(wanted.url, file))
    except (OSError, EOFError) as error:
        message = f"[FAILED_READ_FILE] cannot read {file.url}: {error}"
        raise SandboxError(message) from error
    table = csvfile.parse(content, wanted.columns, path=file.url, rescued=wanted.rescued)
    about = {
        "file_path": file.url,
        "file_name": name,
        "file_size": file.size,
        "file_block_start": 0,
        "file_block_length": file.size,
        "file_modification_time": file.modified,
    }
    column = pa.repeat(pa.scalar(about, _ARROW_METADATA), table.num_rows)
    return table.append_column(METADATA, column)


def _write(path: Path, tables: Iterator[pa.Table], schema: pa.Schema) -> int:
    """One Parquet file of all the tables, in row groups of some megabytes, there only when whole; gives its rows."""
    partial = path.with_suffix(".tmp")
    waiting: list[pa.Table] = []
    rows = 0
    with pq.ParquetWriter(partial, schema, compression="snappy", store_schema=False) as out:
        for table in tables:
            waiting.append(table)
            rows += table.num_rows
            if sum(part.nbytes for part in waiting) >= ROW_GROUP_BYTES:
                out.write_table(pa.concat_tables(waiting).cast(schema))
                waiting.clear()
        if waiting:
            out.write_table(pa.concat_tables(waiting).cast(schema))
    partial.replace(path)
    return rows


def _publish(path: Path, manifest: dict[str, Any]) -> None:
    partial = path.with_suffix(".part")
    with partial.open("w", encoding="utf-8") as out:
        json.dump(manifest, out)
        out.flush()
        os.fsync(out.fileno())
    partial.replace(path)


__all__ = ["METADATA", "Source", "consumed", "source", "stage", "stream"]
