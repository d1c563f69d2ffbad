"""Submitting and following a workflow, against a server that speaks as Kubernetes does."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from ecomm_pipeline.argo import Argo, manifest
from ecomm_pipeline.errors import (
    CancelledError,
    ConfigurationError,
    CredentialsError,
    MissingSourceError,
    UpstreamFailedError,
)

WORKFLOWS = "/apis/argoproj.io/v1alpha1/namespaces/ecomm/workflows"
TEMPLATES = "/apis/argoproj.io/v1alpha1/namespaces/ecomm/workflowtemplates"


def node(template, phase, *given, name="x"):
    inputs = {"parameters": [{"name": str(number), "value": value} for number, value in enumerate(given)]}
    return {"type": "Pod", "templateName": template, "phase": phase, "displayName": name, "inputs": inputs}


class Clock:
    """Time that only sleeping moves."""

    def __init__(self):
        self.time = 0.0

    def monotonic(self):
        return self.time

    def sleep(self, seconds):
        self.time += seconds


class Cluster(ThreadingHTTPServer):
    """What was asked of it, and what it answers: `statuses` of the workflow one after the other, the last for ever."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.created = []
        self.statuses = [{"phase": "Succeeded"}]
        self.refuses = None


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.server.refuses:
            self._answer(self.server.refuses, {"message": "no"})
        elif self.path == f"{TEMPLATES}/dlt-update":
            self._answer(200, {"spec": {"priority": 100}})
        elif self.path == f"{WORKFLOWS}/dlt-update-abcde":
            statuses = self.server.statuses
            self._answer(200, {"status": statuses.pop(0) if len(statuses) > 1 else statuses[0]})
        else:
            self._answer(404, {"message": "not found"})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.created.append(body)
        self._answer(201, {"metadata": {"name": f"{body['metadata']['generateName']}abcde"}})

    def _answer(self, status, body):
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    server = Cluster()
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "clusters": [{"name": "here", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}],
        "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}}],
        "users": [{"name": "me", "user": {}}],
    }
    (tmp_path / "config").write_text(json.dumps(config))
    # The client reads KUBECONFIG when it is imported, which another test may have done.
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "config"))
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def argo(cluster):
    return Argo("ecomm", Clock())


def test_a_template_is_submitted_by_its_name_with_arguments_its_priority_and_nothing_else(cluster, argo):
    assert argo.submit("dlt-update", {"date": "2026-01-02", "trigger": "manual"}) == "dlt-update-abcde"
    assert cluster.created == [manifest("dlt-update", {"date": "2026-01-02", "trigger": "manual"}, 100)]
    assert cluster.created[0]["spec"] == {
        "workflowTemplateRef": {"name": "dlt-update"},
        "priority": 100,
        "arguments": {"parameters": [{"name": "date", "value": "2026-01-02"}, {"name": "trigger", "value": "manual"}]},
    }


def test_a_template_that_is_not_installed_is_named(argo):
    with pytest.raises(MissingSourceError, match="the namespace ecomm has no WorkflowTemplate backfill"):
        argo.submit("backfill", {})


def test_it_is_followed_to_its_end_and_each_step_is_told_of_once(cluster, argo):
    running = {"0": node("extractor", "Running", "2026-01-02", "orders")}
    ended = {
        "0": node("extractor", "Failed", "2026-01-02", "orders", name="extractor(0)"),
        "1": node("extractor", "Succeeded", "2026-01-02", "orders", name="extractor(1)"),
        "2": {"type": "DAG", "templateName": "main", "phase": "Succeeded"},
    }
    cluster.statuses = [
        {},
        {"phase": "Running", "progress": "0/1", "nodes": running},
        {"phase": "Running", "progress": "0/1", "nodes": running},
        {"phase": "Succeeded", "progress": "1/1", "nodes": ended},
    ]
    said = []
    argo.follow("dlt-update-abcde", said.append)
    assert [line.split("  ")[1].strip() for line in said] == [
        "extractor 2026-01-02 orders",
        "extractor 2026-01-02 orders",
        "extractor 2026-01-02 orders (try 2)",
    ]
    assert [line.split()[-2:] for line in said] == [["running", "0/1"], ["failed", "1/1"], ["succeeded", "1/1"]]


def test_what_waits_for_a_person_is_told_with_its_reason(cluster, argo):
    hold = {**node("hold", "Running", "held: orders is 1; argo resume -n ecomm batch-1"), "type": "Suspend"}
    cluster.statuses = [
        {"phase": "Running", "progress": "1/1", "nodes": {"0": hold}},
        {"phase": "Succeeded", "progress": "1/1", "nodes": {"0": hold | {"phase": "Succeeded"}}},
    ]
    said = []
    argo.follow("dlt-update-abcde", said.append)
    assert " ".join(said[0].split()) == "hold held: orders is 1; argo resume -n ecomm batch-1 running 1/1"


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        ({"phase": "Failed", "message": "child 'x' failed"}, UpstreamFailedError),
        ({"phase": "Error"}, UpstreamFailedError),
        ({"phase": "Failed", "message": "Stopped with strategy 'Stop'"}, CancelledError),
    ],
)
def test_a_bad_end_is_raised_with_where_to_look(cluster, argo, status, kind):
    cluster.statuses = [status]
    with pytest.raises(kind, match="dlt-update-abcde ended as") as raised:
        argo.follow("dlt-update-abcde", lambda _: None)
    assert "argo -n ecomm get dlt-update-abcde" in raised.value.next_step


def test_the_step_that_failed_says_why(cluster, argo):
    failed = {**node("reconciler", "Failed", "2026-01-02", "kpi"), "message": "Error (exit code 65)"}
    status = {"phase": "Failed", "message": "retryStrategy.expression evaluated to false", "nodes": {"0": failed}}
    cluster.statuses = [status]
    with pytest.raises(UpstreamFailedError, match=r"reconciler 2026-01-02 kpi: Error \(exit code 65\)"):
        argo.follow("dlt-update-abcde", lambda _: None)


@pytest.mark.parametrize("status", [401, 403])
def test_a_refusal_is_one_of_credentials(cluster, argo, status):
    cluster.refuses = status
    with pytest.raises(CredentialsError, match="namespace ecomm"):
        argo.look("dlt-update-abcde")


def test_without_a_cluster_it_says_how_to_name_one(cluster):
    with pytest.raises(ConfigurationError, match="no cluster is configured"):
        Argo("ecomm", Clock(), context="nowhere")
