"""Bronze by Auto Loader, Silver by AUTO CDC, what Silver drops beside it."""

import dlt
from pyspark import pipelines as dp
from pyspark.sql import SparkSession
from pyspark.sql import functions as F  # noqa: N812
from tinylib import typed

landing = SparkSession.getActiveSession().conf.get("tiny.landing")
OPTIONS = {
    "cloudFiles.format": "csv",
    "cloudFiles.schemaEvolutionMode": "rescue",
    "header": "true",
    "multiLine": "true",
    "quote": '"',
    "escape": '"',
    "nullValue": "\u0000",
    "emptyValue": "",
}


@dp.table(
    name="bronze.things",
    schema="id STRING COMMENT 'as it came', name STRING, version STRING, deleted STRING,"
    " _rescued_data STRING, file STRING",
)
@dp.expect("nothing_rescued", "_rescued_data IS NULL")
def things():
    """Every row as text."""
    rows = (
        spark.readStream.format("cloudFiles")
        .options(**OPTIONS)
        .schema("id STRING, name STRING, version STRING, deleted STRING")
        .load(f"{landing}/things")
    )
    return rows.select("*", F.col("_metadata.file_name").alias("file"))


@dp.temporary_view
@dp.expect_or_drop("id_is_a_number", "id IS NOT NULL")
@dp.expect_or_fail("version_is_positive", "version > 0 OR version IS NULL")
def typed_things():
    """With expectations of a view."""
    return typed(dlt.read_stream("bronze.things"))


dp.create_streaming_table("silver.things", comment="The newest version of each thing.")
dp.create_auto_cdc_flow(
    target="silver.things",
    source="typed_things",
    keys=["id"],
    sequence_by=F.struct("version", "name"),
    apply_as_deletes="gone",
    except_column_list=["gone", "_rescued_data"],
    stored_as_scd_type=1,
)

dp.create_streaming_table("silver.refused")


@dp.append_flow(target="silver.refused", name="no_number")
def no_number():
    """What the view drops."""
    rows = spark.readStream.table("bronze.things")
    return rows.where("try_cast(id AS BIGINT) IS NULL").select("id", F.lit("no number").alias("reason"))


@dp.append_flow(target="silver.refused", name="odd")
def odd():
    """A second flow into the same table."""
    rows = spark.readStream.table("bronze.things")
    return rows.where("_rescued_data IS NOT NULL").select("id", F.lit("odd").alias("reason"))
