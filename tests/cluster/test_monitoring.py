"""What Prometheus would be told on Kubernetes: of runs by the exporter, and of Argo by its controller."""

from __future__ import annotations

import re

import pytest
import yaml
from tests.support.cluster import NAMESPACE, RELEASE, ROOT, wait_until

ALERTS = sorted((ROOT / "helm" / RELEASE / "alerts").glob("argo-*.yaml"))


def samples(text):
    """Read metrics: name and labels of each series."""
    for name, labels in re.findall(r"^(\w+)(?:\{(.*)\})? \S+$", text, re.MULTILINE):
        yield name, dict(re.findall(r'(\w+)="([^"]*)"', labels))


def test_the_exporter_tells_of_a_run(cluster, good_day):
    path = f"/api/v1/namespaces/{NAMESPACE}/services/{RELEASE}-exporter:metrics/proxy/metrics"

    def told():
        found = list(samples(cluster.kubectl("get", "--raw", path)))
        stages = {
            labels["stage"]
            for name, labels in found
            if name == "ecomm_stage_outcome" and (labels["date"], labels["outcome"]) == (good_day.date, "succeeded")
        }
        return stages >= {record.stage for record in good_day.run.records(good_day.date)}

    wait_until("the exporter has read what the run wrote", told, 60)


@pytest.mark.parametrize("path", ALERTS, ids=lambda path: path.stem)
def test_argo_s_controller_has_the_metrics_and_labels_of_an_alert(cluster, good_day, path):
    """Some it has only once a pod has run."""
    (rule,) = yaml.safe_load(path.read_text())["groups"][0]["rules"]
    [name] = set(re.findall(r"argo_workflows_[a-z_]+[a-z]", rule["expr"]))
    wanted = {label: value for label, value in re.findall(r'(\w+)=~?"([^"]*)"', rule["expr"]) if label != "__name__"}
    [pod] = cluster.json("get", "pods", "-l", "app=workflow-controller", namespace="argo")["items"]
    proxy = f"/api/v1/namespaces/argo/pods/{pod['metadata']['name']}:9090/proxy"
    metrics = cluster.kubectl("get", "--raw", f"{proxy}/metrics")
    assert any(
        found == name and all(re.fullmatch(value, labels.get(label, "")) for label, value in wanted.items())
        for found, labels in samples(metrics)
    )
