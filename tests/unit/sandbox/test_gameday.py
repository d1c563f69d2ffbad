"""What game day needs to know of the rest is as the rest has it; and how its results are written."""

from __future__ import annotations

import pytest
import yaml

from ecomm_sandbox.faults import CATALOGUE
from ecomm_sandbox.gameday.scenarios import PLACES, SCENARIOS, Result, problems_of_places, table
from ecomm_sandbox.gameday.watch import CHART

ALERTS = {
    rule["alert"]: rule.get("labels", {}).get("priority")
    for path in (CHART / "alerts").glob("*.yaml")
    for group in yaml.safe_load(path.read_text())["groups"]
    for rule in group["rules"]
}


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda one: one.name)
def test_a_scenario_names_a_fault_and_an_alert_that_there_are(scenario):
    service, kind = scenario.fault
    assert kind == "stop" or set(scenario.options) <= set(CATALOGUE[service][kind].options)
    assert ALERTS[scenario.alert] in (None, scenario.priority)


def test_scenarios_have_names_of_their_own():
    assert len({one.name for one in SCENARIOS}) == len(SCENARIOS)


def test_an_alert_has_to_be_told_where_its_priority_says_and_nowhere_else():
    assert problems_of_places("P1", PLACES["P1"]) == []
    assert problems_of_places("P1", {"slack #data-eng"}) == ["pagerduty was not told"]
    assert problems_of_places("P3", {"jira", "pagerduty"}) == ["pagerduty was told"]


def test_the_table_has_a_line_for_each_scenario_and_what_went_wrong():
    lines = table([Result(SCENARIOS[0], 1.25, 2), Result(SCENARIOS[1], problems=["jira was told"])]).splitlines()
    assert lines[2].endswith("| 1.2 s | 2.0 s | ok |")
    assert lines[3].endswith("| – | – | jira was told |")
