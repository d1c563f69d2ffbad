"""The kind cluster with both releases on it: what a person does there with kubectl, helm and argo."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ecomm_pipeline.ledger import Record
from ecomm_sandbox import databricks_service
from ecomm_sandbox.sandbox import Sandbox
from ecomm_sandbox.services import http
from ecomm_sandbox.state import pick_port

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

ROOT = Path(__file__).parents[2]
NAMESPACE = "ecomm"
SANDBOX = "ecomm-sandbox"
RELEASE = "ecomm-data-pipeline"
PIPELINE = "batch-ecomm-pipeline"
ENDED = ("Succeeded", "Failed", "Error")


class WaitedTooLongError(AssertionError):
    """Raised when something did not happen in time."""


def wait_until(what: str, condition: Callable[[], Any], within: float) -> Any:
    """Wait until a condition is true, and give what it gave."""
    deadline = time.monotonic() + within
    while not (found := condition()):
        if time.monotonic() > deadline:
            message = f"it did not happen within {within:.0f} s: {what}"
            raise WaitedTooLongError(message)
        time.sleep(1)
    return found


@dataclass(frozen=True)
class Node:
    """A node of a workflow: a task, a try of it, or what holds them together."""

    id: str
    name: str
    template: str
    kind: str
    phase: str
    message: str
    exit_code: int | None
    started: datetime | None
    finished: datetime | None
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]

    @classmethod
    def of(cls, raw: dict[str, Any]) -> Node:
        """Read it from a workflow's status."""
        outputs = raw.get("outputs") or {}
        code = outputs.get("exitCode")
        return cls(
            id=raw["id"],
            name=raw.get("displayName", ""),
            template=raw.get("templateName", ""),
            kind=raw.get("type", ""),
            phase=raw.get("phase", ""),
            message=raw.get("message", ""),
            exit_code=None if code is None else int(code),
            started=_instant(raw.get("startedAt")),
            finished=_instant(raw.get("finishedAt")),
            inputs=_parameters(raw.get("inputs") or {}),
            outputs=_parameters(outputs) | ({"result": outputs["result"]} if "result" in outputs else {}),
        )

    @property
    def seconds(self) -> float:
        """From its start to its end; 0 where either is missing."""
        return (self.finished - self.started).total_seconds() if self.started and self.finished else 0.0


def _instant(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def _parameters(part: dict[str, Any]) -> dict[str, str]:
    return {one["name"]: one.get("value", "") for one in part.get("parameters") or []}


class Run:
    """A workflow."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        self.cluster, self.name = cluster, name

    def get(self) -> dict[str, Any]:
        """Read it."""
        found: dict[str, Any] = self.cluster.json("get", "workflow", self.name)
        return found

    @property
    def phase(self) -> str:
        """Pending, Running, Succeeded, Failed or Error."""
        return str((self.get().get("status") or {}).get("phase") or "Pending")

    @property
    def run_id(self) -> str:
        """The run id of its stages, as workflows/stages.py makes it."""
        metadata = self.get()["metadata"]
        return f"{datetime.fromisoformat(metadata['creationTimestamp']):%Y%m%dT%H%M%SZ}-{metadata['uid']}"

    def pods(self) -> list[dict[str, Any]]:
        """List its pods."""
        found: list[dict[str, Any]] = self.cluster.json(
            "get", "pods", "-l", f"workflows.argoproj.io/workflow={self.name}"
        )["items"]
        return found

    def nodes(self, template: str = "", kind: str = "") -> list[Node]:
        """List its nodes, in the order in which they began."""
        raw = ((self.get().get("status") or {}).get("nodes") or {}).values()
        found = [Node.of(one) for one in raw]
        found = [node for node in found if template in ("", node.template) and kind in ("", node.kind)]
        return sorted(found, key=lambda node: (node.started or datetime.max.replace(tzinfo=UTC), node.id))

    def tries(self, template: str, **inputs: str) -> list[Node]:
        """List the pods of a template that ran, or run; each retry is one more."""
        return [node for node in self.nodes(template, "Pod") if inputs.items() <= dict(node.inputs).items()]

    def until(self, what: str, condition: Callable[[Run], Any], within: float = 120) -> Any:
        """Wait until a condition on it is true. Fails at once when the workflow ends before."""

        def look() -> Any:
            found = condition(self)
            if not found and (phase := self.phase) in ENDED and not (found := condition(self)):
                message = f"workflow {self.name} ended {phase} before: {what}"
                raise AssertionError(message)
            return found

        return wait_until(f"workflow {self.name}: {what}", look, within)

    def ends(self, phase: str, within: float) -> Run:
        """Wait until it ends, which must be in this phase."""
        found = wait_until(f"workflow {self.name} ends", lambda: self.phase in ENDED and self.phase, within)
        assert found == phase, f"workflow {self.name} ended {found}, not {phase}"
        return self

    def running_pod(self, template: str, within: float = 120, **inputs: str) -> Node:
        """Wait until a pod of a template runs."""
        return self.until(
            f"{template} {dict(inputs)} runs",
            lambda run: next((node for node in run.tries(template, **inputs) if node.phase == "Running"), None),
            within,
        )

    def delete_pod(self, node: Node) -> set[str]:
        """Delete the pod of a node, as a drained machine or a person does; give its uid."""
        pods = [
            pod["metadata"]
            for pod in self.pods()
            if pod["metadata"]["annotations"].get("workflows.argoproj.io/node-id") == node.id
        ]
        self.cluster.kubectl("delete", "pod", *(pod["name"] for pod in pods), "--wait=false")
        return {pod["uid"] for pod in pods}

    def kill_process(self, template: str, date: str) -> None:
        """Kill the process of a stage, as the kernel does when memory runs out: it cannot clean up."""
        command = f"/ecomm {template} --date={date}"
        self.cluster.run("docker", "exec", "ecomm-control-plane", "pkill", "-KILL", "-f", command)

    def retry(self) -> None:
        """Retry it, as the button of Argo's page does."""
        self.cluster.argo("retry", self.name)

    def stop(self) -> None:
        """Stop it; its exit handler runs."""
        self.cluster.argo("stop", self.name)

    def records(self, date: str) -> list[Record]:
        """Read what its stages wrote into the ledger for a date."""
        run_id = self.run_id
        return [record for record in self.cluster.ledger(date) if record.run_id == run_id]

    def summary(self) -> str:
        """Describe it in a line a pod, for a person who looks for what went wrong."""
        status = self.get().get("status") or {}
        lines = [f"{self.name}: {status.get('phase')} {status.get('message', '')}"]
        lines += [
            f"  {node.phase:<10}{node.seconds:>5.0f} s  {node.name}  exit {node.exit_code}  {node.message}"
            for node in self.nodes()
            if node.kind in ("Pod", "Retry") or node.message
        ]
        return "\n".join(lines)


class Cluster:
    """The cluster, by its command line tools."""

    def __init__(self, environment: Mapping[str, str], home: Path) -> None:
        self._environment = dict(environment)
        self.sandbox = Sandbox(home)
        self._stopped = threading.Event()
        self._forward: threading.Thread | None = None

    def run(
        self, *argv: str, data: str | None = None, timeout: float = 120, code: int | None = 0, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a program to its end, which must have this exit code; None: any."""
        done = subprocess.run(
            argv,
            input=data,
            env=self._environment | environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
        )
        assert code in (None, done.returncode), (
            f"{' '.join(argv)}: {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        )
        return done

    def kubectl(self, *args: str, namespace: str = NAMESPACE, **options: Any) -> str:
        """Run kubectl; give what it wrote."""
        return self.run("kubectl", "-n", namespace, *args, **options).stdout

    def json(self, *args: str, namespace: str = NAMESPACE) -> Any:
        """Run kubectl, and read its JSON."""
        return json.loads(self.kubectl(*args, "-o", "json", namespace=namespace))

    def argo(self, *args: str) -> str:
        """Run argo; give what it wrote."""
        return self.run("argo", "-n", NAMESPACE, *args).stdout

    def helm(self, *args: str, namespace: str = NAMESPACE, **options: Any) -> str:
        """Run helm; give what it wrote."""
        return self.run("helm", "-n", namespace, *args, **options).stdout

    def submit(self, source: str, **parameters: str) -> Run:
        """Submit a workflow from `cronwf/…` or `wftmpl/…`; an underscore of a parameter's name means a hyphen."""
        given = [
            part
            for name, value in parameters.items()
            for part in ("-p", f"{name.strip('_').replace('_', '-')}={value}")
        ]
        return Run(self, self.argo("submit", "--from", source, *given, "-o", "name").strip())

    def ecomm(self, *args: str, timeout: float = 60) -> str:
        """Run a command of ours here, with the settings of the sandbox in the cluster; give what it wrote."""
        argv = [sys.executable, "-m", "ecomm_pipeline.cli", *args]
        return self.run(*argv, timeout=timeout, **self.sandbox.env()).stdout

    def submitted(self, told: str) -> Run:
        """Give the workflow that one of our commands says it submitted."""
        return Run(self, re.search(r"submitted as (\S+)", told)[1])  # type: ignore[index]  # a failure says so

    def workflows(self, **labels: str) -> list[Run]:
        """List the workflows that have these labels, oldest first."""
        selector = ",".join(f"{name}={value}" for name, value in labels.items())
        items = self.json("get", "workflows", *(["-l", selector] if selector else []))["items"]
        items.sort(key=lambda one: one["metadata"]["creationTimestamp"])
        return [Run(self, one["metadata"]["name"]) for one in items]

    def attach(self) -> None:
        """Let `sandbox` speak to the one in the cluster, by ports of this machine that kubectl forwards."""
        inside = json.loads(
            self.kubectl("exec", "deploy/sandbox", "--", "cat", "/sandbox/state.json", namespace=SANDBOX)
        )
        service = self.json("get", "service", "sandbox", namespace=SANDBOX)
        taken: set[int] = set()
        with self.sandbox.home.change() as state:
            state.secrets, state.values = inside["secrets"], inside["values"]
            for port in service["spec"]["ports"]:
                state.ports[port["name"]] = pick_port(taken)
                taken.add(state.ports[port["name"]])
            pairs = [f"{state.ports[port['name']]}:{port['port']}" for port in service["spec"]["ports"]]
        state.ports["postgres-direct"], state.ports["s3-direct"] = state.ports["postgres"], state.ports["s3"]
        self._forward = threading.Thread(target=self._keep_forwarding, args=(pairs,), daemon=True)
        self._forward.start()
        wait_until("the sandbox's ports are forwarded", self._answers, 30)

    def _answers(self) -> bool:
        try:
            self.sandbox.connect().close()
        except Exception:  # noqa: BLE001 (whatever it is, it does not answer yet)
            return False
        return True

    def _keep_forwarding(self, pairs: list[str]) -> None:
        """Forward ports until told to stop; kubectl ends when a connection breaks in an unusual way."""
        argv = ["kubectl", "-n", SANDBOX, "port-forward", "service/sandbox", *pairs]
        while not self._stopped.is_set():
            process = subprocess.Popen(
                argv, env=self._environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            while process.poll() is None:
                if self._stopped.wait(0.2):
                    process.terminate()
                    process.wait()
            self._stopped.wait(0.2)

    def detach(self) -> None:
        """Forward no more."""
        self._stopped.set()
        if self._forward:
            self._forward.join(10)

    def ledger(self, date: str) -> list[Record]:
        """Read all records of a date."""
        s3, bucket = self.sandbox.s3(), self.sandbox.env()["ECOMM_STORE_BUCKET"]
        pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=f"ledger/date={date}/")
        keys = [entry["Key"] for page in pages for entry in page.get("Contents", []) if entry["Key"].endswith(".json")]
        found = [Record.model_validate_json(s3.get_object(Bucket=bucket, Key=key)["Body"].read()) for key in keys]
        return sorted(found, key=lambda record: record.began_at)

    def updates(self) -> set[str]:
        """Give the ids of the pipeline's completed updates."""
        state = self.sandbox.state
        url = f"http://127.0.0.1:{state.ports['databricks']}/api/2.0/pipelines/{databricks_service.PIPELINE}/updates"
        found = http("GET", f"{url}?max_results=100", token=state.secrets["databricks-token"])["updates"]
        return {update["update_id"] for update in found if update["state"] == "COMPLETED"}

    def diagnose(self, since: datetime) -> str:
        """Tell what a person would look at: workflows since an instant, their failed pods' logs, events."""
        parts = []
        for run in self.workflows():
            raw = run.get()
            touched = (raw.get("status") or {}).get("finishedAt") or datetime.now(UTC).isoformat()
            if datetime.fromisoformat(touched) < since:
                continue
            parts.append(run.summary())
            for pod in run.pods():
                if pod["status"].get("phase") != "Succeeded":
                    name = pod["metadata"]["name"]
                    log = self.run("kubectl", "-n", NAMESPACE, "logs", name, "--all-containers", "--tail=15", code=None)
                    parts.append(f"--- {name} ({pod['status'].get('phase')})\n{log.stdout}{log.stderr}")
        for namespace in (NAMESPACE, SANDBOX):
            events = self.run(
                "kubectl", "-n", namespace, "get", "events", "--sort-by=.lastTimestamp", code=None
            ).stdout.splitlines()
            parts.append("\n".join([f"--- events of {namespace}", *events[-25:]]))
        return "\n".join(parts)


def environment() -> dict[str, str]:
    """Give this process's environment, with the cluster's tools on its path, as `cluster/env` tells."""
    done = subprocess.run(
        ["bash", "-c", 'eval "$(cluster/env)" && env -0'], cwd=ROOT, capture_output=True, text=True, check=True
    )
    pairs = (entry.partition("=") for entry in done.stdout.split("\0") if entry)
    return {**os.environ, **{name: value for name, _, value in pairs}}
