"""What values say is what is rendered, and what they cannot mean is refused with what to do instead."""

from __future__ import annotations

import copy
import json
import re
import subprocess
import sys
from decimal import Decimal
from typing import Any, get_type_hints

import pytest
import yaml
from pydantic import SecretStr

from ecomm_pipeline.cli import app
from ecomm_pipeline.settings import GROUPS, KpiGate, Run, variable

from .conftest import CHART, of_kind, packed, refuse, render, rendered, steps, template

VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA = json.loads((CHART / "values.schema.json").read_text())
STAGES = ["dbt-runner", "dlt-trigger", "extractor", "reconciler", "tableau-refresher"]
SET_OTHERWISE = {
    "ECOMM_TABLES": "tables",
    "ECOMM_BUSINESS_TIMEZONE": "timezone",
    "ECOMM_DBT_PROJECT_DIR": "the image",
    "ECOMM_KPI_GATE_BOUNDS": "kpiGate.bounds",
}
"""Settings that are not under `settings`, and what sets them instead."""


# --- refusals


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"secret": {"existingSecret": ""}}, "secret.existingSecret is empty: make a Secret"),
        ({"settings": {"ECOMM_POSTGRES_HOST": ""}}, "settings lacks ECOMM_POSTGRES_HOST: docs/settings.md"),
        ({"settings": {"ECOMM_POSTGRES_HOSTT": "db"}}, "additional properties 'ECOMM_POSTGRES_HOSTT' not allowed"),
        ({"settings": {"ECOMM_POSTGRES_PASSWORD": "x"}}, "additional properties 'ECOMM_POSTGRES_PASSWORD' not allowed"),
        ({"environment": {"ECOMM_POSTGRES_PASSWORD": "x"}}, "ECOMM_POSTGRES_PASSWORD"),
        ({"tables": []}, "tables is empty"),
        ({"tables": ["orders", "orders"]}, "tables names one twice: orders, orders"),
        ({"tables": ["orders,products"]}, "orders,products"),
        ({"timezone": "CET"}, 'timezone "CET" is not the name of an IANA zone: write it as Asia/Ho_Chi_Minh'),
        ({"timezone": "asia/ho_chi_minh"}, 'timezone "asia/ho_chi_minh" is not the name'),
        ({"timezone": "GMT+7"}, 'timezone "GMT+7" is not the name'),
        ({"schedule": {"timezone": "ICT"}}, 'schedule.timezone "ICT" is not the name'),
        ({"schedule": {"cron": []}}, "schedule.cron is empty"),
        ({"schedule": {"cron": ["1 * * *"]}}, '"1 * * *" has not cron\'s five fields'),
        ({"schedule": {"cron": ["CRON_TZ=UTC 0 1 * * *"]}}, "its zone as schedule.timezone"),
        ({"schedule": {"notBefore": "25:00"}}, "notBefore"),
        ({"images": {"extractor": "registry/extractor"}}, 'images.extractor "registry/extractor" has neither tag nor'),
        ({"images": {"loader": "a:b"}}, "additional properties 'loader' not allowed"),
        ({"image": {"pullPolicy": "Sometimes"}}, "pullPolicy"),
        ({"serviceAccount": {"create": False, "annotations": {"a": "b"}}}, "annotate ecomm-data-pipeline yourself"),
        ({"executor": {"name": "ecomm-data-pipeline"}}, "are one: the stages would have the executor's permissions"),
        ({"stages": {"extractor": {"cpu": 1}}}, "additional properties 'cpu' not allowed"),
        ({"retry": {"backoff": {"duration": "soon"}}}, "duration"),
        ({"kpiGate": {"bounds": {"orders": "half"}}}, "/kpiGate/bounds/orders"),
        ({"kpiGate": {"bounds": {"orders": 50}}}, "/kpiGate/bounds/orders"),
        ({"kpiGate": {"bounds": {"Net Revenue": "50%"}}}, "invalid propertyName 'Net Revenue'"),
    ],
)
def test_a_wrong_value_is_refused_with_what_to_do(changes, words):
    assert words in " ".join(refuse(**changes).replace('\\"', '"').split())


def test_all_that_is_wrong_is_told_at_once():
    said = refuse(secret={"existingSecret": ""}, tables=[], timezone="CET")
    assert "3 of the values are wrong" in said
    assert all(words in said for words in ("existingSecret", "tables is empty", '"CET"'))


def test_without_any_value_it_says_what_it_needs():
    done = template()
    assert done.returncode != 0
    assert "secret.existingSecret is empty" in done.stderr
    assert "ECOMM_TABLEAU_SERVER" in done.stderr


def objects(value: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    if not isinstance(value, dict):
        return []
    return [path, *(place for key, inner in value.items() for place in objects(inner, (*path, key)))]


FREE = {
    ("environment",),
    ("kpiGate", "bounds"),
    ("nodeSelector",),
    ("podAnnotations",),
    ("podLabels",),
    ("serviceAccount", "annotations"),
}
"""Objects whose keys are the user's own."""


@pytest.mark.parametrize(
    "path", [p for p in objects(VALUES) if p not in FREE and p[:1] != ("monitoring",)], ids=".".join
)
def test_an_unknown_key_is_refused_wherever_it_is(path):
    changes: dict[str, Any] = {}
    inner = changes
    for key in path:
        inner = inner.setdefault(key, {})
    inner["bogus"] = "x"
    assert "'bogus' not allowed" in refuse(**changes)


def test_the_settings_of_the_chart_are_those_of_the_package():
    """A setting that the package gets or loses is to be added to, or removed from, values.schema.json."""
    known = {
        variable(group, name)
        for group in GROUPS
        if group is not Run
        for name in group.model_fields
        if not holds_a_secret(group, name)
    }
    options = {
        hint.__metadata__[0].envvar
        for command in (app.registered_callback.callback,)
        for hint in get_type_hints(command, include_extras=True).values()
        if hasattr(hint, "__metadata__")
    }
    assert set(SCHEMA["$defs"]["settings"]["properties"]) == (known | options) - SET_OTHERWISE.keys()


def holds_a_secret(group, name):
    return SecretStr in getattr(group.model_fields[name].annotation, "__args__", (group.model_fields[name].annotation,))


def test_settings_without_which_no_stage_works_are_asked_for():
    """Users and names of tokens may be in the Secret, beside what is secret about them."""
    required = {
        variable(group, name)
        for group in GROUPS
        for name, info in group.model_fields.items()
        if info.is_required() and not holds_a_secret(group, name)
    }
    text = (CHART / "templates" / "requirements.yaml").read_text()
    asked = set(re.findall(r'"(ECOMM_[A-Z_]+)"', text))
    assert asked == required - {"ECOMM_POSTGRES_USER", "ECOMM_TABLEAU_TOKEN_NAME"}


def test_a_job_of_dbt_cloud_is_asked_for_its_account():
    told = refuse(settings={"ECOMM_DBT_CLOUD_JOB_ID": 7})
    assert "ECOMM_DBT_CLOUD_JOB_ID without ECOMM_DBT_CLOUD_ACCOUNT_ID" in told


# --- what values do


def settings(documents):
    return of_kind(documents, "ConfigMap")["ecomm-data-pipeline"]["data"]


def test_settings_are_text_and_numbers_keep_their_digits():
    data = settings(render(settings={"ECOMM_DLT_RUN_TIMEOUT": 12345678, "ECOMM_RECONCILER_CHECK_SOURCE": False}))
    assert data["ECOMM_DLT_RUN_TIMEOUT"] == "12345678"
    assert data["ECOMM_RECONCILER_CHECK_SOURCE"] == "false"
    assert all(isinstance(value, str) for value in data.values())


def test_other_environment_variables_reach_the_stages():
    assert settings(render("irsa"))["PGSSLROOTCERT"] == "system"


def test_tables_are_fanned_out_over_and_are_what_settings_say():
    documents = render(tables=["orders", "refunds"])
    assert settings(documents)["ECOMM_TABLES"] == "orders,refunds"
    for name in ("batch-ecomm-pipeline", "backfill"):
        workflow = of_kind(documents, "WorkflowTemplate")[name]
        (tables,) = (p["value"] for p in workflow["spec"]["arguments"]["parameters"] if p["name"] == "tables")
        assert json.loads(tables) == ["orders", "refunds"]


def test_every_image_is_of_the_registry_and_tag_of_the_values_but_for_those_named_whole():
    documents = render("registry")
    images = {step["container"]["image"] for _, step in steps(documents)}
    images |= {one["image"] for pod in of_kind(documents, "Pod").values() for one in pod["spec"]["containers"]}
    values = yaml.safe_load((CHART / "ci" / "registry-values.yaml").read_text())
    assert images == {
        *(f"registry.example.com/analytics/ecomm/{stage}:0.1.0-rc.1" for stage in STAGES if stage != "dbt-runner"),
        values["images"]["dbt-runner"],
    }
    for _, step in steps(documents):
        assert step["container"]["imagePullPolicy"] == "Always"
    for workflow in of_kind(documents, "WorkflowTemplate").values():
        assert workflow["spec"]["imagePullSecrets"] == [{"name": "registry-credentials"}]


def test_an_image_stays_that_of_its_stage():
    before = {(name, step["name"]): step["container"]["image"] for name, step in steps(list(packed().values()))}
    after = {(name, step["name"]): step["container"]["image"] for name, step in steps(render())}
    assert after == before


def test_where_pods_run_and_how_large_they_are():
    documents = render("registry")
    for workflow in of_kind(documents, "WorkflowTemplate").values():
        spec = workflow["spec"]
        assert spec["nodeSelector"] == {"pool": "batch"}
        assert spec["podPriorityClassName"] == "batch"
        assert spec["tolerations"][0]["value"] == "batch"
        assert "nodeAffinity" in spec["affinity"]
        assert spec["podMetadata"]["labels"]["team"] == "analytics"
    by_name = {step["name"]: step for _, step in steps(documents)}
    assert by_name["extractor"]["container"]["resources"] == {
        "requests": {"cpu": "1", "memory": "512Mi"},
        "limits": {"memory": "512Mi"},
    }
    assert by_name["dlt-trigger"]["activeDeadlineSeconds"] == 18600
    pod = of_kind(documents, "Pod")["ecomm-data-pipeline-check-extractor"]
    assert (pod["spec"]["nodeSelector"], pod["spec"]["priorityClassName"]) == ({"pool": "batch"}, "batch")
    assert pod["metadata"]["labels"]["team"] == "analytics"


def test_labels_and_annotations_of_values_stand_beside_those_of_the_workflows():
    own = of_kind(list(packed().values()), "WorkflowTemplate")["batch-ecomm-pipeline"]["spec"].get("podMetadata", {})
    after = of_kind(render("registry"), "WorkflowTemplate")["batch-ecomm-pipeline"]["spec"]["podMetadata"]
    assert after["labels"].items() >= own.get("labels", {}).items()
    assert after["annotations"].items() >= own.get("annotations", {}).items()


def test_the_schedule():
    spec = rendered(render("suspended"))["CronWorkflow/batch-ecomm-pipeline"]["spec"]
    assert spec["schedules"] == ["30 2 * * 1-6", "0 4 * * 0"]
    assert (spec["timezone"], spec["suspend"]) == ("UTC", True)
    assert settings(render("suspended"))["ECOMM_BUSINESS_TIMEZONE"] == "America/New_York"
    assert rendered(render(timezone="Europe/Paris"))["CronWorkflow/batch-ecomm-pipeline"]["spec"]["timezone"] == (
        "Europe/Paris"
    )


def test_what_watches_the_nights_knows_when_they_begin_and_when_dbt_may():
    plain = settings(render())
    assert (plain["ECOMM_NIGHTLY_STARTS"], plain["ECOMM_NIGHTLY_GATE"]) == ("01:00", "05:00")
    other = settings(render(schedule={"cron": ["30 22 * * *"], "notBefore": "now"}))
    assert other["ECOMM_NIGHTLY_STARTS"] == "22:30"
    assert "ECOMM_NIGHTLY_GATE" not in other
    assert "ECOMM_NIGHTLY_STARTS" not in settings(render("suspended")), "its schedule is in another zone"
    assert settings(render(settings={"ECOMM_NIGHTLY_STARTS": "02:00"}))["ECOMM_NIGHTLY_STARTS"] == "02:00"


def test_when_dbt_may_begin():
    workflow = of_kind(render("suspended"), "WorkflowTemplate")["batch-ecomm-pipeline"]
    values = {one["name"]: one.get("value") for one in workflow["spec"]["arguments"]["parameters"]}
    assert values["not-before"] == "06:30"


@pytest.mark.parametrize("name", ["batch-ecomm-pipeline", "backfill"])
def test_how_far_kpis_may_move_is_what_their_settings_read(name):
    def bounds(scenario):
        workflow = of_kind(render(scenario), "WorkflowTemplate")[name]
        (value,) = (p["value"] for p in workflow["spec"]["arguments"]["parameters"] if p["name"] == "bounds")
        return value

    assert bounds("minimal") == ""
    assert KpiGate(bounds=bounds("monitoring")).shares == {"net_revenue": Decimal("0.5"), "orders": Decimal("0.375")}
    gate = next(step for of, step in steps(render("monitoring")) if (of, step["name"]) == (name, "kpi-gate"))
    assert gate["activeDeadlineSeconds"] == 600
    assert gate["container"]["image"].endswith("/reconciler:0.1.0")


def test_how_failed_steps_are_tried_again():
    before = {(name, step["name"]): step["retryStrategy"] for name, step in steps(list(packed().values()))}
    for name, step in steps(render("suspended")):
        retry = step["retryStrategy"]
        assert retry["limit"] == 4
        assert retry["backoff"] == {"duration": "1m", "factor": 2, "maxDuration": "30m"}
        assert retry["expression"] == before[name, step["name"]]["expression"]


def test_when_workflows_are_removed():
    for workflow in of_kind(render("suspended"), "WorkflowTemplate").values():
        assert workflow["spec"]["ttlStrategy"] == {"secondsAfterSuccess": 86400, "secondsAfterFailure": 604800}


def test_draining_a_node_need_not_wait():
    kept = [name for name, one in of_kind(render(), "WorkflowTemplate").items() if "podDisruptionBudget" in one["spec"]]
    off = render(podDisruptionBudget={"enabled": False})
    assert kept
    assert all("podDisruptionBudget" not in one["spec"] for one in of_kind(off, "WorkflowTemplate").values())


def test_accounts_that_are_there_already_are_used():
    documents = render("suspended")
    assert not of_kind(documents, "ServiceAccount", "Role", "RoleBinding", "Secret")
    for workflow in of_kind(documents, "WorkflowTemplate").values():
        assert workflow["spec"]["serviceAccountName"] == "batch"
        assert workflow["spec"]["executor"] == {"serviceAccountName": "argo-executor"}


def test_a_role_of_aws_is_that_of_the_stages_and_not_of_argo_s_executor():
    accounts = of_kind(render("irsa"), "ServiceAccount")
    role = {"eks.amazonaws.com/role-arn": "arn:aws:iam::123456789012:role/ecomm-data-pipeline"}
    assert accounts["ecomm-data-pipeline"]["metadata"]["annotations"] == role
    assert "annotations" not in accounts["ecomm-data-pipeline-executor"]["metadata"]


def test_the_steps_that_can_be_sized_are_those_that_there_are():
    assert set(SCHEMA["properties"]["stages"]["properties"]) == {
        step["name"] for _, step in steps(list(packed().values()))
    }
    assert sorted(SCHEMA["properties"]["images"]["properties"]) == sorted([*STAGES, "exporter"])


def test_the_external_secret_of_the_example_is_what_its_scenario_names():
    example = yaml.safe_load((CHART / "examples" / "external-secret.yaml").read_text())
    values = yaml.safe_load((CHART / "ci" / "external-secret-values.yaml").read_text())
    assert example["spec"]["target"]["name"] == values["secret"]["existingSecret"]
    known = {variable(group, name) for group in GROUPS for name in group.model_fields}
    keys = {entry["secretKey"] for entry in example["spec"]["data"]}
    assert {key for key in keys if key.startswith("ECOMM_")} <= known
    required = {
        variable(group, name) for group in GROUPS for name, info in group.model_fields.items() if info.is_required()
    }
    assert required <= keys | values["settings"].keys()


# --- values.yaml itself


def test_the_readme_explains_every_value():
    command = [sys.executable, str(CHART.parents[1] / "tools" / "render_docs.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert "README.md" not in done.stderr, done.stderr
    assert "values.yaml" not in done.stderr, done.stderr


def test_every_value_is_in_the_schema():
    def missing(value, schema, path):
        schema = SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
        for key, inner in value.items():
            known = schema.get("properties", {}).get(key)
            if known is None and schema.get("additionalProperties", True) is False:
                yield f"{path}.{key}"
            elif known is not None and isinstance(inner, dict):
                yield from missing(inner, known, f"{path}.{key}")

    assert list(missing(copy.deepcopy(VALUES), SCHEMA, "")) == []
