"""Faults: what can be made to go wrong, and the small box in which a service keeps those that are switched on.

A service takes its faults by three requests on `/sandbox/faults`: `GET` lists them, `PUT` switches one on, `DELETE`
clears all. The body of `PUT` is `{"kind": "drop", "times": 2, "seconds": 30, "after_bytes": 1000}`: `times` and
`seconds` bound it (default: until it is cleared), the rest are the kind's own options. Faults in the database itself
(schema drift, passwords) are SQL, in `sql_faults.py`.
"""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass, field
from typing import Any, Final

__all__ = ["CATALOGUE", "PROXY_SERVICES", "Fault", "FaultBox", "Kind"]

PROXY_SERVICES: Final = ("postgres", "s3")
"""Services that stand behind the proxy."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of fault: what it does, its options with their defaults, and who does it."""

    about: str
    options: dict[str, Any] = field(default_factory=dict)
    by: str = "service"


_NETWORK: Final = {
    "delay": Kind("each request waits before it is passed on", {"delay": 2.0}, by="proxy"),
    "refuse": Kind("connections are refused, and open ones are reset", by="proxy"),
    "drop": Kind("a connection is reset after that many bytes of either direction", {"after_bytes": 0}, by="proxy"),
}

CATALOGUE: Final[dict[str, dict[str, Kind]]] = {
    "postgres": {
        **_NETWORK,
        "password": Kind("the extractor's password is changed", by="sql"),
        "permission": Kind("the extractor may not read a table", {"table": "orders"}, by="sql"),
        "add-column": Kind(
            "a column is added", {"table": "orders", "column": "channel", "type": "text DEFAULT 'web'"}, by="sql"
        ),
        "drop-column": Kind("a column is dropped", {"table": "customers", "column": "email"}, by="sql"),
        "rename-column": Kind(
            "a column is renamed", {"table": "customers", "column": "email", "to": "email_address"}, by="sql"
        ),
        "widen-column": Kind(
            "a column is widened", {"table": "order_items", "column": "quantity", "type": "bigint"}, by="sql"
        ),
        "lock": Kind("a table is locked exclusively, as by a migration", {"table": "orders"}, by="proxy"),
        "long-transaction": Kind(
            "statements run now and are committed when the fault ends",
            {"sql": "UPDATE orders SET updated_at = now() WHERE order_id = (SELECT max(order_id) FROM orders)"},
            by="proxy",
        ),
    },
    "s3": {
        **_NETWORK,
        "unavailable": Kind("requests get HTTP 503 SlowDown", by="proxy"),
        "forbidden": Kind("requests get HTTP 403 AccessDenied", by="proxy"),
        "full": Kind("what is written gets HTTP 403 QuotaExceeded; the rest is answered", by="proxy"),
    },
    "databricks": {},
    "tableau": {
        "fail": Kind("refresh jobs fail", {"notes": "The warehouse did not answer."}),
        "stuck": Kind("refresh jobs start and never end"),
        "delay": Kind("refresh jobs take longer", {"delay": 5.0}),
        "drop": Kind("requests get no answer: the connection is closed"),
        "unavailable": Kind("requests get HTTP 503"),
        "credentials": Kind("the token is revoked: requests get 401002, signing in 401001"),
        "sign-in": Kind("signing in gets 401001, as for a user without a licence; a session that is open goes on"),
        "stale": Kind("refresh jobs succeed, but the extract is so many seconds old", {"age": 86400.0}),
        "queued": Kind("a refresh is answered 409093, as when one is queued already"),
        "lost": Kind("a refresh is queued, but answered 500"),
    },
    "dbt-cloud": {
        "fail": Kind("runs fail before dbt begins", {"notes": "fatal: could not read from remote repository"}),
        "stuck": Kind("runs stay in the queue"),
        "drop": Kind("requests get no answer: the connection is closed"),
        "unavailable": Kind("requests get HTTP 503"),
        "busy": Kind("requests get HTTP 429 and Retry-After", {"retry_after": 1}),
        "credentials": Kind("the token is revoked: requests get HTTP 401"),
        "lost": Kind("a run is queued, but answered 500"),
    },
    "sinks": {
        "delay": Kind("messages wait before they are answered", {"delay": 5.0}),
        "drop": Kind("messages get no answer: the connection is closed"),
        "unavailable": Kind("messages get HTTP 503"),
        "busy": Kind("messages get HTTP 429 and Retry-After"),
        "credentials": Kind("webhooks, keys and tokens are revoked: messages get HTTP 403"),
    },
}
"""Kinds of fault by service. Databricks tells its own (`GET /sandbox/faults`)."""


@dataclass(slots=True)
class Fault:
    """A fault that is switched on."""

    kind: str
    times: int | None = None
    """How often it still strikes; None for always."""
    until: float | None = None
    """`time.monotonic` at which it ends; None for never."""
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def over(self) -> bool:
        """Whether it no longer strikes."""
        return self.times == 0 or (self.until is not None and time.monotonic() >= self.until)

    @classmethod
    def parse(cls, body: dict[str, Any], kinds: dict[str, Kind]) -> Fault:
        """Read the body of `PUT /sandbox/faults`. Raises ValueError that says what is wrong."""
        rest = dict(body)
        kind, times, seconds = str(rest.pop("kind", "")), rest.pop("times", None), rest.pop("seconds", None)
        if kind not in kinds:
            message = f"no fault is called {kind!r}; there are: {', '.join(sorted(kinds))}"
            raise ValueError(message)
        unknown = sorted(set(rest) - set(kinds[kind].options))
        if unknown:
            message = f"{kind} has no option {', '.join(unknown)}; it has: {', '.join(kinds[kind].options) or 'none'}"
            raise ValueError(message)
        until = None if seconds is None else time.monotonic() + float(seconds)
        options = {name: type(default)(rest.get(name, default)) for name, default in kinds[kind].options.items()}
        return cls(kind, None if times is None else int(times), until, options)

    def as_dict(self) -> dict[str, Any]:
        """Give it as JSON."""
        left = None if self.until is None else round(max(0.0, self.until - time.monotonic()), 3)
        return {"kind": self.kind, "times": self.times, "seconds": left, **self.options}


class FaultBox:
    """The faults of one service. Threads may share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._faults: list[Fault] = []
        self.armed = False
        """Whether there may be any; read without the lock, so that the normal way costs nothing."""

    def put(self, fault: Fault) -> None:
        """Switch a fault on, in place of one of the same kind."""
        with self._lock:
            self._faults = [*(other for other in self._faults if other.kind != fault.kind), fault]
            self.armed = True

    def clear(self) -> None:
        """Switch all off."""
        with self._lock:
            self._faults.clear()
            self.armed = False

    def list(self) -> list[Fault]:
        """Give those that are on."""
        with self._lock:
            self._faults = [fault for fault in self._faults if not fault.over]
            self.armed = bool(self._faults)
            return list(self._faults)

    def peek(self, kind: str) -> Fault | None:
        """Give a fault of a kind that is on, without counting it as struck."""
        return next((fault for fault in self.list() if fault.kind == kind), None) if self.armed else None

    def take(self, *kinds: str) -> Fault | None:
        """Let the first fault of these kinds that is on strike once; None when none is."""
        if not self.armed:
            return None
        for fault in self.list():
            with self._lock:
                if fault.kind in kinds and not fault.over:
                    fault.times = None if fault.times is None else fault.times - 1
                    return fault
        return None

    def answer(self, method: str, body: bytes, kinds: dict[str, Kind]) -> tuple[int, dict[str, Any]]:
        """Do what a request on `/sandbox/faults` asks for; gives the status and content of the answer."""
        try:
            if method == "DELETE":
                self.clear()
            elif method == "PUT":
                self.put(Fault.parse(json.loads(body), kinds))
        except ValueError as error:
            return 400, {"error": str(error)}
        return 200, {"faults": [fault.as_dict() for fault in self.list()]}
