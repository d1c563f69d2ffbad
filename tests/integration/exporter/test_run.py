"""`ecomm exporter` over a ledger in a real S3: what it does when that fails, a record is spoilt, it is told to end."""

from __future__ import annotations

import os
import signal
import socket
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from uuid import uuid4
from zoneinfo import ZoneInfo

import pytest
import structlog
from tests.support.alerting import eventually, free_port, http
from tests.support.command import run_ecomm, start_ecomm
from tests.support.nights import Nights
from tests.support.virtual import VirtualClock

from ecomm_pipeline.dates import BusinessDate
from ecomm_pipeline.exporter.run import LedgerView
from ecomm_pipeline.layout import Layout
from ecomm_pipeline.settings import ExporterSettings, load
from ecomm_pipeline.settings import Store as StoreSettings
from ecomm_pipeline.store import Store
from ecomm_sandbox.sandbox import Sandbox

TZ = ZoneInfo("Asia/Ho_Chi_Minh")


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory):
    """A sandbox of which S3 alone runs, its variables in the environment."""
    made = Sandbox(tmp_path_factory.mktemp("s3"))
    made.up(["s3"])
    with pytest.MonkeyPatch.context() as patch:
        for name, value in made.env().items():
            patch.setenv(name, value)
        yield made
    made.down(purge=True)


@pytest.fixture
def prefix(monkeypatch):
    """A part of the bucket for the test alone."""
    name = uuid4().hex
    monkeypatch.setenv("ECOMM_STORE_PREFIX", name)
    return name


@pytest.fixture
def nights(sandbox, prefix):
    """Two nights that went well, up to yesterday."""
    store = Counting(StoreSettings(), give_up=timedelta(seconds=1))
    made = Nights(store, TZ, Layout(prefix))
    for back in (1, 2):
        made.write(day(-back))
    return made


def day(offset=0):
    return BusinessDate.of(datetime.now(UTC), TZ).plus(offset)


class Counting(Store):
    """Tells what was asked of it."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.listed = []

    def listing(self, folder, *, after=""):
        self.listed.append(after)
        return super().listing(folder, after=after)


def view_of(nights, clock=None):
    return LedgerView(nights.store, nights.layout, load(ExporterSettings), clock or VirtualClock(datetime.now(UTC)))


def told(view):
    found = {}
    for sample in view.samples():
        found.setdefault(sample.metric, {})[sample.labels] = sample.value
    return found


def test_while_the_store_fails_what_was_seen_stays_and_is_old_until_it_comes_back(sandbox, nights):
    view = view_of(nights)
    assert view.look()
    before = told(view)
    sandbox.fault("s3", "unavailable")
    try:
        with structlog.testing.capture_logs() as logs:
            assert not view.look()
            assert not view.look()
    finally:
        sandbox.clear_faults("s3")
    after = told(view)
    assert after["exporter_refreshes_failed"] == {(): 2}
    assert after["stage_outcome"] == before["stage_outcome"]
    assert after["exporter_refreshed_timestamp_seconds"] == before["exporter_refreshed_timestamp_seconds"]
    assert [(log["event"], "cannot list s3://" in log["reason"]) for log in logs] == [
        ("exporter.ledger_unreadable", True)
    ] * 2
    nights.write(day(-3))
    assert view.look()
    back = told(view)
    assert str(day(-3)) in {labels[0] for labels in back["date_nightly"]}
    assert back["exporter_refreshes_failed"] == {(): 2}


def test_an_exporter_that_never_could_read_tells_that_alone(sandbox, nights):
    sandbox.fault("s3", "forbidden")
    try:
        view = view_of(nights)
        assert not view.look()
    finally:
        sandbox.clear_faults("s3")
    found = told(view)
    assert found["exporter_refreshes_failed"] == {(): 1}
    assert "exporter_refreshed_timestamp_seconds" not in found, "so that its absence can raise the alarm"


@pytest.mark.parametrize("text", [b"", b"{", b'{"stage": "extractor"}', b"\xff\x00"])
def test_a_spoilt_record_is_named_and_the_others_go_on(nights, text):
    key = f"{nights.layout.ledger(day(-1))}/dbt-runner/20260102T180000Z-bad.json"
    nights.store.put(key, text)
    view = view_of(nights)
    with structlog.testing.capture_logs() as logs:
        assert view.look()
        assert view.look()
    assert [(log["event"], log["key"]) for log in logs] == [("exporter.not_a_record", key)], "once, not at every look"
    found = told(view)
    assert found["exporter_objects_unreadable"] == {(): 1}
    assert found["stage_outcome"][str(day(-1)), "dbt-runner", "cron", "succeeded"] == 1


@pytest.mark.parametrize("text", [b"{", b'[{"table": "orders"}]', b"[3]"])
def test_a_spoilt_sheet_is_named_and_its_record_goes_on(nights, text):
    (record,) = [r for r in nights.ledger.of_date(day(-1)) if r.stage == "reconciler"]
    nights.store.put(record.figures["sheet_key"], text)
    view = view_of(nights)
    with structlog.testing.capture_logs() as logs:
        assert view.look()
    assert [log["key"] for log in logs] == [record.figures["sheet_key"]]
    found = told(view)
    assert found["exporter_objects_unreadable"] == {(): 1}
    assert found["date_reconciled"] == {(str(day(-1)),): 1, (str(day(-2)),): 1}
    assert {labels[0] for labels in found["rows_unexplained"]} == {str(day(-2))}


def test_what_changed_is_read_and_nothing_else(nights):
    view = view_of(nights)
    view.look()
    seen = told(view)["exporter_objects_read"][()]
    view.look()
    assert told(view)["exporter_objects_read"] == {(): seen}
    nights.fail_backfill(day(-1))
    view.look()
    assert told(view)["exporter_objects_read"] == {(): seen + 1}


def test_old_dates_are_looked_at_now_and_then_and_always_while_a_backfill_writes_there(nights):
    clock = VirtualClock(datetime.now(UTC))
    view = view_of(nights, clock)
    for _ in range(21):
        view.look()
    start = nights.layout.ledger(BusinessDate(date.fromisoformat(str(day()))).plus(-49))
    assert Counter(nights.store.listed) == {"": 2, start: 19}
    assert nights.store.listed[0] == nights.store.listed[20] == ""
    nights.fail_backfill(day(-200))
    for _ in range(20):
        assert "backfill_failed_timestamp_seconds" not in told(view)
        view.look()
    assert list(told(view)["backfill_failed_timestamp_seconds"]) == [(str(day(-200)), "dlt-trigger", "timed_out")]
    nights.fail_backfill(day(-199))
    view.look()
    dates = f"{day(-200)}..{day(-199)}"
    assert list(told(view)["backfill_failed_timestamp_seconds"]) == [(dates, "dlt-trigger", "timed_out")]
    clock.seconds += 3600
    view.look()
    view.look()
    assert nights.store.listed[-1] == start, "nothing is written there any more"
    assert "backfill_failed_timestamp_seconds" in told(view)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_well_when_it_is_told_to(nights, number):
    port = free_port()
    with start_ecomm("exporter", f"--port={port}", env=dict(os.environ)) as process:
        eventually(lambda: answers(port))
        process.send_signal(number)
        assert process.wait(10) == 0
        assert "exporter.stopped" in process.stderr.read()


def test_it_answers_before_the_store_does_and_ends_well_then_too(sandbox, nights):
    port = free_port()
    sandbox.fault("s3", "delay", delay=30)
    try:
        with start_ecomm("exporter", f"--port={port}", env=dict(os.environ)) as process:
            text = eventually(lambda: answers(port))
            assert "ecomm_exporter_refreshes_failed 0.0" in text
            assert "\necomm_exporter_refreshed_timestamp_seconds " not in text
            process.terminate()
            assert process.wait(10) == 0
    finally:
        sandbox.clear_faults("s3")


def answers(port):
    try:
        return http("GET", f"http://127.0.0.1:{port}/metrics")
    except OSError:
        return None


@pytest.mark.parametrize("options", [["--address=192.0.2.1"], []])
def test_a_port_that_cannot_be_had_is_named_with_what_to_do(sandbox, prefix, options):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = run_ecomm("exporter", f"--port={port}", *options, env=dict(os.environ), code=None)
    assert done.returncode == 78
    assert f":{port}" in done.stderr
    assert "give another --port or --address" in done.stderr
    assert "Traceback" not in done.stderr
