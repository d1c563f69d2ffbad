"""Send a stage's OpenLineage events, in a thread of their own.

A backend that is down or slow costs the stage a short wait at its end, and one warning. The client is configured by its
own variables and files alone, and only loaded when they name a backend:
https://openlineage.io/docs/client/python/configuration.
"""

from __future__ import annotations

import logging
import queue
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ecomm_pipeline.errors import ConfigurationError
from ecomm_pipeline.lineage.places import Places
from ecomm_pipeline.logs import get_logger
from ecomm_pipeline.manifest import Manifest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from zoneinfo import ZoneInfo

    from openlineage.client import OpenLineageClient
    from openlineage.client.event_v2 import RunEvent

    from ecomm_pipeline.ledger import Record
    from ecomm_pipeline.store import Store

__all__ = ["Lineage", "is_configured", "lineage_of"]

NAMESPACE: Final = "ecomm-data-pipeline"
"""The jobs' namespace where `OPENLINEAGE_NAMESPACE` names none."""
PATIENCE: Final = 5.0
"""Seconds that a stage waits at its end for events to arrive: the client's own limit of one request."""
_VARIABLES: Final = ("OPENLINEAGE_URL", "OPENLINEAGE__TRANSPORT", "OPENLINEAGE__TRANSPORT__TYPE")
_FILE: Final = "openlineage.yml"
_THREAD: Final = "lineage"
_EXCERPT: Final = 300


def lineage_of(
    settings: Any | None,  # noqa: ANN401 (each stage's own settings: a dataclass of groups)
    tz: ZoneInfo,
    store: Store,
    environment: Mapping[str, str],
) -> Lineage | None:
    """Give what sends a stage's events; None when no backend is configured.

    Without the stage's settings, which say where its data sets are, events tell of the run alone.
    """
    if not is_configured(environment):
        return None
    places = None if settings is None else Places.of(settings)
    return Lineage(places, tz, store, environment.get("OPENLINEAGE_NAMESPACE") or NAMESPACE)


def is_configured(environment: Mapping[str, str]) -> bool:
    """Whether the client would find a backend: by its variables, or by its file, in the places where it looks."""
    if environment.get("OPENLINEAGE_DISABLED", "").strip().lower() == "true":
        return False
    if any(environment.get(name) for name in _VARIABLES):
        return True
    named = environment.get("OPENLINEAGE_CONFIG")
    home = Path(environment.get("HOME") or "~").expanduser()
    places = [*([Path(named)] if named else []), Path(_FILE), home / ".openlineage" / _FILE]
    return any(place.is_file() for place in places)


class Lineage:
    """Sends the events of stage runs: `tell` when a record begins and when it ends, `close` once at the end of all."""

    def __init__(self, places: Places | None, tz: ZoneInfo, store: Store, namespace: str) -> None:
        self._places = places
        self._tz = tz
        self._store = store
        self._namespace = namespace
        self._records: queue.SimpleQueue[Record | None] = queue.SimpleQueue()
        self._warned = False
        self._thread = threading.Thread(target=self._send_all, name=_THREAD, daemon=True)

    def tell(self, record: Record) -> None:
        """Have the event of the record as it is now sent, after those before it."""
        if not self._thread.is_alive():
            self._thread.start()
        self._records.put(record.model_copy(deep=True))

    def close(self) -> None:
        """Wait until all was sent, but not for long."""
        if not self._thread.is_alive():
            return
        self._records.put(None)
        self._thread.join(PATIENCE)
        if self._thread.is_alive():
            self._warn(f"the backend has not taken it within {PATIENCE:.0f} s")

    def _send_all(self) -> None:
        client = None
        while (record := self._records.get()) is not None:
            with self._warning():
                client = client or _client()
                client.emit(self._event(record))
        with self._warning():
            if client is not None:
                client.close(PATIENCE)

    @contextmanager
    def _warning(self) -> Iterator[None]:
        """Let nothing through: whatever a transport raises, lineage fails no stage."""
        try:
            yield
        except Exception as error:  # noqa: BLE001
            self._warn(str(error) or type(error).__name__)

    def _event(self, record: Record) -> RunEvent:
        from ecomm_pipeline.lineage.plan import Where, event

        return event(record, Where(self._namespace, self._places, self._tz), self._manifest(record))

    def _manifest(self, record: Record) -> Manifest | None:
        """Read the manifest of the extract that a record names: it knows columns and files, and the record does not."""
        key = record.figures.get("manifest")
        content = self._store.get(key) if key else None
        return None if content is None else Manifest.from_json(content, key=str(key))

    def _warn(self, reason: str) -> None:
        if not self._warned:
            self._warned = True
            get_logger().warning("lineage.unsent", reason=" ".join(reason.split())[:_EXCERPT])


def _client() -> OpenLineageClient:
    """Make the client. It and its HTTP library tell each of their retries on standard error; we tell the end once."""
    logging.getLogger("openlineage").addHandler(logging.NullHandler())
    logging.getLogger("urllib3.connectionpool").addFilter(_is_not_ours)
    try:
        from openlineage.client import OpenLineageClient
    except ModuleNotFoundError as error:
        message = "openlineage-python is not installed here; an image has it when it is built with OPENLINEAGE=true"
        raise ConfigurationError(message) from error
    return OpenLineageClient()


def _is_not_ours(record: logging.LogRecord) -> bool:
    return record.threadName != _THREAD
