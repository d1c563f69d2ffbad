"""The life of a release in a namespace of its own."""

from __future__ import annotations

import json
import re
from contextlib import contextmanager

from tests.support.cluster import NAMESPACE, PIPELINE, RELEASE, wait_until

ELSEWHERE = "ecomm-release"
OF_KUBERNETES = {"serviceaccounts/default", "configmaps/kube-root-ca.crt"}
NOT_OURS = ("events", "leases", "events.events.k8s.io", "pods.metrics.k8s.io")


@contextmanager
def namespace(cluster):
    """Make a namespace like that of the pipeline, with its Secret."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    made = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": ELSEWHERE, "labels": labels}}
    secret = cluster.json("get", "secret", RELEASE)
    secret["metadata"] = {"name": RELEASE}
    cluster.kubectl("apply", "-f", "-", namespace="default", data=json.dumps(made))
    cluster.kubectl("apply", "-f", "-", namespace=ELSEWHERE, data=json.dumps(secret))
    try:
        yield ELSEWHERE
    finally:
        cluster.kubectl("delete", "namespace", ELSEWHERE, "--wait=false", namespace="default")


def objects(cluster, namespace):
    """List all that is in a namespace, but for what Kubernetes puts and removes by itself."""
    kinds = cluster.kubectl("api-resources", "--namespaced", "--verbs=list", "-o", "name").split()
    found = cluster.kubectl(
        "get",
        ",".join(kind for kind in kinds if kind not in NOT_OURS),
        "-o",
        "json",
        "--ignore-not-found",
        namespace=namespace,
    )
    items = json.loads(found)["items"] if found else []
    return {f"{item['kind'].lower()}s/{item['metadata']['name']}" for item in items} - OF_KUBERNETES


def tables(cluster, namespace):
    template = cluster.json("get", "workflowtemplate", PIPELINE, namespace=namespace)
    given = {one["name"]: one.get("value") for one in template["spec"]["arguments"]["parameters"]}
    settings = cluster.json("get", "configmap", RELEASE, namespace=namespace)["data"]
    return json.loads(given["tables"]), settings["ECOMM_TABLES"]


def heard(cluster):
    """List what Argo's controller said of CronWorkflows, with their namespaces: their status does not tell."""
    log = cluster.kubectl("logs", "deployment/workflow-controller", "--since=5m", namespace="argo")
    lines = re.findall(r'msg="([^"]*cron workflow[^"]*|CronWorkflow added)".*?cronWorkflow=([\w-]+)/', log)
    return [" ".join(line) for line in lines]


def live(cluster, folder):
    """Install a release in a namespace of its own, test it, upgrade it with other tables and uninstall it."""
    with namespace(cluster) as there:
        _live(cluster, there, folder)


def _live(cluster, namespace, folder):
    before = objects(cluster, namespace)
    values = folder / "values.json"
    values.write_text(cluster.helm("get", "values", RELEASE, "-o", "json", namespace=NAMESPACE))
    cluster.helm("install", RELEASE, f"helm/{RELEASE}", "-f", str(values), namespace=namespace)
    wait_until("Argo has accepted the schedule", lambda: f"CronWorkflow added {namespace}" in heard(cluster), 10)
    told = cluster.helm("test", RELEASE, "--timeout", "120s", namespace=namespace, timeout=150)
    assert "Phase:          Succeeded" in told
    assert "Failed" not in told

    fewer = ["orders", "order_items"]
    upgrade = ["upgrade", RELEASE, f"helm/{RELEASE}", "--reuse-values", "--set-json", f"tables={json.dumps(fewer)}"]
    cluster.helm(*upgrade, namespace=namespace)
    assert tables(cluster, namespace) == (fewer, ",".join(fewer))

    cluster.helm("uninstall", RELEASE, "--wait", namespace=namespace)
    # Helm waits for what it made, and not for the pods of a Deployment.
    wait_until("nothing is left of the release", lambda: objects(cluster, namespace) == before, 30)
