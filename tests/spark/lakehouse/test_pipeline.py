"""The pipeline's source files declare what the contract says, and what their functions return fits what they declare.

The files run as they stand, with a `pyspark.pipelines` that only takes notes: what runs them for real is the sandbox.
"""

from __future__ import annotations

import ast
import runpy
import sys
import types
from pathlib import Path
from typing import TYPE_CHECKING

import pyspark
import pytest
from delta.tables import DeltaTable

from lakehouse import bronze, contract, schemas, settings, silver

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyspark.sql import SparkSession

SOURCE = Path(bronze.__file__).parents[1]
FILES = sorted((SOURCE / "transformations").glob("*.py"))
FIRST, LAST = "0001-01-02 00:00:00", "9999-12-30 23:59:59.999999"
CONFIGURATION = {
    settings.LANDING: "s3://bucket/ecomm_db_extracts/daily_extracts",
    settings.BUSINESS_TIMEZONE: "Asia/Ho_Chi_Minh",
    settings.TABLES: "orders,products,customers,order_items",
}


class Notes(types.ModuleType):
    """Takes note of what a pipeline's source declares (https://docs.databricks.com/ldp/developer/python-ref)."""

    def __init__(self) -> None:
        super().__init__("pyspark.pipelines")
        self.datasets: dict[str, dict] = {}
        self.flows: list[dict] = []

    def _dataset(self, kind):
        def declare(*, name, **options):
            def wrap(function):
                assert name not in self.datasets, f"{name} is declared twice"
                rules = getattr(function, "expectations", {})
                self.datasets[name] = {"kind": kind, "function": function, "expectations": rules, **options}
                return function

            return wrap

        return declare

    def __getattr__(self, name):
        if name in {"table", "materialized_view", "temporary_view"}:
            return self._dataset(name)
        raise AttributeError(name)

    def expect_all(self, rules, action="warn"):
        def wrap(function):
            function.expectations = {**getattr(function, "expectations", {}), **dict.fromkeys(rules.items(), action)}
            return function

        return wrap

    def expect_all_or_drop(self, rules):
        return self.expect_all(rules, "drop")

    def create_streaming_table(self, name, **options):
        self._dataset("streaming_table")(name=name, **options)(None)

    def create_auto_cdc_flow(self, **options):
        self.flows.append({"kind": "auto_cdc", **options})

    def append_flow(self, *, target, name):
        def wrap(function):
            self.flows.append({"kind": "append", "target": target, "name": name, "function": function})
            return function

        return wrap


def declared(spark: SparkSession, configuration: dict[str, str]) -> Notes:
    """What the pipeline's files declare under a configuration."""
    notes = Notes()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pyspark, "pipelines", notes, raising=False)
        patch.setitem(sys.modules, "pyspark.pipelines", notes)
        for key, value in configuration.items():
            spark.conf.set(key, value)
        try:
            for file in FILES:
                runpy.run_path(str(file), {"spark": spark})
        finally:
            for key in configuration:
                spark.conf.unset(key)
    return notes


@pytest.fixture(scope="module")
def notes(spark: SparkSession) -> Iterator[Notes]:
    """The declarations, with empty Delta tables behind them."""
    notes = declared(spark, CONFIGURATION)
    for name, dataset in notes.datasets.items():
        if dataset["kind"] != "temporary_view":
            spark.sql(f"CREATE SCHEMA IF NOT EXISTS {name.split('.')[0]}")
            table = DeltaTable.create(spark).tableName(name).addColumns(dataset["schema"])
            table = table.clusterBy(*dataset["cluster_by"])
            for key, value in dataset["table_properties"].items():
                if key.startswith("delta."):
                    table = table.property(key, value)
            table.execute()
    yield notes
    for schema in ("bronze", "silver", "gold"):
        spark.sql(f"DROP SCHEMA {schema} CASCADE")


def test_the_tables_are_those_of_the_architecture(notes):
    assert {name: dataset["kind"] for name, dataset in notes.datasets.items() if "." in name} == {
        **{f"bronze.{name}": "table" for name in contract.TABLES},
        **{f"silver.{table.silver}": "streaming_table" for table in contract.TABLES.values()},
        "silver.quarantine": "streaming_table",
        "gold.sales_analytics": "materialized_view",
        "gold.agg_daily_sales": "materialized_view",
    }


def test_every_table_states_its_grain_and_every_column_its_meaning(notes):
    for name, dataset in notes.datasets.items():
        if "." in name:
            assert "grain: " in dataset["comment"], name
            for column in dataset["schema"]:
                assert column.metadata["comment"].strip(), f"{name}.{column.name}"


def test_bronze_cannot_be_refreshed_in_full(notes):
    for name in contract.TABLES:
        assert notes.datasets[f"bronze.{name}"]["table_properties"]["pipelines.reset.allowed"] == "false"


def test_each_silver_table_is_fed_by_its_typed_view_whose_bad_rows_drop(notes):
    flows = {flow["target"]: flow for flow in notes.flows if flow["kind"] == "auto_cdc"}
    for name, table in contract.TABLES.items():
        flow = flows.pop(f"silver.{table.silver}")
        assert (flow["source"], tuple(flow["keys"]), flow["stored_as_scd_type"]) == (f"{name}_typed", table.key, 1)
        rules = notes.datasets[flow["source"]]["expectations"]
        assert {rule for rule, action in rules.items() if action == "drop"} == set(silver.DROPPING.items())
    assert not flows


def test_rescued_rows_are_counted_once_where_they_arrive(notes):
    counting = {
        name
        for name, dataset in notes.datasets.items()
        if any("_rescued_data" in condition for _, condition in dataset["expectations"])
    }
    assert counting == {f"bronze.{name}" for name in contract.TABLES}


def test_the_quarantine_has_a_flow_from_every_bronze_table(notes):
    flows = {flow["name"] for flow in notes.flows if flow["target"] == "silver.quarantine" and flow["kind"] == "append"}
    assert flows == {f"quarantine_{name}" for name in contract.TABLES}


def test_what_the_functions_return_is_what_the_tables_declare(notes):
    def shape(schema):
        return [(column.name, column.dataType.simpleString()) for column in schema]

    for flow in notes.flows:
        target = shape(notes.datasets[flow["target"]]["schema"])
        if flow["kind"] == "auto_cdc":
            frame = notes.datasets[flow["source"]]["function"]()
            assert frame.isStreaming
            assert shape(frame.drop(*flow["except_column_list"]).schema) == target, flow["target"]
        else:
            assert shape(flow["function"]().schema) == target, flow["name"]
    for name, dataset in notes.datasets.items():
        if dataset["kind"] == "materialized_view":
            assert shape(dataset["function"]().schema) == shape(dataset["schema"]), name


def test_delta_gives_back_the_edges_of_every_type(spark, notes, bronze_frame):
    table = contract.TABLES["order_items"]
    changes = [{"updated_at": f"{at}+00"} for at in (FIRST, LAST, "1582-10-10 00:00:00", "1969-12-31 23:59:59.999999")]
    changes += [{"quantity": "-2147483648"}, {"unit_price": "-99999999.9999"}, {"order_id": ""}, {"product_id": None}]
    typed = silver.accepted(bronze_frame("order_items", changes), table).drop(*silver.HELPERS)
    typed.writeTo("silver.fact_orders").append()
    shown, stored = (
        sorted(row.text for row in frame.drop("processed_at").selectExpr("to_json(struct(*)) AS text").collect())
        for frame in (typed, spark.table("silver.fact_orders"))
    )
    assert stored == shown


def test_the_reader_of_the_extracts_has_the_options_that_the_tests_prove():
    (call,) = (
        node
        for node in ast.walk(ast.parse((SOURCE / "lakehouse" / "bronze.py").read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "load"
    )
    chain = ast.unparse(call)
    assert "format('cloudFiles')" in chain
    assert ".options(**CSV_OPTIONS)" in chain
    assert ".options(**AUTO_LOADER_OPTIONS)" in chain
    assert not set(bronze.CSV_OPTIONS) & set(bronze.AUTO_LOADER_OPTIONS)


@pytest.mark.parametrize("name", contract.TABLES)
def test_the_raw_schema_is_text_only(name):
    assert {column.dataType.simpleString() for column in schemas.raw(contract.TABLES[name])} == {"string"}


def test_a_pipeline_without_configuration_fails_with_every_key_named(spark):
    with pytest.raises(settings.ConfigurationError) as raised:
        declared(spark, {})
    assert all(f"{key}: is not set" in str(raised.value) for key in settings.KEYS)


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        (settings.LANDING, "bucket/extracts", "'bucket/extracts' is neither a URL nor an absolute path"),
        (settings.LANDING, "s3://b/${var.x}", "is neither a URL nor an absolute path"),
        (settings.BUSINESS_TIMEZONE, "Asia/Saigon_City", "'Asia/Saigon_City' is not an IANA time zone"),
        (settings.BUSINESS_TIMEZONE, "../etc/passwd", "is not an IANA time zone"),
        (settings.TABLES, "orders,products,customers", "order_items left out"),
        (settings.TABLES, "orders,products,customers,order_items,shipments", "shipments not in the data contract"),
        (settings.TABLES, "orders,orders,products,customers,order_items", "names a table twice"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(key, value, problem):
    with pytest.raises(settings.ConfigurationError, match="configuration is wrong") as raised:
        settings.read({**CONFIGURATION, key: value}.get)
    assert f"{key}: " in str(raised.value)
    assert problem in str(raised.value)


@pytest.mark.parametrize("landing", ["s3://b/x/", "/Volumes/ecomm/raw/x", "abfss://c@a.example/x", "file:/tmp/x"])
def test_a_landing_folder_is_a_url_or_an_absolute_path(landing):
    assert settings.read({**CONFIGURATION, settings.LANDING: landing}.get).landing == landing.rstrip("/")
