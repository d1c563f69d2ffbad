"""Settings: all that is wrong is told at once, by the names people set."""

from __future__ import annotations

from decimal import Decimal

import pytest

from ecomm_pipeline import settings
from ecomm_pipeline.errors import ConfigurationError
from ecomm_pipeline.settings import (
    Business,
    Databricks,
    DltTriggerSettings,
    ExtractorSettings,
    KpiGate,
    Postgres,
    Tableau,
    load,
    variable,
)

COMPLETE = {
    "ECOMM_POSTGRES_HOST": "db",
    "ECOMM_POSTGRES_DATABASE": "shop",
    "ECOMM_POSTGRES_USER": "extractor",
    "ECOMM_POSTGRES_PASSWORD": "hush",
    "ECOMM_STORE_BUCKET": "lake",
}


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch):
    import os

    for name in [name for name in os.environ if name.startswith("ECOMM_")]:
        monkeypatch.delenv(name)


def test_every_missing_variable_is_reported_at_once_by_its_name():
    with pytest.raises(ConfigurationError) as caught:
        load(ExtractorSettings)
    assert all(name in caught.value.message for name in COMPLETE)
    assert caught.value.failure.exit_code == 78


def test_a_wrong_value_is_reported_beside_the_missing_ones(monkeypatch):
    monkeypatch.setenv("ECOMM_POSTGRES_PORT", "high")
    monkeypatch.setenv("ECOMM_EXTRACTOR_COMPRESSION", "zip")
    with pytest.raises(ConfigurationError) as caught:
        load(ExtractorSettings)
    assert "ECOMM_POSTGRES_PORT: " in caught.value.message
    assert "ECOMM_EXTRACTOR_COMPRESSION: " in caught.value.message
    assert "ECOMM_STORE_BUCKET is not set" in caught.value.message


def test_a_complete_environment_loads_with_the_documented_defaults(monkeypatch):
    for name, value in COMPLETE.items():
        monkeypatch.setenv(name, value)
    loaded = load(ExtractorSettings)
    assert loaded.business.business_timezone == "Asia/Ho_Chi_Minh"
    assert loaded.business.tables == ("orders", "products", "customers", "order_items")
    assert loaded.extractor.lookback == 7200
    assert loaded.postgres.db_schema == "public"


def test_an_empty_variable_counts_as_unset(monkeypatch):
    monkeypatch.setenv("ECOMM_TABLES", "")
    monkeypatch.setenv("ECOMM_BUSINESS_TIMEZONE", "")
    assert load(Business) == Business()


def test_tables_are_a_list_with_commas(monkeypatch):
    monkeypatch.setenv("ECOMM_TABLES", "orders, products,")
    assert load(Business).tables == ("orders", "products")
    monkeypatch.setenv("ECOMM_TABLES", " , ")
    with pytest.raises(ConfigurationError, match="ECOMM_TABLES"):
        load(Business)


def test_one_way_to_sign_in_to_databricks_is_asked_for(monkeypatch):
    monkeypatch.setenv("ECOMM_DATABRICKS_HOST", "https://workspace")
    monkeypatch.setenv("ECOMM_DATABRICKS_WAREHOUSE_ID", "w")
    with pytest.raises(ConfigurationError, match="ECOMM_DATABRICKS_TOKEN, or both"):
        load(Databricks)
    monkeypatch.setenv("ECOMM_DATABRICKS_CLIENT_ID", "c")
    monkeypatch.setenv("ECOMM_DATABRICKS_CLIENT_SECRET", "s")
    assert load(Databricks).client_id == "c"


def test_how_far_kpis_may_move_is_read_as_shares(monkeypatch):
    assert load(KpiGate).shares == {}
    monkeypatch.setenv("ECOMM_KPI_GATE_BOUNDS", "net_revenue=50%, orders = 37.5 %")
    assert load(KpiGate).shares == {"net_revenue": Decimal("0.5"), "orders": Decimal("0.375")}


@pytest.mark.parametrize("bounds", ["orders", "orders=0.5", "orders=-5%", "orders=50%;units=5%", "a=1%,a=2%", "A=5%"])
def test_bounds_that_cannot_be_read_are_refused_by_name(monkeypatch, bounds):
    monkeypatch.setenv("ECOMM_KPI_GATE_BOUNDS", bounds)
    with pytest.raises(ConfigurationError, match=r"ECOMM_KPI_GATE_BOUNDS: .* as net_revenue=50%,orders=40%"):
        load(KpiGate)


def test_more_weeks_than_there_are_cannot_be_needed(monkeypatch):
    monkeypatch.setenv("ECOMM_KPI_GATE_WEEKS", "2")
    with pytest.raises(ConfigurationError, match="WEEKS_NEEDED is 3, and there are 2 weeks"):
        load(KpiGate)


def test_secrets_do_not_show(monkeypatch):
    for name, value in COMPLETE.items():
        monkeypatch.setenv(name, value)
    assert "hush" not in repr(load(Postgres))


@pytest.mark.parametrize("group", settings.GROUPS)
def test_every_field_is_documented_with_its_name_in_the_environment(group):
    for field, info in group.model_fields.items():
        assert info.description, f"{group.__name__}.{field} has no docstring"
        assert variable(group, field).startswith("ECOMM_")


def test_no_two_fields_read_one_variable():
    names = [variable(group, field) for group in settings.GROUPS for field in group.model_fields]
    assert len(names) == len(set(names))


def test_the_names_of_shared_settings_are_those_of_the_architecture():
    assert variable(Postgres, "db_schema") == "ECOMM_POSTGRES_SCHEMA"
    assert variable(Tableau, "token_value") == "ECOMM_TABLEAU_TOKEN_VALUE"
    assert "dlt" in DltTriggerSettings.__dataclass_fields__
