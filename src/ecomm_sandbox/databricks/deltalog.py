"""What a Delta table's own log says about it, read without Spark: schema, comments, properties, commit times.

The log's format: https://github.com/delta-io/delta/blob/master/PROTOCOL.md
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence


@dataclass(frozen=True, slots=True)
class Column:
    """A column as the log describes it; `json_type` is Spark's JSON form of the type."""

    name: str
    json_type: Any
    nullable: bool
    comment: str | None


@dataclass(frozen=True, slots=True)
class TableState:
    """A table at its newest version; times are milliseconds since 1970."""

    version: int
    columns: tuple[Column, ...]
    comment: str | None
    partition_columns: tuple[str, ...]
    properties: dict[str, str] = field(hash=False)
    created_ms: int = 0
    modified_ms: int = 0


def versions(table: Path) -> list[int]:
    """The versions whose commit files exist, ascending; empty when the folder is no Delta table."""
    log = table / "_delta_log"
    if not log.is_dir():
        return []
    return sorted(int(path.stem) for path in log.glob("*.json") if path.stem.isdigit())


def read(table: Path) -> TableState | None:
    """The table's state, or None when the folder holds no complete Delta table."""
    found = versions(table)
    return _read(str(table), found[-1], tuple(found), table.stat().st_ino) if found else None


@lru_cache(maxsize=512)
def _read(table: str, version: int, found: tuple[int, ...], _inode: int) -> TableState | None:
    log = Path(table) / "_delta_log"
    modified = 0
    for action in _actions(log / f"{version:020d}.json"):
        modified = int((action.get("commitInfo") or {}).get("timestamp") or modified)
    metadata = _metadata(log, found)
    return _state(metadata, version, modified) if metadata else None


def _metadata(log: Path, found: Sequence[int]) -> dict[str, Any]:
    """The newest metadata action; empty when the log's beginning is gone."""
    for number in reversed(found):
        newest: dict[str, Any] = {}
        for action in _actions(log / f"{number:020d}.json"):
            newest = action.get("metaData", newest)
        if newest:
            return newest
    return {}


def _actions(commit: Path) -> Iterator[dict[str, Any]]:
    with commit.open(encoding="utf-8") as lines:
        for line in lines:
            if line.strip():
                yield json.loads(line)


def _state(metadata: dict[str, Any], version: int, modified: int) -> TableState:
    columns = tuple(
        Column(
            item["name"],
            item["type"],
            bool(item.get("nullable", True)),
            (item.get("metadata") or {}).get("comment"),
        )
        for item in json.loads(metadata["schemaString"])["fields"]
    )
    created = int(metadata.get("createdTime") or modified)
    return TableState(
        version=version,
        columns=columns,
        comment=metadata.get("description"),
        partition_columns=tuple(metadata.get("partitionColumns") or ()),
        properties=dict(metadata.get("configuration") or {}),
        created_ms=created,
        modified_ms=modified or created,
    )


def change_columns(table: Path, *, required: tuple[str, ...] = (), comments: Mapping[str, str] | None = None) -> None:
    """Commit, in one version, which columns become NOT NULL and new comments; the data are not checked here.

    Spark has no statement that makes a column NOT NULL in Delta, and its COMMENT takes a third of a second a column.
    A commit is a new file of the log that must not exist yet, so a concurrent commit is never overwritten.
    Raises `KeyError` when the table has no such column.
    """
    while True:
        version = versions(table)[-1]
        metadata = _metadata(table / "_delta_log", versions(table))
        schema = json.loads(metadata["schemaString"])
        entries = {item["name"].lower(): item for item in schema["fields"]}
        for column in required:
            entries[column.lower()]["nullable"] = False
        for column, comment in (comments or {}).items():
            entry = entries[column.lower()]
            entry["metadata"] = {**(entry.get("metadata") or {}), "comment": comment}
        changed = {**metadata, "schemaString": json.dumps(schema)}
        if changed == metadata or _commit(table / "_delta_log", version + 1, changed):
            return


def _commit(log: Path, version: int, metadata: dict[str, Any]) -> bool:
    """Add a version that changes the metadata only; False when another writer was first."""
    now = time.time_ns() // 1_000_000
    info = {"timestamp": now, "operation": "CHANGE COLUMN", "operationParameters": {}, "readVersion": version - 1}
    info |= {"isBlindAppend": True, "operationMetrics": {}, "engineInfo": "ecomm-sandbox"}
    partial = log / f".{version}.{now}.tmp"
    partial.write_text(json.dumps({"commitInfo": info}) + "\n" + json.dumps({"metaData": metadata}) + "\n", "utf-8")
    try:
        (log / f"{version:020d}.json").hardlink_to(partial)
    except FileExistsError:
        return False
    finally:
        partial.unlink()
    return True


def last_output_rows(table: Path) -> int | None:
    """How many rows the newest commit wrote, by its own metrics."""
    found = versions(table)
    if not found:
        return None
    for action in _actions(table / "_delta_log" / f"{found[-1]:020d}.json"):
        metrics = (action.get("commitInfo") or {}).get("operationMetrics") or {}
        if "numOutputRows" in metrics:
            return int(metrics["numOutputRows"])
    return None
