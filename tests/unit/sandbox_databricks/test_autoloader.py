"""Staging: each path is read once, whatever happens in between."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING

import pyarrow.parquet as pq
import pytest
from pyspark.sql.types import IntegerType, StringType, StructField, StructType

from ecomm_sandbox.databricks.config import Config
from ecomm_sandbox.databricks.errors import SandboxError
from ecomm_sandbox.databricks.pipelines import autoloader
from ecomm_sandbox.databricks.pipelines.landing import Landing

if TYPE_CHECKING:
    from pathlib import Path

SCHEMA = StructType([StructField("a", StringType())])
OPTIONS = {"cloudFiles.format": "csv", "header": "true", "nullValue": "\0", "pathGlobFilter": "part-*.csv*"}


@pytest.fixture
def landing(tmp_path: Path) -> Landing:
    return Landing(Config(home=tmp_path, port=0, token="t"))


def put(folder: Path, name: str, *values: str) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    content = "".join(f"{value}\n" for value in ("a", *values)).encode()
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)


def source(landing: Landing, tmp_path: Path, url: str | None = None, **options: str) -> autoloader.Source:
    where = url or str(tmp_path / "in")
    return autoloader.source(landing, tmp_path / "stages", where, SCHEMA, {**OPTIONS, **options})


def staged(tmp_path: Path) -> list[str]:
    files = sorted((tmp_path / "stages").glob("*.parquet"))
    return [value for file in files for value in pq.read_table(file)["a"].to_pylist()]


def test_each_file_is_read_once(landing: Landing, tmp_path: Path) -> None:
    put(tmp_path / "in", "date=2026-01-01/part-00000.csv.gz", "1", "2")
    assert autoloader.stage(source(landing, tmp_path)) == 2
    put(tmp_path / "in", "date=2026-01-02/part-00000.csv", "3")
    assert autoloader.stage(source(landing, tmp_path)) == 1
    assert autoloader.stage(source(landing, tmp_path)) == 0
    assert staged(tmp_path) == ["1", "2", "3"]


def test_a_path_written_again_is_not_read_again(landing: Landing, tmp_path: Path) -> None:
    put(tmp_path / "in", "part-00000.csv", "1")
    autoloader.stage(source(landing, tmp_path))
    put(tmp_path / "in", "part-00000.csv", "changed")
    assert autoloader.stage(source(landing, tmp_path)) == 0


def test_a_stage_without_its_manifest_is_what_a_kill_left(landing: Landing, tmp_path: Path) -> None:
    put(tmp_path / "in", "part-00000.csv", "1")
    autoloader.stage(source(landing, tmp_path))
    (tmp_path / "stages" / "00000000.json").unlink()
    (tmp_path / "stages" / "00000001.tmp").write_bytes(b"half a file")
    assert autoloader.stage(source(landing, tmp_path)) == 1
    assert staged(tmp_path) == ["1"]
    assert not list((tmp_path / "stages").glob("*.tmp"))


def test_consumed_stages_keep_their_manifests(landing: Landing, tmp_path: Path) -> None:
    put(tmp_path / "in", "part-00000.csv", "1")
    autoloader.stage(source(landing, tmp_path))
    autoloader.consumed(tmp_path / "stages")
    assert staged(tmp_path) == []
    assert autoloader.stage(source(landing, tmp_path)) == 0


def test_hidden_files_and_those_the_glob_excludes_are_left_out(landing: Landing, tmp_path: Path) -> None:
    for name in ("_manifest.json", ".part-1.csv", "_temporary/part-2.csv", "other.csv", "date=1/part-3.csv"):
        put(tmp_path / "in", name, name)
    autoloader.stage(source(landing, tmp_path))
    assert staged(tmp_path) == ["date=1/part-3.csv"]


def test_a_glob_in_the_path_chooses_folders(landing: Landing, tmp_path: Path) -> None:
    put(tmp_path / "in", "x/date=1/part-1.csv", "1")
    put(tmp_path / "in", "y/date=1/part-1.csv", "2")
    autoloader.stage(source(landing, tmp_path, url=f"{tmp_path}/in/*/date=1"))
    assert staged(tmp_path) == ["1", "2"]
    other = autoloader.source(landing, tmp_path / "other", f"{tmp_path}/in/y*/date=*", SCHEMA, OPTIONS)
    assert autoloader.stage(other) == 1


def test_the_metadata_name_the_file(landing: Landing, tmp_path: Path) -> None:
    put(tmp_path / "in", "part-00000.csv", "1")
    autoloader.stage(source(landing, tmp_path))
    about = pq.read_table(tmp_path / "stages" / "00000000.parquet")["_metadata"].to_pylist()[0]
    assert about["file_path"] == f"file://{tmp_path}/in/part-00000.csv"
    assert about["file_name"] == "part-00000.csv"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cloudFiles.format": "json"}, "cloudFiles.format"),
        ({"cloudFiles.schemaEvolutionMode": "addNewColumns"}, "schemaEvolutionMode"),
        ({"nullValue": ""}, "nullvalue"),
    ],
)
def test_an_option_that_would_be_read_wrongly_is_refused(
    landing: Landing, tmp_path: Path, options: dict[str, str], message: str
) -> None:
    with pytest.raises(SandboxError, match=f"(?i){message}"):
        source(landing, tmp_path, **options)


def test_a_typed_column_is_refused(landing: Landing, tmp_path: Path) -> None:
    typed = StructType([StructField("n", IntegerType())])
    with pytest.raises(SandboxError, match="column n must be a string"):
        autoloader.source(landing, tmp_path / "stages", str(tmp_path), typed, OPTIONS)
