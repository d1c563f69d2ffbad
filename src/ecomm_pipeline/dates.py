"""The business date: the day that is processed, in the zone of the business.

It is a type of its own, so that it cannot be taken for a date in UTC. The run at 01:00 in Ho Chi Minh City is at
18:00 UTC *of the day before*, and processes the day that just ended there: cutting ten characters off the scheduled
time gives the right answer for that hour and zone only, by luck, so the date is always computed from an instant and a
zone.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from ecomm_pipeline.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["BusinessDate", "DateRange", "Window", "parse_dates", "zone"]

_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True, order=True)
class BusinessDate:
    """A day of the business."""

    day: date

    def __str__(self) -> str:
        """Write it as `2026-01-02`."""
        return self.day.isoformat()

    def plus(self, days: int) -> BusinessDate:
        """Give the business date that many days later (earlier, when negative)."""
        return BusinessDate(self.day + timedelta(days=days))

    def starts(self, tz: ZoneInfo) -> datetime:
        """Give the instant at which the day begins in `tz`, in UTC."""
        return self.at(time(), tz)

    def at(self, moment: time, tz: ZoneInfo) -> datetime:
        """Give the instant of a time of this day in `tz`, in UTC."""
        return datetime.combine(self.day, moment, tzinfo=tz).astimezone(UTC)

    def window(self, tz: ZoneInfo, lookback: timedelta = timedelta(0)) -> Window:
        """Give the window of `updated_at` that belongs to the day, widened backwards by `lookback` for late commits."""
        return Window(self.starts(tz) - lookback, self.plus(1).starts(tz))

    @classmethod
    def of(cls, instant: datetime, tz: ZoneInfo) -> BusinessDate:
        """Give the business date that an instant falls in.

        Raises `ConfigurationError` for an instant without a zone.
        """
        if instant.tzinfo is None:
            message = f"{instant.isoformat()} has no time zone, so its business date is not known"
            raise ConfigurationError(message, next_step="write it with its offset, as in 2026-01-03T01:00:00+07:00")
        return cls(instant.astimezone(tz).date())


@dataclass(frozen=True, slots=True)
class Window:
    """A half-open interval `[since, until)` of instants in UTC."""

    since: datetime
    until: datetime


@dataclass(frozen=True, slots=True)
class DateRange:
    """Business dates from `first` to `last`, both included."""

    first: BusinessDate
    last: BusinessDate

    def __post_init__(self) -> None:
        """Refuse a range that ends before it begins."""
        if self.last < self.first:
            message = f"the range {self.first}..{self.last} ends before it begins"
            raise ConfigurationError(message, next_step=f"write it as {self.last}..{self.first}")

    def __iter__(self) -> Iterator[BusinessDate]:
        """Go through the dates in order."""
        return (self.first.plus(days) for days in range(len(self)))

    def __len__(self) -> int:
        """Count the dates."""
        return (self.last.day - self.first.day) // _DAY + 1

    def __contains__(self, date_: BusinessDate) -> bool:
        """Tell whether a date is in the range."""
        return self.first <= date_ <= self.last

    def __str__(self) -> str:
        """Write one date as itself and more as `FROM..TO`, as `parse_dates` reads it."""
        return str(self.first) if self.first == self.last else f"{self.first}..{self.last}"

    @property
    def only(self) -> BusinessDate:
        """The date of a range of one. Raises `ConfigurationError` for more."""
        if self.first != self.last:
            message = f"one date is wanted, and {self} is {len(self)}"
            raise ConfigurationError(message, next_step="run it once for each date")
        return self.first


def zone(name: str) -> ZoneInfo:
    """Find an IANA time zone. Raises `ConfigurationError` when there is none of that name."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        message = f"ECOMM_BUSINESS_TIMEZONE: no time zone is called {name!r}"
        raise ConfigurationError(message, next_step="use an IANA name such as Asia/Ho_Chi_Minh") from error


def parse_dates(text: str, tz: ZoneInfo) -> DateRange:
    """Read `2026-01-02`, `2026-01-02..2026-01-31`, or the instant a run was scheduled for.

    An instant (RFC 3339, as Argo's `workflow.scheduledTime`) means the business day before the one it falls in.
    Raises `ConfigurationError` for anything else, and by name for a `{{…}}` that nobody resolved.
    """
    text = text.strip()
    if "{{" in text:
        message = f"the date is still the placeholder {text!r}: the workflow did not fill it in"
        raise ConfigurationError(message, next_step="submit with -p date=YYYY-MM-DD")
    first, dots, last = text.partition("..")
    if dots:
        return DateRange(_parse_day(first), _parse_day(last))
    if re.fullmatch(r"\d{4}-\d{2}-\d{2}[T ].+", text):
        day = BusinessDate.of(_parse_instant(text), tz).plus(-1)
        return DateRange(day, day)
    return DateRange(_parse_day(text), _parse_day(text))


def _parse_day(text: str) -> BusinessDate:
    try:
        if re.fullmatch(r"\d{4}-\d{2}-\d{2}", text):
            return BusinessDate(date.fromisoformat(text))
        reason = "it is not of the form YYYY-MM-DD"
    except ValueError as error:
        reason = str(error)
    message = f"{text!r} is not a date: {reason}"
    raise ConfigurationError(message, next_step="write 2026-01-02, or 2026-01-02..2026-01-31")


def _parse_instant(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError as error:
        message = f"{text!r} is not an instant: {error}"
        raise ConfigurationError(message, next_step="write it as 2026-01-02T01:00:00+07:00") from error
