"""What arrived: the messages that were taken, in order, and how the sinks refuse the others."""

from __future__ import annotations

import hashlib
import json
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ecomm_sandbox.state import State

__all__ = ["Answer", "Inbox", "Message", "RefusedError", "Secrets", "json_object"]


@dataclass(frozen=True, slots=True)
class Secrets:
    """What clients must show. All of it follows from one secret of the sandbox."""

    token: str

    @classmethod
    def of(cls, state: State) -> Secrets:
        """Read them from a sandbox's state."""
        return cls(state.secrets["sinks-token"])

    def _derived(self, name: str) -> str:
        return hashlib.sha256(f"{name}:{self.token}".encode()).hexdigest()

    def webhook(self, channel: str) -> str:
        """The path of a channel's incoming webhook: Slack makes one for each channel."""
        derived = self._derived(channel).upper()
        return f"/services/T{derived[:10]}/B{derived[10:20]}/{derived[20:44]}"

    @property
    def routing_key(self) -> str:
        """The integration key of PagerDuty's service, 32 characters."""
        return self._derived("pagerduty")[:32]

    @property
    def lineage_key(self) -> str:
        """The API key of the OpenLineage backend."""
        return self._derived("openlineage")[:32]

    @property
    def jira_password(self) -> str:
        """The API token of Jira's user."""
        return self._derived("jira")[:24]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a client is told."""

    status: int
    content: Any = None
    """JSON, or a text that is sent as it is."""


class RefusedError(Exception):
    """Raised for a request that the real service would refuse; `answer` is how it would."""

    def __init__(self, status: int, content: Any) -> None:  # noqa: ANN401 (JSON)
        super().__init__(f"{status}: {content}")
        self.answer = Answer(status, content)


@dataclass(frozen=True, slots=True)
class Message:
    """Something that a service took: a message, an event, or a change of a ticket."""

    service: str
    """slack, pagerduty, jira or openlineage."""
    what: str
    """message; trigger, acknowledge, resolve; create, edit, comment, or the name of a transition; START, COMPLETE, …"""
    to: str
    """The channel, the dedup key, the ticket or the job."""
    text: str
    """What a person reads."""
    body: dict[str, Any]
    """The request, without credentials."""
    at: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="milliseconds"))


class Inbox:
    """The messages of all services. Threads may share it; it is empty after a restart."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._messages: list[Message] = []

    def put(self, message: Message) -> None:
        """Keep a message."""
        with self._lock:
            self._messages.append(message)

    def all(self) -> list[Message]:
        """Give what arrived, oldest first."""
        with self._lock:
            return list(self._messages)

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._messages.clear()


def json_object(body: bytes) -> dict[str, Any] | None:
    """Read a JSON object; None when it is none."""
    try:
        found = json.loads(body)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
