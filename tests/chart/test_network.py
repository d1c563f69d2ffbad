"""Each stage reaches what it needs and nothing else, by the rules of NetworkPolicies; and `helm test` tries it."""

from __future__ import annotations

import re
import shutil
from typing import TYPE_CHECKING, Any, get_type_hints

import pytest
import yaml

from ecomm_pipeline import settings
from ecomm_pipeline.check.plan import DEPENDENCIES

from .conftest import CHART, of_kind, packed, render, steps, template

if TYPE_CHECKING:
    from pathlib import Path

STAGES = {
    "extractor": settings.ExtractorSettings,
    "dlt-trigger": settings.DltTriggerSettings,
    "dbt-runner": settings.DbtRunnerSettings,
    "tableau-refresher": settings.TableauRefresherSettings,
    "reconciler": settings.ReconcilerSettings,
}
SERVICE_OF = {
    settings.Postgres: "postgres",
    settings.Store: "s3",
    settings.Databricks: "databricks",
    settings.DbtCloud: "dbt-cloud",
    settings.Tableau: "tableau",
}
LEDGER_ONLY = {"dates": {"s3"}, "finish": {"s3"}, "gate": set()}
"""Steps that are no stage: which dates need work, and what became of a workflow, are in the ledger."""
NEEDS = {
    stage: {SERVICE_OF[group] for group in get_type_hints(kind).values() if group in SERVICE_OF}
    for stage, kind in {**STAGES, "kpi-gate": settings.KpiGateSettings}.items()
} | LEDGER_ONLY
PORTS = {
    "minimal": {"postgres": 5432, "s3": 443, "databricks": 443, "tableau": 443},
    "kind": {"postgres": 5432, "s3": 8333, "databricks": 8090, "tableau": 8080},
    "external-secret": {"postgres": 6432, "s3": 443, "databricks": 443, "tableau": 443},
    "registry": {"postgres": 5432, "s3": 9000, "databricks": 443, "tableau": 443},
    "dbt-cloud": {"postgres": 5432, "s3": 443, "databricks": 443, "tableau": 443, "dbt-cloud": 443},
}
"""Ports by service; dbt Cloud is reached only where the settings name a job of it."""
DNS = {("UDP", 53), ("TCP", 53)}
API = {("TCP", 443), ("TCP", 6443)}
PROXY = {("TCP", 3128)}
LINEAGE = {("TCP", 443)}

Rule = tuple[str, int]


def labels(step: str, *, in_workflow: bool = True) -> dict[str, str]:
    """Give the labels by which policies know a step's pod; Argo adds the workflow's."""
    own = {"app.kubernetes.io/name": "ecomm-data-pipeline", "app.kubernetes.io/component": step}
    return own | ({"workflows.argoproj.io/workflow": "w"} if in_workflow else {})


def selects(policy: dict[str, Any], pod: dict[str, str]) -> bool:
    """Whether a policy is for a pod, as Kubernetes matches labels."""
    selector = policy["spec"]["podSelector"]
    for expression in selector.get("matchExpressions", []):
        value = pod.get(expression["key"])
        found = value is not None if expression["operator"] == "Exists" else value in expression["values"]
        if not found:
            return False
    return selector.get("matchLabels", {}).items() <= pod.items()


def egress(documents: list[dict[str, Any]], pod: dict[str, str]) -> list[dict[str, Any]]:
    """Give the egress rules that a pod has by all policies."""
    policies = [one for one in of_kind(documents, "NetworkPolicy").values() if selects(one, pod)]
    assert any("Egress" in one["spec"]["policyTypes"] for one in policies), "nothing bounds it"
    return [rule for one in policies for rule in one["spec"].get("egress", [])]


def ports(documents: list[dict[str, Any]], pod: dict[str, str]) -> set[Rule]:
    """Give the protocols and ports that a pod may reach."""
    return {(port.get("protocol", "TCP"), port["port"]) for rule in egress(documents, pod) for port in rule["ports"]}


@pytest.mark.parametrize("step", NEEDS)
@pytest.mark.parametrize("name", PORTS)
def test_a_step_reaches_dns_the_api_and_what_its_settings_name(name, step):
    expected = DNS | API | {("TCP", port) for service, port in PORTS[name].items() if service in NEEDS[step]}
    expected |= PROXY if name == "external-secret" else set()
    expected |= LINEAGE if name == "registry" and step not in {"dates", "gate"} else set()
    assert ports(render(name), labels(step)) == expected


def test_every_step_of_the_workflows_is_thought_of():
    assert {step["name"] for _, step in steps(list(packed().values()))} == NEEDS.keys()
    for _, step in steps(render()):
        assert step["metadata"]["labels"].items() >= labels(step["name"], in_workflow=False).items()


def test_nobody_reaches_a_step():
    for step in NEEDS:
        policies = [one for one in of_kind(render(), "NetworkPolicy").values() if selects(one, labels(step))]
        assert any("Ingress" in one["spec"]["policyTypes"] for one in policies)
        assert not any(one["spec"].get("ingress") for one in policies)


def test_pods_of_others_are_left_alone():
    other = {"app.kubernetes.io/name": "other", "app.kubernetes.io/component": "extractor"}
    assert not any(selects(one, other) for one in of_kind(render(), "NetworkPolicy").values())


def test_what_is_in_the_cluster_is_reached_in_its_namespace_only():
    sandbox = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ecomm-sandbox"}}}
    policies = of_kind(render("kind"), "NetworkPolicy")
    for service in ("postgres", "s3", "databricks", "tableau"):
        (rule,) = policies[f"ecomm-data-pipeline-{service}"]["spec"]["egress"]
        assert rule["to"] == [sandbox]


def test_addresses_bound_where_a_port_may_be_reached():
    (rule,) = of_kind(render("irsa"), "NetworkPolicy")["ecomm-data-pipeline-postgres"]["spec"]["egress"]
    assert rule == {"ports": [{"port": 5432}], "to": [{"ipBlock": {"cidr": "10.0.64.0/18"}}]}


def test_dbt_cloud_is_reached_by_dbt_runner_only_and_only_where_a_job_of_it_is_named():
    policy = of_kind(render("dbt-cloud"), "NetworkPolicy")["ecomm-data-pipeline-dbt-cloud"]
    assert [step for step in NEEDS if selects(policy, labels(step))] == ["dbt-runner"]
    assert policy["spec"]["egress"] == [{"ports": [{"port": 443}], "to": [{"ipBlock": {"cidr": "52.3.77.232/32"}}]}]
    assert "ecomm-data-pipeline-dbt-cloud" not in of_kind(render(), "NetworkPolicy")


def test_ports_of_values_go_before_those_of_the_settings():
    documents = render(networkPolicy={"tableau": {"ports": [8443, 443]}})
    assert ports(documents, labels("tableau-refresher")) >= {("TCP", 8443), ("TCP", 443)}


def test_without_network_policies_there_are_none():
    assert not of_kind(render("suspended"), "NetworkPolicy")


# --- helm test


def test_each_stage_s_image_asks_what_its_stage_talks_to():
    pods = of_kind(render("dbt-cloud"), "Pod")
    asked = {}
    for pod in pods.values():
        (container,) = pod["spec"]["containers"]
        assert (container["command"], container["args"][0]) == (["ecomm"], "check")
        names = [name for name in container["args"][1:] if not name.startswith("--")]
        assert set(names) <= DEPENDENCIES.keys()
        asked[pod["metadata"]["labels"]["app.kubernetes.io/component"]] = {
            "databricks" if name == "warehouse" else name for name in names
        }
        stage = re.search(r"/([a-z-]+):", container["image"])[1]
        assert pod["metadata"]["labels"]["app.kubernetes.io/component"] == stage
    assert asked == {stage: NEEDS[stage] for stage in STAGES}


def test_every_service_that_can_be_asked_is_asked_and_the_bucket_is_written_to():
    pods = of_kind(render("dbt-cloud"), "Pod").values()
    arguments = [one for pod in pods for one in pod["spec"]["containers"][0]["args"]]
    assert "dbt-cloud" not in str(of_kind(render(), "Pod"))
    assert {*DEPENDENCIES, "--write"} <= set(arguments)


def test_a_test_runs_as_its_stage_does():
    documents = render("irsa")
    by_name = {step["name"]: step["container"] for _, step in steps(documents)}
    spec = of_kind(documents, "WorkflowTemplate")["backfill"]["spec"]
    for pod in of_kind(documents, "Pod").values():
        stage = pod["metadata"]["labels"]["app.kubernetes.io/component"]
        (container,) = pod["spec"]["containers"]
        for same in ("image", "imagePullPolicy", "envFrom", "securityContext", "volumeMounts"):
            assert container[same] == by_name[stage][same]
        for same in ("serviceAccountName", "nodeSelector", "securityContext"):
            assert pod["spec"][same] == spec[same]
        assert ports(documents, pod["metadata"]["labels"]) == ports(documents, labels(stage)) - API | (
            {("TCP", 443)} if {"s3", "databricks"} & NEEDS[stage] else set()
        )


def test_tests_leave_nothing_behind_and_end_by_themselves():
    for pod in of_kind(render(), "Pod").values():
        hooks = pod["metadata"]["annotations"]
        assert hooks["helm.sh/hook"] == "test"
        assert hooks["helm.sh/hook-delete-policy"].split(",") == ["before-hook-creation", "hook-succeeded"]
        assert pod["spec"]["restartPolicy"] == "Never"
        assert pod["spec"]["activeDeadlineSeconds"] <= 300


# --- what helm says afterwards


def test_the_notes_tell_three_commands_that_are_right(tmp_path: Path):
    """Helm prints notes after an installation only: here they are the text of a ConfigMap of a copied chart."""
    chart = tmp_path / "chart"
    shutil.copytree(CHART, chart)
    notes = (chart / "templates" / "NOTES.txt").read_text()
    (chart / "templates" / "notes.yaml").write_text(
        '{{- define "notes" }}' + notes + "{{ end }}\nkind: Notes\napiVersion: v1\nmetadata: {name: notes}\n"
        'text: |\n  {{- include "notes" . | nindent 2 }}\n'
    )
    done = template("minimal", chart=chart)
    assert done.returncode == 0, done.stderr
    text = of_kind([one for one in yaml.safe_load_all(done.stdout) if one], "Notes")["notes"]["text"]
    commands = [line.strip() for line in text.splitlines() if line.startswith("  ")]
    assert commands[0] == "helm test ecomm-data-pipeline --namespace ecomm"
    assert len(commands) == 3
    assert all("--namespace ecomm" in command for command in commands)
    for command in commands[1:]:
        name = re.search(r"--from (?:cronwf|workflowtemplate)/(\S+)", command)[1]
        declared = {one["name"] for one in packed()[f"WorkflowTemplate/{name}"]["spec"]["arguments"]["parameters"]}
        assert set(re.findall(r"-p ([a-z-]+)=", command)) <= declared
