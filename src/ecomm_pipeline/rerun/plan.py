"""Which workflows do a part of the pipeline again, and in which order. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from ecomm_pipeline.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ecomm_pipeline.dates import DateRange

__all__ = ["PARTS", "Part", "Submission", "command", "submissions"]

Part = Literal["dlt", "dbt", "tableau", "reconcile"]

PARTS: Final[dict[Part, str]] = {
    "dlt": "dlt-update",
    "dbt": "daily-refresh",
    "tableau": "tableau-refresh",
    "reconcile": "reconcile",
}
"""The WorkflowTemplate of each part, in the order in which data goes through them."""


@dataclass(frozen=True, slots=True)
class Submission:
    """A WorkflowTemplate by name, and its arguments."""

    workflow: str
    arguments: Mapping[str, str]


def submissions(part: Part, dates: DateRange, *, select: str, onwards: bool, trigger: str) -> list[Submission]:
    """Give the workflows to run, one after the other: the part, and with `onwards` all that is behind it.

    `select` is dbt's node selection. Raises `ConfigurationError` where no dbt is run that it could be for.
    """
    parts = list(PARTS)
    chosen = parts[parts.index(part) :] if onwards else [part]
    if select and "dbt" not in chosen:
        message = f"--select names models of dbt, and {part} runs no dbt"
        raise ConfigurationError(message, next_step="leave it out, or: ecomm rerun dbt")
    return [
        Submission(
            PARTS[each],
            {"date": str(dates), "trigger": trigger, **({"select": select} if each == "dbt" and select else {})},
        )
        for each in chosen
    ]


def command(part: Part, dates: DateRange, *, select: str, onwards: bool) -> str:
    """Write the command that does the same again."""
    chosen = f" --select '{select}'" if select else ""
    return f"ecomm rerun {part} {dates}{chosen}{' --onwards' if onwards else ''}"
