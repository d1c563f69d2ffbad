"""Which workflows do a part again."""

from __future__ import annotations

from zoneinfo import ZoneInfo

import pytest

from ecomm_pipeline.dates import parse_dates
from ecomm_pipeline.errors import ConfigurationError
from ecomm_pipeline.rerun.plan import PARTS, command, submissions
from ecomm_pipeline.runner.run import find_workflows, load_workflow

DATE = parse_dates("2026-01-02", ZoneInfo("UTC"))
RANGE = parse_dates("2026-01-02..2026-01-05", ZoneInfo("UTC"))


def chosen(part, dates=DATE, *, select="", onwards=False):
    return [
        (one.workflow, dict(one.arguments))
        for one in submissions(part, dates, select=select, onwards=onwards, trigger="local")
    ]


def test_a_part_is_one_workflow_of_its_dates():
    assert chosen("dlt") == [("dlt-update", {"date": "2026-01-02", "trigger": "local"})]
    assert chosen("tableau", RANGE) == [("tableau-refresh", {"date": "2026-01-02..2026-01-05", "trigger": "local"})]


def test_onwards_does_all_that_is_behind_it_up_to_the_proof():
    assert [name for name, _ in chosen("dlt", onwards=True)] == [
        "dlt-update",
        "daily-refresh",
        "tableau-refresh",
        "reconcile",
    ]
    assert [name for name, _ in chosen("tableau", onwards=True)] == ["tableau-refresh", "reconcile"]


def test_a_selection_goes_to_dbt_only():
    parts = dict(chosen("dlt", select="agg_sales_kpi+", onwards=True))
    assert parts["daily-refresh"]["select"] == "agg_sales_kpi+"
    assert all("select" not in arguments for name, arguments in parts.items() if name != "daily-refresh")


@pytest.mark.parametrize("part", ["dlt", "tableau", "reconcile"])
def test_a_selection_without_dbt_is_refused(part):
    with pytest.raises(ConfigurationError, match="runs no dbt"):
        submissions(part, DATE, select="agg_sales_kpi", onwards=False, trigger="local")


@pytest.mark.parametrize("part", PARTS)
def test_every_part_is_a_workflow_that_takes_these_arguments(part):
    workflow = load_workflow(PARTS[part], find_workflows(None))
    (_, arguments) = chosen(part, select="x" if part == "dbt" else "")[0]
    assert arguments.keys() <= workflow.arguments.keys()
    assert {name for name, default in workflow.arguments.items() if default is None} <= arguments.keys()


def test_the_command_that_does_it_again_is_the_one_that_was_given():
    assert command("dbt", RANGE, select="a b+", onwards=True) == (
        "ecomm rerun dbt 2026-01-02..2026-01-05 --select 'a b+' --onwards"
    )
    assert command("dlt", DATE, select="", onwards=False) == "ecomm rerun dlt 2026-01-02"
