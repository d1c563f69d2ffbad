"""The proxy: bytes pass unchanged, and faults strike where they should."""

from __future__ import annotations

import socket
import threading
import time
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from ecomm_sandbox.faults import CATALOGUE, Fault
from ecomm_sandbox.proxy import Proxy
from ecomm_sandbox.state import pick_port


class Echo(BaseHTTPRequestHandler):
    """Answers a body with itself."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_PUT(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture(scope="module")
def echo():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def proxy(echo):
    port = pick_port(set())
    made = Proxy(port, lambda: echo, http=True)
    made.port = port
    threading.Thread(target=made.serve, daemon=True).start()
    while not made.ready:
        time.sleep(0.01)
    return made


@pytest.fixture
def client(proxy):
    connection = HTTPConnection("127.0.0.1", proxy.port, timeout=10)
    yield connection
    connection.close()
    proxy.clear()


def put(client, body):
    client.request("PUT", "/", body)
    answer = client.getresponse()
    return answer.status, answer.read()


def switch_on(proxy, kind, **options):
    proxy.put(Fault.parse({"kind": kind, **options}, CATALOGUE["s3"]))


@pytest.mark.parametrize("size", [0, 1, 70_000, 9_000_000])
def test_bytes_pass_unchanged_both_ways(client, size):
    body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    assert put(client, body) == (200, body)
    assert put(client, b"again") == (200, b"again")


@pytest.mark.parametrize(("kind", "status"), [("unavailable", 503), ("forbidden", 403)])
def test_a_request_on_an_open_connection_is_refused_and_the_next_is_not(proxy, client, kind, status):
    assert put(client, b"before")[0] == 200
    switch_on(proxy, kind, times=1)
    assert put(client, b"x" * 300_000)[0] == status
    assert put(client, b"after") == (200, b"after")


def test_a_connection_is_reset_after_the_bytes_of_the_fault(proxy, client):
    switch_on(proxy, "drop", after_bytes=100_000, times=1)
    with pytest.raises(OSError):  # noqa: PT011 (reset or broken pipe, by who is quicker)
        put(client, b"x" * 5_000_000)
    client.close()
    assert put(client, b"after") == (200, b"after")


def test_small_traffic_passes_below_the_bytes_of_a_drop(proxy, client):
    switch_on(proxy, "drop", after_bytes=100_000)
    assert put(client, b"small")[0] == 200


def test_connections_are_refused_until_cleared_and_open_ones_reset(proxy, client):
    assert put(client, b"before")[0] == 200
    switch_on(proxy, "refuse")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", proxy.port), timeout=1)
    with pytest.raises(OSError):  # noqa: PT011 (reset or closed)
        put(client, b"open")
    client.close()
    proxy.clear()
    assert put(client, b"after") == (200, b"after")


def test_a_delayed_request_waits(proxy, client):
    switch_on(proxy, "delay", delay=1.0, times=1)
    began = time.monotonic()
    put(client, b"x")
    assert time.monotonic() - began >= 1.0
    began = time.monotonic()
    put(client, b"x")
    assert time.monotonic() - began < 1.0
