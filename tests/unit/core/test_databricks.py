"""SQL over the Statement Execution API: what becomes of failures and of waits that are broken off.

databricks-sdk itself speaks to a small HTTP server that answers what each test has it answer.
"""

from __future__ import annotations

import json
import os
import signal
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from ecomm_pipeline.clock import SystemClock
from ecomm_pipeline.databricks import CONDITIONS, Warehouse, connect, error_condition
from ecomm_pipeline.errors import (
    BadDataError,
    CancelledError,
    CredentialsError,
    MissingSourceError,
    TimedOutError,
    UnavailableError,
)
from ecomm_pipeline.settings import Databricks
from ecomm_pipeline.stage import Stop, stop_on_signals

ROWS = {
    "manifest": {"schema": {"columns": [{"name": "n", "type_text": "BIGINT"}]}},
    "result": {"data_array": [["1"], [None]], "next_chunk_index": 1},
}


class Workspace:
    """Answers every look at a statement with the next of `states`, the last one again and again."""

    def __init__(self, *states: dict):
        self.states = list(states)
        self.asked: list[tuple[str, str]] = []
        self.bodies: list[dict] = []
        self.looked = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def _handler(workspace):  # noqa: N805 (self is the request's)
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                self._do({})

            def do_POST(self):
                self._do(json.loads(self.rfile.read(int(self.headers["Content-Length"])) or b"{}"))

            def _do(self, body):
                content = json.dumps(workspace.answer(self.command, self.path, body)).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_):
                pass

        return Handler

    def answer(self, method: str, path: str, body: dict) -> dict:
        last = path.rpartition("/")[2]
        self.asked.append((method, last))
        self.bodies.append(body)
        if last == "cancel":
            return {}
        if "/chunks/" in path:
            return {"data_array": [["2"]]}
        if method == "GET":
            self.looked.set()
        state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        return {"statement_id": "s1", **state}

    def warehouse(self, stop: Stop | None = None) -> Warehouse:
        host = f"http://127.0.0.1:{self._server.server_port}"
        settings = Databricks(host=host, token="t", warehouse_id="w")
        return Warehouse(connect(settings, give_up=1), "w", "ecomm", SystemClock(), stop)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def workspace():
    made = []

    def make(*states):
        made.append(Workspace(*states))
        return made[-1]

    yield make
    for one in made:
        one.close()


def state(name: str, **more) -> dict:
    return {"status": {"state": name, **more}}


def failed(code: str | None, message: str) -> dict:
    error = {"message": message, **({"error_code": code} if code else {})}
    return state("FAILED", error=error)


def test_all_chunks_are_read_after_the_statement_ended(workspace):
    server = workspace(state("PENDING"), state("RUNNING"), {**state("SUCCEEDED"), **ROWS})
    result = server.warehouse().query("SELECT :a", {"a": "x"})
    assert result.rows == [("1",), (None,), ("2",)]
    assert (result.columns, result.types) == (("n",), ("BIGINT",))
    assert server.bodies[0]["parameters"] == [{"name": "a", "value": "x", "type": "STRING"}]
    assert server.asked[-1] == ("GET", "1")
    assert ("POST", "cancel") not in server.asked


@pytest.mark.parametrize(
    ("code", "message", "kind"),
    [
        ("TEMPORARILY_UNAVAILABLE", "come back", UnavailableError),
        ("WORKSPACE_TEMPORARILY_UNAVAILABLE", "come back", UnavailableError),
        ("SERVICE_UNDER_MAINTENANCE", "come back", UnavailableError),
        ("RESOURCE_EXHAUSTED", "too many statements", UnavailableError),
        ("IO_ERROR", "storage", UnavailableError),
        ("INTERNAL_ERROR", "oh", UnavailableError),
        ("ABORTED", "oh", UnavailableError),
        ("UNAUTHENTICATED", "who are you", CredentialsError),
        (None, "PERMISSION_DENIED: User does not have USE SCHEMA on Schema 'ecomm.kpi'.", CredentialsError),
        ("PERMISSION_DENIED", "PERMISSION_DENIED: User does not have USE CATALOG.", CredentialsError),
        ("BAD_REQUEST", "[INSUFFICIENT_PERMISSIONS] Insufficient privileges: SQLSTATE: 42501", CredentialsError),
        ("NOT_FOUND", "no such statement", MissingSourceError),
        ("BAD_REQUEST", "[TABLE_OR_VIEW_NOT_FOUND] `ecomm`.`gold`.`x` cannot be found", MissingSourceError),
        ("DEADLINE_EXCEEDED", "ran over the warehouse's limit", TimedOutError),
        ("CANCELLED", "by an administrator", CancelledError),
        ("BAD_REQUEST", "[PARSE_SYNTAX_ERROR] Syntax error at or near 'selct'", BadDataError),
        ("BAD_REQUEST", "[DIVIDE_BY_ZERO] Division by zero. (line 403, pos 12)", BadDataError),
        ("BAD_REQUEST", "[CAST_INVALID_INPUT] The value '[TABLE_OR_VIEW_NOT_FOUND]' cannot be cast", BadDataError),
        ("A_CODE_OF_NEXT_YEAR", "oh", BadDataError),
        (None, "oh", BadDataError),
    ],
)
def test_the_class_of_a_failed_statement_follows_from_its_code_and_condition(workspace, code, message, kind):
    with pytest.raises(BadDataError if issubclass(kind, BadDataError) else kind) as caught:
        workspace(failed(code, message)).warehouse().query("SELECT 1")
    assert type(caught.value) is kind
    assert message in caught.value.message
    assert caught.value.next_step


def test_every_code_of_the_sdk_has_a_meaning_or_is_the_statements_fault():
    from databricks.sdk.service.sql import ServiceErrorCode

    ours = {"ALREADY_EXISTS", "BAD_REQUEST"}
    assert {code.value for code in ServiceErrorCode} - CONDITIONS.keys() == ours


def test_a_statement_that_was_cancelled_there_is_told_so(workspace):
    with pytest.raises(CancelledError, match="cancelled"):
        workspace(state("CANCELED")).warehouse().query("SELECT 1")


def test_a_statement_that_takes_too_long_is_cancelled(workspace):
    server = workspace(state("RUNNING"))
    with pytest.raises(TimedOutError, match="did not answer within 0 s"):
        server.warehouse().query("SELECT 1", timeout=0.1)
    assert server.asked[-1] == ("POST", "cancel")


def test_sigterm_cancels_the_running_statement(workspace):
    server = workspace(state("RUNNING"))
    threading.Thread(target=lambda: server.looked.wait(5) and os.kill(os.getpid(), signal.SIGTERM)).start()
    with stop_on_signals(), pytest.raises(CancelledError, match="SIGTERM"):
        server.warehouse().query("SELECT 1", timeout=5)
    assert server.asked[-1] == ("POST", "cancel")


def test_a_stop_ends_a_statement_in_another_thread(workspace):
    """No signal arrives there."""
    server, stop, ends = workspace(state("RUNNING")), Stop(), []

    def ask():
        try:
            server.warehouse(stop).query("SELECT 1", timeout=5)
        except CancelledError as error:
            ends.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    assert server.looked.wait(5)
    stop.reason = "stopped by SIGTERM"
    asking.join(5)
    assert [error.message for error in ends] == ["stopped by SIGTERM"]
    assert server.asked[-1] == ("POST", "cancel")


def test_a_workspace_that_is_gone_is_unavailable(workspace):
    server = workspace(state("RUNNING"))
    warehouse = server.warehouse()
    server.close()
    with pytest.raises(UnavailableError, match="SQL statement"):
        warehouse.query("SELECT 1")


@pytest.mark.parametrize(
    ("message", "condition"),
    [
        ("[DIVIDE_BY_ZERO] Division by zero. SQLSTATE: 22012", "DIVIDE_BY_ZERO"),
        ("[UNRESOLVED_COLUMN.WITH_SUGGESTION] A column", "UNRESOLVED_COLUMN"),
        ("Error running query: [SCHEMA_NOT_FOUND] The schema", "SCHEMA_NOT_FOUND"),
        ("PERMISSION_DENIED: User", "PERMISSION_DENIED"),
        ("The value '[SCHEMA_NOT_FOUND]' is not a date", None),
        ("Invalid SessionHandle: SessionHandle [1]", None),
        ("", None),
    ],
)
def test_a_condition_is_what_a_message_begins_with(message, condition):
    assert error_condition(message) == condition
