"""Slack, PagerDuty and Jira of the sandbox, an Alertmanager's API, and where the programs are."""

from __future__ import annotations

import json
import socket
import subprocess
import time
import urllib.error
import urllib.request
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from ecomm_sandbox.sinks.inbox import Secrets

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm" / "ecomm-data-pipeline"
CONFIG = CHART / "alertmanager" / "alertmanager.yml"


def http(method: str, url: str, body: Any = None) -> Any:
    """Send JSON, and give the answer's."""
    request = urllib.request.Request(url, None if body is None else json.dumps(body).encode(), method=method)
    request.add_header("Content-Type", "application/json")
    with urllib.request.urlopen(request, timeout=10) as answer:
        text = answer.read()
    return json.loads(text) if text.startswith((b"{", b"[")) else text.decode()


def eventually(what: Callable[[], Any], seconds: float = 30) -> Any:
    """Wait until something is true, and give it."""
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, f"it did not happen within {seconds} s"
        time.sleep(0.1)
    return found


def free_port() -> int:
    """Give a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def programs(tool: str) -> Path:
    """Give the folder of the programs that a script of tools/ finds, fetches or builds."""
    done = subprocess.run([str(ROOT / "tools" / tool)], capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip())


class Sinks:
    """Slack, PagerDuty and Jira."""

    def __init__(self, secrets: Secrets, port: int) -> None:
        self.secrets = secrets
        self.url = f"http://127.0.0.1:{port}"

    def told(self, service: str) -> list[dict[str, Any]]:
        """Give what a service took, oldest first."""
        return [one for one in self.everything()["messages"] if one["service"] == service]

    def everything(self) -> dict[str, Any]:
        """Give all messages, incidents and tickets."""
        found: dict[str, Any] = http("GET", f"{self.url}/sandbox/messages")
        return found


class Alertmanager:
    """The process, and the alerts that Prometheus would send it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.began = datetime.now(UTC)

    def fire(self, alert: str, priority: str, *, minutes: float = 5, **labels: str) -> None:
        """Send an alert that lasts `minutes` unless it is sent again; 0 resolves it."""
        times = {"startsAt": self.began.isoformat()}
        times["endsAt"] = (datetime.now(UTC) + timedelta(minutes=minutes)).isoformat()
        annotations = {
            "summary": f"{alert} of {labels.get('table', 'all')} for {labels.get('date', 'no date')}",
            "description": "3 rows < 5 rows & more.",
            "command": f"ecomm rerun dbt {labels.get('date')}",
            "runbook_url": f"https://example.com/docs/runbooks/{alert}.md",
        }
        labels = {"alertname": alert, "priority": priority, **labels}
        http("POST", f"{self.url}/api/v2/alerts", [{"labels": labels, "annotations": annotations, **times}])

    def inhibited(self) -> set[str]:
        """Give the names of the alerts that others silence."""
        found = http("GET", f"{self.url}/api/v2/alerts?inhibited=true")
        return {one["labels"]["alertname"] for one in found if one["status"]["inhibitedBy"]}
