"""Each alert: silent when it should be, firing when it should, resolved after; with a command and what routes need."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest
import typer
import yaml

from ecomm_pipeline.cli import app
from ecomm_pipeline.usual import EMPTY

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[1]
ALERTS = REPOSITORY / "helm/ecomm-data-pipeline/alerts"
NAMES = sorted(path.stem for path in ALERTS.glob("*.yaml"))
FOREIGN = {
    "alertmanager_notifications_failed_total",
    "argo_workflows_error_count",
    "argo_workflows_pods_gauge",
}
"""Metrics of Alertmanager and Argo."""


@pytest.fixture(scope="session")
def promtool() -> str:
    """The checker of rules, of PATH or of the cache."""
    folder = subprocess.run([REPOSITORY / "tools/prometheus"], check=True, capture_output=True, text=True).stdout
    return f"{folder.strip()}/promtool"


def rule(name):
    groups = yaml.safe_load((ALERTS / f"{name}.yaml").read_text())["groups"]
    (group,) = groups
    (only,) = group["rules"]
    return group, only


@pytest.mark.parametrize("name", NAMES)
def test_the_alert_is_silent_fires_and_resolves_as_its_test_says(name, promtool):
    done = subprocess.run(
        [promtool, "test", "rules", HERE / f"{name}.yaml"], check=False, capture_output=True, text=True, cwd=HERE
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", NAMES)
def test_the_test_asks_for_silence_and_for_the_alert(name):
    (test,) = yaml.safe_load((HERE / f"{name}.yaml").read_text())["tests"]
    checks = test["alert_rule_test"]
    fired = [bool(check["exp_alerts"]) for check in checks]
    if name == "watchdog":
        assert all(fired)
        return
    assert not fired[0], "it is never seen silent before it fires"
    assert True in fired
    assert not fired[-1], "it is never seen resolved"
    assert {check["alertname"] for check in checks} == {rule(name)[1]["alert"]}


def test_no_test_is_of_an_alert_that_is_gone():
    assert sorted(path.stem for path in HERE.glob("*.yaml")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_names_agree_and_routes_find_what_they_need(name):
    group, only = rule(name)
    assert group["name"] == f"ecomm-{name}"
    assert only["alert"] == "Ecomm" + "".join(word.capitalize() for word in name.split("-"))
    assert only["annotations"].keys() == {"summary", "description", "command", "runbook_url"}
    assert only["annotations"]["runbook_url"] == f"docs/runbooks/{name}.md"
    priority = only.get("labels", {}).get("priority")
    if priority is None:
        assert re.search(r"max by \([^)]*\bpriority\b", only["expr"]), "the priority is neither set nor the metric's"
    else:
        assert priority in {"P1", "P2", "P3"} or (name, priority) == ("watchdog", "none")


@pytest.mark.parametrize("name", NAMES)
def test_fired_alerts_carry_no_label_that_changes_with_a_pod(name):
    (test,) = yaml.safe_load((HERE / f"{name}.yaml").read_text())["tests"]
    for check in test["alert_rule_test"]:
        for alert in check["exp_alerts"]:
            allowed = {
                "priority",
                "date",
                "stage",
                "table",
                "failure_class",
                "expectation",
                "target",
                "integration",
                "cause",
            }
            assert alert["exp_labels"].keys() <= allowed
            assert alert["exp_labels"]["priority"] in {"P1", "P2", "P3", "none"}
            assert not re.search(r"<no value>|<error|\{\{", str(alert["exp_annotations"]))


@pytest.mark.parametrize("name", NAMES)
def test_rules_use_metrics_of_others_that_we_know(name):
    assert set(re.findall(r"\b(?:alertmanager|argo_workflows)_[a-z_]+", rule(name)[1]["expr"])) <= FOREIGN


def test_an_extract_is_as_good_as_empty_for_the_alert_when_it_is_for_the_doctor():
    assert f"< on (date, table) {EMPTY} * " in rule("extract-empty")[1]["expr"]


@pytest.mark.parametrize("name", NAMES)
def test_the_command_is_one_that_there_is(name):
    words = shlex.split(re.sub(r"\{\{.*?\}\}", "2026-01-02", rule(name)[1]["annotations"]["command"]))
    if words[0] == "ecomm":
        command_exists(words[1:])
    else:
        assert words[0] in {"argo", "kubectl"}


def command_exists(words):
    """Walk `ecomm`'s tree of commands, and look at each option."""
    command = typer.main.get_command(app)
    while words and hasattr(command, "commands"):
        assert words[0] in command.commands, f"ecomm has no command {words[0]}"
        command = command.commands[words.pop(0)]
    options = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= options


def test_the_readme_lists_every_alert_with_its_priority():
    rows = re.findall(r"\| `(Ecomm\w+)` \| `([\w-]+)` \| ([^|;:]+?) ?[|:;]", (ALERTS / "README.md").read_text())
    assert {(alert, name, priority) for alert, name, priority in rows} == {
        (rule(name)[1]["alert"], name, rule(name)[1].get("labels", {}).get("priority", "by class")) for name in NAMES
    }
