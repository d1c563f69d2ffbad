"""One HTTP server for all sinks. What arrived is listed by `GET /sandbox/messages`, and forgotten by `DELETE`."""

from __future__ import annotations

import time
from dataclasses import asdict
from http import HTTPStatus
from http.server import ThreadingHTTPServer
from typing import Any

from ecomm_sandbox.faults import FaultBox
from ecomm_sandbox.serving import Handler
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


class _Handler(Handler):
    """One connection of a client."""

    service = "sinks"
    server: _Server

    @property
    def faults(self) -> FaultBox:
        """Those of all sinks."""
        return self.server.sinks.faults

    def shown(self, what: str) -> dict[str, Any] | None:
        """Show what arrived, too."""
        return self.server.sinks.shown() if what == "messages" else super().shown(what)

    def forget(self, what: str) -> dict[str, Any] | None:
        """Forget what arrived."""
        if what != "messages":
            return None
        self.server.sinks.clear()
        return self.server.sinks.shown()

    def serve(self, body: bytes) -> None:
        """Answer as the service does that the path is of."""
        if slow := self.faults.take("delay"):
            time.sleep(slow.options["delay"])
        if self.faults.take("busy"):
            self._answer(Answer(429, "rate_limited"), {"Retry-After": "1"})
        elif self.faults.take("credentials"):
            self._answer(Answer(403, "invalid_token"))
        else:
            path, authorization = self.path.partition("?")[0], self.headers.get("Authorization", "")
            try:
                self._answer(self.server.sinks.answer(self.command, path, authorization, body))
            except RefusedError as refusal:
                self._answer(refusal.answer)

    def _answer(self, answer: Answer, headers: dict[str, str] | None = None) -> None:
        if isinstance(answer.content, str):
            self.reply(answer.status, answer.content.encode(), "text/html; charset=utf-8", headers)
        elif answer.status == HTTPStatus.NO_CONTENT:
            self.reply(answer.status, b"", "", headers)
        else:
            self.reply_json(answer.status, answer.content, headers)


class _Server(ThreadingHTTPServer):
    """The server, with the sinks that it serves."""

    daemon_threads = True

    def __init__(self, secrets: Secrets, address: tuple[str, int]) -> None:
        super().__init__(address, _Handler)
        self.sinks = Sinks(secrets)


def make_server(secrets: Secrets, port: int, bind: str = LOOPBACK) -> ThreadingHTTPServer:
    """Make the server, not yet running."""
    return _Server(secrets, (bind, port))
