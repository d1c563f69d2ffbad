"""The pipeline runtime: a small source, run as it stands, through the Pipelines API."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING, Any

import pytest
from databricks.sdk.errors import ResourceConflict

if TYPE_CHECKING:
    from conftest import Databricks


def quality(events: list[dict[str, Any]]) -> dict[tuple[str, str], tuple[int, int]]:
    """Expectations by dataset and name: rows passed and failed."""
    found = {}
    for event in events:
        for entry in ((event["details"].get("flow_progress") or {}).get("data_quality") or {}).get("expectations", []):
            found[entry["dataset"], entry["name"]] = (entry["passed_records"], entry["failed_records"])
    return found


def test_files_become_tables_in_the_order_of_reads(databricks: Databricks) -> None:
    databricks.put("day=1/part-1.csv", "1,one,1,", "2,two,1,", 'x,"no, number",1,', '3,"",1,')
    update = databricks.update(parameters={"run_id": "r1"})
    assert databricks.rows("SELECT id, name, version, file FROM ecomm.bronze.things ORDER BY file, id") == [
        ["1", "one", "1", "part-1.csv"],
        ["2", "two", "1", "part-1.csv"],
        ["3", "", "1", "part-1.csv"],
        ["x", "no, number", "1", "part-1.csv"],
    ]
    silver = [["1", "one", "1"], ["2", "two", "1"], ["3", "", "1"]]
    assert databricks.rows("SELECT * FROM ecomm.silver.things ORDER BY id") == silver
    assert databricks.rows("SELECT * FROM ecomm.silver.refused") == [["x", "no number"]]
    gold = [["", "1"], ["one", "1"], ["two", "1"]]
    assert databricks.rows("SELECT name, things FROM ecomm.gold.names ORDER BY name") == gold
    events = databricks.events(update)
    assert quality(events) == {
        ("bronze.things", "nothing_rescued"): (4, 0),
        ("typed_things", "id_is_a_number"): (3, 1),
        ("typed_things", "version_is_positive"): (4, 0),
        ("gold.names", "has_things"): (3, 0),
    }
    states = [e["details"]["update_progress"]["state"] for e in events if e["event_type"] == "update_progress"]
    assert states == ["QUEUED", "WAITING_FOR_RESOURCES", "INITIALIZING", "SETTING_UP_TABLES", "RUNNING", "COMPLETED"]
    info = databricks.workspace.pipelines.get_update("tiny", update).update
    assert info is not None
    assert info.parameters == {"run_id": "r1"}


def test_a_row_that_must_not_be_fails_the_update_and_nothing_is_written(databricks: Databricks) -> None:
    databricks.put("day=2/part-1.csv", "1,uno,2,", "2,late,0,true", "2,gone,3,true", "1,older,1,")
    update = databricks.start_update()
    assert str(databricks.wait(update).state) == "UpdateInfoState.FAILED"
    errors = [event["error"] for event in databricks.events(update) if event["level"] == "ERROR"]
    assert all("'version_is_positive'" in error["exceptions"][0]["message"] for error in errors)
    assert errors
    assert databricks.rows("SELECT id, name FROM ecomm.silver.things ORDER BY id")[0] == ["1", "one"]


def test_a_full_refresh_reads_everything_again_and_gold_follows(databricks: Databricks) -> None:
    (databricks.landing / "things" / "day=2" / "part-1.csv").unlink()
    databricks.put("day=2/part-2.csv", "1,uno,2,", "2,gone,3,true", "1,older,1,", "2,late,2,")
    databricks.update(full_refresh=True)
    assert databricks.rows("SELECT * FROM ecomm.silver.things ORDER BY id") == [["1", "uno", "2"], ["3", "", "1"]]
    assert databricks.rows("SELECT name FROM ecomm.gold.names ORDER BY name") == [[""], ["uno"]]


def test_a_deletion_is_remembered_and_only_new_files_are_read(databricks: Databricks) -> None:
    databricks.put("day=3/part-1.csv", "2,back too late,2,", "4,four,1,")
    databricks.update()
    databricks.update()
    assert databricks.rows("SELECT id FROM ecomm.silver.things ORDER BY id") == [["1"], ["3"], ["4"]]
    assert databricks.rows("SELECT name FROM ecomm.gold.names ORDER BY name") == [[""], ["four"], ["uno"]]
    assert databricks.rows("SELECT count(*) FROM ecomm.bronze.things") == [["10"]]  # 4 + 4 + 2


def test_what_does_not_fit_the_schema_is_rescued(databricks: Databricks) -> None:
    path = databricks.landing / "things" / "day=4" / "part-1.csv"
    path.parent.mkdir()
    path.write_text("id,version,name,colour\n5,1,five,red\n6,1\n7,1,seven,\n")
    databricks.update()
    rescued = ", ".join(f"get_json_object(_rescued_data, '$.{name}')" for name in ("colour", "_corrupt_record"))
    found = databricks.rows(
        f"SELECT id, name, {rescued} FROM ecomm.bronze.things WHERE id IN ('5', '6', '7') ORDER BY id"
    )
    assert found == [["5", "five", "red", None], ["6", None, None, "6,1"], ["7", "seven", None, None]]
    assert databricks.rows("SELECT id FROM ecomm.silver.refused WHERE reason = 'odd' ORDER BY id") == [["5"], ["6"]]


def test_a_second_update_is_refused_while_one_is_active_and_stop_cancels_it(databricks: Databricks) -> None:
    databricks.faults({"kind": "update_queued", "seconds": 60, "times": 1})
    update = databricks.start_update()
    with pytest.raises(ResourceConflict, match=update):
        databricks.start_update()
    databricks.workspace.pipelines.stop("tiny")
    assert str(databricks.wait(update).state) == "UpdateInfoState.CANCELED"


def test_a_retryable_failure_is_retried_once_by_the_platform(databricks: Databricks) -> None:
    fault = {"kind": "update_fails", "message": "no machine", "retryable": True, "dataset": "silver.things", "times": 1}
    databricks.faults(fault)
    first = databricks.start_update(parameters={"run_id": "r2"})
    assert str(databricks.wait(first).state) == "UpdateInfoState.FAILED"
    failures = [event for event in databricks.events(first) if event["level"] == "ERROR"]
    assert all("no machine" in event["error"]["exceptions"][0]["message"] for event in failures)
    skipped = [
        e for e in databricks.events(first) if (e["details"].get("flow_progress") or {}).get("status") == "SKIPPED"
    ]
    assert {event["origin"]["dataset_name"] for event in skipped} == {"ecomm.gold.counted", "ecomm.gold.names"}
    newest = (databricks.workspace.pipelines.list_updates("tiny").updates or [])[0]
    second = databricks.wait(str(newest.update_id))
    assert (str(second.cause), str(second.state)) == ("UpdateInfoCause.RETRY_ON_FAILURE", "UpdateInfoState.COMPLETED")
    assert second.parameters == {"run_id": "r2"}


@pytest.mark.parametrize("delay", [0.7, 2.0])
def test_a_kill_at_any_moment_loses_and_repeats_nothing(databricks: Databricks, delay: float) -> None:
    before = int(databricks.rows("SELECT count(*) FROM ecomm.bronze.things")[0][0] or 0)
    first = 1000 + int(delay * 1000)
    databricks.put(f"kill={first}/part-1.csv", *(f"{n},n,1," for n in range(first, first + 50)))
    update = databricks.start_update()
    time.sleep(delay)
    databricks.end(signal.SIGKILL)
    databricks.start()
    assert str(databricks.wait(update).state) in ("UpdateInfoState.FAILED", "UpdateInfoState.COMPLETED")
    databricks.update()
    assert databricks.rows("SELECT count(*) FROM ecomm.bronze.things") == [[str(before + 50)]]
    chosen = f"WHERE id BETWEEN {first} AND {first + 49}"
    assert databricks.rows(f"SELECT count(*), count(DISTINCT id) FROM ecomm.silver.things {chosen}") == [["50", "50"]]


def test_events_can_be_filtered_and_paged_by_the_sdk(databricks: Databricks) -> None:
    errors = list(databricks.workspace.pipelines.list_pipeline_events("tiny", filter="level = 'ERROR'", max_results=1))
    assert errors
    assert {str(event.level) for event in errors} == {"EventLevel.ERROR"}
    newest = errors[0].timestamp
    later = list(databricks.workspace.pipelines.list_pipeline_events("tiny", filter=f"timestamp > '{newest}'"))
    assert all(str(event.timestamp) > str(newest) for event in later)
