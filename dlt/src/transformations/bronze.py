"""Bronze: a streaming table a source table, fed by Auto Loader."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyspark import pipelines as dp

from lakehouse import bronze, contract, schemas, settings

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    spark: SparkSession  # a global of every pipeline source

configuration = settings.read(lambda key: spark.conf.get(key, None))


def declare(table: contract.Table) -> None:
    """Declare the Bronze table of a source table."""

    @dp.table(
        name=f"bronze.{table.name}",
        comment=f"The extracts of {table.name}, every value as text; grain: one row a row of a file.",
        schema=schemas.struct(contract.bronze_columns(table)),
        table_properties=bronze.TABLE_PROPERTIES,
        cluster_by=[contract.BUSINESS_DATE.name],
    )
    @dp.expect_all(bronze.EXPECTATIONS)
    def rows() -> DataFrame:
        return bronze.with_origin(bronze.extracts(spark, configuration.landing, table), table)


for source in configuration.tables:
    declare(source)
