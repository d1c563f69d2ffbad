"""Declared before what it reads: order comes from reads, not from files."""

from pyspark import pipelines as dp
from pyspark.sql import functions as F  # noqa: N812


@dp.materialized_view(name="gold.names", comment="Things by name; it's one row a name.")
@dp.expect("has_things", "things > 0")
def names():
    """Batch over the AUTO CDC target and a second materialized view."""
    counted = spark.read.table("gold.counted")
    return counted.groupBy("name").agg(F.sum("n").alias("things"))


@dp.materialized_view(name="gold.counted")
def counted():
    """SQL is understood as well, qualified or not."""
    return spark.sql("SELECT id, name, CAST(1 AS BIGINT) AS n FROM ecomm.silver.things")
