"""One HTTP server for all sinks. What arrived is listed by `GET /sandbox/messages`, and forgotten by `DELETE`."""

from __future__ import annotations

import json
import socket
import time
from dataclasses import asdict
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from ecomm_sandbox.faults import CATALOGUE, FaultBox
from ecomm_sandbox.sinks import openlineage
from ecomm_sandbox.sinks.inbox import Answer, Inbox, RefusedError, Secrets
from ecomm_sandbox.sinks.jira import Jira
from ecomm_sandbox.sinks.pagerduty import PagerDuty
from ecomm_sandbox.sinks.slack import Slack
from ecomm_sandbox.state import LOOPBACK

__all__ = ["make_server"]


class Sinks:
    """The services, what they took, and the faults of all of them."""

    def __init__(self, secrets: Secrets) -> None:
        self.inbox = Inbox()
        self.faults = FaultBox()
        self.slack = Slack(secrets, self.inbox)
        self.pagerduty = PagerDuty(secrets, self.inbox)
        self.jira = Jira(secrets, self.inbox)
        self.openlineage = openlineage.OpenLineage(secrets, self.inbox)

    def answer(self, method: str, path: str, authorization: str, body: bytes) -> Answer:
        """Ask the service that a path is of."""
        if path.startswith("/services/"):
            return self.slack.answer(method, path, body)
        if path.startswith("/v2/"):
            return self.pagerduty.answer(method, path, body)
        if path == openlineage.PATH:
            return self.openlineage.answer(method, authorization, body)
        return self.jira.answer(method, path, authorization, body)

    def shown(self) -> dict[str, Any]:
        """Give what arrived, and what is open."""
        messages = [asdict(message) for message in self.inbox.all()]
        return {"messages": messages, "incidents": self.pagerduty.open(), "tickets": self.jira.issues()}

    def clear(self) -> None:
        """Forget everything."""
        self.inbox.clear()
        self.pagerduty.clear()
        self.jira.clear()
        self.openlineage.clear()


class _Handler(BaseHTTPRequestHandler):
    """One connection of a client."""

    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002, ANN401 (the base class' signature)
        """Write no log: what arrived is listed."""

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        sinks, path = self.server.sinks, self.path.partition("?")[0]
        if path.startswith("/sandbox/"):
            self._sandbox(path, body)
            return
        if slow := sinks.faults.take("delay"):
            time.sleep(slow.options["delay"])
        if sinks.faults.take("drop"):
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
        elif sinks.faults.take("unavailable"):
            self._reply(Answer(503, "service unavailable"))
        elif sinks.faults.take("busy"):
            self._reply(Answer(429, "rate_limited"), {"Retry-After": "1"})
        elif sinks.faults.take("credentials"):
            self._reply(Answer(403, "invalid_token"))
        else:
            try:
                self._reply(sinks.answer(self.command, path, self.headers.get("Authorization", ""), body))
            except RefusedError as refusal:
                self._reply(refusal.answer)

    def _sandbox(self, path: str, body: bytes) -> None:
        sinks = self.server.sinks
        match self.command, path:
            case "GET", "/sandbox/health":
                self._reply(Answer(200, {"status": "ok"}))
            case "GET", "/sandbox/messages":
                self._reply(Answer(200, sinks.shown()))
            case "DELETE", "/sandbox/messages":
                sinks.clear()
                self._reply(Answer(200, sinks.shown()))
            case _, "/sandbox/faults":
                self._reply(Answer(*sinks.faults.answer(self.command, body, CATALOGUE["sinks"])))
            case _:
                self._reply(Answer(404, {"error": f"there is no {path}"}))

    def _reply(self, answer: Answer, headers: dict[str, str] | None = None) -> None:
        text = isinstance(answer.content, str)
        body = str(answer.content).encode() if text else json.dumps(answer.content).encode()
        self.send_response(answer.status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if answer.status == HTTPStatus.NO_CONTENT:
            body = b""
        else:
            self.send_header("Content-Type", "text/html; charset=utf-8" if text else "application/json; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_PUT = do_DELETE = _handle  # noqa: N815 (the base class' names)


class _Server(ThreadingHTTPServer):
    """The server, with the sinks that it serves."""

    daemon_threads = True

    def __init__(self, secrets: Secrets, address: tuple[str, int]) -> None:
        super().__init__(address, _Handler)
        self.sinks = Sinks(secrets)


def make_server(secrets: Secrets, port: int, bind: str = LOOPBACK) -> ThreadingHTTPServer:
    """Make the server, not yet running."""
    return _Server(secrets, (bind, port))
