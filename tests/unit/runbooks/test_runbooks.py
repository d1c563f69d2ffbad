"""Alerts, failure classes, the runbook's pages and the commands of `ecomm` cover each other exactly."""

from __future__ import annotations

import ast
import re
import shlex
from collections import Counter
from pathlib import Path

import pytest
import typer
import yaml

from ecomm_pipeline.cli import app
from ecomm_pipeline.doctor.plan import KINDS
from ecomm_pipeline.errors import FAILURE_CLASSES

REPOSITORY = Path(__file__).parents[3]
RUNBOOKS = REPOSITORY / "docs/runbooks"
ALERTS = {
    path.stem: yaml.safe_load(path.read_text())["groups"][0]["rules"][0]
    for path in (REPOSITORY / "helm/ecomm-data-pipeline/alerts").glob("*.yaml")
}
PAGES = {path.stem: path.read_text() for path in RUNBOOKS.glob("*.md") if path.stem != "README"}
SECTIONS = ["Meaning", "Impact", "Diagnosis", "Mitigation"]
FOREIGN = {"argo", "helm", "kubectl", "amtool", "git"}
REPAIRS = {"backfill", "rerun", "doctor", "status"}
"""Commands that diagnosis and repair rest on: each must be in use."""


def commands(text):
    """The commands in the code spans of a text."""
    spans = re.findall(r"`([^`]+)`", text)
    return [span for span in spans if span.split()[0] in {"ecomm", *FOREIGN} and " " in span]


def test_every_alert_and_every_failure_class_has_a_page_and_no_page_is_of_neither():
    assert PAGES.keys() == ALERTS.keys() | {row.runbook for row in FAILURE_CLASSES.values()}


@pytest.mark.parametrize("name", sorted(PAGES))
def test_a_page_says_what_it_means_what_follows_how_to_find_out_and_what_repairs(name):
    assert re.findall(r"^## (.+)$", PAGES[name], re.MULTILINE) == SECTIONS
    assert re.match(r"# .+\n\nSection: .+\n", PAGES[name])
    for section in PAGES[name].split("\n## ")[1:]:
        assert len(section.split("\n", 1)[1].strip()) > 20


@pytest.mark.parametrize("name", sorted(ALERTS))
def test_the_command_of_an_alert_is_on_its_page(name):
    def blank(text):
        text = re.sub(r"\{\{ \$labels\.\w+ \}\}|\bDATE\b|\bTABLE\b", "X", text)
        return re.sub(r"\s+", " ", text)

    assert blank(ALERTS[name]["annotations"]["command"]) in blank(PAGES[name])


@pytest.mark.parametrize("name", sorted(PAGES))
def test_the_commands_of_a_page_are_ones_that_there_are(name):
    for command in commands(PAGES[name]):
        words = shlex.split(command)
        if words.pop(0) == "ecomm":
            group = typer.main.get_command(app)
            assert words[0] in group.commands, f"there is no `ecomm {words[0]}`"
            known = {option for parameter in group.commands[words[0]].params for option in parameter.opts}
            assert {word for word in words if word.startswith("--")} <= known


def test_each_command_of_diagnosis_and_repair_is_somewhere():
    used = {shlex.split(command)[1] for text in PAGES.values() for command in commands(text) if command[:5] == "ecomm"}
    assert used >= REPAIRS
    told = {shlex.split(rule["annotations"]["command"])[1] for rule in ALERTS.values()}
    assert told >= REPAIRS


@pytest.mark.parametrize("name", sorted(PAGES))
def test_links_lead_somewhere(name):
    for target in re.findall(r"\]\(([^)#]+)", PAGES[name]):
        assert (RUNBOOKS / target).exists(), target


def test_each_failure_class_tells_itself_by_name_on_its_page():
    for row in FAILURE_CLASSES.values():
        assert f"`{row.name}`" in PAGES[row.runbook]


def test_each_kind_that_the_doctor_finds_leads_to_a_page_and_the_doctor_makes_it():
    for kind in KINDS.values():
        if kind.failure_class:
            assert (kind.runbook or FAILURE_CLASSES[kind.failure_class].runbook) in PAGES, kind.name
    sources = [path.read_text() for path in (REPOSITORY / "src/ecomm_pipeline/doctor").glob("*.py")]
    calls = [node for text in sources for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Constant)]
    named = Counter(node.value for node in calls if isinstance(node.value, str))
    assert not [name for name in KINDS if named[name] < 2], "what is defined and never made"


def test_the_index_has_every_page_once():
    links = re.findall(r"\]\(([\w-]+)\.md\)", (RUNBOOKS / "README.md").read_text())
    assert sorted(links) == sorted(PAGES)
