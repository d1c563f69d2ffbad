"""Updates and events survive a restart, and a killed process's update is a failed one."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from ecomm_sandbox.databricks.errors import ApiError
from ecomm_sandbox.databricks.pipelines.api import conditions_of
from ecomm_sandbox.databricks.pipelines.store import PipelineStore

if TYPE_CHECKING:
    from pathlib import Path


def test_updates_and_events_are_read_again(tmp_path: Path) -> None:
    store = PipelineStore(tmp_path / "p")
    store.write_spec({"name": "p"})
    store.change("u1", state="CREATED", parameters={"run_id": "r"})
    store.change("u1", state="COMPLETED")
    store.event("u1", "update_progress", "done", details={"update_progress": {"state": "COMPLETED"}})
    again = PipelineStore(tmp_path / "p")
    assert again.updates == {"u1": {"update_id": "u1", "state": "COMPLETED", "parameters": {"run_id": "r"}}}
    assert [event["message"] for event in again.events] == ["done"]
    assert again.events[0]["origin"]["pipeline_name"] == "p"


def test_an_update_that_was_running_has_failed(tmp_path: Path) -> None:
    PipelineStore(tmp_path / "p").change("u1", state="RUNNING")
    again = PipelineStore(tmp_path / "p")
    assert again.updates["u1"]["state"] == "FAILED"
    assert again.active() is None
    assert again.events[-1]["error"]["exceptions"][0]["message"]


def test_a_line_that_a_kill_cut_short_is_dropped(tmp_path: Path) -> None:
    store = PipelineStore(tmp_path / "p")
    store.event("u1", "update_progress", "one")
    with (tmp_path / "p" / "events.jsonl").open("a") as out:
        out.write('{"id": "half')
    again = PipelineStore(tmp_path / "p")
    again.event("u1", "update_progress", "two")
    lines = (tmp_path / "p" / "events.jsonl").read_text().splitlines()
    assert [json.loads(line)["message"] for line in lines] == ["one", "two"]


def test_event_numbers_ascend(tmp_path: Path) -> None:
    store = PipelineStore(tmp_path / "p")
    for _ in range(20):
        store.event(None, "x", "y")
    numbers = [event["sequence"]["control_plane_seq_no"] for event in store.events]
    assert numbers == sorted(set(numbers))


@pytest.mark.parametrize(
    ("text", "conditions"),
    [
        ("", []),
        ("level='ERROR'", [("level", "=", ["ERROR"])]),
        (
            "level in ('ERROR', 'WARN') AND timestamp > '2026-01-01T00:00:00.000Z'",
            [("level", "in", ["ERROR", "WARN"]), ("timestamp", ">", ["2026-01-01T00:00:00.000Z"])],
        ),
        ("update_id = 'u1' and timestamp >= '2026-01-01T00:00:00Z'",
         [("update_id", "=", ["u1"]), ("timestamp", ">=", ["2026-01-01T00:00:00Z"])]),
    ],
)  # fmt: skip
def test_event_filters_are_understood(text: str, conditions: list[tuple[str, str, list[str]]]) -> None:
    assert conditions_of(text) == conditions


def test_a_filter_on_something_else_is_a_bad_request() -> None:
    with pytest.raises(ApiError, match="colour"):
        conditions_of("colour = 'red'")
