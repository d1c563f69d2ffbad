"""What the stage makes of dbt Cloud's answers about the runs of a job."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from ecomm_pipeline.dbt_runner import cloud_plan
from ecomm_pipeline.dbt_runner.cloud_plan import Action, CloudRun

NOW = datetime(2026, 1, 10, 5, tzinfo=UTC)
FIGURES = {"select": "", "sources": {"gold.agg_daily_sales": {"rows": 3, "newest": "2026-01-10"}}}
KEY = ("20260109T180000Z-1f3a", "2026-01-09")


def answer(**fields):
    """A run as the API writes it, as far as it is read."""
    return {
        "id": 7, "status": 3, "created_at": "2026-01-10 04:59:00.123456+00:00", "started_at": None, "href": "https://c/7",
        "trigger": {"cause": "because"}, "retrying_run_id": None, "can_retry": False, "run_steps": [], **fields,
    }  # fmt: skip


def run(id_, phase="success", cause="ours", **fields):
    return CloudRun(id_, phase, cause, NOW, **fields)


@pytest.mark.parametrize(
    ("status", "phase", "active"),
    [(1, "queued", True), (2, "queued", True), (3, "running", True), (10, "success", False), (20, "error", False),
     (30, "cancelled", False)],
)  # fmt: skip
def test_each_status_has_its_phase(status, phase, active):
    found = cloud_plan.parse(answer(status=status))
    assert (found.phase, found.active) == (phase, active)


@pytest.mark.parametrize("wrong", [{"status": 5}, {"status": None}, {"created_at": "yesterday"}, {"id": None}])
def test_what_is_no_run_is_refused(wrong):
    with pytest.raises((KeyError, TypeError, ValueError)):
        cloud_plan.parse(answer(**wrong))


def test_a_run_is_read_without_what_was_not_asked_for():
    found = cloud_plan.parse(
        answer(trigger=None, run_steps=None, status_message=None, created_at="2026-01-10T04:00:00Z")
    )
    assert (found.cause, found.steps, found.said) == ("", (), "")
    assert found.created == NOW - timedelta(hours=1)


def test_steps_are_in_order_with_the_fullest_log_that_was_given():
    steps = [
        {"index": 4, "name": "Invoke dbt with `dbt build`", "status": 20, "logs": "few", "debug_logs": "all"},
        {"index": 3, "name": "Invoke dbt with `dbt deps`", "status": 10, "logs": "few", "debug_logs": ""},
        {"index": 1, "name": "Clone git repository", "status": 10},
    ]
    found = cloud_plan.parse(answer(run_steps=steps)).steps
    assert [(step.index, step.failed, step.log, step.builds) for step in found] == [
        (1, False, "", False), (3, False, "few", False), (4, True, "all", True),
    ]  # fmt: skip


def test_the_cause_carries_the_run_and_the_dates_and_fits():
    cause = cloud_plan.cause("20260109T180000Z-" + 80 * "x", "2026-01-01..2026-01-31", FIGURES)
    assert "20260109T180000Z-" in cause
    assert "2026-01-01..2026-01-31" in cause
    assert len(cause) <= 255, "dbt Cloud cuts it there"


@pytest.mark.parametrize("other", [{"select": "agg_sales_kpi"}, {"sources": {"gold.agg_daily_sales": {"rows": 4}}}])
def test_another_selection_or_another_gold_is_another_build(other):
    assert cloud_plan.cause(*KEY, FIGURES) == cloud_plan.cause(*KEY, dict(FIGURES))
    assert cloud_plan.cause(*KEY, FIGURES) != cloud_plan.cause(*KEY, FIGURES | other)


def test_a_selection_is_built_in_place_of_the_commands_of_the_job():
    assert cloud_plan.steps_override(" ") is None
    assert cloud_plan.steps_override("agg_sales_kpi+  tag:x") == [
        "dbt build --exclude-resource-type unit_test --select agg_sales_kpi+ tag:x"
    ]
    (command,) = cloud_plan.steps_override("a;rm *")
    assert command.endswith("--select 'a;rm' '*'")


def test_runs_are_ours_by_their_cause_or_by_the_run_that_they_retry():
    runs = [
        run(5, cause="x", retries=3),
        run(4, cause="theirs"),
        run(3),
        run(2, cause="", retries=1),
        run(1, cause="x"),
    ]
    assert [one.id for one in cloud_plan.lineage(runs, "ours")] == [3, 5]
    assert [one.id for one in cloud_plan.chain(runs, runs[0])] == [3, 5]
    assert [one.id for one in cloud_plan.chain(runs, runs[2])] == [3]


@pytest.mark.parametrize(
    ("tip", "outcome", "stopped", "expected"),
    [
        (None, None, None, "trigger"),
        (run(1, "queued"), "running", None, "follow"),
        (run(1, "running"), "failed", None, "follow"),
        (run(1, "success"), "running", None, "follow"),
        (run(1, "success"), "failed", None, "follow"),
        (run(1, "success"), "succeeded", None, "trigger"),
        (run(1, "error", can_retry=True), "failed", None, "retry"),
        (run(1, "error", can_retry=True), "running", None, "retry"),
        (run(1, "error"), "failed", None, "trigger"),
        (run(1, "cancelled"), "running", None, "follow"),
        (run(1, "cancelled"), "failed", None, "trigger"),
        (run(1, "cancelled"), "running", 1, "trigger"),
        (run(2, "cancelled"), "running", 1, "follow"),
    ],
)
def test_what_is_done_follows_from_the_newest_run_of_the_build(tip, outcome, stopped, expected):
    ours = [tip] if tip else []
    assert cloud_plan.decide(ours, outcome=outcome, stopped=stopped) == Action(
        expected, None if expected == "trigger" else tip
    )


def test_waiting_in_the_queue_and_running_have_budgets_of_their_own():
    created, started = NOW - timedelta(seconds=90), NOW - timedelta(seconds=30)
    queued = CloudRun(1, "queued", "", created)
    assert cloud_plan.spent(queued, NOW) == ("queue", 90)
    assert cloud_plan.spent(CloudRun(1, "running", "", created, started), NOW) == ("run", 30)
    assert cloud_plan.spent(queued, created - timedelta(seconds=9)) == ("queue", 0), "a clock that is behind"


def results(which, **statuses):
    found = [{"unique_id": name, "status": status} for name, status in statuses.items()]
    return json.dumps({"metadata": {"invocation_id": which}, "args": {"which": which}, "results": found}).encode()


def test_artifacts_of_several_commands_are_one_and_later_results_stand():
    made = cloud_plan.artifacts(
        [
            (None, None),
            (results("run", a="success", b="error"), b"first"),
            (results("test", b="success", t="pass"), b"second"),
            (results("generate", a="success", b="success", t="success"), b"docs"),
        ]
    )
    assert made["manifest.json"] == b"second"
    document = json.loads(made["run_results.json"])
    assert {one["unique_id"]: one["status"] for one in document["results"]} == {
        "a": "success", "b": "success", "t": "pass",
    }  # fmt: skip
    assert document["metadata"]["invocation_id"] == "test"


def test_commands_that_left_nothing_make_no_artifact():
    assert cloud_plan.artifacts([(None, None), (results("parse"), b"x")]) == {}
