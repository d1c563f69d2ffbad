"""PagerDuty's Events API v2: https://developer.pagerduty.com/docs/events-api-v2/trigger-events/."""

from __future__ import annotations

import secrets as random
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from ecomm_sandbox.sinks.inbox import Answer, Inbox, Message, RefusedError, Secrets, json_object

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["PagerDuty"]

_LARGEST: Final = 512 * 1024
_SUMMARY: Final = 1024
_DEDUP_KEY: Final = 255
_ROUTING_KEY: Final = 32
_ACTIONS: Final = ("trigger", "acknowledge", "resolve")
_SEVERITIES: Final = ("critical", "error", "warning", "info")


class PagerDuty:
    """One service of an account, with its open incidents."""

    def __init__(self, secrets: Secrets, inbox: Inbox) -> None:
        self._key = secrets.routing_key
        self._inbox = inbox
        self._open: set[str] = set()

    def open(self) -> list[str]:
        """Give the dedup keys of the incidents that nobody has resolved."""
        return sorted(self._open)

    def clear(self) -> None:
        """Forget all incidents."""
        self._open.clear()

    def answer(self, method: str, path: str, body: bytes) -> Answer:
        """Take an event. Raises `RefusedError` as PagerDuty refuses it."""
        if (method, path) != ("POST", "/v2/enqueue"):
            raise RefusedError(404, {"error": {"message": "Not Found", "code": 2100}})
        if len(body) > _LARGEST:
            raise RefusedError(413, "Payload Too Large")
        event = json_object(body)
        problems = ["JSON cannot be parsed"] if event is None else list(_problems(event, self._key))
        if event is None or problems:
            content = {"status": "invalid event", "message": "Event object is invalid", "errors": problems}
            raise RefusedError(400, content)
        key = event.get("dedup_key") or random.token_hex(16)
        self._apply(event["event_action"], key)
        event.pop("routing_key")
        text = (event.get("payload") or {}).get("summary", "")
        self._inbox.put(Message("pagerduty", event["event_action"], key, text, event))
        return Answer(202, {"status": "success", "message": "Event processed", "dedup_key": key})

    def _apply(self, action: str, key: str) -> None:
        if action == "trigger":
            self._open.add(key)
        elif action == "resolve":
            self._open.discard(key)


def _problems(event: dict[str, Any], expected_key: str) -> Iterator[str]:
    key, action = event.get("routing_key"), event.get("event_action")
    if not isinstance(key, str) or not key:
        yield "'routing_key' is missing or blank"
    elif len(key) != _ROUTING_KEY:
        yield "Length of 'routing_key' is incorrect (should be 32 characters)"
    elif key != expected_key:
        yield "Invalid routing key"
    if action not in _ACTIONS:
        yield f"'event_action' is invalid: must be one of {', '.join(_ACTIONS)}"
    yield from _problems_of_key(event.get("dedup_key"), needed=action in ("acknowledge", "resolve"))
    if action == "trigger":
        yield from _problems_of_payload(event.get("payload"))
        yield from (f"'links[{n}].href' is missing or blank" for n in _without(event.get("links"), "href"))
        yield from (f"'images[{n}].src' is missing or blank" for n in _without(event.get("images"), "src"))


def _problems_of_key(key: Any, *, needed: bool) -> Iterator[str]:  # noqa: ANN401 (JSON)
    if needed and not key:
        yield "'dedup_key' is missing or blank"
    elif key is not None and (not isinstance(key, str) or len(key) > _DEDUP_KEY):
        yield f"'dedup_key' is not a string of at most {_DEDUP_KEY} characters"


def _problems_of_payload(payload: Any) -> Iterator[str]:  # noqa: ANN401 (JSON)
    if not isinstance(payload, dict):
        yield "'payload' is missing or blank"
        return
    for name in ("summary", "source", "severity"):
        if not isinstance(payload.get(name), str) or not payload[name]:
            yield f"'payload.{name}' is missing or blank"
    if len(str(payload.get("summary", ""))) > _SUMMARY:
        yield f"'payload.summary' is longer than {_SUMMARY} characters"
    if payload.get("severity") and payload["severity"] not in _SEVERITIES:
        yield f"'payload.severity' is invalid: must be one of {', '.join(_SEVERITIES)}"
    if not _is_moment(payload.get("timestamp")):
        yield "'payload.timestamp' is not an ISO 8601 timestamp"


def _is_moment(text: Any) -> bool:  # noqa: ANN401 (JSON)
    if not text:
        return True
    try:
        datetime.fromisoformat(str(text))
    except ValueError:
        return False
    return True


def _without(parts: Any, name: str) -> Iterator[int]:  # noqa: ANN401 (JSON)
    for number, part in enumerate(parts or []):
        if not isinstance(part, dict) or not part.get(name):
            yield number
