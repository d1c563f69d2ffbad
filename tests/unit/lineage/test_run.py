"""Lineage is off until the client is configured, and never in a stage's way."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
import time
from datetime import timedelta

import pytest
from openlineage.client import OpenLineageClient
from structlog.testing import capture_logs
from tests.support.lineage import MANIFEST, WHERE
from tests.support.virtual import BEGAN, DATES, RUN, Objects, VirtualClock

from ecomm_pipeline.errors import BadDataError, UnavailableError
from ecomm_pipeline.finish.plan import end_of
from ecomm_pipeline.finish.run import close_ledger
from ecomm_pipeline.layout import Layout
from ecomm_pipeline.ledger import Ledger, Record
from ecomm_pipeline.lineage import run as lineage
from ecomm_pipeline.lineage.run import Lineage, is_configured
from ecomm_pipeline.stage import run_stage
from ecomm_sandbox.sinks.inbox import Secrets
from ecomm_sandbox.sinks.server import make_server

SECRETS = Secrets("a-token")


@pytest.fixture(autouse=True)
def _alone(monkeypatch, tmp_path):
    """Nothing of this machine configures the client, and what it sets itself is taken back."""
    import os

    for name in [name for name in os.environ if name.startswith("OPENLINEAGE")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(os, "environ", os.environ.copy())
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def backend(monkeypatch):
    """A backend, and the events that it took."""
    server = make_server(SECRETS, 0)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    monkeypatch.setenv("OPENLINEAGE_URL", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("OPENLINEAGE_API_KEY", SECRETS.lineage_key)
    yield server.sinks
    server.shutdown()
    server.server_close()


def events(sinks):
    return [message.body for message in sinks.inbox.all()]


def extract(context):
    context.record.rows_in = context.record.rows_out = 12
    context.record.figures["manifest"] = "manifest"


def do(work=extract, *, objects=None, clock=None):
    objects = objects or Objects()
    objects.content["manifest"] = MANIFEST.to_json()
    sender = Lineage(WHERE.places, WHERE.tz, objects, "prod")
    record = run_stage(
        work,
        stage="extractor",
        dates=DATES,
        tz=WHERE.tz,
        run_id=RUN,
        trigger="local",
        store=objects,
        layout=Layout(),
        clock=clock or VirtualClock(),
        table="orders",
        lineage=sender,
    )
    assert record.outcome == "succeeded"
    return record


def warnings(logs):
    return [entry for entry in logs if entry["log_level"] == "warning"]


# --- off and on


def test_without_configuration_it_is_off_and_the_client_is_not_loaded(tmp_path):
    code = """
import os, sys
from zoneinfo import ZoneInfo
from ecomm_pipeline.lineage.run import lineage_of
assert lineage_of(object(), ZoneInfo("UTC"), None, os.environ) is None
import ecomm_pipeline.stage
print([name for name in sys.modules if name.partition(".")[0] in ("openlineage", "attr", "requests", "httpx2")])
"""
    env = {"PATH": "/usr/bin", "HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


FILE = "transport: {type: http, url: http://127.0.0.1:9}\n"
WAYS = {
    "url": lambda _: {"OPENLINEAGE_URL": "http://127.0.0.1:9"},
    "transport": lambda _: {"OPENLINEAGE__TRANSPORT": json.dumps({"type": "http", "url": "http://127.0.0.1:9"})},
    "transport's type": lambda _: {
        "OPENLINEAGE__TRANSPORT__TYPE": "http", "OPENLINEAGE__TRANSPORT__URL": "http://127.0.0.1:9",
    },
    "a file that is named": lambda here: {"OPENLINEAGE_CONFIG": str(write(here / "a" / "b.yml", FILE))},
    "a file in this folder": lambda here: {"": str(write(here / "openlineage.yml", FILE))},
    "a file at home": lambda here: {"": str(write(here / "home" / ".openlineage" / "openlineage.yml", FILE))},
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_it_is_on_where_the_client_itself_finds_a_backend(way, monkeypatch, tmp_path):
    import os

    for name, value in WAYS[way](tmp_path).items():
        if name:
            monkeypatch.setenv(name, value)
    assert is_configured(os.environ)
    assert OpenLineageClient().transport.kind == "http"
    monkeypatch.setenv("OPENLINEAGE_DISABLED", "true")
    assert not is_configured(os.environ)
    assert OpenLineageClient().transport.kind == "noop"


def test_it_is_off_where_the_client_finds_none(monkeypatch):
    import os

    monkeypatch.setenv("OPENLINEAGE_NAMESPACE", "prod")
    assert not is_configured(os.environ)
    assert OpenLineageClient().transport.kind == "console"


# --- what is sent


def test_a_stage_is_told_at_its_start_and_at_its_end(backend):
    do()
    start, end = events(backend)
    assert (start["eventType"], end["eventType"]) == ("START", "COMPLETE")
    assert end["run"]["runId"] == start["run"]["runId"]
    assert end["job"] == start["job"]
    assert end["outputs"][0]["outputFacets"]["outputStatistics"]["rowCount"] == 12
    assert [field["name"] for field in end["inputs"][0]["facets"]["schema"]["fields"]] == ["order_id", "updated_at"]


def test_a_failure_is_told_with_its_cause_and_the_next_try_is_a_run_of_its_own(backend):
    def work(_):
        message = "orders is locked"
        raise UnavailableError(message)

    objects, clock = Objects(), VirtualClock()
    with pytest.raises(UnavailableError):
        do(work, objects=objects, clock=clock)
    clock.sleep(60)
    do(objects=objects, clock=clock)
    first, failed, second, done = events(backend)
    assert [one["eventType"] for one in (first, failed, second, done)] == ["START", "FAIL", "START", "COMPLETE"]
    assert failed["run"]["facets"]["errorMessage"]["message"] == "orders is locked"
    assert first["run"]["runId"] != second["run"]["runId"]
    assert first["run"]["facets"]["parent"] == second["run"]["facets"]["parent"]


def test_a_success_that_the_ledger_could_not_keep_is_told_as_a_failure(backend):
    objects = Objects()

    def work(_):
        objects.refusal = BadDataError("the bucket is full")

    with pytest.raises(BadDataError):
        do(work, objects=objects)
    _, end = events(backend)
    assert end["eventType"] == "FAIL"


def test_the_second_try_of_a_start_that_was_taken_is_no_second_start(backend):
    """The client asks again when an answer is lost."""
    body = json.dumps(events_of_one_run(backend)[0]).encode()
    assert backend.openlineage.answer("POST", f"Bearer {SECRETS.lineage_key}", body).status == 201
    assert len(events(backend)) == 2


def events_of_one_run(backend):
    do()
    return events(backend)


def test_the_end_of_a_killed_process_is_told_by_the_exit_handler_of_its_run_and_told_once(backend):
    objects, clock = Objects(), VirtualClock()
    ledger, sender = Ledger(objects, Layout()), Lineage(None, WHERE.tz, objects, "prod")
    began = Record(
        stage="dlt-trigger", first_date=DATES.first.day, last_date=DATES.last.day, run_id=RUN, started_at=BEGAN
    )
    ledger.write(began)
    start = Lineage(WHERE.places, WHERE.tz, objects, "prod")
    start.tell(began)
    start.close()
    clock.sleep(3600)
    end = {"workflow": "w", "run_id": RUN, "trigger": "cron", "status": "Failed", "seconds": 3600.0, "failures": ""}
    for lineage_ in (sender, Lineage(None, WHERE.tz, objects, "prod")):
        close_ledger(end_of(DATES, **end, now=clock.now()), ledger, lineage_)
    first, last = events(backend)
    assert (first["eventType"], last["eventType"]) == ("START", "FAIL")
    assert first["run"]["runId"] == last["run"]["runId"]
    assert "killed" in last["run"]["facets"]["errorMessage"]["message"]


# --- a backend that is not there


def test_a_backend_that_is_down_costs_a_stage_one_warning_and_a_short_wait(monkeypatch, capfd):
    monkeypatch.setenv("OPENLINEAGE_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(lineage, "PATIENCE", 0.5)
    began = time.monotonic()
    with capture_logs() as logs:
        do()
    assert time.monotonic() - began < 3
    (warning,) = warnings(logs)
    assert warning["event"] == "lineage.unsent"
    assert "urllib3" not in capfd.readouterr().err
    assert logging.getLogger("urllib3.connectionpool").filters


def test_a_backend_that_is_slow_is_not_waited_for(backend, monkeypatch):
    from ecomm_sandbox.faults import CATALOGUE, Fault

    monkeypatch.setattr(lineage, "PATIENCE", 0.5)
    backend.faults.put(Fault.parse({"kind": "delay", "delay": 2.0}, CATALOGUE["sinks"]))
    began = time.monotonic()
    with capture_logs() as logs:
        do()
    assert time.monotonic() - began < 1.5
    assert len(warnings(logs)) == 1


def test_a_backend_that_refuses_is_told_once_with_its_words_and_the_stage_succeeds(backend, monkeypatch):
    monkeypatch.setenv("OPENLINEAGE_API_KEY", "wrong")
    with capture_logs() as logs:
        do()
    (warning,) = warnings(logs)
    assert "401" in warning["reason"]
    assert SECRETS.lineage_key not in str(logs)


def test_a_configuration_that_is_wrong_fails_no_stage(monkeypatch):
    monkeypatch.setenv("OPENLINEAGE__TRANSPORT__TYPE", "pigeon")
    with capture_logs() as logs:
        do()
    assert len(warnings(logs)) == 1


def test_where_the_client_is_not_installed_the_warning_says_how_to_get_it(monkeypatch):
    monkeypatch.setenv("OPENLINEAGE_URL", "http://127.0.0.1:9")
    monkeypatch.setitem(sys.modules, "openlineage.client", None)
    with capture_logs() as logs:
        do()
    (warning,) = warnings(logs)
    assert "OPENLINEAGE=true" in warning["reason"]


def test_what_fails_the_stage_is_still_what_is_raised(monkeypatch):
    monkeypatch.setenv("OPENLINEAGE_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(lineage, "PATIENCE", 0.1)

    def work(_):
        message = "the real cause"
        raise BadDataError(message)

    with pytest.raises(BadDataError, match="the real cause"):
        do(work)


def test_the_events_are_of_the_times_that_the_ledger_has(backend):
    clock = VirtualClock()

    def work(context):
        clock.sleep(61)
        extract(context)

    do(work, clock=clock)
    assert [one["eventTime"] for one in events(backend)] == [
        moment.isoformat() for moment in (BEGAN, BEGAN + timedelta(seconds=61))
    ]
