"""Who watches: an exporter over the sandbox's ledger, Prometheus with the chart's alerts, Alertmanager with its routes.

All waits are left out (`for`, grouping), so that an alert tells at once what it would tell after minutes.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ecomm_sandbox.services import http
from ecomm_sandbox.sinks.jira import USER
from ecomm_sandbox.state import LOOPBACK, SandboxError, pick_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from ecomm_sandbox.sinks.inbox import Secrets

__all__ = ["CHART", "Watch", "alertmanager_config", "rules", "until", "watching", "write_credentials"]

CHART: Final = Path(__file__).parents[3] / "helm" / "ecomm-data-pipeline"
_MOUNT: Final = "/etc/alertmanager/secrets/ecomm-alerts"
_WAITS: Final = {"group_wait": "0s", "group_interval": "1s", "repeat_interval": "1h"}
_WAITING: Final = {
    "exporter-down": ("> 600", "> 5"),
    "nightly-not-started": ("> 900", "> 5"),
    "extract-missing": ("> 3600", "> 5"),
    "alert-delivery-failing": ("[5m]", "[10s]"),
}
"""Waits in the expressions of alerts, by their files: the text, and what game day takes instead."""
_STARTS_WITHIN: Final = 60.0
_ENDS_WITHIN: Final = 20.0


def until(what: Callable[[], Any], seconds: float) -> Any:  # noqa: ANN401 (what it gives)
    """Wait until something is true, and give it; None when it never was."""
    deadline = time.monotonic() + seconds
    while not (found := what()):
        if time.monotonic() > deadline:
            return None
        time.sleep(0.1)
    return found


def write_credentials(secrets: Secrets, url: str, folder: Path) -> None:
    """Write the files of the Secret that Alertmanager reads, for sinks at a URL."""
    folder.mkdir(parents=True)
    for channel in ("data-eng", "analytics"):
        (folder / f"slack-{channel}").write_text(url + secrets.webhook(channel))
    (folder / "pagerduty").write_text(secrets.routing_key)
    (folder / "jira").write_text(secrets.jira_password)


def alertmanager_config(chart: Path, sinks: str, credentials: Path) -> str:
    """Give the chart's configuration for sinks at a URL, with its waits left out."""
    text = (chart / "alertmanager" / "alertmanager.yml").read_text(encoding="utf-8")
    text = text.replace(_MOUNT, str(credentials))
    text = text.replace("https://jira.example.com", sinks).replace("alertmanager@example.com", USER)
    for name, value in _WAITS.items():
        text = re.sub(rf"\b{name}: \w+", f"{name}: {value}", text)
    return f"{text}\nglobal:\n  pagerduty_url: {sinks}/v2/enqueue\n"


def rules(chart: Path, folder: Path) -> None:
    """Write the chart's alerts into a folder, with their waits left out.

    Raises `SandboxError` when an alert does not wait as `_WAITING` says.
    """
    folder.mkdir()
    for path in sorted((chart / "alerts").glob("*.yaml")):
        text = re.sub(r"^( +for): .*$", r"\1: 0s", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
        long, short = _WAITING.get(path.stem, ("", ""))
        if long not in text:
            message = f"{path} does not wait for {long!r} any more"
            raise SandboxError(message, next_step=f"mend _WAITING of {__name__}")
        text = text.replace(long, short) if long else text
        text = text.replace("runbook_url: docs/", "runbook_url: https://example.com/docs/")
        (folder / path.name).write_text(text, encoding="utf-8")


def program(name: str) -> str:
    """Find a program. Raises `SandboxError` when it is not there."""
    found = shutil.which(name)
    if found is None:
        message = f"{name} is not on PATH"
        raise SandboxError(message, next_step="PATH=$(tools/alertmanager):$(tools/prometheus):$PATH")
    return found


class Watch:
    """The processes of those who watch, by name."""

    def __init__(
        self,
        folder: Path,
        commands: Mapping[str, list[str]],
        environments: Mapping[str, Mapping[str, str]],
        environment: Mapping[str, str],
    ) -> None:
        self._folder = folder
        self._commands = commands
        self._environments = environments
        self._environment = environment
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str) -> None:
        """Start one of them."""
        environment = dict(self._environments.get(name, self._environment))
        with (self._folder / f"{name}.log").open("a") as log:
            self._processes[name] = subprocess.Popen(
                self._commands[name], cwd=self._folder, env=environment, stdout=log, stderr=log
            )

    def stop(self, name: str) -> None:
        """End one of them; one that does not run is no error."""
        process = self._processes.pop(name, None)
        if process is None:
            return
        process.terminate()
        try:
            process.wait(_ENDS_WITHIN)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def watching(secrets: Secrets, sinks: str, environment: Mapping[str, str], folder: Path) -> Iterator[Watch]:
    """Run all three while the block lasts, with their files in a folder.

    `environment` is that of the pipeline; `sinks` is the URL at which the sinks are.
    """
    exporter, prometheus, alertmanager = (pick_port(set()) for _ in range(3))
    write_credentials(secrets, sinks, folder / "credentials")
    rules(CHART, folder / "rules")
    (folder / "alertmanager.yml").write_text(alertmanager_config(CHART, sinks, folder / "credentials"))
    shutil.copy(CHART / "alertmanager" / "ecomm.tmpl", folder)
    settings = {
        "global": {"scrape_interval": "500ms", "evaluation_interval": "500ms"},
        "rule_files": [f"{folder}/rules/*.yaml"],
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": [f"{LOOPBACK}:{alertmanager}"]}]}]},
        "scrape_configs": [{"job_name": "exporter", "static_configs": [{"targets": [f"{LOOPBACK}:{exporter}"]}]}],
    }
    (folder / "prometheus.yml").write_text(json.dumps(settings))  # JSON is YAML
    plain = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    watched = {**environment, "ECOMM_EXPORTER_REFRESH_INTERVAL": "0.5"}
    commands = {
        "exporter": [sys.executable, "-m", "ecomm_pipeline.cli", "exporter", "--port", str(exporter)],
        "alertmanager": [
            program("alertmanager"),
            "--config.file=alertmanager.yml",
            "--storage.path=alerts",
            f"--web.listen-address={LOOPBACK}:{alertmanager}",
            "--cluster.listen-address=",
        ],
        "prometheus": [
            program("prometheus"),
            "--config.file=prometheus.yml",
            "--storage.tsdb.path=metrics",
            f"--web.listen-address={LOOPBACK}:{prometheus}",
            "--rules.alert.resend-delay=500ms",
        ],
    }
    watch = Watch(folder, commands, {"exporter": watched}, plain)
    try:
        for name in commands:
            watch.start(name)
        address = f"http://{LOOPBACK}:{prometheus}"
        if not until(lambda: _knows_metrics(address), _STARTS_WITHIN):
            message = f"Prometheus has no metrics of the pipeline after {_STARTS_WITHIN:.0f} s"
            raise SandboxError(message, next_step=f"see the logs in {folder}")
        yield watch
    finally:
        for name in reversed(commands):
            watch.stop(name)


def _knows_metrics(address: str) -> bool:
    try:
        answer = http("GET", f"{address}/api/v1/query?query=ecomm_exporter_refreshed_timestamp_seconds")
    except SandboxError:
        return False
    return bool(answer["data"]["result"])
