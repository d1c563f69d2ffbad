"""The images: what is in them, what is not, and that each runs locked down and without a network."""

from __future__ import annotations

import re

from images.lock import layers

from ecomm_pipeline import __version__
from ecomm_pipeline.errors import FAILURE_CLASSES

TARGET_MB = 90
"""Above the base, for each but dbt-runner: dbt's connector brings pyarrow and pandas."""

ARGUMENTS = {"extractor": ["--table=orders", "--date=2026-01-02"], "exporter": []}
"""Of the stages that take other arguments than a date."""


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def locked(stage: str) -> set[str]:
    return {name for path in layers(stage) for name in re.findall(r"^([a-z0-9-]+)==", path.read_text(), re.MULTILINE)}


def test_the_command_is_ready_without_a_network_and_on_a_read_only_root(image):
    run = image.run(image.stage, "--help")
    assert run.returncode == 0, run.stderr
    assert f"ecomm {image.stage}" in run.stdout


def test_the_command_is_ready_in_half_a_second(image):
    """Of processor time, which other work on this machine does not lengthen much."""
    source = f"""
import json, os, subprocess
def seconds():
    before = os.times()
    subprocess.run(["ecomm", {image.stage!r}, "--help"], capture_output=True, check=True)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system
print(json.dumps(min(seconds() for _ in range(3))))
"""
    assert image.python(source) <= 0.5


def test_without_settings_the_stage_itself_says_what_is_missing(image):
    """It has loaded its own modules by then."""
    run = image.run(image.stage, *ARGUMENTS.get(image.stage, ["--date=2026-01-02"]))
    assert run.returncode == FAILURE_CLASSES["configuration"].exit_code
    assert "ECOMM_STORE_BUCKET" in run.stderr


def test_business_dates_are_computed_in_the_business_zone(image):
    """So the zone's data is there."""
    run = image.run("dates", "--date=2026-01-02T18:00:00Z")
    assert run.stdout.strip() == '["2026-01-02"]', run.stderr


def test_the_client_libraries_load(image):
    modules = {
        "extractor": ["psycopg2", "isal.igzip_threaded"],
        "dlt-trigger": ["databricks.sdk"],
        "dbt-runner": ["databricks.sdk", "dbt.cli.main", "dbt.adapters.databricks", "pyarrow.compute", "pandas"],
        "tableau-refresher": ["databricks.sdk", "tableauserverclient", "yaml"],
        "reconciler": ["databricks.sdk", "psycopg2"],
        "exporter": ["prometheus_client"],
    }[image.stage]
    stage = f"ecomm_pipeline.{image.stage.replace('-', '_')}.run"
    names = [*modules, stage]
    source = f"import importlib, json; print(json.dumps([importlib.import_module(name).__name__ for name in {names}]))"
    assert image.python(source) == names


def test_the_store_and_every_link_of_the_credentials_chain_have_their_model(image):
    source = """
import boto3, json
session = boto3.Session(region_name="ap-southeast-1", aws_access_key_id="a", aws_secret_access_key="b")
clients = [session.client(name).meta.service_model.service_name for name in ("s3", "sts", "sso", "sso-oidc", "signin")]
import obstore.store, obstore.auth.boto3
print(json.dumps(clients))
"""
    assert image.python(source) == ["s3", "sts", "sso", "sso-oidc", "signin"]


def test_it_runs_as_a_numbered_user_who_can_write_nowhere_but_tmp(image, inside):
    user = image.config["Config"]["User"]
    assert re.fullmatch(r"\d+:\d+", user), "Kubernetes can tell that only a numbered user is not root"
    assert inside["uid"] == int(user.partition(":")[0]) != 0
    assert inside["writable"] == []


def test_its_own_files_are_not_writable_even_on_a_root_that_is(image):
    source = "import json, os; print(json.dumps([p for p, _, f in os.walk('/app') if os.access(p, os.W_OK)]))"
    assert image.python(source) == []


def test_it_has_the_packages_of_its_stage_only(image, inside):
    own = locked(image.stage)
    packages = {canonical(name) for name in inside["packages"]}
    assert packages <= own | {"ecomm-data-pipeline"}
    assert own - packages <= {"colorama"}, "only what the lock marks as not for Linux is left out"
    assert inside["sandbox"] is False


def test_the_extractor_has_no_pyspark_dbt_or_tableauserverclient(extractor):
    modules = ["pyspark", "dbt", "tableauserverclient", "databricks"]
    source = f"import importlib.util as i, json; print(json.dumps([m for m in {modules} if i.find_spec(m)]))"
    assert extractor.python(source) == []


def test_nothing_is_left_that_only_builds_or_tests_read(inside):
    assert inside["files"] == {".pyi": 0, ".h": 0, ".pyx": 0}
    assert inside["tests"] == []
    assert inside["pip"] is False
    assert [name for name in inside["scripts"] if not re.match(r"python|[Aa]ctivate", name)] == ["ecomm"]
    assert inside["aws"] == ["s3", "signin", "sso", "sso-oidc", "sts"]


def test_every_module_is_compiled(inside):
    assert inside["uncompiled"] == []


def test_the_bill_of_materials_lists_what_is_installed(inside):
    sbom = inside["sbom"]
    root = sbom["metadata"]["component"]
    listed = {canonical(part["name"]): part["version"] for part in [root, *sbom["components"]]}
    assert sbom["bomFormat"] == "CycloneDX"
    assert listed == {canonical(name): version for name, version in inside["packages"].items()}
    assert all(part["purl"].startswith("pkg:pypi/") for part in sbom["components"] if part["name"] != root["name"])


def test_its_labels_tell_what_it_is(image):
    assert image.labels["title"] == f"ecomm-data-pipeline/{image.stage}"
    assert image.labels["version"] == __version__
    assert image.labels["licenses"] == "Apache-2.0"
    assert re.fullmatch(r"([0-9a-f]{40}(-dirty)?)?", image.labels["revision"])
    assert {"source", "description", "base.name"} <= set(image.labels)


def test_nothing_of_the_package_index_or_of_certificates_is_left_in_it(image):
    files = image.python("import json, pathlib; print(json.dumps([str(p) for p in pathlib.Path('/').glob('build/*')]))")
    left = f"{image.config['Config']} {image.history} {files}"
    assert not re.search(r"PIP_|pip\.conf|ca\.pem|index-url|_PROXY", left, re.IGNORECASE)


def test_it_is_small(small_image, base_size):
    assert (small_image.config["Size"] - base_size) / 1e6 <= TARGET_MB


def test_dbt_reads_its_project_in_the_image(dbt_runner):
    arguments = [
        "parse",
        "--project-dir=/app/dbt",
        "--profiles-dir=/app/dbt",
        "--target-path=/tmp/t",
        "--log-path=/tmp/l",
    ]
    settings = {"HOST": "https://nowhere.invalid", "WAREHOUSE_ID": "none", "TOKEN": "none"}
    source = f"""
import json, os
os.environ.update({ {f"ECOMM_DATABRICKS_{name}": value for name, value in settings.items()} })
from dbt.cli.main import dbtRunner
result = dbtRunner().invoke({["--quiet", *arguments]})
print(json.dumps([str(result.exception), result.success and "macro.dbt.test_unique" in result.result.macros]))
"""
    assert dbt_runner.python(source) == ["None", True]
