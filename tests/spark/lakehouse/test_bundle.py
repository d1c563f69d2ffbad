"""The asset bundle is whole: it parses, its paths and variables exist, and it sets what the code reads."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from lakehouse import contract, settings

BUNDLE = Path(__file__).resolve().parents[3] / "dlt"
ROOT = yaml.safe_load((BUNDLE / "databricks.yml").read_text())
RESOURCE = BUNDLE / "resources" / "ecomm.pipeline.yml"
PIPELINE = yaml.safe_load(RESOURCE.read_text())["resources"]["pipelines"]["ecomm"]


def variables(text: str) -> set[str]:
    return set(re.findall(r"\$\{var\.(\w+)\}", text))


def test_every_variable_that_is_used_is_declared_and_the_reverse():
    used = variables(RESOURCE.read_text()) | variables((BUNDLE / "databricks.yml").read_text())
    assert used == set(ROOT["variables"])
    assert all(variable["description"] for variable in ROOT["variables"].values())


@pytest.mark.parametrize("target", ["dev", "prod"])
def test_a_target_gives_only_declared_variables_and_leaves_only_the_landing_folder_open(target):
    given = ROOT["targets"][target]["variables"]
    assert set(given) <= set(ROOT["variables"])
    open_ones = {name for name, variable in ROOT["variables"].items() if "default" not in variable} - set(given)
    assert open_ones == {"landing"}


def test_dev_is_the_default_and_writes_to_another_catalog_than_prod():
    dev, prod = ROOT["targets"]["dev"], ROOT["targets"]["prod"]
    assert (dev["default"], dev["mode"], prod["mode"]) == (True, "development", "production")
    assert prod["variables"]["catalog"] == "ecomm"
    assert dev["variables"]["catalog"] != "ecomm"


def test_the_included_files_exist():
    assert [sorted(BUNDLE.glob(pattern)) for pattern in ROOT["include"]] == [[RESOURCE]]


def test_the_libraries_are_the_transformations_under_the_root_path():
    root = (RESOURCE.parent / PIPELINE["root_path"]).resolve()
    (library,) = PIPELINE["libraries"]
    pattern = library["glob"]["include"]
    assert pattern.endswith("/**")
    folder = (RESOURCE.parent / pattern.removesuffix("/**")).resolve()
    assert folder.parent == root
    assert sorted(file.name for file in folder.rglob("*.py")) == ["bronze.py", "gold.py", "silver.py"]
    assert (root / "lakehouse" / "__init__.py").is_file(), "importable, as the root path is on sys.path"
    assert not (BUNDLE / "__init__.py").exists(), "it would shadow the installed package `dlt`"


def test_the_configuration_is_what_the_code_reads():
    configuration = PIPELINE["configuration"]
    assert {key for key in configuration if not key.startswith("spark.")} == set(settings.KEYS)
    assert all(isinstance(value, str) for value in configuration.values()), "the API takes text only"


def test_the_defaults_are_settings_that_the_code_accepts():
    values = {
        key: ROOT["variables"][key.removeprefix("ecomm.")].get("default", "s3://bucket/x") for key in settings.KEYS
    }
    assert {table.name for table in settings.read(values.get).tables} == set(contract.TABLES)


def test_failures_are_told_to_someone():
    (notification,) = PIPELINE["notifications"]
    assert {"on-update-failure", "on-update-fatal-failure"} <= set(notification["alerts"])
    assert notification["email_recipients"]
