"""What is usual on a date, by the weeks before it: one definition for the metrics, the alerts and the doctor. Pure."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ecomm_pipeline.dates import BusinessDate

__all__ = ["EMPTY", "FEW", "HISTORY_DAYS", "usual"]

HISTORY_DAYS: Final = 35
"""Days before a date that tell what is usual: five of each weekday."""
FEW: Final = 3
"""Dates below which nothing is usual."""
EMPTY: Final = 0.1
"""An extract is as good as empty below this share of what is usual; the alert on it says the same."""


def usual(figures: Mapping[BusinessDate, float], date: BusinessDate) -> float | None:
    """Give the median of the same weekdays in the weeks before, or of all days where those are too few.

    `figures` are by date; those of other dates than the HISTORY_DAYS before do not count. None where too few are left.
    """
    known = {day: figures[day] for n in range(1, HISTORY_DAYS + 1) if (day := date.plus(-n)) in figures}
    same = [figure for day, figure in known.items() if day.day.weekday() == date.day.weekday()]
    if len(same) >= FEW:
        return median(same)
    return median(known.values()) if len(known) >= FEW else None
