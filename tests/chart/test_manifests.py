"""Every scenario renders to what Kubernetes and Argo accept, and to what a restricted namespace admits."""

from __future__ import annotations

import json
import re
import subprocess
import tarfile
from typing import TYPE_CHECKING

import pytest
import yaml
from kubernetes_validate import ValidationError, validate
from kubernetes_validate.utils import all_versions
from packaging.version import Version
from tests.support.tools import tool

from ecomm_pipeline import __version__

from .conftest import CHART, SCENARIOS, of_kind, packed, render, rendered, run_helm, steps

if TYPE_CHECKING:
    from pathlib import Path

META = yaml.safe_load((CHART / "Chart.yaml").read_text())
OLDEST = Version(re.search(r"[0-9.]+", META["kubeVersion"])[0])
SUPPORTED = [version for version in dict.fromkeys(all_versions()) if Version(version) >= OLDEST]
OF_OTHERS = ("argoproj.io/", "monitoring.coreos.com/")
"""API groups whose schemas Kubernetes does not have."""
RESTRICTED = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
POD_RESTRICTED = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}


def test_the_chart_has_the_version_of_the_package():
    assert (META["version"], META["appVersion"]) == (__version__, __version__)


def test_the_package_holds_the_workflows_and_not_what_is_for_tests(tmp_path: Path):
    done = run_helm("package", str(CHART), "--destination", str(tmp_path))
    assert done.returncode == 0, done.stderr
    with tarfile.open(tmp_path / f"ecomm-data-pipeline-{__version__}.tgz") as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {path.relative_to(CHART).as_posix() for path in (CHART / "workflows").iterdir()} <= names
    assert "README.md" in names
    assert not any(name.startswith(("ci/", "examples/")) for name in names)


def test_helm_finds_nothing_to_warn_of(scenario):
    values = CHART / "ci" / f"{scenario}-values.yaml"
    done = run_helm("lint", "--strict", str(CHART), "--kube-version", SUPPORTED[-1], "-f", str(values))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stdout


@pytest.mark.parametrize("version", [SUPPORTED[0], SUPPORTED[-1]])
def test_kubernetes_accepts_every_object_of_every_scenario(scenario, version):
    check_all(render(scenario), version)


@pytest.mark.parametrize("version", SUPPORTED)
def test_every_supported_kubernetes_accepts_the_fullest_scenario(version):
    check_all(render("registry"), version)


def test_a_field_that_kubernetes_does_not_know_would_be_noticed():
    policy = {**of_kind(render(), "NetworkPolicy")["ecomm-data-pipeline"]}
    with pytest.raises(ValidationError, match="egres"):
        validate({**policy, "spec": {**policy["spec"], "egres": []}}, SUPPORTED[-1], strict=True)


def check_all(documents, version):
    """Hold all objects to the schema; a step of a workflow to that of the pod which Argo makes of it."""
    for document in documents:
        if not document["apiVersion"].startswith(OF_OTHERS):
            validate(document, version, strict=True)
    for workflow in of_kind(documents, "WorkflowTemplate").values():
        validate(pod_of(workflow), version, strict=True)


def pod_of(workflow):
    """Make one pod with all steps of a workflow, as Argo makes one of each."""
    spec = workflow["spec"]
    containers = [{"name": step["name"], **step["container"]} for step in spec["templates"] if "container" in step]
    same = [
        "serviceAccountName",
        "automountServiceAccountToken",
        "securityContext",
        "volumes",
        "imagePullSecrets",
        "nodeSelector",
        "tolerations",
        "affinity",
    ]
    pod = {name: spec[name] for name in same if name in spec} | {"containers": containers}
    metadata = {"name": workflow["metadata"]["name"], **spec.get("podMetadata", {})}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": pod}


def test_argo_accepts_the_workflows(scenario, tmp_path: Path):
    argo = tool("argo")
    if not argo:
        pytest.skip("argo is not here: run `cluster/tools argo`")
    for name, workflow in rendered(render(scenario)).items():
        (tmp_path / f"{name.replace('/', '-')}.yaml").write_text(yaml.safe_dump(workflow))
    done = subprocess.run(
        [argo, "lint", "--offline", "--strict", str(tmp_path)], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr


# --- what values do not say stays as it is packed


@pytest.mark.parametrize("name", sorted(packed()))
def test_a_workflow_is_changed_only_where_values_say(name):
    before, after = packed()[name], rendered(render())[name]
    changed = {re.sub(r"\[\d+\]", "[]", path) for path in differences(before, after)}
    assert changed <= {
        "metadata.labels",
        "spec.automountServiceAccountToken",
        "spec.executor",
        "spec.podSpecPatch",
        "spec.suspend",
        "spec.templates[].container.imagePullPolicy",
        "spec.arguments.parameters[].value",  # the same JSON, with other spaces
    }
    for old, new in zip(parameters(before), parameters(after), strict=True):
        assert yaml.safe_load(str(old)) == yaml.safe_load(str(new))


def parameters(workflow):
    return [one.get("value") for one in workflow["spec"].get("arguments", {}).get("parameters", [])]


def differences(before, after, path=""):
    """Name the places at which two documents differ."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key in before.keys() | after.keys():
            at = f"{path}.{key}".removeprefix(".")
            if key in before and key in after:
                yield from differences(before[key], after[key], at)
            else:
                yield at
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for number, (old, new) in enumerate(zip(before, after, strict=True)):
            yield from differences(old, new, f"{path}[{number}]")
    elif before != after:
        yield path


def test_the_schedule_is_made_after_what_it_refers_to():
    """As Helm orders it; Argo looks again after 20 minutes at a CronWorkflow whose WorkflowTemplate was not there."""
    kinds = [one["kind"] for one in render() if one["kind"] in {"WorkflowTemplate", "CronWorkflow"}]
    assert kinds == ["WorkflowTemplate"] * (len(kinds) - 1) + ["CronWorkflow"]


def expressions(workflow):
    return sorted(re.findall(r"\{\{.*?\}\}", json.dumps(workflow)))


def test_argo_s_expressions_are_unbroken(scenario):
    after = rendered(render(scenario))
    for name, workflow in packed().items():
        zone = re.compile(r'timezone\(\\"[^"]*\\"\)')
        assert [zone.sub("", one) for one in expressions(after[name])] == [
            zone.sub("", one) for one in expressions(workflow)
        ]


@pytest.mark.parametrize("scenario_", SCENARIOS)
def test_argo_s_expressions_reckon_in_the_business_zone(scenario_):
    documents = render(scenario_)
    zone = of_kind(documents, "ConfigMap")["ecomm-data-pipeline"]["data"]["ECOMM_BUSINESS_TIMEZONE"]
    assert set(re.findall(r'timezone\(\\"([^"]*)\\"\)', json.dumps(documents))) <= {zone}


# --- restricted pods


def test_every_pod_is_restricted(scenario):
    documents = render(scenario)
    for workflow in of_kind(documents, "WorkflowTemplate").values():
        spec = workflow["spec"]
        assert spec["securityContext"] == POD_RESTRICTED
        patch = json.loads(spec["podSpecPatch"])
        for kind, name in (("initContainers", "init"), ("containers", "wait")):
            argo_s = next(one for one in patch[kind] if one["name"] == name)
            assert argo_s["securityContext"].items() >= RESTRICTED.items()
            assert argo_s["securityContext"]["runAsUser"] > 0
    for _, step in steps(documents):
        assert step["container"]["securityContext"] == {**RESTRICTED, "readOnlyRootFilesystem": True}
    pods = of_kind(documents, "Pod")
    assert pods
    for pod in pods.values():
        assert pod["spec"]["securityContext"] == POD_RESTRICTED
        for container in pod["spec"]["containers"]:
            assert container["securityContext"] == {**RESTRICTED, "readOnlyRootFilesystem": True}


def test_no_pod_has_a_token_but_argo_s_executor(scenario):
    documents = render(scenario)
    for workflow in of_kind(documents, "WorkflowTemplate").values():
        spec = workflow["spec"]
        assert spec["automountServiceAccountToken"] is False
        assert spec["executor"]["serviceAccountName"] != spec["serviceAccountName"]
    for pod in of_kind(documents, "Pod").values():
        assert pod["spec"]["automountServiceAccountToken"] is False
    for account in of_kind(documents, "ServiceAccount").values():
        assert account["automountServiceAccountToken"] is False


def test_permissions_are_exactly_to_tell_results():
    documents = render()
    assert not of_kind(documents, "ClusterRole", "ClusterRoleBinding")
    (role,) = of_kind(documents, "Role").values()
    assert role["rules"] == [
        {"apiGroups": ["argoproj.io"], "resources": ["workflowtaskresults"], "verbs": ["create", "patch"]}
    ]
    (binding,) = of_kind(documents, "RoleBinding").values()
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    assert [subject["name"] for subject in binding["subjects"]] == ["ecomm-data-pipeline-executor"]
    assert [subject["namespace"] for subject in binding["subjects"]] == ["ecomm"]


def test_argo_finds_the_executor_s_token_by_its_name():
    documents = render()
    executor = of_kind(documents, "WorkflowTemplate")["backfill"]["spec"]["executor"]["serviceAccountName"]
    secret = of_kind(documents, "Secret")[f"{executor}.service-account-token"]
    assert secret["type"] == "kubernetes.io/service-account-token"
    assert secret["metadata"]["annotations"] == {"kubernetes.io/service-account.name": executor}


def test_everything_that_a_pod_refers_to_is_in_the_chart_or_named_by_a_value(scenario):
    documents = render(scenario)
    values = yaml.safe_load((CHART / "ci" / f"{scenario}-values.yaml").read_text())
    accounts = set(of_kind(documents, "ServiceAccount")) or {"batch", "argo-executor"}
    containers = [step["container"] for _, step in steps(documents)]
    containers += [one for pod in of_kind(documents, "Pod").values() for one in pod["spec"]["containers"]]
    for container in containers:
        config, secret = container["envFrom"]
        assert config["configMapRef"]["name"] in of_kind(documents, "ConfigMap")
        assert secret["secretRef"]["name"] == values["secret"]["existingSecret"]
    for workflow in of_kind(documents, "WorkflowTemplate").values():
        assert workflow["spec"]["serviceAccountName"] in accounts
        assert workflow["spec"]["executor"]["serviceAccountName"] in accounts
