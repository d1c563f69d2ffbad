"""Whatever alerts and dashboards ask for is something that the code can tell."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from ecomm_pipeline.contract import CONTRACT
from ecomm_pipeline.exporter.metrics import METRICS, WORDS
from lakehouse import bronze, silver

CHART = Path(__file__).parents[2] / "helm/ecomm-data-pipeline"
EXPECTATIONS = (*bronze.EXPECTATIONS, *silver.DROPPING)
KNOWN = {
    **WORDS,
    "table": tuple(CONTRACT),
    "expectation": EXPECTATIONS,
    "status": ("success", "pass", "fail", "error", "warn", "skipped"),  # dbt's own words
}
SELECTOR = re.compile(r"\b(ecomm_[a-z_]+)\{([^}]*)\}")
MATCHER = re.compile(r"(\w+)\s*(=~|!~|!=|=)\s*(\"[^\"]*\"|'[^']*')")
GROUPED = re.compile(r"by \(([\w, ]*)\) *\(\s*(ecomm_[a-z_]+)")


def texts():
    for path in sorted((CHART / "alerts").glob("*.yaml")):
        yield pytest.param(path.read_text(), id=path.stem)
    for path in sorted((CHART / "dashboards").glob("*.json")):
        dashboard = json.loads(path.read_text())
        for panel in dashboard["panels"]:
            asked = "\n".join(target["expr"] for target in panel.get("targets", []))
            yield pytest.param(asked, id=f"{path.stem}: {panel['title']}")
        for variable in dashboard["templating"]["list"]:
            if isinstance(variable["query"], dict):
                yield pytest.param(variable["query"]["query"], id=f"{path.stem}: ${variable['name']}")


def unknown(text):
    """Tell what a text asks for that there is not."""
    for name in re.findall(r"\becomm_[a-z_]+", text):
        if name.removeprefix("ecomm_") not in METRICS:
            yield f"metric {name}"
    for name, matchers in SELECTOR.findall(text):
        for label, sign, quoted in MATCHER.findall(matchers):
            if label not in METRICS[name.removeprefix("ecomm_")].labels:
                yield f"label {label} of {name}"
            yield from unknown_words(label, sign, quoted[1:-1])
    for labels, name in GROUPED.findall(text):
        for label in filter(None, re.split(r",\s*", labels)):
            if label not in METRICS[name.removeprefix("ecomm_")].labels:
                yield f"label {label} of {name}, by which it is grouped"


def unknown_words(label, sign, value):
    """Tell which words of a matcher the label never holds; `%s`, `$table` and what is a pattern are filled in later."""
    for word in value.split("|") if "~" in sign else [value]:
        known = KNOWN.get(label)
        if known and not re.search(r"[%$]", word) and not any(re.fullmatch(word, one) for one in known):
            yield f"{label}={word}"


@pytest.mark.parametrize("text", list(texts()))
def test_metrics_labels_and_words_are_ones_that_the_code_tells(text):
    assert not list(unknown(text))


def test_what_there_is_not_is_found():
    asked = """max by (date, pod) (ecomm_findings{kind=~"schema_drift|rows_rescued", node="x"}) or ecomm_nothing
    and ecomm_stage_outcome{stage='extractor', outcome!='lost', date='%s'} and ecomm_rows{hop=~"bronz.*"}"""
    assert list(unknown(asked)) == [
        "metric ecomm_nothing",
        "kind=rows_rescued",
        "label node of ecomm_findings",
        "outcome=lost",
        "label pod of ecomm_findings, by which it is grouped",
    ]
