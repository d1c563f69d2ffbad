"""Who is told of which alert, asked of amtool; and what the configuration must know of the alerts."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING

import pytest
import yaml
from tests.support.alerting import CHART, CONFIG

if TYPE_CHECKING:
    from pathlib import Path

CONFIGURATION = yaml.safe_load(CONFIG.read_text())
RULES = [
    rule
    for path in sorted((CHART / "alerts").glob("*.yaml"))
    for group in yaml.safe_load(path.read_text())["groups"]
    for rule in group["rules"]
]


@pytest.mark.parametrize(
    ("labels", "receiver"),
    [
        ({"alertname": "EcommNightlyFailed", "priority": "P1", "date": "2026-01-02"}, "P1"),
        ({"alertname": "EcommNightlyFailed", "priority": "P2", "date": "2026-01-02"}, "P2"),
        ({"alertname": "EcommSchemaDrift", "priority": "P3"}, "P3"),
        ({"alertname": "EcommWatchdog", "priority": "none"}, "nobody"),
        ({"alertname": "KubeNodeNotReady", "severity": "critical"}, "nobody"),
    ],
)
def test_an_alert_goes_to_whom_its_priority_names(binaries: Path, labels: dict[str, str], receiver: str) -> None:
    command = [binaries / "amtool", "config", "routes", "test", f"--config.file={CONFIG}"]
    pairs = [f"{name}={value}" for name, value in labels.items()]
    done = subprocess.run(
        [*command, f"--verify.receivers={receiver}", *pairs], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_configuration_is_valid(binaries: Path) -> None:
    done = subprocess.run([binaries / "amtool", "check-config", CONFIG], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_priority_of_an_alert_has_a_route() -> None:
    routes = {route["matchers"][0] for route in CONFIGURATION["route"]["routes"]}
    priorities = {rule.get("labels", {}).get("priority") for rule in RULES} - {None, "none"}
    assert routes == {f'priority="{priority}"' for priority in priorities}


def test_what_silences_and_is_silenced_are_alerts_that_there_are() -> None:
    named = {
        name
        for rule in CONFIGURATION["inhibit_rules"]
        for matcher in (*rule["source_matchers"], *rule["target_matchers"])
        for name in re.findall(r"Ecomm\w+", matcher)
    }
    assert named <= {rule["alert"] for rule in RULES}


def test_nobody_is_silenced_by_itself_nor_across_dates() -> None:
    for rule in CONFIGURATION["inhibit_rules"]:
        sources, targets = (
            set(re.findall(r"Ecomm\w+", " ".join(rule[side]))) for side in ("source_matchers", "target_matchers")
        )
        assert not sources & targets
        assert rule["equal"] == ["date"]


def test_what_is_read_by_a_message_is_in_every_alert() -> None:
    read = set(re.findall(r"\.Annotations\.(\w+)", (CONFIG.parent / "ecomm.tmpl").read_text()))
    assert read == {"summary", "description", "command", "runbook_url"}
    assert all(read <= set(rule["annotations"]) for rule in RULES)


P1_ALONE = {"EcommExporterDown", "EcommAlertDeliveryFailing", "EcommDashboardStale"}
"""P1s that nothing follows from: what fires while nobody watches is old, and behind the dashboards there is nothing."""


def test_each_p1_silences_what_follows_from_it_or_is_known_to_have_no_consequences() -> None:
    named = [re.findall(r"Ecomm\w+", " ".join(rule["source_matchers"])) for rule in CONFIGURATION["inhibit_rules"]]
    sources = {name for names in named for name in names}
    p1 = {rule["alert"] for rule in RULES if rule.get("labels", {}).get("priority") == "P1"}
    assert p1 - sources == P1_ALONE
