"""The HTTP server, over a socket: tokens, errors in Databricks' form, faults."""

from __future__ import annotations

import http.client
import json
import threading
from typing import TYPE_CHECKING, Any

import pytest

from ecomm_sandbox.databricks.errors import not_found
from ecomm_sandbox.databricks.faults import Faults
from ecomm_sandbox.databricks.server import Application, Request, Routes, serve

if TYPE_CHECKING:
    from collections.abc import Iterator


class Client:
    """A client of one server."""

    def __init__(self, port: int, faults: Faults) -> None:
        self.port, self.faults = port, faults

    def call(
        self, method: str, path: str, token: str | None = "good", body: str = ""
    ) -> tuple[int, Any, dict[str, str]]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        content = json.loads(answer.read())
        connection.close()
        return answer.status, content, dict(answer.headers)


def missing(_request: Request) -> dict[str, Any]:
    message = "no such thing"
    raise not_found(message)


def broken(_request: Request) -> dict[str, Any]:
    message = "a bug"
    raise RuntimeError(message)


@pytest.fixture
def client() -> Iterator[Client]:
    routes, faults = Routes(), Faults()
    routes.add("GET", "/open", lambda _: {"open": True}, public=True)
    routes.add("GET", "/things/{}/parts/{}", lambda request: {"parts": list(request.parts), "q": request.option("q")})
    routes.add("POST", "/echo", lambda request: request.json())
    routes.add("GET", "/missing", missing)
    routes.add("GET", "/broken", broken)
    server = serve(Application(routes, "good", faults), 0)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield Client(server.server_address[1], faults)
    server.shutdown()
    server.server_close()


def test_a_route_gets_its_parts_and_query(client: Client) -> None:
    assert client.call("GET", "/things/a/parts/b%20c?q=1")[1] == {"parts": ["a", "b%20c"], "q": "1"}


@pytest.mark.parametrize(("token", "status"), [(None, 401), ("bad", 403), ("good", 200)])
def test_requests_need_the_token(client: Client, token: str | None, status: int) -> None:
    assert client.call("GET", "/things/a/parts/b", token)[0] == status


def test_public_routes_need_none(client: Client) -> None:
    assert client.call("GET", "/open", None)[:2] == (200, {"open": True})


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "ENDPOINT_NOT_FOUND"),
        ("GET", "/missing", 404, "RESOURCE_DOES_NOT_EXIST"),
        ("GET", "/broken", 500, "INTERNAL_ERROR"),
    ],
)
def test_errors_have_a_code_and_a_message(client: Client, method: str, path: str, status: int, code: str) -> None:
    got, body, _ = client.call(method, path)
    assert (got, body["error_code"]) == (status, code)
    assert body["message"]


@pytest.mark.parametrize("body", ["{", "[1]"])
def test_a_body_that_is_no_object_is_a_bad_request(client: Client, body: str) -> None:
    assert client.call("POST", "/echo", body=body)[0] == 400


def test_refused_credentials(client: Client) -> None:
    client.faults.set([{"kind": "credentials_refused", "status": 403, "times": 1}])
    assert client.call("GET", "/things/a/parts/b")[0] == 403
    assert client.call("GET", "/things/a/parts/b")[0] == 200


def test_an_overloaded_service_says_when_to_come_again(client: Client) -> None:
    client.faults.set([{"kind": "http_error", "status": 429, "path": "^/things", "retry_after": 3, "times": 1}])
    assert client.call("GET", "/open")[0] == 200
    status, body, headers = client.call("GET", "/things/a/parts/b")
    assert (status, body["error_code"], headers["Retry-After"]) == (429, "REQUEST_LIMIT_EXCEEDED", "3")


def test_a_dropped_connection_has_no_answer(client: Client) -> None:
    client.faults.set([{"kind": "drop_connection", "times": 1}])
    with pytest.raises((http.client.RemoteDisconnected, ConnectionError)):
        client.call("GET", "/open")
    assert client.call("GET", "/open")[0] == 200
