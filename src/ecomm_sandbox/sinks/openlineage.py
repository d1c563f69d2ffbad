"""An OpenLineage backend's `POST /api/v1/lineage`, as Marquez has it.

What is refused is what https://github.com/OpenLineage/OpenLineage/blob/main/spec/OpenLineage.json and Marquez refuse,
and what breaks the order of states of https://openlineage.io/docs/spec/run-cycle, which Marquez takes and shows wrong.
"""

from __future__ import annotations

import re
import threading
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit
from uuid import UUID

from ecomm_sandbox.sinks.inbox import Answer, Inbox, Message, RefusedError, Secrets, json_object

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["PATH", "OpenLineage", "problems"]

PATH: Final = "/api/v1/lineage"
_STATES: Final = ("START", "RUNNING", "COMPLETE", "ABORT", "FAIL", "OTHER")
_TERMINAL: Final = ("COMPLETE", "ABORT", "FAIL")
_NAMESPACE: Final = re.compile(r"[a-zA-Z:;=/0-9_.@+-]{1,1024}")
_LONGEST: Final = 1024
_SCHEMA: Final = re.compile(r"https?://[^#]+\.json(#/\$defs/\w+)?")
_UNUSABLE: Final = "Unable to process JSON"


class OpenLineage:
    """The events of all runs."""

    def __init__(self, secrets: Secrets, inbox: Inbox) -> None:
        self._key = secrets.lineage_key
        self._inbox = inbox
        self._lock = threading.Lock()
        self._runs: dict[str, list[dict[str, Any]]] = {}

    def clear(self) -> None:
        """Forget all runs."""
        with self._lock:
            self._runs.clear()

    def answer(self, method: str, authorization: str, body: bytes) -> Answer:
        """Take an event. Raises `RefusedError` as Marquez refuses it."""
        if method != "POST":
            raise RefusedError(405, {"code": 405, "message": "HTTP 405 Method Not Allowed"})
        if authorization != f"Bearer {self._key}":
            raise RefusedError(401, {"code": 401, "message": "HTTP 401 Unauthorized"})
        event = json_object(body)
        if event is None:
            raise RefusedError(400, {"code": 400, "message": _UNUSABLE})
        with self._lock:
            found = list(problems(event)) or list(self._out_of_order(event))
            if found:
                raise RefusedError(422, {"errors": found})
            self._keep(event)
        return Answer(201, "")

    def _out_of_order(self, event: dict[str, Any]) -> Iterator[str]:
        """Tell what does not follow from the run's events so far; the same event again is a client's retry."""
        before, state = self._runs.get(event["run"]["runId"], []), event.get("eventType")
        if event in before:
            return
        states = [one.get("eventType") for one in before]
        if ended := next((one for one in states if one in _TERMINAL), None):
            yield f"run {event['run']['runId']} has ended with {ended}, and {state} came after it"
        if state == "START" and "START" in states:
            yield f"run {event['run']['runId']} has begun, and another START came"
        if state in ("RUNNING", *_TERMINAL) and "START" not in states:
            yield f"run {event['run']['runId']} has not begun, and {state} came"
        for one in before:
            if any(one["job"][name] != event["job"][name] for name in ("namespace", "name")):
                yield f"run {event['run']['runId']} is of the job {one['job']['name']}, not {event['job']['name']}"

    def _keep(self, event: dict[str, Any]) -> None:
        before = self._runs.setdefault(event["run"]["runId"], [])
        if event in before:
            return
        before.append(event)
        job = f"{event['job']['namespace']}/{event['job']['name']}"
        named = [
            f"{kind} {one['namespace']}/{one['name']}"
            for kind in ("input", "output")
            for one in event.get(f"{kind}s", [])
        ]
        self._inbox.put(Message("openlineage", str(event.get("eventType")), job, "\n".join(named), event))


def problems(event: dict[str, Any]) -> Iterator[str]:
    """Tell what is wrong with a run event by itself."""
    yield from _wanted(event, "", eventTime=_is_moment, producer=_is_uri, schemaURL=_is_schema)
    if "eventType" in event and event["eventType"] not in _STATES:
        yield f"eventType must be one of {', '.join(_STATES)}"
    run, job = event.get("run"), event.get("job")
    if not isinstance(run, dict):
        yield "run must not be null"
    else:
        yield from _wanted(run, "run.", runId=_is_uuid)
        yield from _facets(run, "run.", "facets")
    if not isinstance(job, dict):
        yield "job must not be null"
    else:
        yield from _wanted(job, "job.", namespace=_is_namespace, name=_is_name)
        yield from _facets(job, "job.", "facets")
    for kind in ("input", "output"):
        for place, dataset in enumerate(event.get(f"{kind}s") or []):
            at = f"{kind}s[{place}]."
            yield from _wanted(dataset, at, namespace=_is_namespace, name=_is_name)
            yield from _facets(dataset, at, "facets")
            yield from _facets(dataset, at, f"{kind}Facets")


def _wanted(part: dict[str, Any], at: str, **rules: Callable[[Any], bool]) -> Iterator[str]:
    for name, is_right in rules.items():
        if part.get(name) is None:
            yield f"{at}{name} must not be null"
        elif not is_right(part[name]):
            yield f"{at}{name} is not what it must be: {part[name]!r}"


def _facets(part: dict[str, Any], at: str, where: str) -> Iterator[str]:
    facets = part.get(where) or {}
    if not isinstance(facets, dict):
        yield f"{at}{where} must be an object"
        return
    for name, facet in facets.items():
        if not isinstance(facet, dict):
            yield f"{at}{where}.{name} must be an object"
            continue
        yield from _wanted(facet, f"{at}{where}.{name}.", _producer=_is_uri, _schemaURL=_is_schema)
        if name == "parent":
            yield from _problems_of_parent(facet, f"{at}{where}.parent.")
        if name == "nominalTime":
            yield from _wanted(facet, f"{at}{where}.nominalTime.", nominalStartTime=_is_moment)


def _problems_of_parent(facet: dict[str, Any], at: str) -> Iterator[str]:
    """Tell what is wrong with who began the run."""
    yield from _wanted(facet.get("run") or {}, f"{at}run.", runId=_is_uuid)
    yield from _wanted(facet.get("job") or {}, f"{at}job.", namespace=_is_namespace, name=_is_name)


def _is_moment(value: Any) -> bool:  # noqa: ANN401 (JSON)
    """Whether it is an RFC 3339 date and time: with its offset."""
    try:
        return "T" in str(value) and datetime.fromisoformat(str(value)).tzinfo is not None
    except ValueError:
        return False


def _is_uri(value: Any) -> bool:  # noqa: ANN401 (JSON)
    return isinstance(value, str) and bool(urlsplit(value).scheme) and not re.search(r"\s", value)


def _is_schema(value: Any) -> bool:  # noqa: ANN401 (JSON)
    return isinstance(value, str) and bool(_SCHEMA.fullmatch(value))


def _is_uuid(value: Any) -> bool:  # noqa: ANN401 (JSON)
    try:
        return str(UUID(value)) == value if isinstance(value, str) else False
    except ValueError:
        return False


def _is_namespace(value: Any) -> bool:  # noqa: ANN401 (JSON)
    return isinstance(value, str) and bool(_NAMESPACE.fullmatch(value))


def _is_name(value: Any) -> bool:  # noqa: ANN401 (JSON)
    return isinstance(value, str) and 0 < len(value) <= _LONGEST
