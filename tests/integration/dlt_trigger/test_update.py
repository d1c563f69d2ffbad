"""dlt-trigger on the sandbox: one update a run, whatever happens to us, to others or to the platform."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest
from tests.support.trial import wait_until

from ecomm_pipeline.errors import (
    CredentialsError,
    MissingSourceError,
    TimedOutError,
    UnavailableError,
    UpstreamFailedError,
)

if TYPE_CHECKING:
    from .conftest import Trial


def test_an_update_is_started_waited_for_and_told_in_figures(trial: Trial) -> None:
    record = trial.run()
    (update,) = trial.ours()
    assert (update.state.value, update.parameters) == ("COMPLETED", {"run_id": trial.run_id, "dates": "2026-01-02"})
    assert record.remote["update_id"] == update.update_id
    assert record.figures["tables"] == {"trial.numbers": 8}
    assert {(row["name"], row["passed"], row["failed"]) for row in record.figures["expectations"]} == {
        ("no_rescued_data", 9, 1),
        ("valid_key", 8, 2),
    }
    assert (record.figures["rescued_rows"], record.figures["dropped_rows"], record.figures["flows"]) == (1, 2, 1)
    assert [(finding.priority, finding.kind) for finding in record.findings] == [
        ("P3", "schema_drift"),
        ("P2", "rows_dropped"),
    ]
    assert record.figures["run_seconds"] > 0

    # The same command again, on a network that does not like it: no second update, the same figures.
    with trial.sandbox.fault("databricks", "http_error", status=429, path="/updates", retry_after=0, times=2):
        again = trial.run()
    assert again.figures == {**record.figures, "turn_seconds": 0}
    with trial.sandbox.fault("databricks", "drop_connection", path="/pipelines/", times=1):
        trial.run()
    assert len(trial.ours()) == 1


def test_kill_9_and_the_same_command_again_are_one_update(trial: Trial) -> None:
    with trial.sandbox.fault("databricks", "update_queued", seconds=3, times=1):
        process = trial.start()
        wait_until(trial.started)
        process.kill()
        process.communicate()
        assert trial.record().outcome == "running"
        assert trial.run().outcome == "succeeded"
    assert [update.state.value for update in trial.ours()] == ["COMPLETED"]


def test_the_platforms_own_retry_is_followed(trial: Trial) -> None:
    with trial.sandbox.fault("databricks", "update_fails", message="a node was lost", retryable=True, times=1):
        record = trial.run()
    assert [(u["cause"], u["state"]) for u in record.figures["updates"]] == [
        ("API_CALL", "FAILED"),
        ("RETRY_ON_FAILURE", "COMPLETED"),
    ]


def test_somebody_elses_update_is_waited_for_and_then_ours_is_started(trial: Trial) -> None:
    with trial.sandbox.fault("databricks", "update_queued", seconds=600, times=1):
        foreign = trial.begin()
        process = trial.start()
        trial.hear(process, "dlt-trigger.awaiting_turn")
        trial.client.pipelines.stop(trial.pipeline_id)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    record = trial.record()
    assert record.figures["turn_seconds"] > 0
    assert foreign not in record.remote["update_ids"]
    assert [update.state.value for update in trial.ours()] == ["COMPLETED"]


def test_an_update_that_was_started_before_the_ledger_knew_is_adopted(trial: Trial) -> None:
    update_id = trial.begin({"run_id": trial.run_id, "dates": "2026-01-02"})
    assert trial.run().remote["update_ids"] == [update_id]
    assert len(trial.ours()) == 1


def test_a_failure_is_told_with_its_cause_and_place(trial: Trial) -> None:
    message = "[CAST_INVALID_INPUT] The value 'x' cannot be cast.\nat org.apache.spark.Cast(Cast.scala:1)"
    with (
        trial.sandbox.fault("databricks", "update_fails", message=message, times=1),
        pytest.raises(UpstreamFailedError) as caught,
    ):
        trial.run()
    (update,) = trial.ours()
    assert caught.value.message.endswith("[CAST_INVALID_INPUT] The value 'x' cannot be cast.")
    assert update.update_id in caught.value.message
    assert f"/pipelines/{trial.pipeline_id}/updates/{update.update_id}" in caught.value.next_step
    assert trial.record().failure_class == "upstream_failed"


def test_an_update_that_somebody_cancels_over_there_is_not_tried_again(trial: Trial) -> None:
    with trial.sandbox.fault("databricks", "update_queued", seconds=600, times=1):
        process = trial.start()
        wait_until(trial.started)
        trial.client.pipelines.stop(trial.pipeline_id)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 70, errors
    assert "was cancelled on the platform" in errors
    assert [update.state.value for update in trial.ours()] == ["CANCELED"]


def test_missing_compute_may_be_tried_again(trial: Trial) -> None:
    with (
        trial.sandbox.fault(
            "databricks", "update_fails", message="AWS_INSUFFICIENT_INSTANCE_CAPACITY_FAILURE", times=1
        ),
        pytest.raises(UnavailableError, match="INSUFFICIENT_INSTANCE_CAPACITY"),
    ):
        trial.run()


def test_sigterm_stops_the_update(trial: Trial) -> None:
    with trial.sandbox.fault("databricks", "update_queued", seconds=600, times=1):
        process = trial.start()
        wait_until(trial.started)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 143, errors
    assert [update.state.value for update in trial.ours()] == ["CANCELED"]
    assert trial.record().outcome == "cancelled"


def test_the_wait_for_a_turn_has_a_limit_and_leaves_others_alone(trial: Trial) -> None:
    trial.set(ECOMM_DLT_QUEUE_TIMEOUT="1")
    with trial.sandbox.fault("databricks", "update_queued", seconds=600, times=1):
        foreign = trial.begin()
        wait_until(lambda: trial.state(foreign) == "WAITING_FOR_RESOURCES")
        with pytest.raises(TimedOutError, match=f"update {foreign}, which is not of this run, is still WAITING"):
            trial.run()
        assert trial.state(foreign) == "WAITING_FOR_RESOURCES"
    assert trial.ours() == []


def test_a_refused_token_is_told_as_such(trial: Trial) -> None:
    with trial.sandbox.fault("databricks", "credentials_refused", status=401), pytest.raises(CredentialsError):
        trial.run()


def test_a_pipeline_that_is_not_there_is_named(trial: Trial) -> None:
    trial.set(ECOMM_DATABRICKS_PIPELINE_ID="no-such-pipeline")
    with pytest.raises(MissingSourceError, match="no-such-pipeline"):
        trial.run()
