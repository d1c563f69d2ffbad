"""What the services that speak HTTP share: requests on `/sandbox/…`, and the faults that each of them can have."""

from __future__ import annotations

import json
import socket
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any, ClassVar

from ecomm_sandbox.faults import CATALOGUE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ecomm_sandbox.faults import FaultBox

__all__ = ["Handler"]


class Handler(BaseHTTPRequestHandler):
    """One connection of a client of a service, which is called `service` in the catalogue of faults."""

    protocol_version = "HTTP/1.1"
    service: ClassVar[str]

    @property
    def faults(self) -> FaultBox:
        """The faults of the service."""
        raise NotImplementedError

    def serve(self, body: bytes) -> None:
        """Answer a request that no fault keeps from the service."""
        raise NotImplementedError

    def shown(self, what: str) -> dict[str, Any] | None:
        """Give what `GET /sandbox/{what}` shows; None for what is not known."""
        return {"status": "ok"} if what == "health" else None

    def forget(self, what: str) -> dict[str, Any] | None:  # noqa: ARG002 (most hold nothing)
        """Do what `DELETE /sandbox/{what}` asks for, and give what is left; None for what is not known."""
        return None

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002, ANN401 (the base class' signature)
        """Write no log: clients tell what they see."""

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path.startswith("/sandbox/"):
            self._sandbox(body)
        elif self.faults.take("drop"):
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
        elif self.faults.take("unavailable"):
            self.reply(HTTPStatus.SERVICE_UNAVAILABLE, b"The server is not available.", "text/plain;charset=UTF-8")
        else:
            self.serve(body)

    def _sandbox(self, body: bytes) -> None:
        what = self.path.removeprefix("/sandbox/")
        if what == "faults":
            self.reply_json(*self.faults.answer(self.command, body, CATALOGUE[self.service]))
            return
        answers = {"GET": self.shown, "DELETE": self.forget}
        told = answers[self.command](what) if self.command in answers else None
        if told is None:
            self.reply_json(HTTPStatus.NOT_FOUND, {"error": f"there is no {self.path}"})
        else:
            self.reply_json(HTTPStatus.OK, told)

    def reply_json(self, status: int, body: dict[str, Any], headers: Mapping[str, str] | None = None) -> None:
        """Answer with JSON."""
        self.reply(status, json.dumps(body).encode(), "application/json;charset=UTF-8", headers)

    def reply(self, status: int, body: bytes, kind: str, headers: Mapping[str, str] | None = None) -> None:
        """Answer with a content of a kind; 204 has none."""
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if status != HTTPStatus.NO_CONTENT:
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_PUT = do_DELETE = _handle  # noqa: N815 (the base class' names)
