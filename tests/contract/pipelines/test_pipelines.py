"""What dlt-trigger relies on of the Pipelines API, by the official client."""

from __future__ import annotations

import re
import time
import uuid
from typing import TYPE_CHECKING, Any

import pytest
from databricks.sdk.errors import DatabricksError, NotFound
from databricks.sdk.service.pipelines import UpdateInfoState

from ecomm_pipeline.databricks import connect
from ecomm_pipeline.settings import Databricks, DltTrigger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from databricks.sdk import WorkspaceClient

ENDED = (UpdateInfoState.COMPLETED, UpdateInfoState.FAILED, UpdateInfoState.CANCELED)


@pytest.fixture(scope="module")
def client(settings: Callable[[type[Any]], Any]) -> WorkspaceClient:
    return connect(settings(Databricks))


@pytest.fixture(scope="module")
def pipeline_id(settings: Callable[[type[Any]], Any]) -> str:
    return settings(DltTrigger).pipeline_id


def ended(client: WorkspaceClient, pipeline_id: str, update_id: str) -> Any:
    """Wait for the end of an update, and give it."""
    deadline = time.monotonic() + 1800
    while True:
        update = client.pipelines.get_update(pipeline_id, update_id).update
        if update.state in ENDED:
            return update
        assert time.monotonic() < deadline, f"{update_id} is {update.state}"
        time.sleep(0.2)


@pytest.fixture(scope="module")
def started(client: WorkspaceClient, pipeline_id: str) -> Iterator[tuple[str, dict[str, str]]]:
    """An update that only validates, with parameters; stopped at the end if it is not over."""
    parameters = {"run_id": f"contract-{uuid.uuid4()}", "dates": "2026-01-02"}
    update_id = client.pipelines.start_update(pipeline_id, parameters=parameters, validate_only=True).update_id
    yield update_id, parameters
    client.pipelines.stop(pipeline_id)
    ended(client, pipeline_id, update_id)


def test_an_update_carries_the_parameters_it_was_started_with(client, pipeline_id, started):
    update_id, parameters = started
    update = client.pipelines.get_update(pipeline_id, update_id).update
    assert update.update_id == update_id
    assert {name: update.parameters[name] for name in parameters} == parameters
    assert update.cause.value == "API_CALL"


def test_the_newest_update_is_listed_first_with_its_state_and_time(client, pipeline_id, started):
    listed = client.pipelines.list_updates(pipeline_id, max_results=25).updates
    assert listed[0].update_id == started[0]
    assert listed[0].state is not None
    assert abs(listed[0].creation_time / 1000 - time.time()) < 3600
    times = [update.creation_time for update in listed]
    assert times == sorted(times, reverse=True)


def test_a_second_start_is_refused_while_one_is_active_and_the_log_tells_the_end(client, pipeline_id, started):
    update = client.pipelines.get_update(pipeline_id, started[0]).update
    if update.state not in ENDED:
        with pytest.raises(DatabricksError, match=re.compile("active update", re.IGNORECASE)):
            client.pipelines.start_update(pipeline_id, validate_only=True)
    assert ended(client, pipeline_id, started[0]).state is UpdateInfoState.COMPLETED
    assert "COMPLETED" in _states(client, pipeline_id, started[0])


def _states(client: WorkspaceClient, pipeline_id: str, update_id: str) -> list[str]:
    deadline = time.monotonic() + 60
    states: list[str] = []
    while "COMPLETED" not in states and time.monotonic() < deadline:
        query = {"filter": "timestamp >= '2026-01-01T00:00:00.000Z'", "order_by": ["timestamp desc"], "max_results": 50}
        page = client.api_client.do("GET", f"/api/2.0/pipelines/{pipeline_id}/events", query=query)
        states = [
            event["details"]["update_progress"]["state"]
            for event in page["events"]
            if event["event_type"] == "update_progress" and event["origin"].get("update_id") == update_id
        ]
        time.sleep(0.2)
    return states


def test_the_log_is_read_from_an_instant_on_oldest_first_and_tells_whether_there_is_more(client, pipeline_id, started):
    ended(client, pipeline_id, started[0])
    path = f"/api/2.0/pipelines/{pipeline_id}/events"
    query = {"filter": "timestamp >= '2000-01-01T00:00:00.000Z'", "order_by": ["timestamp asc"], "max_results": 2}
    page = client.api_client.do("GET", path, query=query)
    assert page["next_page_token"]
    first, second = page["events"]
    assert first["timestamp"] <= second["timestamp"]
    later = client.api_client.do("GET", path, query={**query, "filter": f"timestamp >= '{second['timestamp']}'"})
    assert all(event["timestamp"] >= second["timestamp"] for event in later["events"])


def test_stopping_a_pipeline_that_is_idle_is_no_error(client, pipeline_id, started):
    ended(client, pipeline_id, started[0])
    client.pipelines.stop(pipeline_id)


def test_a_pipeline_tells_its_state_and_whether_it_is_in_development(client, pipeline_id):
    pipeline = client.pipelines.get(pipeline_id)
    assert pipeline.state is not None
    assert pipeline.spec.development in (True, False, None)


def test_unknown_ids_are_not_found(client, pipeline_id):
    with pytest.raises(NotFound):
        client.pipelines.get_update(pipeline_id, str(uuid.uuid4()))
    with pytest.raises(NotFound):
        client.pipelines.get(str(uuid.uuid4()))
