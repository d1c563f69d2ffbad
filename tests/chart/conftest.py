"""Helm, and the chart rendered for each scenario of `ci/`."""

from __future__ import annotations

import json
import subprocess
from functools import cache
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from tests.support.tools import tool

CHART: Final = Path(__file__).parents[2] / "helm" / "ecomm-data-pipeline"
SCENARIOS: Final = sorted(path.name.removesuffix("-values.yaml") for path in (CHART / "ci").glob("*-values.yaml"))
NAMESPACE: Final = "ecomm"
KUBERNETES: Final = "1.34.4"

Document = dict[str, Any]


@cache
def helm() -> str:
    """Give the path of helm."""
    found = tool("helm")
    assert found, "helm is not here: run `cluster/tools helm`"
    return found


def run_helm(*arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
    """Run helm with a text as its standard input, whatever comes of it."""
    return subprocess.run([helm(), *arguments], input=text, capture_output=True, text=True, check=False, timeout=60)


def template(scenario: str = "", changes: str = "{}", chart: Path = CHART) -> subprocess.CompletedProcess[str]:
    """Run `helm template` as for a cluster that the chart is made for; `changes` are more values, as JSON."""
    values = ["-f", str(chart / "ci" / f"{scenario}-values.yaml")] if scenario else []
    options = ["-n", NAMESPACE, "--kube-version", KUBERNETES, *values, "-f", "-"]
    return run_helm("template", "ecomm-data-pipeline", str(chart), *options, text=changes)


def load_all(text: str) -> list[Any]:
    """Read YAML documents, with libyaml where PyYAML has it: a scenario is 2 000 lines."""
    return list(yaml.load_all(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader)))


@cache
def _text(scenario: str, changes: str) -> str:
    done = template(scenario, changes)
    assert done.returncode == 0, done.stderr
    return done.stdout


def render(scenario: str = "minimal", **changes: Any) -> list[Document]:
    """Render a scenario of `ci/`; `changes` are values by their first key. Lists are taken apart as Kubernetes does."""
    documents = load_all(_text(scenario, json.dumps(changes)))
    return [one for document in documents if document for one in document.get("items", [document])]


def refuse(scenario: str = "minimal", **changes: Any) -> str:
    """Give what helm says when it refuses a scenario with these changes."""
    done = template(scenario, json.dumps(changes))
    assert done.returncode != 0, "it was not refused"
    return done.stderr


def of_kind(documents: list[Document], *kinds: str) -> dict[str, Document]:
    """Pick the objects of some kinds, by name."""
    return {document["metadata"]["name"]: document for document in documents if document["kind"] in kinds}


def packed() -> dict[str, Document]:
    """Read the workflows as they are packed in the chart, by kind and name."""
    documents = [one for path in sorted((CHART / "workflows").glob("*.yaml")) for one in load_all(path.read_text())]
    return {f"{document['kind']}/{document['metadata']['name']}": document for document in documents}


def rendered(documents: list[Document]) -> dict[str, Document]:
    """Pick the workflows, by kind and name."""
    kinds = {"WorkflowTemplate", "CronWorkflow"}
    return {f"{one['kind']}/{one['metadata']['name']}": one for one in documents if one["kind"] in kinds}


def steps(documents: list[Document]) -> list[tuple[str, Document]]:
    """Give every step that is a container, with the name of its workflow."""
    return [
        (name, step)
        for name, workflow in of_kind(documents, "WorkflowTemplate").items()
        for step in workflow["spec"]["templates"]
        if "container" in step
    ]


@pytest.fixture(params=SCENARIOS)
def scenario(request: pytest.FixtureRequest) -> str:
    """Each scenario in turn."""
    return str(request.param)
