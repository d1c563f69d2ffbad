"""What survives a restart: pipelines, their updates and their event logs, as JSON lines in one folder each."""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

FINAL_STATES = frozenset({"COMPLETED", "FAILED", "CANCELED"})


def now_text() -> str:
    """This instant as the event log writes it, to the millisecond."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


class PipelineStore:
    """One pipeline's folder."""

    def __init__(self, folder: Path) -> None:
        """Read what is there; an update that was running when the process was killed becomes FAILED."""
        self.folder = folder
        self._lock = threading.RLock()
        self._number = 0
        folder.mkdir(parents=True, exist_ok=True)
        self.spec: dict[str, Any] = _read_json(folder / "spec.json") or {}
        self.updates: dict[str, dict[str, Any]] = {}
        for line in _lines(folder / "updates.jsonl"):
            self.updates[line["update_id"]] = line
        self.events: list[dict[str, Any]] = list(_lines(folder / "events.jsonl"))
        for update in [u for u in self.updates.values() if u["state"] not in FINAL_STATES]:
            message = "The process that ran the update was stopped."
            error = {"fatal": True, "exceptions": [{"class_name": "ProcessStopped", "message": message}]}
            details = {"update_progress": {"state": "FAILED"}}
            self.event(update["update_id"], "update_progress", message, level="ERROR", details=details, error=error)
            self.change(update["update_id"], state="FAILED")

    @property
    def pipeline_id(self) -> str:
        """The pipeline's id."""
        return self.folder.name

    def write_spec(self, spec: dict[str, Any]) -> None:
        """Replace the pipeline's settings."""
        partial = self.folder / "spec.tmp"
        partial.write_text(json.dumps(spec, indent=1), encoding="utf-8")
        partial.replace(self.folder / "spec.json")
        self.spec = spec

    def change(self, update_id: str, **fields: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
        """Write an update's new fields; returns the whole of it."""
        with self._lock:
            update = {**self.updates.get(update_id, {}), **fields, "update_id": update_id}
            _append(self.folder / "updates.jsonl", update)
            self.updates[update_id] = update
            return update

    def event(
        self,
        update_id: str | None,
        event_type: str,
        message: str,
        *,
        level: str = "INFO",
        details: dict[str, Any] | None = None,
        error: dict[str, Any] | None = None,
        origin: dict[str, str] | None = None,
    ) -> None:
        """Append to the event log.

        https://docs.databricks.com/ldp/monitor-event-log-schema
        """
        with self._lock:
            self._number = max(self._number + 1, time.time_ns() // 1_000_000)
            where = {
                "cloud": "sandbox",
                "pipeline_id": self.pipeline_id,
                "pipeline_name": self.spec.get("name", ""),
                "pipeline_type": "WORKSPACE",
                **({"update_id": update_id} if update_id else {}),
                **(origin or {}),
            }
            event = {
                "id": str(uuid.uuid4()),
                "sequence": {"control_plane_seq_no": self._number},
                "origin": where,
                "timestamp": now_text(),
                "message": message,
                "level": level,
                "maturity_level": "STABLE",
                "event_type": event_type,
                **({"error": error} if error else {}),
                "details": details or {},
            }
            _append(self.folder / "events.jsonl", event)
            self.events.append(event)

    def active(self) -> dict[str, Any] | None:
        """The update that is not over, if there is one."""
        with self._lock:
            return next((u for u in reversed(self.updates.values()) if u["state"] not in FINAL_STATES), None)

    def newest_first(self) -> list[dict[str, Any]]:
        """All updates."""
        with self._lock:
            return list(reversed(self.updates.values()))

    def delete(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None


def _lines(path: Path) -> list[dict[str, Any]]:
    """The file's objects; a last line that a kill cut short is left out, and cut off so that appends stay readable."""
    if not path.is_file():
        return []
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        os.truncate(path, len(whole))
    return [json.loads(line) for line in whole.splitlines() if line]


def _append(path: Path, item: dict[str, Any]) -> None:
    with path.open("a", encoding="utf-8") as out:
        out.write(json.dumps(item, ensure_ascii=False) + "\n")
