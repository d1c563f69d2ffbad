"""The HTTP server: routes, the token check, and answers in Databricks' JSON forms."""

from __future__ import annotations

import hmac
import json
import logging
import re
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from ecomm_sandbox.databricks.errors import ApiError, bad_request

if TYPE_CHECKING:
    from ecomm_sandbox.databricks.faults import Faults

THRIFT = "application/x-thrift"
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Request:
    """What a route gets: path parts captured by its pattern, the query, and the body."""

    parts: tuple[str, ...]
    query: dict[str, list[str]]
    raw: bytes
    host: str

    def json(self) -> dict[str, Any]:
        """The body as an object; an `ApiError` (400) when it is none."""
        if not self.raw:
            return {}
        try:
            body = json.loads(self.raw)
        except ValueError as error:
            message = f"the request's body is no JSON: {error}"
            raise bad_request(message) from error
        if not isinstance(body, dict):
            message = "the request's body must be a JSON object"
            raise bad_request(message)
        return body

    def option(self, name: str) -> str | None:
        """One query parameter."""
        values = self.query.get(name)
        return values[-1] if values else None


Handler = Callable[[Request], dict[str, Any] | bytes]


@dataclass(frozen=True, slots=True)
class Response:
    """An answer before it is written."""

    status: int
    body: bytes
    content_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)


class Routes:
    """Patterns such as `/api/2.0/pipelines/{}/updates`, each `{}` one part of the path."""

    def __init__(self) -> None:
        """None yet."""
        self._routes: list[tuple[str, re.Pattern[str], Handler, bool]] = []

    def add(self, method: str, pattern: str, handler: Handler, *, public: bool = False) -> None:
        """Enter a route; `public` ones need no token."""
        expression = "/".join("([^/]+)" if part == "{}" else re.escape(part) for part in pattern.split("/"))
        self._routes.append((method, re.compile(expression), handler, public))

    def find(self, method: str, path: str) -> tuple[Handler, tuple[str, ...], bool] | None:
        """The route's handler, the parts it captured, and whether it is public."""
        for verb, expression, handler, public in self._routes:
            if verb == method and (found := expression.fullmatch(path.rstrip("/") or "/")):
                return handler, found.groups(), public
        return None


class Application:
    """Routes, token and faults: everything of a request but the socket."""

    def __init__(self, routes: Routes, token: str, faults: Faults) -> None:
        """Requests must bring `token`."""
        self.routes, self.faults = routes, faults
        self._authorization = f"Bearer {token}"

    def respond(self, method: str, target: str, headers: dict[str, str], raw: bytes) -> Response | None:
        """The answer, or None to close the connection without one."""
        address = urlsplit(target)
        path, control = address.path, address.path.startswith("/sandbox/")
        if not control and self.faults.hit("drop_connection", path=path) is not None:
            return None
        try:
            route = self.routes.find(method, path)
            if route is None or not route[2]:
                self._authorize(headers, control=control)
            if not control:
                self._unavailable(path)
            handler, parts, _ = route or (_unknown(method, path), (), False)
            answer = handler(Request(parts, parse_qs(address.query), raw, headers.get("host", "")))
        except ApiError as error:
            return _failed(error)
        except Exception as error:
            log.exception("%s %s", method, path)
            return _failed(ApiError(500, "INTERNAL_ERROR", f"{type(error).__name__}: {error}"[:500]))
        if isinstance(answer, bytes):
            return Response(200, answer, THRIFT)
        return Response(200, json.dumps(answer, ensure_ascii=False).encode())

    def _authorize(self, headers: dict[str, str], *, control: bool) -> None:
        refused = None if control else self.faults.hit("credentials_refused")
        if refused is not None:
            status = int(refused.get("status", 401))
            code = "PERMISSION_DENIED" if status == 403 else "UNAUTHENTICATED"  # noqa: PLR2004 - HTTP's own number
            raise ApiError(status, code, "Credentials were refused (a fault is switched on).")
        given = headers.get("authorization", "")
        if not given:
            raise ApiError(401, "UNAUTHENTICATED", "Credential was not sent or was of an unsupported type.")
        if not hmac.compare_digest(given.encode(), self._authorization.encode()):
            raise ApiError(403, "PERMISSION_DENIED", "Invalid access token.")

    def _unavailable(self, path: str) -> None:
        fault = self.faults.hit("http_error", path=path)
        if fault is None:
            return
        status = int(fault.get("status", 503))
        code = {429: "REQUEST_LIMIT_EXCEEDED", 503: "TEMPORARILY_UNAVAILABLE"}.get(status, "INTERNAL_ERROR")
        error = ApiError(status, code, f"HTTP {status} (a fault is switched on).")
        error.retry_after = fault.get("retry_after")
        raise error


def _unknown(method: str, path: str) -> Handler:
    def handler(_request: Request) -> dict[str, Any]:
        raise ApiError(404, "ENDPOINT_NOT_FOUND", f"No API found for '{method} {path}'")

    return handler


def _failed(error: ApiError) -> Response:
    headers = {"x-thriftserver-error-message": error.message.split("\n")[0][:300]}
    if error.retry_after is not None:
        headers["Retry-After"] = str(error.retry_after)
    return Response(error.status, json.dumps(error.body()).encode(), headers=headers)


def serve(application: Application, port: int, bind: str = "127.0.0.1") -> ThreadingHTTPServer:
    """A server, not yet running."""

    class _Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # one segment an answer: headers and body apart would wait for the client's delayed ACK
        disable_nagle_algorithm = True

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002, ANN401 - the base class's names
            log.debug(format, *args)

        def _handle(self) -> None:
            raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            headers = {name.lower(): value for name, value in self.headers.items()}
            response = application.respond(self.command, self.path, headers, raw)
            if response is None:
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            self.send_response(response.status)
            for name, value in response.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Type", response.content_type)
            self.send_header("Content-Length", str(len(response.body)))
            self.end_headers()
            self.wfile.write(response.body)
            self.wfile.flush()

        do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = do_HEAD = _handle  # noqa: N815 - the base class's names

    class _Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 64

        def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - the base class's types
            log.debug("connection %s from %s ended", request, client_address, exc_info=True)  # noqa: LOG014 - it is one

    return _Server((bind, port), _Handler)
