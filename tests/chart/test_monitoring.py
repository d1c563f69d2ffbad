"""What the chart makes of alerts, the exporter and dashboards."""

from __future__ import annotations

import json
import re

import yaml

from .conftest import CHART, NAMESPACE, of_kind, render

ALERTS = {path.stem: yaml.safe_load(path.read_text()) for path in sorted((CHART / "alerts").glob("*.yaml"))}
URL = "https://git.example.com/data/ecomm-data-pipeline/blob/main/"


def rules(documents):
    (rule,) = of_kind(documents, "PrometheusRule").values()
    return rule["spec"]["groups"]


def test_without_monitoring_there_is_none_of_it():
    kinds = {document["kind"] for document in render("minimal")}
    assert not kinds & {"Deployment", "PrometheusRule", "ServiceMonitor", "PodMonitor"}


def test_without_the_operator_the_exporter_runs_and_nothing_is_of_kinds_that_are_not_there():
    documents = render("monitoring", monitoring={"enabled": True, "operator": False, "argoNamespace": "argo"})
    assert of_kind(documents, "Deployment")
    assert not [one for one in documents if one["apiVersion"].startswith("monitoring.coreos.com/")]


def test_every_alert_is_there_as_it_was_written_but_for_its_link_and_its_command():
    groups = rules(render("monitoring"))
    assert [group["name"] for group in groups] == [one["groups"][0]["name"] for one in ALERTS.values()]
    for group, (name, written) in zip(groups, ALERTS.items(), strict=True):
        (made,), (packed,) = group["rules"], written["groups"][0]["rules"]
        assert made["annotations"].pop("runbook_url") == f"{URL}docs/runbooks/{name}.md"
        assert made["annotations"].pop("command").startswith(packed["annotations"].pop("command"))
        packed["annotations"].pop("runbook_url")
        assert made == packed


def test_commands_are_for_the_cluster_and_the_namespace_of_the_release():
    commands = [group["rules"][0]["annotations"]["command"] for group in rules(render("monitoring"))]
    for command in commands:
        if re.match(r"ecomm (backfill|rerun) ", command):
            assert command.endswith(f" --on argo --namespace {NAMESPACE}")
        elif command.startswith("ecomm "):
            assert "--on" not in command


def test_the_exporter_s_service_is_what_the_monitor_and_the_policy_mean():
    documents = render("monitoring")
    (pod,) = (one["spec"]["template"] for one in of_kind(documents, "Deployment").values())
    (service,) = of_kind(documents, "Service").values()
    (monitor,) = of_kind(documents, "ServiceMonitor").values()
    policy = of_kind(documents, "NetworkPolicy")["ecomm-data-pipeline-exporter"]
    labels = pod["metadata"]["labels"].items()
    assert service["spec"]["selector"].items() <= labels
    assert policy["spec"]["podSelector"]["matchLabels"].items() <= labels
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    (port,) = service["spec"]["ports"]
    assert monitor["spec"]["endpoints"][0]["port"] == port["name"]
    assert pod["spec"]["containers"][0]["ports"] == [{"name": port["targetPort"], "containerPort": 9464}]
    assert policy["spec"]["ingress"][0]["from"], "only who is named may ask"


def test_the_exporter_reaches_s3_and_no_other_service():
    policies = of_kind(render("monitoring"), "NetworkPolicy")
    reached = {
        name
        for name, policy in policies.items()
        for expression in policy["spec"]["podSelector"].get("matchExpressions", [])
        if "exporter" in expression.get("values", [])
    }
    assert reached == {"ecomm-data-pipeline-s3"}


def test_dashboards_reach_grafana_as_they_are():
    (dashboards,) = (
        one for one in of_kind(render("monitoring"), "ConfigMap").values() if "dashboards" in one["metadata"]["name"]
    )
    assert dashboards["data"].keys() == {path.name for path in (CHART / "dashboards").glob("*.json")}
    assert json.loads(dashboards["data"]["ecomm.json"]) == json.loads((CHART / "dashboards/ecomm.json").read_text())
