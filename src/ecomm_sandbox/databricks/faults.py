"""Faults, switched on from outside: `GET/PUT/DELETE /sandbox/faults`, with the same token.

`PUT` takes `{"faults": [{"kind": …, …}, …]}` and replaces what was set. A fault without `times` stays until it is
removed; with it, it goes after that many hits.

| kind | fields (default) | effect |
| --- | --- | --- |
| `update_fails` | `message`, `retryable` (false), `dataset` | the update fails, at that dataset if named |
| `update_queued` | `seconds` (600) | the update stays WAITING_FOR_RESOURCES that long, or until all is cleared |
| `flow_slow` | `seconds` (5), `dataset` (any) | the flow waits before it runs |
| `statement_fails` | `message`, `matches` (any: a regular expression over the SQL), `sql_state` | it fails |
| `statement_slow` | `seconds` (5), `matches` | waits before it runs (cancel ends it) |
| `warehouse_cold_start` | `seconds` (30) | stops it; its next start takes that long, or until all is cleared |
| `warehouse_deleted` | | the warehouse is DELETED; statements get 404 |
| `drop_connection` | `path` (any: a regular expression), `times` | closes the connection without an answer |
| `credentials_refused` | `status` (401) | every request is answered 401 (or 403) |
| `http_error` | `status` (503), `path`, `retry_after` (seconds), `times` | requests are answered so |
"""

from __future__ import annotations

import re
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ecomm_sandbox.databricks.errors import SandboxError, bad_request

if TYPE_CHECKING:
    from collections.abc import Iterable

KINDS: dict[str, frozenset[str]] = {
    "update_fails": frozenset({"message", "retryable", "dataset"}),
    "update_queued": frozenset({"seconds"}),
    "flow_slow": frozenset({"seconds", "dataset"}),
    "statement_fails": frozenset({"message", "matches", "sql_state"}),
    "statement_slow": frozenset({"seconds", "matches"}),
    "warehouse_cold_start": frozenset({"seconds"}),
    "warehouse_deleted": frozenset(),
    "drop_connection": frozenset({"path"}),
    "credentials_refused": frozenset({"status"}),
    "http_error": frozenset({"status", "path", "retry_after"}),
}


class InjectedError(SandboxError):
    """Raised by a fault that makes an update fail; `retryable` ones are retried by the platform."""

    def __init__(self, message: str, *, retryable: bool) -> None:
        """`message` is what the event log and the update show."""
        super().__init__(message)
        self.retryable = retryable


@dataclass(slots=True)
class Fault:
    """One fault that is on."""

    kind: str
    times: int | None = None
    fields: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The form in which it was sent, with the hits that are left."""
        return {"kind": self.kind, **({} if self.times is None else {"times": self.times}), **self.fields}


def parse(item: dict[str, Any]) -> Fault:
    """A fault from its JSON; an `ApiError` (400) when its kind or a field is unknown."""
    fields = dict(item)
    kind, times = fields.pop("kind", None), fields.pop("times", None)
    if kind not in KINDS:
        message = f"fault kind {kind!r} is unknown; there are {', '.join(KINDS)}"
        raise bad_request(message)
    unknown = sorted(set(fields) - KINDS[kind])
    if unknown:
        message = f"fault {kind} has no field {unknown[0]!r}; it has times, {', '.join(sorted(KINDS[kind]))}"
        raise bad_request(message)
    return Fault(kind, times, fields)


class Faults:
    """The faults that are on; safe to use from any thread."""

    def __init__(self) -> None:
        """None is on."""
        self._lock = threading.Lock()
        self._on: list[Fault] = []
        self._cleared = 0

    def set(self, items: Iterable[dict[str, Any]]) -> None:
        """Replace all faults."""
        parsed = [parse(item) for item in items]
        with self._lock:
            self._on = parsed
            self._cleared += not parsed

    def as_json(self) -> dict[str, Any]:
        """What is on."""
        with self._lock:
            return {"faults": [fault.as_json() for fault in self._on]}

    def hit(self, kind: str, **subject: str) -> dict[str, Any] | None:
        """The fields of a fault of this kind that applies to the subject, counted as used; else None.

        `dataset=` compares by name, `path=` and `matches=` by regular expression.
        """
        with self._lock:
            for fault in self._on:
                if fault.kind == kind and _applies(fault, subject):
                    if fault.times is not None:
                        fault.times -= 1
                        if fault.times <= 0:
                            self._on.remove(fault)
                    return fault.fields
        return None

    def hold(self, kind: str, ended: threading.Event) -> bool:
        """Wait as long as a fault of this kind says, or until all are cleared; tells whether `ended` came before."""
        held = self.hit(kind)
        over = time.monotonic() + float(held.get("seconds", 600)) if held is not None else 0.0
        cleared = self._cleared
        while time.monotonic() < over and self._cleared == cleared:
            if ended.wait(0.2):
                return True
        return False

    def statement(self, sql: str, ended: threading.Event) -> None:
        """Delay or fail a statement; `ended` cuts a delay short."""
        slow = self.hit("statement_slow", matches=sql)
        if slow is not None:
            ended.wait(float(slow.get("seconds", 5)))
        failing = self.hit("statement_fails", matches=sql)
        if failing is not None:
            state = failing.get("sql_state", "XXKST")
            message = failing.get("message", "[INTERNAL_ERROR] A fault was switched on.")
            raise SandboxError(message if "SQLSTATE" in message else f"{message} SQLSTATE: {state}")

    def update(self, dataset: str | None) -> None:
        """Fail an update: at its start (`dataset` None) or at a dataset."""
        failing = self.hit("update_fails", dataset=dataset or "")
        if failing is not None:
            message = failing.get("message", "A fault was switched on.")
            raise InjectedError(message, retryable=bool(failing.get("retryable", False)))


def _applies(fault: Fault, subject: dict[str, str]) -> bool:
    for name, value in subject.items():
        wanted = fault.fields.get(name)
        if name == "dataset":
            if (wanted or "") != value:
                return False
        elif wanted is not None and not re.search(str(wanted), value, re.IGNORECASE | re.DOTALL):
            return False
    return True
