"""Slack's incoming webhooks: https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks.

An app's webhook posts to the channel that it was made for, whatever `channel` in the message says.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from ecomm_sandbox.sinks.inbox import Answer, Inbox, Message, RefusedError, Secrets, json_object

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["CHANNELS", "Slack"]

CHANNELS: Final = ("data-eng", "analytics")
_ATTACHMENTS: Final = 100
_BLOCKS: Final = 50
_TEXT: Final = 40_000


class Slack:
    """The webhooks of a workspace."""

    def __init__(self, secrets: Secrets, inbox: Inbox) -> None:
        self._channels = {secrets.webhook(channel): channel for channel in CHANNELS}
        self._inbox = inbox

    def answer(self, method: str, path: str, body: bytes) -> Answer:
        """Take a message. Raises `RefusedError` as Slack refuses it."""
        channel = self._channels.get(path)
        if channel is None:
            raise RefusedError(*_no_hook(path, self._channels))
        if method != "POST":
            raise RefusedError(405, "method_not_allowed")
        message = json_object(body)
        if message is None:
            raise RefusedError(400, "invalid_payload")
        _check(message)
        self._inbox.put(Message("slack", "message", f"#{channel}", "\n".join(_texts(message)), message))
        return Answer(200, "ok")


def _no_hook(path: str, known: dict[str, str]) -> tuple[int, str]:
    """Tell a webhook that is not there from one whose token is wrong."""
    if any(path.rpartition("/")[0] == hook.rpartition("/")[0] for hook in known):
        return 403, "invalid_token"
    return 404, "no_service"


def _check(message: dict[str, Any]) -> None:
    attachments, blocks = message.get("attachments") or [], message.get("blocks") or []
    if not isinstance(attachments, list) or not all(isinstance(one, dict) for one in attachments):
        raise RefusedError(400, "invalid_payload")
    if len(attachments) > _ATTACHMENTS:
        raise RefusedError(400, "too_many_attachments")
    if not isinstance(blocks, list) or len(blocks) > _BLOCKS:
        raise RefusedError(400, "invalid_blocks")
    texts = list(_texts(message))
    if not any(texts) and not blocks:
        raise RefusedError(400, "no_text")
    if any(len(text) > _TEXT for text in texts):
        raise RefusedError(400, "msg_too_long")


def _texts(message: dict[str, Any]) -> Iterator[str]:
    """Give what is shown of a message, from top to bottom."""
    yield from _of(message, "text")
    for attachment in message.get("attachments") or []:
        yield from _of(attachment, "pretext", "title", "title_link", "text")
        for field in attachment.get("fields") or []:
            yield from _of(field, "title", "value")
        yield from _of(attachment, "footer")


def _of(part: dict[str, Any], *names: str) -> Iterator[str]:
    for name in names:
        if text := part.get(name):
            if not isinstance(text, str):
                raise RefusedError(400, "invalid_payload")
            yield text
