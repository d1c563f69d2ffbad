"""What game day needs to know of the rest is as the rest has it; and how its results are written."""

from __future__ import annotations

from dataclasses import replace

import pytest
import yaml

from ecomm_pipeline.doctor.plan import KINDS as FINDINGS
from ecomm_pipeline.errors import FAILURE_CLASSES
from ecomm_sandbox.databricks.faults import KINDS
from ecomm_sandbox.faults import CATALOGUE
from ecomm_sandbox.gameday.results import Result, kept, merged, page, problems_of_places, table
from ecomm_sandbox.gameday.scenarios import SCENARIOS
from ecomm_sandbox.gameday.scenarios.model import PLACES, Fault, Scenario, Stopped
from ecomm_sandbox.gameday.watch import CHART

ALERTS = {
    rule["alert"]: rule.get("labels", {}).get("priority")
    for path in (CHART / "alerts").glob("*.yaml")
    for group in yaml.safe_load(path.read_text())["groups"]
    for rule in group["rules"]
}


FAULTS = {service: {name: set(kind.options) for name, kind in kinds.items()} for service, kinds in CATALOGUE.items()}
FAULTS["databricks"] = {name: set(options) for name, options in KINDS.items()}
DATED = Scenario(
    name="one", runbook="A", fault=Stopped("exporter"), alert="EcommX", priority="P1", doctor=None, labels={}
)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda one: one.name)
def test_a_scenario_names_a_fault_an_alert_and_a_finding_that_there_are(scenario):
    if isinstance(scenario.fault, Fault):
        options = {"times", "seconds", *FAULTS[scenario.fault.service][scenario.fault.kind]}
        assert set(scenario.fault.options) <= options
    assert ALERTS[scenario.alert] in (None, scenario.priority)
    if scenario.doctor:
        assert scenario.doctor.kind in FINDINGS
        assert scenario.doctor.failure_class in ("", *FAILURE_CLASSES)


def test_scenarios_have_names_of_their_own():
    assert len({one.name for one in SCENARIOS}) == len(SCENARIOS)


def test_an_alert_has_to_be_told_where_its_priority_says_and_nowhere_else():
    assert problems_of_places(DATED, PLACES["P1"]) == []
    assert problems_of_places(DATED, {"slack #data-eng"}) == ["pagerduty was not told"]
    assert problems_of_places(replace(DATED, priority="P3"), {"jira", "pagerduty"}) == ["pagerduty was told"]


def test_the_table_has_a_line_for_each_scenario_and_what_went_wrong():
    good = Result(DATED, noticed=1.25, named="A unreachable", command="ecomm doctor", repaired=2)
    lines = table([good, Result(DATED, problems=["jira was told"])]).splitlines()
    assert lines[2] == "| one | A | EcommX | P1 | 1.2 s | A unreachable | `ecomm doctor` | 2.0 s | ok |"
    assert lines[3].endswith("| – | – | – | – | jira was told |")


def test_a_scenario_that_is_played_again_takes_the_place_of_its_older_result():
    old = merged({}, [Result(DATED, problems=["jira was told"]), Result(replace(DATED, name="two"), noticed=1)])
    found = kept(merged(old, [Result(DATED, noticed=2)]), [DATED, replace(DATED, name="two"), replace(DATED, name="3")])
    assert [(one.scenario.name, one.noticed, one.good) for one in found] == [("one", 2, True), ("two", 1, True)]


def test_the_page_names_what_was_not_played():
    assert page([Result(DATED)], [DATED, replace(DATED, name="two")]).endswith(
        "1 of 1 as they must be. Not played: two.\n"
    )
