"""A business date on Kubernetes: started by a person, by the clock, and by two at once."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from tests.support.cluster import PIPELINE, RELEASE, Run, wait_until
from tests.support.invoices import ZONE
from tests.support.kpis import expected_kpis
from workflows.stages import NIGHTLY

from ecomm_pipeline.contract import CONTRACT

TZ = ZoneInfo(ZONE)
LEAD = timedelta(seconds=8)
"""What the release mostly needs to be upgraded and the controller to hear of it."""


@pytest.fixture
def next_minute(cluster):
    """Move the schedule to the next minute; give that instant. No run begins by the clock otherwise.

    Nor does one while a run that was submitted from the CronWorkflow goes on: Argo counts that as its own (Forbid).
    """
    upgrade = ["upgrade", RELEASE, f"helm/{RELEASE}", "--reuse-values"]
    at = datetime.now(TZ)
    while datetime.now(TZ) >= at - timedelta(seconds=1):
        at = (datetime.now(TZ) + LEAD).replace(second=0, microsecond=0) + timedelta(minutes=1)
        schedule = json.dumps([f"{at.minute} {at.hour} * * *"])
        cluster.helm(*upgrade, "--set", "schedule.suspend=false", "--set-json", f"schedule.cron={schedule}")
    yield at
    cluster.helm(*upgrade, "--set", "schedule.suspend=true")


@pytest.mark.timeout(240)
def test_the_cron_workflow_begins_by_itself_with_the_day_that_ended_in_the_business_zone(cluster, next_minute):
    business_date = str((next_minute - timedelta(days=1)).date())

    def begun() -> Run | None:
        found = cluster.workflows(**{"workflows.argoproj.io/cron-workflow": PIPELINE, "trigger": "cron"})
        return found[-1] if found else None

    run = wait_until("the CronWorkflow begins", begun, 100)
    run.until("every table is extracted", lambda run: len(extracted(run)) == len(CONTRACT), 120)
    run.stop()
    metadata = run.get()["metadata"]
    assert metadata["labels"]["date"] == business_date
    assert run.get()["spec"]["priority"] == NIGHTLY, "Argo's queues read no other"
    instant = datetime.fromisoformat(metadata["annotations"]["workflows.argoproj.io/scheduled-time"])
    assert instant == next_minute
    records = {record.table: record for record in run.records(business_date) if record.stage == "extractor"}
    assert set(records) == set(CONTRACT)
    assert {record.trigger for record in records.values()} == {"cron"}
    run.ends("Failed", within=120)


def extracted(run):
    return [node for node in run.tries("extractor") if node.phase == "Succeeded"]


@pytest.mark.timeout(300)
def test_a_second_run_of_a_date_waits_for_the_first(cluster):
    date = "2020-02-29"  # on which there are no orders
    first, second = (cluster.submit(f"wftmpl/{PIPELINE}", date=date) for _ in range(2))
    try:
        wait_until("the second waits for a lock", lambda: "Mutex" in message(second), 60)
        first.until("its extractors end", lambda run: len(extracted(run)) == len(CONTRACT))
        assert second.tries("extractor") == []
        first.stop()
        first.ends("Failed", within=60)
        second.until("its first pod begins", lambda run: run.tries("extractor"), 60)
        ended = datetime.fromisoformat(first.get()["status"]["finishedAt"])
        assert min(node.started for node in second.tries("extractor")) >= ended
    finally:
        second.stop()
    second.ends("Failed", within=120)


def message(run):
    return (run.get().get("status") or {}).get("message", "")


@pytest.mark.timeout(600)
def test_a_submitted_date_ends_green_and_its_kpi_tables_equal_the_independent_computation(cluster, good_day):
    assert good_day.kpis == expected_kpis(good_day.days)
    records = good_day.run.records(good_day.date)
    assert {record.outcome for record in records} == {"succeeded"}
    assert {record.trigger for record in records} == {"manual"}
    assert good_day.run.get()["metadata"]["labels"]["date"] == good_day.date


def test_only_pods_that_pass_the_restricted_standard_are_let_in(cluster):
    labels = cluster.json("get", "namespace", "ecomm")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    image = "ecomm-data-pipeline/extractor:0.1.0"
    refused = cluster.run(
        "kubectl", "-n", "ecomm", "run", "careless", f"--image={image}", "--dry-run=server", code=None
    )
    assert refused.returncode != 0
    assert 'violates PodSecurity "restricted' in refused.stderr
