"""What fails on Kubernetes, and how it comes back."""

from __future__ import annotations

import pytest
from tests.support.cluster import PIPELINE, wait_until

from ecomm_pipeline.errors import FAILURE_CLASSES

RETRIES = 2
"""The chart's retry.limit."""
NO_COMPUTE = "[INSUFFICIENT_CAPACITY] There is no compute."


@pytest.mark.timeout(500)
def test_a_failing_step_is_retried_as_its_class_says_and_argo_retry_does_only_what_failed_and_what_follows(
    cluster, shop, equals_the_computation
):
    days = shop(1, 1)
    [date] = days.dates
    cluster.sandbox.fault("databricks", "update_fails", message=NO_COMPUTE)
    try:
        run = cluster.submit(f"cronwf/{PIPELINE}", date=date, trigger="manual").ends("Failed", within=240)
    finally:
        cluster.sandbox.clear_faults("databricks")
    [record] = [record for record in run.records(date) if record.stage == "dlt-trigger"]
    failure = FAILURE_CLASSES[record.failure_class or ""]
    assert failure.name == "unavailable"
    failed = run.tries("dlt-trigger")
    assert [node.exit_code for node in failed] == [failure.exit_code] * (1 + RETRIES if failure.retry else 1)
    extracted = {node.id: node.finished for node in run.tries("extractor")}
    assert len(run.tries("dbt-runner")) == 0

    run.retry()
    wait_until("the retry begins", lambda: run.phase not in ("Failed", "Error"), 30)
    run.ends("Succeeded", within=240)
    assert {node.id: node.finished for node in run.tries("extractor")} == extracted
    assert [node.phase for node in run.tries("dlt-trigger")][-1] == "Succeeded"
    assert {record.outcome for record in run.records(date)} == {"succeeded"}
    equals_the_computation(days)


@pytest.mark.timeout(500)
def test_a_run_survives_the_loss_of_pods_in_mid_stage_with_one_whole_update_and_the_same_result(
    cluster, shop, equals_the_computation
):
    days = shop(2, 1)
    [date] = days.dates
    before = cluster.updates()
    faults = cluster.sandbox

    faults.fault("postgres", "delay", delay=3)
    run = cluster.submit(f"cronwf/{PIPELINE}", date=date, trigger="manual")
    lost = run.delete_pod(run.running_pod("extractor", table="orders"))
    faults.clear_faults("postgres")

    faults.fault("databricks", "flow_slow", seconds=20, dataset="silver.fact_orders")
    running = run.running_pod("dlt-trigger", within=200)
    first = wait_until("the ledger has the update's id", lambda: update_id(run, date), 60)
    lost |= run.delete_pod(running)  # it stops its update before it ends
    second = wait_until("the ledger has another update's id", lambda: other_than(first, update_id(run, date)), 90)
    run.kill_process("dlt-trigger", date)  # the update goes on, and the next try joins it
    run.until("Argo sees the kill", lambda run: 137 in [node.exit_code for node in run.tries("dlt-trigger")])

    faults.fault("databricks", "statement_slow", seconds=20, matches="agg_sales_kpi", times=1)
    lost |= run.delete_pod(run.running_pod("dbt-runner", within=200))
    faults.clear_faults("databricks")

    run.ends("Succeeded", within=240)
    # A pod that is deleted before Argo has looked at it again is made anew within the same try.
    assert {pod["metadata"]["uid"] for pod in run.pods() if pod["status"]["phase"] == "Succeeded"}.isdisjoint(lost)
    for template, inputs in (("extractor", {"table": "orders"}), ("dlt-trigger", {}), ("dbt-runner", {})):
        *failed, last = run.tries(template, **inputs)
        assert last.exit_code == 0, template
        # Of a pod that is gone before Argo saw it end there is no exit code.
        assert all(node.exit_code in {137, 143} or node.message == "pod deleted" for node in failed), template
    assert cluster.updates() - before == {second}
    equals_the_computation(days)


def update_id(run, date):
    return next((record.remote.get("update_id") for record in run.records(date) if record.stage == "dlt-trigger"), None)


def other_than(known, found):
    return found if found != known else None
