"""The dbt project holds what the architecture promises: documented to the last column, typed as the contract says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[3]
PROJECT = ROOT / "dbt"
MARTS = ("agg_sales_kpi", "agg_product_kpi", "agg_customer_kpi")


def documents() -> list[dict]:
    return [yaml.safe_load(path.read_text()) for path in sorted((PROJECT / "models").rglob("*.yml"))]


def named(kind: str) -> dict[str, dict]:
    return {item["name"]: item for document in documents() for item in document.get(kind, [])}


MODELS = named("models")
SOURCES = {table["name"]: table for source in named("sources").values() for table in source["tables"]}
COLUMNS = [(table, column) for table, item in {**MODELS, **SOURCES}.items() for column in item["columns"]]


def types(item: dict) -> dict[str, str]:
    return {column["name"]: column["data_type"] for column in item["columns"]}


def architecture(table: str) -> dict[str, str | None]:
    """A table's columns and types as docs/architecture.md writes them: a type holds for the names before it."""
    row = next(
        line for line in (ROOT / "docs/architecture.md").read_text().splitlines() if line.startswith(f"| `{table}`")
    )
    found: dict[str, str | None] = {}
    untyped: list[str] = []
    for name, kind in re.findall(
        r"`(\w+)`(?: ((?:decimal\([\d,]+\))|bigint|int|timestamp|date)\b)?", row.split("|")[2]
    ):
        found[name] = kind or None
        untyped.append(name)
        if kind in ("bigint", "decimal(18,4)"):  # `a`, `b` bigint: both are
            found.update(dict.fromkeys((n for n in untyped if numeric(n)), kind))
        if kind:
            untyped = []
    return found


def numeric(name: str) -> bool:
    return not name.endswith(("_id", "_date", "_at")) and name not in {"status", "country", "description", "quantity"}


def test_every_model_has_its_yaml_and_the_reverse():
    assert {path.stem for path in (PROJECT / "models").rglob("*.sql")} == set(MODELS)


@pytest.mark.parametrize("table", [*MODELS, *SOURCES])
def test_every_table_tells_its_grain(table):
    assert re.search(r"Grain: one row an? .+\.", {**MODELS, **SOURCES}[table]["description"])


@pytest.mark.parametrize(("table", "column"), COLUMNS, ids=[f"{table}.{column['name']}" for table, column in COLUMNS])
def test_every_column_is_described_with_its_unit(table, column):
    assert re.fullmatch(r"[^:]\S.{8,}\sUnit: [^.]+\.", column["description"].strip(), re.DOTALL)


@pytest.mark.parametrize("table", ["agg_daily_sales", "sales_analytics"])
def test_sources_are_typed_as_the_architecture_says(table):
    declared, promised = types(SOURCES[table]), architecture(f"gold.{table}")
    assert list(declared) == list(promised)
    assert {name: declared[name] for name, kind in promised.items() if kind} == {
        name: kind for name, kind in promised.items() if kind
    }


@pytest.mark.parametrize("mart", MARTS)
def test_every_column_of_a_mart_has_a_type_and_money_is_never_floating(mart):
    declared = types(MODELS[mart])
    assert not {"double", "float", "real"} & set(declared.values())
    for name, kind in declared.items():
        if "Unit: money" in next(c["description"] for c in MODELS[mart]["columns"] if c["name"] == name):
            assert kind == "decimal(18,4)", name


def test_marts_have_the_columns_of_the_design_in_order():
    daily = list(types(SOURCES["agg_daily_sales"]))
    kpis = ["average_order_value", "cancellation_rate", "units_per_order", "net_revenue_7d", "net_revenue_change_7d"]
    assert list(types(MODELS["agg_sales_kpi"])) == [*daily[:-1], *kpis, daily[-1]]
    money = ["gross_revenue", "refunds", "net_revenue"]
    assert list(types(MODELS["agg_product_kpi"])) == [
        "sales_date",
        "product_id",
        "units",
        *money,
        "orders",
        "revenue_rank",
    ]
    assert list(types(MODELS["agg_customer_kpi"])) == [
        "customer_id", "first_order_date", "last_order_date", "orders", *money,
        "average_order_value", "recency_days", "rfm_segment",
    ]  # fmt: skip


def test_figures_that_pass_through_a_mart_keep_their_type():
    daily = types(SOURCES["agg_daily_sales"])
    for mart in MARTS:
        for name, kind in types(MODELS[mart]).items():
            assert daily.get(name, kind) == kind, f"{mart}.{name}"


@pytest.mark.parametrize("mart", MARTS)
def test_a_mart_has_a_key_data_tests_and_unit_tests(mart):
    model = MODELS[mart]
    (key,) = [c["columns"] for c in model["constraints"] if c["type"] == "primary_key"]
    required = [c["name"] for c in model["columns"] if {"type": "not_null"} in c.get("constraints", [])]
    assert required == key
    assert any(
        "sums_to" in test for c in model["columns"] for test in c.get("data_tests", []) if isinstance(test, dict)
    )
    assert mart in {test["model"] for test in named("unit_tests").values()}


def test_contracts_are_enforced_on_all_marts():
    project = yaml.safe_load((PROJECT / "dbt_project.yml").read_text())
    assert project["models"]["ecomm"]["marts"]["+contract"] == {"enforced": True}
    assert project["models"]["ecomm"]["+persist_docs"] == {"relation": True, "columns": True}


def test_the_documented_rfm_thresholds_are_the_ones_that_hold():
    limits = yaml.safe_load((PROJECT / "dbt_project.yml").read_text())["vars"]
    segment = next(c for c in MODELS["agg_customer_kpi"]["columns"] if c["name"] == "rfm_segment")
    assert {int(number) for number in re.findall(r"\d+", segment["description"])} == set(limits.values())
    sql = (PROJECT / "models/marts/agg_customer_kpi.sql").read_text()
    segments = re.findall(r"(?:then|else) '(\w+)'", sql)
    assert set(re.findall(r"(\w+): ", segment["description"])) - {"Unit"} == set(segments)


def test_each_mart_is_exposed_as_a_tableau_data_source_and_the_workbook_is_named():
    exposures = named("exposures").values()
    tableau = [(e["config"]["meta"]["tableau"], e["depends_on"]) for e in exposures]
    sources = {t["datasource"]: refs for t, refs in tableau if "datasource" in t}
    assert sources == {mart: [f"ref('{mart}')"] for mart in MARTS}
    assert [t["workbook"] for t, _ in tableau if "workbook" in t] == ["Daily Sales"]


def test_the_project_does_not_shadow_the_installed_dbt():
    assert not list(PROJECT.rglob("__init__.py"))


def test_no_setting_is_written_down_in_the_profile():
    (output,) = yaml.safe_load((PROJECT / "profiles.yml").read_text())["ecomm"]["outputs"].values()
    for name in ("host", "http_path", "catalog", "token", "client_id", "client_secret"):
        assert "env_var('ECOMM_DATABRICKS_" in output[name], name
    assert output["schema"] == "kpi"
