"""A TCP proxy before Postgres and S3, where the faults of their network live.

Clients always go through it, so that a fault needs no other settings. Bytes are moved by splice(2), inside the kernel,
by a thread for each direction of a connection. Run as `python -m ecomm_sandbox.proxy HOME`.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import socket
import struct
import sys
import threading
import time
from contextlib import closing, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ecomm_sandbox.faults import CATALOGUE, PROXY_SERVICES, Fault, FaultBox
from ecomm_sandbox.state import LOOPBACK, Home, State

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Proxy", "main"]

_CHUNK: Final = 1 << 20
_HEAD: Final = 1 << 16
_METHODS: Final = (b"GET ", b"PUT ", b"POST ", b"HEAD ", b"DELETE ")
_WRITES: Final = (b"PUT ", b"POST ")
_HTTP_FAULTS: Final = {
    "unavailable": ("503 Service Unavailable", "SlowDown", "Please reduce your request rate."),
    "forbidden": ("403 Forbidden", "AccessDenied", "Access Denied."),
    "full": ("403 Forbidden", "QuotaExceeded", "The bucket's quota is exceeded."),
}


class Proxy:
    """Forwards a port to another of this machine, with the faults of one service.

    `target` is asked for at each connection, because a service may come back on another port.
    """

    def __init__(self, listen: int, target: Callable[[], int], *, http: bool, bind: str = LOOPBACK) -> None:
        self.faults = FaultBox()
        self.target = target
        self.http = http
        self.holding: list[threading.Thread] = []
        self._listen = (bind, listen)
        self._listener: socket.socket | None = None
        self._lock = threading.Lock()
        self._links: set[_Link] = set()

    def serve(self) -> None:
        """Accept connections for ever. The port is closed while `refuse` is on."""
        while True:
            if self.faults.peek("refuse"):
                self._close()
                time.sleep(0.02)
                continue
            if self._listener is None:
                self._listener = socket.create_server(self._listen, backlog=128)
            if select.select([self._listener], [], [], 0.05)[0]:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve_one, args=(client,), daemon=True).start()

    @property
    def ready(self) -> bool:
        """Whether the port is open, or closed on purpose."""
        return self._listener is not None or self.faults.peek("refuse") is not None

    def put(self, fault: Fault) -> None:
        """Switch a fault on; `refuse` is in force when this returns."""
        self.faults.put(fault)
        while fault.kind == "refuse" and not fault.over and self._listener is not None:
            time.sleep(0.01)

    def clear(self) -> None:
        """Switch all faults off; the port is open and transactions have ended when this returns."""
        self.faults.clear()
        while self._listener is None or any(thread.is_alive() for thread in self.holding):
            time.sleep(0.01)
        self.holding.clear()

    def _close(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        with self._lock:
            for link in self._links:
                link.abort()

    def _serve_one(self, client: socket.socket) -> None:
        try:
            server = socket.create_connection((LOOPBACK, self.target()), timeout=5)
        except OSError:
            _close(client, reset=True)
            return
        link = _Link(self, client, server)
        with self._lock:
            self._links.add(link)
        try:
            link.run()
        finally:
            with self._lock:
                self._links.discard(link)


class _Link:
    """One client's connection and ours to the server."""

    def __init__(self, proxy: Proxy, client: socket.socket, server: socket.socket) -> None:
        self._proxy, self._client, self._server = proxy, client, server
        self._aborted = False
        self._counted = 0
        self._at_request = True  # whether the next bytes of the client begin a request

    def run(self) -> None:
        """Move bytes both ways until both sides are done."""
        for side in (self._client, self._server):
            side.settimeout(None)
            side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        back = threading.Thread(target=self._pump, args=(self._server, self._client), daemon=True)
        back.start()
        self._pump(self._client, self._server)
        back.join(1 if self._aborted else None)
        if back.is_alive():
            self._shutdown(socket.SHUT_RDWR)
            back.join()
        for side in (self._client, self._server):
            _close(side, reset=self._aborted)

    def abort(self) -> None:
        """End both connections; the client sees a reset."""
        self._aborted = True
        self._shutdown(socket.SHUT_RD)  # wakes the readers and sends nothing: closing then sends the reset

    def _shutdown(self, how: int) -> None:
        for side in (self._client, self._server):
            with suppress(OSError):
                side.shutdown(how)

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        reader, writer = os.pipe()
        with suppress(OSError):  # a user's pipes may be limited in size
            fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, _CHUNK)
        readable = select.poll()
        readable.register(source, select.POLLIN)
        try:
            while not self._aborted:
                readable.poll()
                limit = self._strike(source) if self._proxy.faults.armed else _CHUNK
                # Before the bytes leave: the other side may answer them sooner than this thread goes on.
                self._at_request = source is self._server
                if self._aborted or not limit or not self._move(source, sink, reader, writer, limit):
                    break
        except OSError:
            self.abort()  # one side reset the connection: so do we
        finally:
            os.close(reader)
            os.close(writer)
            with suppress(OSError):
                if not self._aborted:
                    sink.shutdown(socket.SHUT_WR)

    @staticmethod
    def _move(source: socket.socket, sink: socket.socket, reader: int, writer: int, limit: int) -> bool:
        count = left = os.splice(source.fileno(), writer, limit)
        while left:
            left -= os.splice(reader, sink.fileno(), left)
        return count > 0

    def _strike(self, source: socket.socket) -> int:
        """Let the faults that are on strike; give how many bytes may be moved now, 0 to end."""
        faults = self._proxy.faults
        waiting = len(source.recv(_HEAD, socket.MSG_PEEK))
        if waiting and source is self._client and self._at_request:
            delay = faults.take("delay")
            time.sleep(delay.options["delay"] if delay else 0)
            if self._proxy.http and self._answer():
                return 0
        drop = faults.peek("drop")
        if drop is None or not waiting:
            return _CHUNK
        if self._counted >= drop.options["after_bytes"] and faults.take("drop"):
            self.abort()
            return 0
        allowed: int = min(waiting, max(1, drop.options["after_bytes"] - self._counted))
        self._counted += allowed
        return allowed

    def _answer(self) -> bool:
        """Answer a request of the client in place of the server, if a fault says so."""
        head = self._client.recv(_HEAD, socket.MSG_PEEK)
        if not head.startswith(_METHODS):
            return False
        writes = head.startswith(_WRITES)
        fault = self._proxy.faults.take(*(kind for kind in _HTTP_FAULTS if writes or kind != "full"))
        if fault is None:
            return False
        status, code, message = _HTTP_FAULTS[fault.kind]
        _swallow(self._client)
        body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
        fields = f"Content-Type: application/xml\r\nContent-Length: {len(body)}\r\nConnection: close"
        if head.startswith(b"HEAD "):
            body = b""
        self._client.sendall(f"HTTP/1.1 {status}\r\n{fields}\r\n\r\n".encode() + body)
        with suppress(OSError):
            self._client.shutdown(socket.SHUT_WR)
            self._server.shutdown(socket.SHUT_RDWR)
        return True


def _swallow(client: socket.socket) -> None:
    """Read a request to its end: a client that is still sending would see a reset in place of the answer."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += client.recv(_HEAD) or b"\r\n\r\n"
    head, _, rest = data.partition(b"\r\n\r\n")
    fields = dict(line.lower().split(b":", 1) for line in head.split(b"\r\n")[1:] if b":" in line)
    left = int(fields.get(b"content-length", b"0")) - len(rest)
    while left > 0 and b"expect" not in fields:
        received = len(client.recv(min(left, _CHUNK)))
        left = left - received if received else 0


def _close(side: socket.socket, *, reset: bool) -> None:
    if reset:
        with suppress(OSError):
            side.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    side.close()


def _hold_transaction(home: Home, fault: Fault, proxy: Proxy) -> None:
    """Open a transaction in Postgres, and commit it when the fault ends. Returns when its statements have run."""
    from psycopg2 import sql

    from ecomm_sandbox.postgres import connect

    connection = connect(home.read(), direct=True)
    lock = sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE")
    try:
        with connection.cursor() as cursor:
            cursor.execute("SET lock_timeout = '5s'")
            locked = fault.kind == "lock"
            cursor.execute(lock.format(sql.Identifier(fault.options["table"])) if locked else fault.options["sql"])
    except BaseException:
        connection.close()
        raise
    proxy.put(fault)

    def hold() -> None:
        with closing(connection):
            while fault in proxy.faults.list():
                time.sleep(0.02)
            connection.commit()

    proxy.holding.append(threading.Thread(target=hold, daemon=True))
    proxy.holding[-1].start()


class _Handler(BaseHTTPRequestHandler):
    """Requests for health and for `/sandbox/faults/{service}`."""

    protocol_version = "HTTP/1.1"
    server: _Control

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002, ANN401 (the base class' signature)
        """Write no log."""

    def _handle(self) -> None:
        body, proxies = self.rfile.read(int(self.headers.get("Content-Length") or 0)), self.server.proxies
        service = self.path.removeprefix("/sandbox/faults/")
        if self.path == "/sandbox/health":
            ready = all(proxy.ready for proxy in proxies.values())
            self._reply(200 if ready else 503, {"status": "ok" if ready else "starting"})
        elif service not in proxies:
            self._reply(404, {"error": f"no service {service!r}", "services": sorted(proxies)})
        else:
            try:
                self._change(service, body)
            except Exception as error:  # noqa: BLE001 (the client is told)
                self._reply(400, {"error": str(error).strip()})
            else:
                self._reply(200, {"faults": [fault.as_dict() for fault in proxies[service].faults.list()]})

    def _change(self, service: str, body: bytes) -> None:
        proxy = self.server.proxies[service]
        if self.command == "DELETE":
            proxy.clear()
        elif self.command == "PUT":
            fault = Fault.parse(json.loads(body), CATALOGUE[service])
            if fault.kind in ("lock", "long-transaction"):
                _hold_transaction(self.server.home, fault, proxy)
            else:
                proxy.put(fault)

    def _reply(self, status: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_PUT = do_DELETE = _handle  # noqa: N815 (the base class' names)


class _Control(ThreadingHTTPServer):
    """Where faults are switched on."""

    daemon_threads = True

    def __init__(self, home: Home, address: tuple[str, int], proxies: dict[str, Proxy]) -> None:
        super().__init__(address, _Handler)
        self.home, self.proxies = home, proxies


def _proxy(home: Home, service: str, state: State) -> Proxy:
    target = f"{service}-direct"
    return Proxy(state.ports[service], lambda: home.read().ports[target], http=service == "s3", bind=state.bind)


def main(argv: list[str]) -> None:
    """Serve the proxies and their faults for the home given as the only argument, until ended."""
    home = Home(Path(argv[0]))
    state = home.read()
    proxies = {name: _proxy(home, name, state) for name in PROXY_SERVICES}
    for proxy in proxies.values():
        threading.Thread(target=proxy.serve, daemon=True).start()
    _Control(home, (state.bind, state.ports["proxy"]), proxies).serve_forever()


if __name__ == "__main__":
    main(sys.argv[1:])
