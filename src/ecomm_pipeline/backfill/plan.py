"""What a backfill will do and about how long it takes, before it does it. Pure.

Which dates need it is decided in `backlog`, for this command and for the workflow alike.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import timedelta
from math import ceil
from statistics import median
from typing import TYPE_CHECKING, Any, Final

from ecomm_pipeline.backlog import needed
from ecomm_pipeline.errors import ConfigurationError, UpstreamFailedError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import datetime

    from ecomm_pipeline.backlog import Mode, Need
    from ecomm_pipeline.dates import BusinessDate, DateRange
    from ecomm_pipeline.errors import EcommError
    from ecomm_pipeline.ledger import Record

__all__ = ["Estimate", "as_dict", "command", "estimate", "in_the_way", "lines", "mode_of", "part_of", "unfinished"]

_NEVER: Final = " never ran"
"""How `backlog` ends the reason of a stage that has no record."""
_SHOWN: Final = 40
"""Dates that a plan names one by one; of more, those at its ends."""


def mode_of(*, missing: bool, failed: bool, everything: bool) -> Mode:
    """Read the three options, of which one may be given; none means `missing`."""
    given = [name for name, on in (("missing", missing), ("failed", failed), ("all", everything)) if on]
    if len(given) > 1:
        message = f"--{' and --'.join(given)} contradict each other"
        raise ConfigurationError(message, next_step="give one of them: all includes missing, missing includes failed")
    return given[0] if given else "missing"  # type: ignore[return-value]  # one of the three


@dataclass(frozen=True, slots=True)
class Estimate:
    """How long it takes: `a_date` for each date's extraction, `fixed` for what is done once; None: nobody knows."""

    a_date: timedelta | None
    fixed: timedelta | None
    runs: int

    def of(self, dates: int, parallelism: int) -> timedelta | None:
        """Give the time of so many dates, so many of them at once."""
        if self.a_date is None or self.fixed is None:
            return None
        return ceil(dates / parallelism) * self.a_date + self.fixed


def estimate(records: Iterable[Record]) -> Estimate:
    """Estimate from the ledger's records of stages that succeeded, of whatever dates.

    The tables of a date are extracted at once, so the slowest counts. What is done once is taken at its median, however
    many dates it was for: a large range takes longer.
    """
    extractions: dict[tuple[str, str], float] = defaultdict(float)
    others: dict[str, list[float]] = defaultdict(list)
    for record in records:
        if record.outcome != "succeeded" or record.seconds is None:
            continue
        if record.stage == "extractor":
            place = (record.run_id, str(record.first_date))
            extractions[place] = max(extractions[place], record.seconds)
        else:
            others[record.step].append(record.seconds)
    if not extractions or not others:
        return Estimate(None, None, 0)
    fixed = sum(median(seconds) for seconds in others.values())
    runs = max(len(seconds) for seconds in others.values())
    return Estimate(timedelta(seconds=median(extractions.values())), timedelta(seconds=fixed), runs)


def in_the_way(records: Iterable[Record], now: datetime, *, limit: timedelta) -> Record | None:
    """Give the stage of a nightly run that is going on, if one is: a backfill waits for it.

    A record that is older than `limit` and still says `running` is of a process that is gone.
    """
    going_on = [
        record
        for record in records
        if record.trigger == "cron" and record.outcome == "running" and now - record.began_at < limit
    ]
    return max(going_on, key=lambda record: record.began_at, default=None)


def part_of(dates: Sequence[BusinessDate], expected: Estimate, parallelism: int, free: timedelta) -> int:
    """Give how many of the dates may be done before the nightly run begins, which is in `free`; at least one.

    All of them where nobody knows how long it takes, or it is soon done.
    """
    whole = expected.of(len(dates), parallelism)
    if whole is None or whole <= free or expected.a_date is None or expected.fixed is None:
        return len(dates)
    rounds = int((free - expected.fixed) / expected.a_date) if expected.a_date else 0
    return max(1, min(len(dates), rounds * parallelism))


def unfinished(before: Sequence[BusinessDate], after: Sequence[Need]) -> EcommError | None:
    """Compare what was to be done with what the ledger says now; planned has to be done, or it is an error."""
    still = {need.date: need for need in after if need}
    left = [still[date] for date in before if date in still]
    if not left:
        return None
    more = f"; and {len(left) - 1} more" if len(left) > 1 else ""
    message = f"{len(left)} of {len(before)} dates are not done: {left[0]}{more}"
    return UpstreamFailedError(message, next_step=f"ecomm doctor {left[0].date}")


def lines(needs: Sequence[Need], mode: Mode, expected: Estimate, parallelism: int, *, where: str) -> Iterator[str]:
    """Write the plan for people."""
    todo = [need for need in needs if need]
    if not todo:
        reason = "every stage has succeeded" if mode == "missing" else "no stage's newest try failed"
        yield f"nothing to do: {reason} for all {len(needs)} dates"
        return
    shown = todo if len(todo) <= _SHOWN else [*todo[: _SHOWN // 2], *todo[-_SHOWN // 2 :]]
    for number, need in enumerate(shown):
        if len(shown) < len(todo) and number == _SHOWN // 2:
            yield f"  … {len(todo) - len(shown)} more …"
        yield f"  {need.date}: {_why(need)}"
    time = expected.of(len(todo), parallelism)
    about = f"about {span(time)}, by {expected.runs} runs of the ledger" if time else "the ledger cannot tell how long"
    yield f"{len(todo)} of {len(needs)} dates, {parallelism} at once, {where}: {about}"


def _why(need: Need) -> str:
    """Write a date's reasons, those together that are alike: `dlt-trigger, dbt-runner never ran`."""
    of_story: dict[str, list[str]] = defaultdict(list)
    for reason in need.reasons:
        name, same, _ = reason.partition(_NEVER)
        of_story[_NEVER if same else reason].append(name)
    never = of_story.pop(_NEVER, [])
    return "; ".join([*of_story, *([", ".join(never) + _NEVER] if never else [])])


def as_dict(needs: Sequence[Need], mode: Mode, expected: Estimate, parallelism: int) -> dict[str, Any]:
    """Give the plan as `--json` writes it."""
    todo = needed(needs)
    time = expected.of(len(todo), parallelism) if todo else timedelta(0)
    return {
        "mode": mode,
        "dates": [{"date": str(need.date), "reasons": list(need.reasons)} for need in needs if need],
        "skipped": len(needs) - len(todo),
        "seconds": None if time is None else round(time.total_seconds(), 1),
    }


def command(dates: DateRange, mode: Mode) -> str:
    """Write the command that does the same again."""
    return f"ecomm backfill {dates} --{mode}"


def span(time: timedelta) -> str:
    """Write a length of time: `40 s`, `12 min`, `3 h 20 min`."""
    seconds = int(time.total_seconds())
    if seconds < 120:  # noqa: PLR2004 (two minutes)
        return f"{seconds} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"  # noqa: PLR2004
