"""What runs next and what is tried again, over random DAGs."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecomm_pipeline.errors import FAILURE_CLASSES, ConfigurationError
from ecomm_pipeline.runner.expression import Expression
from ecomm_pipeline.runner.plan import Schedule, class_of, delay, items_of, run_scope
from ecomm_pipeline.runner.workflow import Dag, Retry, Task

OURS = 'lastRetry.status == "Error" || asInt(lastRetry.exitCode) in [75, 137, 143]'


@st.composite
def dags(draw):
    """A DAG of up to eight tasks, each after any of those before it, some with a list of up to four items."""
    tasks: list[Task] = []
    for number in range(draw(st.integers(1, 8))):
        needs = draw(st.frozensets(st.sampled_from([task.name for task in tasks]))) if tasks else frozenset()
        items = draw(st.none() | st.lists(st.integers(0, 9), max_size=4).map(json.dumps))
        tasks.append(Task(f"t{number}", "any", {}, needs, items))
    return Dag(tuple(draw(st.permutations(tasks))), fail_fast=draw(st.booleans()))


def walk(dag, parallelism, failing, pick):
    """Drive a schedule to its end, ending running nodes in the order `pick` chooses; gives the log of what happened."""
    schedule = Schedule(dag, parallelism, lambda task: items_of(task, task.items, "test"))
    running, log = [], []
    while True:
        begun = schedule.start()
        running += begun
        log += [("begin", node) for node in begun]
        assert parallelism is None or len(running) <= parallelism
        if schedule.over:
            assert not running
            return schedule, log
        node = running.pop(pick(len(running)))
        schedule.finish(node, succeeded=node.name not in failing)
        log.append(("end", node))


names = st.sets(st.integers(0, 7).flatmap(lambda n: st.sampled_from([f"t{n}", f"t{n}(0:1)", f"t{n}(1:2)"])))


@settings(deadline=None)
@given(dag=dags(), parallelism=st.none() | st.integers(1, 3), data=st.data())
def test_without_a_failure_every_node_runs_exactly_once_and_after_what_it_needs(dag, parallelism, data):
    schedule, log = walk(dag, parallelism, set(), lambda n: data.draw(st.integers(0, n - 1)))
    expected = {node.name for task in dag.tasks for node in items_of(task, task.items, "")}
    begun = [node.name for event, node in log if event == "begin"]
    assert sorted(begun) == sorted(expected)
    assert not schedule.failed
    for place, (event, node) in enumerate(log):
        if event == "begin":
            ended = {(other.task.name, other.name) for what, other in log[:place] if what == "end"}
            needed = {
                (task.name, other.name)
                for task in dag.tasks
                if task.name in node.task.needs
                for other in items_of(task, task.items, "")
            }
            assert needed <= ended


@settings(deadline=None)
@given(dag=dags(), parallelism=st.none() | st.integers(1, 3), failing=names, data=st.data())
def test_nothing_runs_after_a_failed_dependency(dag, parallelism, failing, data):
    schedule, log = walk(dag, parallelism, failing, lambda n: data.draw(st.integers(0, n - 1)))
    failed_tasks = {node.task.name for node in schedule.failed}
    begun = {node.name for event, node in log if event == "begin"}
    assert {node.name for node in schedule.failed} == failing & begun
    for task in dag.tasks:
        if task.needs & failed_tasks:
            assert not any(node.task.name == task.name for _, node in log)


@settings(deadline=None)
@given(dag=dags(), failing=names, data=st.data())
def test_after_a_failure_nothing_begins_where_the_dag_fails_fast_and_all_that_can_where_not(dag, failing, data):
    schedule, log = walk(dag, None, failing, lambda n: data.draw(st.integers(0, n - 1)))
    first = next((i for i, (event, node) in enumerate(log) if event == "end" and node.name in failing), None)
    if first is not None and dag.fail_fast:
        assert all(event == "end" for event, _ in log[first:])
    if not dag.fail_fast:
        blocked = {node.task.name for node in schedule.failed}
        for task in dag.tasks * len(dag.tasks):
            if task.needs & blocked:
                blocked.add(task.name)
        begun = {node.task.name for event, node in log if event == "begin"}
        unblocked = {task.name for task in dag.tasks if task.name not in blocked and items_of(task, task.items, "")}
        assert unblocked <= begun


@settings(deadline=None)
@given(limit=st.integers(0, 5), code=st.integers(1, 255))
def test_retries_end(limit, code):
    retry = Retry(limit, Expression(OURS, "test"), 30, 4)
    pauses = [delay(retry, tries, code) for tries in range(1, limit + 3)]
    if code in (75, 137, 143):
        assert pauses == [30 * 4**n for n in range(limit)] + [None, None]
    else:
        assert set(pauses) == {None}


def test_without_a_strategy_nothing_is_tried_again():
    assert delay(None, 1, 75) is None


def test_a_list_that_is_none_is_refused_with_what_it_was():
    task = Task("days", "any", {}, frozenset(), "{{x}}")
    for items in ("oops", '{"a": 1}', '[{"a": 1}]', ""):
        with pytest.raises(ConfigurationError, match=r"days\.withParam is not a JSON list"):
            items_of(task, items, "main")


def test_the_two_parts_of_a_run_id_are_the_workflow_s_creation_time_and_uid():
    scope = run_scope("w", "20260102T180509Z-1f3a", {"date": "2026-01-02"})
    stamp = "".join(scope[f"workflow.creationTimestamp.{letter}"] for letter in "YmdHMS")
    assert (stamp, scope["workflow.uid"]) == ("20260102180509", "1f3a")
    assert scope["workflow.parameters.date"] == "2026-01-02"


@pytest.mark.parametrize("row", FAILURE_CLASSES.values(), ids=lambda row: row.name)
def test_a_reported_class_is_believed_when_its_exit_code_fits(row):
    assert class_of(row.exit_code, row.name) == row.name
    assert FAILURE_CLASSES[class_of(row.exit_code, "nonsense")].exit_code == row.exit_code


def test_an_item_that_is_a_list_is_passed_on_as_json_under_its_number():
    task = Task("lane", "any", {}, frozenset(), "{{x}}")
    nodes = items_of(task, '[["2026-01-02", "2026-01-04"], ["2026-01-03"]]', "main")
    assert [node.name for node in nodes] == ["lane(0)", "lane(1)"], "a list may be longer than a file's name"
    assert [node.item for node in nodes] == ['["2026-01-02", "2026-01-04"]', '["2026-01-03"]']


def test_an_exit_code_of_nobody_is_internal():
    assert class_of(3, "unavailable") == "internal"


def test_what_was_killed_is_lost():
    assert class_of(137, None) == "lost"
