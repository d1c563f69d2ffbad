"""Where the pipeline's code is, and rows for it to work on."""

from __future__ import annotations

import datetime as dt
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import pytest

SOURCE = Path(__file__).resolve().parents[3] / "dlt" / "src"
sys.path.insert(0, str(SOURCE))  # as Databricks does with a pipeline's root_path

from lakehouse import contract, schemas  # noqa: E402  # found through the line above

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pyspark.sql import DataFrame, SparkSession

GOOD: dict[str, dict[str, str | None]] = {
    "customers": {"customer_id": "17850", "email": "a@b.example", "country": "France"},
    "products": {"product_id": "85123A", "description": "T-LIGHT", "unit_price": "2.5500"},
    "orders": {
        "order_id": "536365",
        "customer_id": "17850",
        "status": "completed",
        "ordered_at": "2011-03-01 08:26:00+00",
    },
    "order_items": {
        "order_id": "536365",
        "line_number": "1",
        "product_id": "85123A",
        "quantity": "6",
        "unit_price": "2.5500",
    },
}
TIMES = {"created_at": "2011-03-01 08:26:00+00", "updated_at": "2011-03-01 08:26:00.123456+00"}
ORIGIN = {
    "_rescued_data": None,
    "_source_file": "s3://b/orders/date=2011-03-01/run=r1/part-00000.csv.gz",
    "_run_id": "r1",
    "_date": dt.date(2011, 3, 1),
    "_loaded_at": dt.datetime(2011, 3, 2, tzinfo=dt.UTC),
}


class BronzeFrame(Protocol):
    """Makes a Bronze DataFrame of a table: one row a change, over a row that is good in every column."""

    def __call__(self, table: str, changes: Iterable[dict[str, object]]) -> DataFrame: ...


@pytest.fixture(scope="session")
def bronze_frame(spark: SparkSession) -> BronzeFrame:
    def frame(table: str, changes: Iterable[dict[str, object]]) -> DataFrame:
        rows = [{**GOOD[table], **TIMES, **ORIGIN, **change} for change in changes]
        schema = schemas.struct(contract.bronze_columns(contract.TABLES[table]))
        return spark.createDataFrame([tuple(row[name] for name in schema.names) for row in rows], schema)

    return frame
