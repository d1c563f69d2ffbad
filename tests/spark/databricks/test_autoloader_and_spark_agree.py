"""The sandbox's Auto Loader reads what Spark's own CSV reader reads, with the very options of the pipeline.

Databricks' Auto Loader parses with that reader, so this is the evidence that both read Postgres' CSV alike.
"""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import TYPE_CHECKING

from ecomm_sandbox.databricks.config import Config
from ecomm_sandbox.databricks.pipelines import autoloader
from ecomm_sandbox.databricks.pipelines.landing import Landing
from lakehouse import bronze

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

ROOT = Path(__file__).resolve().parents[3]
ROWS: list[tuple[str | None, ...]] = [
    ("1", None, ""),
    ("2", "", None),
    ("3", 'say "hi"', ","),
    ("4", "two\nlines", "cr\rlf\r\nend"),
    ("5", "back\\slash \\n \\", "\\."),
    ("6", " spaces ", "\ttab\t"),
    ("7", "é ü 漢字 \U0001f600", "\u00a0"),
    ("8", '"', '""'),
    ("9", "NULL", "null"),
    ("10", "#comment?", "'single'"),
    ("11", "x" * 100_000, "-"),
    ("12", "\\N", "0"),
]


def as_postgres_writes(value: str | None) -> str:
    """A field of COPY … (FORMAT csv), as Postgres decides about quotes."""
    if value is None:
        return ""
    plain = value not in ("", r"\.") and not any(c in value for c in ',"\r\n') and value.strip(" \t") == value
    return value if plain else '"' + value.replace('"', '""') + '"'


def test_every_value_is_read_alike(spark: SparkSession, tmp_path: Path) -> None:
    csv_options = {**bronze.CSV_OPTIONS, **bronze.AUTO_LOADER_OPTIONS}
    folder = tmp_path / "date=2026-01-01"
    folder.mkdir()
    lines = ["id,a,b", *(",".join(map(as_postgres_writes, row)) for row in ROWS)]
    (folder / "part-00000.csv.gz").write_bytes(gzip.compress(("\n".join(lines) + "\n").encode()))
    schema = "id STRING, a STRING, b STRING"
    plain = {k: v for k, v in csv_options.items() if not k.startswith("cloudFiles.") and k != "rescuedDataColumn"}
    by_spark = spark.read.options(**plain).schema(schema).csv(str(tmp_path), pathGlobFilter="part-*.csv*")
    expected = {row.id: (row.a, row.b) for row in by_spark.select("id", "a", "b").collect()}

    wanted = autoloader.source(
        Landing(Config(home=tmp_path, port=0, token="t")), tmp_path / "stages", str(tmp_path),
        by_spark.select("id", "a", "b").schema, csv_options,
    )  # fmt: skip
    assert autoloader.stage(wanted) == len(ROWS)
    staged = spark.read.parquet(str(tmp_path / "stages" / "*.parquet"))
    found = {row.id: (row.a, row.b) for row in staged.collect()}

    assert found == expected
    assert found == {str(row[0]): row[1:] for row in ROWS}
    assert [row[0] for row in staged.select(csv_options["rescuedDataColumn"]).distinct().collect()] == [None]
