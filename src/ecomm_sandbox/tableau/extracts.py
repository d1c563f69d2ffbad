"""Extracts: copies of KPI tables, read through the SQL warehouse and kept as files, so that they can be stale."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from ecomm_sandbox.databricks_service import CATALOG, execute

if TYPE_CHECKING:
    from datetime import timedelta
    from pathlib import Path

    from ecomm_sandbox.state import Home

__all__ = ["Extract", "read", "take"]


@dataclass(frozen=True, slots=True)
class Extract:
    """What is known of an extract: when it was taken, how many rows it has, and the latest date in any column."""

    refreshed_at: datetime
    rows: int
    max_date: str | None

    def as_dict(self) -> dict[str, Any]:
        """Give it as JSON."""
        return {"refreshed_at": self.refreshed_at.isoformat(), "rows": self.rows, "max_date": self.max_date}


def take(home: Home, table: str, file: Path, age: timedelta) -> Extract:
    """Copy a KPI table to a file; the old copy stays until the new one is whole. Raises `SandboxError`.

    `age` is how old it is said to be.
    """
    now = datetime.now(UTC) - age
    columns, rows = execute(home.read(), f"SELECT * FROM `{CATALOG}`.`kpi`.`{table}`")
    dates = [index for index, (_, kind) in enumerate(columns) if kind == "DATE"]
    latest = max((row[index] for row in rows for index in dates if row[index] is not None), default=None)
    extract = Extract(now, len(rows), latest)
    file.parent.mkdir(parents=True, exist_ok=True)
    new = file.with_suffix(".new")
    with new.open("w", encoding="utf-8") as handle:
        json.dump({**extract.as_dict(), "table": table, "columns": columns, "data": rows}, handle)
    new.replace(file)
    return extract


def read(file: Path) -> Extract | None:
    """Tell about the extract in a file; None when there is none."""
    try:
        with file.open(encoding="utf-8") as handle:
            kept = json.load(handle)
    except FileNotFoundError:
        return None
    return Extract(datetime.fromisoformat(kept["refreshed_at"]), kept["rows"], kept["max_date"])


def stamp(moment: datetime) -> str:
    """Write an instant as Tableau does, in whole seconds: its client reads no others."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
