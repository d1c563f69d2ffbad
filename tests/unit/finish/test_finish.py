"""`ecomm finish`: what the end of a run means for the ledger."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta

import pytest
from tests.support.virtual import BEGAN, DATES, RUN, Objects

from ecomm_pipeline.dates import BusinessDate, DateRange
from ecomm_pipeline.errors import UnavailableError
from ecomm_pipeline.finish.plan import class_of_message, end_of, outcome_of, read_failures
from ecomm_pipeline.finish.run import close_ledger
from ecomm_pipeline.layout import Layout
from ecomm_pipeline.ledger import Ledger, Record

OTHER_RUN = "20260102T190000Z-2222"
WEEK = DateRange(BusinessDate(date(2026, 1, 2)), BusinessDate(date(2026, 1, 8)))


def template_of(step):
    """Give the template of a node; one that is its workflow's entrypoint has the workflow's name."""
    return "reconciler" if step.startswith("reconcile") else step.partition("(")[0]


class Run:
    """A run in a bucket in memory: `began` puts a record of a stage there, `finish` closes its ledger."""

    def __init__(self):
        self.bucket = Objects()
        self.ledger = Ledger(self.bucket, Layout())
        self.ended = BEGAN + timedelta(hours=1)

    def began(self, stage, *, outcome="running", run_id=RUN, after=60, dates=DATES, **fields):
        at = BEGAN + timedelta(seconds=after)
        record = Record(
            stage=stage,
            first_date=dates.first.day,
            last_date=dates.last.day,
            run_id=run_id,
            started_at=at,
            ended_at=None if outcome == "running" else at + timedelta(seconds=9),
            outcome=outcome,
            **fields,
        )
        self.ledger.write(record)
        return record

    def finish(self, status="Failed", *failures, dates=DATES, seconds=3600.0, later=0.0):
        nodes = [
            {"displayName": step, "templateName": template_of(step), "phase": "Failed", "message": message}
            for step, message in failures
        ]
        end = end_of(
            dates,
            workflow="batch-ecomm-pipeline-1",
            run_id=RUN,
            trigger="cron",
            status=status,
            seconds=seconds,
            failures=json.dumps(json.dumps(nodes or None)),
            now=self.ended + timedelta(seconds=later),
        )
        return close_ledger(end, self.ledger)

    def record(self, stage, part=None, run_id=RUN, day=DATES.first):
        return self.ledger.read(stage, day, run_id, part=part)


@pytest.fixture
def run():
    return Run()


def test_a_run_that_succeeded_is_on_record_under_its_date(run):
    before = run.began("extractor", table="orders", outcome="succeeded")
    run.finish("Succeeded")
    (record,) = run.ledger.runs(DATES.first)
    assert record.outcome == "succeeded"
    assert (record.workflow, record.trigger, record.seconds) == ("batch-ecomm-pipeline-1", "cron", 3600)
    assert record.started_at == datetime(2026, 1, 2, 18, tzinfo=UTC)
    assert (record.failure_class, record.error, record.closed) == (None, None, [])
    assert run.record("extractor", "orders") == before


def held(run):
    finding = {"priority": "P2", "kind": "kpi_held", "message": "orders of 2026-01-02 is 1"}
    more = {"figures": {"verdict": "held"}, "findings": [finding], "next_step": "argo resume -n ecomm batch-1"}
    return run.began("kpi-gate", outcome="succeeded", **more)


@pytest.mark.parametrize(
    ("message", "name"),
    [("Stopped with strategy 'Stop'", "cancelled"), ("held: orders of 2026-01-02 is 1", "bad_data")],
)
def test_a_run_that_ended_while_it_was_held_tells_why_and_a_command_that_needs_no_workflow(run, message, name):
    held(run)
    ended = run.finish("Failed", ("hold", message))
    assert (ended.failure_class, ended.error) == (name, "kpi-gate: orders of 2026-01-02 is 1")
    assert ended.next_step == run.record("kpi-gate").next_step == "ecomm rerun tableau 2026-01-02 --onwards"


def test_a_held_run_that_was_let_go_on_keeps_its_record(run):
    before = held(run)
    run.began("tableau-refresher", outcome="succeeded", after=900)
    run.finish("Succeeded")
    assert run.record("kpi-gate") == before


def test_a_run_is_no_record_of_a_stage(run):
    run.began("extractor", table="orders", outcome="succeeded")
    run.finish("Succeeded")
    assert [record.stage for record in run.ledger.of_date(DATES.first)] == ["extractor"]
    assert [record.stage for record in run.ledger.of_range(DATES)] == ["extractor"]


@pytest.mark.parametrize(
    ("message", "failure_class", "advice"),
    [
        ("OOMKilled (exit code 137)", "lost", "memory limit"),
        ("pod deleted", "lost", "retry the workflow"),
        ("Pod was active on the node longer than the specified deadline", "timed_out", "waits for"),
        ("", "lost", "retry the workflow"),
    ],
)
def test_a_stage_that_was_killed_is_closed_with_what_argo_knows(run, message, failure_class, advice):
    run.began("dlt-trigger", remote={"update_id": "u1"})
    run.finish("Failed", ("dlt-trigger(0)", message), ("batch-ecomm-pipeline-1", "child 'x' failed"))
    record = run.record("dlt-trigger")
    assert (record.outcome, record.failure_class) == ("failed", failure_class)
    assert record.error.startswith("dlt-trigger ended without a word: ")
    assert message in record.error
    assert advice in record.next_step
    assert record.ended_at == run.ended
    assert record.remote == {"update_id": "u1"}, "a retry is to re-attach to it"


def test_only_the_table_whose_pod_was_killed_gets_its_reason(run):
    run.began("extractor", table="orders")
    run.began("extractor", table="order_items")
    end = run.finish("Failed", ("extractor(0:orders)(2)", "OOMKilled (exit code 137)"))
    assert "OOMKilled" in run.record("extractor", "orders").error
    assert "could not report" in run.record("extractor", "order_items").error
    assert sorted(end.closed) == ["extractor order_items", "extractor orders"]


def test_a_stage_that_was_stopped_since_its_time_was_over_has_timed_out(run):
    """It gets a signal, and cannot tell whether a person or Kubernetes' deadline sent it."""
    stopped = {"outcome": "cancelled", "failure_class": "cancelled", "error": "stopped by SIGTERM"}
    run.began("dbt-runner", **stopped)
    person = run.began("tableau-refresher", **stopped)
    message = "Pod was active on the node longer than the specified deadline"
    run.finish("Failed", ("dbt-runner(2)", message), ("tableau-refresher(0)", "Stopped with strategy 'Stop'"))
    record = run.record("dbt-runner")
    assert (record.outcome, record.failure_class) == ("failed", "timed_out")
    assert record.error == f"dbt-runner was stopped: {message}"
    assert run.record("tableau-refresher") == person


@pytest.mark.parametrize("step", ["reconciler-gold(1)", "reconcile-x7k2p(0)"])
def test_a_proof_that_was_killed_is_found_under_either_name(run, step):
    run.began("reconciler", through="gold")
    run.finish("Failed", (step, "OOMKilled (exit code 137)"))
    assert "OOMKilled" in run.record("reconciler", "gold").error


def test_what_another_run_does_is_left_alone(run):
    other = run.began("dlt-trigger", run_id=OTHER_RUN)
    run.finish("Failed")
    assert run.record("dlt-trigger", run_id=OTHER_RUN) == other


def test_a_range_is_closed_under_all_of_its_dates(run):
    run.began("dbt-runner", dates=WEEK)
    run.finish("Failed", ("dbt-runner(0)", "pod deleted"), dates=WEEK)
    for day in WEEK:
        assert run.record("dbt-runner", day=day).outcome == "failed"
        assert [record.outcome for record in run.ledger.runs(day)] == ["failed"]


def test_a_run_failed_of_the_stage_that_failed_first(run):
    run.began("extractor", table="orders", after=90, outcome="failed", failure_class="cancelled", error="stopped")
    run.began(
        "extractor",
        table="products",
        after=30,
        outcome="failed",
        failure_class="unavailable",
        error="Postgres does not answer",
        next_step="look at Postgres",
    )
    record = run.finish("Failed", ("extractor(1:products)", "Error (exit code 75)"))
    assert (record.outcome, record.failure_class) == ("failed", "unavailable")
    assert record.error == "extractor: Postgres does not answer"
    assert record.next_step == "look at Postgres"


def test_a_run_whose_pods_never_began_says_what_argo_says(run):
    record = run.finish("Error", ("extractor", "No more retries left"), ("extractor(0:orders)", "ImagePullBackOff"))
    assert (record.failure_class, record.error) == ("lost", "extractor(0:orders): ImagePullBackOff")
    assert record.next_step == "argo get batch-ecomm-pipeline-1"
    assert run.finish("Error", later=9).error == "no stage and no node tells why"


def test_the_same_end_twice_is_one(run):
    run.began("dlt-trigger")
    failures = ("dlt-trigger(0)", "pod deleted")
    run.finish("Failed", failures)
    first = dict(run.bucket.content)
    run.finish("Failed", failures, later=600)
    assert run.bucket.content == first


def test_a_run_that_was_retried_ends_anew(run):
    run.began("dlt-trigger")
    run.finish("Failed", ("dlt-trigger(0)", "pod deleted"))
    run.began("dlt-trigger", outcome="succeeded")
    run.finish("Succeeded", seconds=60, later=600)
    (record,) = run.ledger.runs(DATES.first)
    assert (record.outcome, record.error, record.closed) == ("succeeded", None, [])
    assert record.ended_at == run.ended + timedelta(seconds=600)
    assert run.record("dlt-trigger").outcome == "succeeded"


def test_a_ledger_that_cannot_be_written_says_that_the_run_itself_has_ended_before(run):
    run.bucket.refusal = UnavailableError("S3 does not answer")
    with pytest.raises(UnavailableError) as caught:
        run.finish("Succeeded")
    assert caught.value.__notes__ == ["the run itself ended before that, Succeeded: only its ledger is not closed"]


def test_a_workflow_that_somebody_stopped_was_cancelled():
    stopped = read_failures('[{"displayName": "gate", "message": "workflow shutdown with strategy: Stop"}]')
    assert outcome_of("Failed", stopped) == "cancelled"
    assert outcome_of("Failed", []) == "failed"
    deleted = read_failures('[{"displayName": "gate(0)", "message": "main: Error (exit code 143)"}]')
    assert outcome_of("Failed", deleted) == "failed"


@pytest.mark.parametrize("text", ["", "null", '"null"', "[]", '"[]"'])
def test_no_failures_are_none(text):
    assert read_failures(text) == []


@pytest.mark.parametrize("text", ["{{workflow.failures}}", "[1]", '"[', "7"])
def test_failures_that_cannot_be_read_are_kept_as_they_are(text):
    assert [failure.message for failure in read_failures(text)] == [text]


@pytest.mark.parametrize(
    ("message", "name"),
    [
        ("Error (exit code 75)", "unavailable"),
        ("Error (exit code 65)", "bad_data"),
        ("Error (exit code 143)", "cancelled"),
        ("OOMKilled (exit code 137)", "lost"),
        ("Error (exit code 3)", "internal"),
        ("Stopped with strategy 'Stop'", "cancelled"),
        ("The node was low on resource: memory", "lost"),
    ],
)
def test_what_argo_says_of_a_pod_has_a_class(message, name):
    assert class_of_message(message) == name
