"""Silver: the newest version of each key, typed (AUTO CDC), and the rows that were refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyspark import pipelines as dp

from lakehouse import contract, schemas, settings, silver

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    spark: SparkSession  # a global of every pipeline source

configuration = settings.read(lambda key: spark.conf.get(key, None))

dp.create_streaming_table(
    name="silver.quarantine",
    comment="Rows that Silver refused, with the reason; grain: one row a refused row of Bronze; only ever appended to.",
    schema=schemas.struct(contract.QUARANTINE),
    table_properties=silver.QUARANTINE_PROPERTIES,
    cluster_by=["_date"],
)


def declare(table: contract.Table) -> None:
    """Declare the Silver table of a source table, and its flow into the quarantine."""

    @dp.temporary_view(name=f"{table.name}_typed", comment=f"The rows of bronze.{table.name}, typed.")
    @dp.expect_all(silver.warnings(table))
    @dp.expect_all_or_drop(silver.DROPPING)
    def typed() -> DataFrame:
        return silver.accepted(spark.readStream.table(f"bronze.{table.name}"), table)

    dp.create_streaming_table(
        name=f"silver.{table.silver}",
        comment=f"The newest version of each row of {table.name}; grain: {table.grain}; key: {', '.join(table.key)}.",
        schema=schemas.struct(contract.silver_columns(table)),
        table_properties=silver.TABLE_PROPERTIES,
        cluster_by=list(table.key),
    )
    dp.create_auto_cdc_flow(
        target=f"silver.{table.silver}",
        source=f"{table.name}_typed",
        keys=list(table.key),
        sequence_by=silver.version(),
        except_column_list=list(silver.HELPERS),
        stored_as_scd_type=1,
    )

    @dp.append_flow(target="silver.quarantine", name=f"quarantine_{table.name}")
    def refused() -> DataFrame:
        return silver.quarantined(spark.readStream.table(f"bronze.{table.name}"), table)


for source in configuration.tables:
    declare(source)
