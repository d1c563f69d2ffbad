"""`ecomm run` with real processes: a workflow of small shell commands in a folder of the test's own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
import yaml
from tests.support.command import run_ecomm, start_ecomm

from ecomm_pipeline.errors import ConfigurationError
from ecomm_pipeline.runner.run import find_workflows, load_workflow

RUN = "20260102T180000Z-1f3a"
RETRY = {
    "limit": 2,
    "retryPolicy": "Always",
    "expression": "asInt(lastRetry.exitCode) in [75, 143]",
    "backoff": {"duration": "0.1s", "factor": 2},
}
ARGUMENTS = ("date", "not-before", "tables", "bounds", "trigger")


def shell(name, script, *, inputs=(), **fields):
    """A container template that runs a script; `$1`… are its inputs."""
    return {
        "name": name,
        "inputs": {"parameters": [{"name": one} for one in inputs]},
        "container": {
            "image": "none",
            "command": ["sh", "-c", script, name],
            "args": [f"{{{{inputs.parameters.{one}}}}}" for one in inputs],
            "env": [{"name": "ECOMM_RUN_ID", "value": "{{workflow.creationTimestamp.Y}}-{{workflow.uid}}"}],
        },
        **fields,
    }


def task(name, template=None, *, after="", each=None, only_if=None, **arguments):
    return {
        "name": name,
        "template": template or name,
        "arguments": {"parameters": [{"name": key, "value": value} for key, value in arguments.items()]},
        **({"depends": after} if after else {}),
        **({"withParam": each} if each else {}),
        **({"when": only_if} if only_if else {}),
    }


class Runner:
    """`ecomm run` in a folder; `mark` in a script appends to the file `marks`, in order."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.marks = folder / "marks"
        self.env = {
            "PATH": f"{folder}:{os.environ['PATH']}",
            "MARKS": str(self.marks),
            "ECOMM_WORKFLOWS_DIR": str(folder / "workflows"),
            "ECOMM_RUNS_DIR": str(folder / "runs"),
        }
        mark = folder / "mark"
        mark.write_text('#!/bin/sh\necho "$*" >> "$MARKS"\n')
        mark.chmod(0o755)

    def define(self, *templates, name="batch-ecomm-pipeline", parallelism=None, tasks=(), at_the_end=None):
        main = {"name": "main", "dag": {"tasks": list(tasks)}} | ({"parallelism": parallelism} if parallelism else {})
        document = {
            "apiVersion": "argoproj.io/v1alpha1",
            "kind": "WorkflowTemplate",
            "metadata": {"name": name},
            "spec": {
                "entrypoint": "main",
                "arguments": {"parameters": [{"name": argument} for argument in ARGUMENTS]},
                "templates": [*templates, main],
                **({"onExit": at_the_end} if at_the_end else {}),
            },
        }
        (self.folder / "workflows").mkdir(exist_ok=True)
        (self.folder / "workflows" / "w.yaml").write_text(yaml.safe_dump(document))

    def command(self, *args):
        return ["run", "2026-01-02", "--run-id", RUN, *args]

    def __call__(self, *args):
        return run_ecomm(*self.command(*args), env=self.env, code=None, timeout=60)

    def start(self):
        return start_ecomm(*self.command(), env=self.env, stdout=subprocess.PIPE)

    def marked(self):
        return self.marks.read_text().splitlines() if self.marks.exists() else []

    def wait_for(self, mark):
        for _ in range(300):
            if mark in self.marked():
                return
            time.sleep(0.05)
        pytest.fail(f"{mark} was never marked: {self.marked()}")


@pytest.fixture
def runner(tmp_path):
    return Runner(tmp_path)


def test_tasks_run_in_their_order_with_results_items_and_one_run_id(runner):
    runner.define(
        shell("plan", 'echo \'["x", "y"]\''),
        shell("do", 'mark "do $1 $ECOMM_RUN_ID"', inputs=["what"]),
        shell("close", 'mark "close $1"', inputs=["when"]),
        tasks=[
            task("close", after="each", when="{{workflow.parameters.date}} {{workflow.parameters.trigger}}"),
            task("each", "do", after="plan", each="{{tasks.plan.outputs.result}}", what="{{item}}"),
            task("plan"),
        ],
    )
    done = runner()
    assert done.returncode == 0, done.stderr
    *each, close = runner.marked()
    assert sorted(each) == ["do x 2026-1f3a", "do y 2026-1f3a"]
    assert close == "close 2026-01-02 local"
    lines = [re.sub(r"^ *[\d.]+ s +", "", line) for line in done.stdout.splitlines()[1:-1]]
    assert [line.split()[0] for line in lines] == ["plan", "do", "do", "close"]
    assert all(line.endswith("succeeded") for line in lines)


def test_branches_run_at_the_same_time(runner):
    """Each of two waits for the other's mark, so that one after the other would never end."""
    meet = 'mark "$1"; until grep -qx "$2" "$MARKS"; do sleep 0.02; done'
    runner.define(
        shell("meet", meet, inputs=["me", "other"], activeDeadlineSeconds=20),
        tasks=[task("a", "meet", me="a", other="b"), task("b", "meet", me="b", other="a")],
    )
    assert runner().returncode == 0


def test_parallelism_is_a_bound(runner):
    alone = 'mkdir "$MARKS.lock" || exit 1; sleep 0.05; rmdir "$MARKS.lock"'
    runner.define(
        shell("alone", alone, inputs=["n"]),
        parallelism=1,
        tasks=[task("each", "alone", each="[1, 2, 3, 4]", n="{{item}}")],
    )
    assert runner().returncode == 0


FLAKY = 'mark try; test "$(wc -l < "$MARKS")" -ge 3 || { echo "error: not yet" >&2; exit 75; }'


def test_what_a_retry_can_help_is_tried_again(runner):
    runner.define(shell("flaky", FLAKY, retryStrategy=RETRY), tasks=[task("flaky")])
    done = runner()
    assert done.returncode == 0
    assert runner.marked() == ["try"] * 3
    assert "try 2" in done.stdout
    assert "try 3" in done.stdout


def test_a_failure_names_its_step_cause_and_how_to_go_on_and_gives_its_class(runner):
    script = """
    mark "$1"
    echo '{"event": "dlt-trigger.failed", "failure_class": "not_reconciled"}' >&2
    echo 'error: 3 rows of orders are missing' >&2
    echo 'next:  look at the manifest' >&2
    exit 65
    """
    runner.define(
        shell("bad", script, inputs=["date"], retryStrategy=RETRY),
        shell("never", "mark never"),
        tasks=[task("bad", date="{{workflow.parameters.date}}"), task("never", after="bad")],
    )
    done = runner()
    assert done.returncode == 65
    assert runner.marked() == ["2026-01-02"], "neither tried again nor gone on"
    assert "error: bad 2026-01-02 failed (not_reconciled, exit code 65): 3 rows of orders are missing" in done.stderr
    assert f"next:  look at the manifest; go on with: ecomm run 2026-01-02 --run-id {RUN}" in done.stderr
    assert "only this step: ECOMM_RUN_ID=2026-1f3a sh -c " in done.stderr
    log = re.search(r"log: (\S+)\)", done.stderr)[1]
    assert "3 rows of orders" in Path(log).read_text()


@pytest.mark.parametrize("moved", [True, False])
def test_where_a_workflow_waits_for_a_person_the_run_ends_and_tells_why(runner, moved):
    runner.define(
        shell("judge", f"mark judge; echo {'held: orders is 1, go on with: ecomm rerun' if moved else 'passed'}"),
        {"name": "hold", "inputs": {"parameters": [{"name": "reason"}]}, "suspend": {"duration": "43200"}},
        shell("refresh", "mark refresh"),
        finish(),
        tasks=[
            task("judge"),
            task(
                "hold",
                after="judge",
                only_if='{{=tasks.judge.outputs.result != "passed"}}',
                reason="{{tasks.judge.outputs.result}}",
            ),
            task("refresh", after="hold"),
        ],
        at_the_end="finish",
    )
    done = runner()
    if not moved:
        assert (done.returncode, runner.marked()[:2]) == (0, ["judge", "refresh"])
        return
    assert done.returncode == 65
    assert "error: held: orders is 1, go on with: ecomm rerun" in done.stderr
    assert "next:  go on as it says" in done.stderr
    assert re.search(r"hold +held", done.stdout)
    assert runner.marked()[0] == "judge"
    assert runner.marked()[1].startswith("finish Failed")
    assert "orders is 1" in runner.marked()[1]


@pytest.mark.parametrize(("code", "given"), [(75, 75), (78, 78), (3, 1)])
def test_the_exit_code_is_that_of_the_first_failure_s_class(runner, code, given):
    runner.define(shell("bad", f"exit {code}"), tasks=[task("bad")])
    done = runner()
    assert done.returncode == given
    assert f"exit code {code}" in done.stderr


def test_a_branch_that_runs_is_left_to_end_when_another_fails(runner):
    runner.define(
        shell("bad", 'until grep -q begun "$MARKS"; do sleep 0.02; done; exit 65'),
        shell("slow", "mark begun; sleep 0.5; mark ended"),
        shell("after", "mark after"),
        tasks=[task("bad"), task("slow"), task("after", after="slow")],
    )
    assert runner().returncode == 65
    assert runner.marked() == ["begun", "ended"]


def test_a_step_that_takes_too_long_is_stopped_and_counts_as_terminated(runner):
    runner.define(
        shell("slow", "mark try; exec sleep 60", activeDeadlineSeconds=1, retryStrategy={**RETRY, "limit": 1}),
        tasks=[task("slow")],
    )
    done = runner()
    assert (done.returncode, runner.marked()) == (143, ["try", "try"])


def test_the_same_run_id_goes_on_after_what_has_succeeded(runner):
    runner.define(
        shell("first", "mark first; echo result"),
        shell("flaky", 'mark "flaky $1"; test "$(grep -c flaky "$MARKS")" = 2', inputs=["x"]),
        tasks=[task("first"), task("flaky", after="first", x="{{tasks.first.outputs.result}}")],
    )
    assert runner().returncode == 1
    done = runner()
    assert done.returncode == 0
    assert runner.marked() == ["first", "flaky result", "flaky result"]
    assert re.search(r"first +succeeded  before", done.stdout)


def test_a_step_whose_command_has_changed_is_not_taken_for_done(runner):
    for script in ("mark one", "mark two"):
        runner.define(shell("only", script), tasks=[task("only")])
        assert runner().returncode == 0
    assert runner.marked() == ["one", "two"]


def test_a_journal_that_was_cut_short_is_read_as_far_as_it_goes(runner):
    runner.define(shell("one", "mark one"), tasks=[task("one")])
    assert runner().returncode == 0
    journal = runner.folder / "runs" / RUN / "steps.jsonl"
    whole = journal.read_text()
    assert json.loads(whole)["step"] == "main.one"
    journal.write_text(whole[:-10])
    assert runner().returncode == 0
    assert runner.marked() == ["one", "one"]


def wait_until_gone(pid):
    for _ in range(200):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    pytest.fail(f"process {pid} is still there")


def pid_of(mark):
    return int(mark.split()[1])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_what_runs_and_says_how_to_go_on(runner, number):
    polite = 'trap "mark told; exit 143" TERM; mark "pid $$"; while :; do sleep 0.05; done'
    runner.define(
        shell("polite", polite), shell("never", "mark never"), tasks=[task("polite"), task("never", after="polite")]
    )
    process = runner.start()
    while not runner.marked():
        time.sleep(0.02)
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 143
    assert runner.marked()[1:] == ["told"], "told once, and nothing else begun"
    assert f"the run was stopped by {number.name}" in err
    assert f"go on with: ecomm run 2026-01-02 --run-id {RUN}" in err
    assert re.search(r"polite +stopped", out)
    wait_until_gone(pid_of(runner.marked()[0]))


def test_a_second_signal_kills_what_does_not_listen_with_all_that_it_started(runner):
    deaf = 'trap "" TERM; sleep 300 & mark "pid $!"; mark "pid $$"; while :; do sleep 0.05; done'
    runner.define(shell("deaf", deaf), tasks=[task("deaf")])
    process = runner.start()
    while len(runner.marked()) < 2:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    assert process.poll() is None, "it waits for the step to end"
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert process.returncode == 143
    for mark in runner.marked():
        wait_until_gone(pid_of(mark))


def test_a_run_is_not_taken_up_while_a_step_of_it_outlives_its_runner(runner):
    runner.define(shell("slow", 'mark "pid $$"; until grep -q go "$MARKS"; do sleep 0.05; done'), tasks=[task("slow")])
    process = runner.start()
    while not runner.marked():
        time.sleep(0.02)
    process.kill()
    process.communicate(timeout=20)
    done = runner()
    assert done.returncode == 75
    assert f"the run {RUN} is still going on" in done.stderr
    with runner.marks.open("a") as marks:
        marks.write("go\n")
    wait_until_gone(pid_of(runner.marked()[0]))
    assert runner().returncode == 0


def finish():
    """An exit handler that marks how it was told that the run ended."""
    template = shell("finish", 'mark "finish $1 $2 $ECOMM_RUN_ID"')
    template["container"]["args"] = ["{{workflow.status}}", "{{workflow.failures}}"]
    return template


@pytest.mark.parametrize("again", [False, True])
def test_the_exit_handler_runs_at_the_end_every_time(runner, again):
    runner.define(shell("one", "mark one"), finish(), tasks=[task("one")], at_the_end="finish")
    for _ in range(1 + again):
        assert runner().returncode == 0
    assert runner.marked() == ["one", *["finish Succeeded [] 2026-1f3a"] * (1 + again)]


def test_the_exit_handler_is_told_what_failed(runner):
    runner.define(
        shell("bad", "echo 'error: no luck' >&2; exit 65"), finish(), tasks=[task("bad")], at_the_end="finish"
    )
    assert runner().returncode == 65
    (mark,) = runner.marked()
    status, failures = mark.removeprefix("finish ").removesuffix(" 2026-1f3a").split(" ", 1)
    assert status == "Failed"
    (failure,) = json.loads(failures)
    assert (failure["displayName"], failure["templateName"]) == ("bad", "bad")
    assert "exit code 65): no luck" in failure["message"]


def test_an_exit_handler_that_fails_fails_a_run_that_was_good(runner):
    runner.define(
        shell("one", ""), shell("finish", "echo 'error: S3' >&2; exit 75"), tasks=[task("one")], at_the_end="finish"
    )
    done = runner()
    assert done.returncode == 75
    assert "finish failed (unavailable, exit code 75): S3" in done.stderr


def test_the_exit_handler_runs_after_a_signal_too_and_a_second_one_stops_it(runner):
    runner.define(
        shell("slow", "mark slow; sleep 300"),
        shell("finish", 'mark "finish $1"; sleep 300; mark late'),
        tasks=[task("slow")],
        at_the_end="finish",
    )
    process = runner.start()
    for mark in ("slow", "finish "):
        runner.wait_for(mark)
        process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 143
    assert "the run was stopped by SIGINT" in err
    assert re.search(r"finish +stopped", out)
    assert runner.marked() == ["slow", "finish "]


@pytest.mark.parametrize(("result", "marks"), [("[]", ["last"]), ('["x"]', ["do x", "last"])])
def test_a_task_whose_condition_does_not_hold_is_skipped_and_what_follows_runs(runner, result, marks):
    runner.define(
        shell("plan", f"echo '{result}'"),
        shell("do", 'mark "do $1"', inputs=["what"]),
        shell("last", "mark last"),
        tasks=[
            task("plan"),
            task("some", "do", after="plan", what="x", only_if='{{=tasks.plan.outputs.result != "[]"}}'),
            task("last", after="some"),
        ],
    )
    done = runner()
    assert done.returncode == 0, done.stderr
    assert runner.marked() == marks
    assert bool(re.search(r"some +skipped +since not .*tasks\.plan\.outputs\.result", done.stdout)) == (result == "[]")


def test_a_list_of_lists_is_walked_list_by_list(runner):
    runner.define(
        shell("plan", 'echo \'[["a", "c"], ["b"]]\''),
        shell("do", 'mark "do $1"', inputs=["what"]),
        {
            "name": "lane",
            "parallelism": 1,
            "inputs": {"parameters": [{"name": "items"}]},
            "dag": {"tasks": [task("do", each="{{inputs.parameters.items}}", what="{{item}}")]},
        },
        tasks=[
            task("plan"),
            task("lane", after="plan", each="{{tasks.plan.outputs.result}}", items="{{item}}"),
        ],
    )
    done = runner()
    assert done.returncode == 0, done.stderr
    marks = runner.marked()
    assert sorted(marks) == ["do a", "do b", "do c"]
    assert marks.index("do a") < marks.index("do c")


def test_a_pause_before_a_retry_is_cut_short_by_a_signal(runner):
    later = {**RETRY, "backoff": {"duration": "5m", "factor": 1}}
    runner.define(shell("flaky", "mark try; exit 75", retryStrategy=later), tasks=[task("flaky")])
    process = runner.start()
    runner.wait_for("try")
    time.sleep(0.5)
    process.terminate()
    process.communicate(timeout=20)
    assert process.returncode == 143


def test_a_program_that_is_not_there_is_a_matter_of_configuration(runner):
    absent = shell("absent", "")
    absent["container"]["command"] = ["no-such-program"]
    runner.define(absent, tasks=[task("absent")])
    done = runner()
    assert done.returncode == 78
    assert "cannot start 'no-such-program'" in done.stderr


def test_arguments_that_the_workflow_does_not_take_are_refused(runner):
    runner.define(tasks=[], name="backfill")
    done = run_ecomm("run", "2026-01-02..2026-01-03", env=runner.env, code=None, timeout=60)
    assert done.returncode == 78
    assert "backfill takes ['bounds', 'date', 'not-before', 'tables', 'trigger']: missing ['date'" in done.stderr


def test_without_workflows_the_error_says_where_they_are_looked_for(tmp_path):
    with pytest.raises(ConfigurationError, match="no rendered workflows") as caught:
        find_workflows(tmp_path)
    assert "ECOMM_WORKFLOWS_DIR" in caught.value.next_step


def test_the_workflows_of_this_project_are_found_without_being_told():
    assert load_workflow("batch-ecomm-pipeline", find_workflows(None)).entrypoint == "main"


def test_a_workflow_that_is_not_there_or_not_yaml_is_named(tmp_path):
    with pytest.raises(ConfigurationError, match="is called 'backfill'"):
        load_workflow("backfill", tmp_path)
    (tmp_path / "a.yaml").write_text("a: [")
    with pytest.raises(ConfigurationError, match=r"a\.yaml is not YAML"):
        load_workflow("backfill", tmp_path)
