"""The gate before dbt: DailyRefresh does not begin before 05:00 of the day after the business date."""

from __future__ import annotations

from datetime import time  # noqa: TC003
from typing import TYPE_CHECKING, Final

from ecomm_pipeline.logs import get_logger
from ecomm_pipeline.stage import stop_on_signals

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

    from ecomm_pipeline.clock import Clock
    from ecomm_pipeline.dates import BusinessDate

__all__ = ["wait_until"]

_LOOK: Final = 30.0
"""Seconds between two looks at the clock: a machine that slept, or whose clock was set, is noticed."""


def wait_until(date: BusinessDate, not_before: time | None, tz: ZoneInfo, clock: Clock) -> None:
    """Return once it is `not_before`, in `tz`, on the day after `date`; at once when that is None."""
    opens = date.plus(1).at(not_before, tz) if not_before else clock.now()
    left = (opens - clock.now()).total_seconds()
    get_logger().info("gate.open" if left <= 0 else "gate.waiting", opens=opens, seconds=max(0, round(left)))
    with stop_on_signals():
        while (left := (opens - clock.now()).total_seconds()) > 0:
            clock.sleep(min(left, _LOOK))
