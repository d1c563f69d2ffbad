"""What a backfill will do and about how long it takes, before it does it. Pure.

Which dates need it is decided in `backlog`, for this command and for the workflow alike.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import timedelta
from math import ceil
from statistics import linear_regression, median
from typing import TYPE_CHECKING, Any, Final

from ecomm_pipeline.backlog import needed
from ecomm_pipeline.dates import DateRange
from ecomm_pipeline.errors import ConfigurationError, UpstreamFailedError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

    from ecomm_pipeline.backlog import Mode, Need
    from ecomm_pipeline.dates import BusinessDate
    from ecomm_pipeline.errors import EcommError
    from ecomm_pipeline.ledger import Record

__all__ = [
    "Estimate",
    "as_dict",
    "command",
    "ended",
    "estimate",
    "in_the_way",
    "lines",
    "mode_of",
    "part_of",
    "unfinished",
]

_NEVER: Final = " never ran"
"""How `backlog` ends the reason of a stage that has no record."""
_SHOWN: Final = 40
"""Lines of a plan; of more, those at its ends."""


def mode_of(*, missing: bool, failed: bool, everything: bool) -> Mode:
    """Read the three options, of which one may be given; none means `missing`."""
    given = [name for name, on in (("missing", missing), ("failed", failed), ("all", everything)) if on]
    if len(given) > 1:
        message = f"--{' and --'.join(given)} contradict each other"
        raise ConfigurationError(message, next_step="give one of them: all includes missing, missing includes failed")
    return given[0] if given else "missing"  # type: ignore[return-value]  # one of the three


@dataclass(frozen=True, slots=True)
class Estimate:
    """How long it takes; `a_date` None: nobody knows.

    `a_date` is each date's extraction; what is done for all dates at once takes `fixed`, and `each` for each of them.
    """

    a_date: timedelta | None
    fixed: timedelta
    runs: int
    each: timedelta = timedelta(0)

    def of(self, dates: int, parallelism: int) -> timedelta | None:
        """Give the time of so many dates, so many of them at once."""
        if self.a_date is None:
            return None
        return ceil(dates / parallelism) * self.a_date + self.fixed + dates * self.each


def estimate(records: Iterable[Record]) -> Estimate:
    """Estimate from the ledger's records of stages that succeeded, of whatever dates.

    The tables of a date are extracted at once, so the slowest counts. What is done once grows with its dates as it did
    where the ledger has runs of several lengths, and else not at all: then a large range takes longer.
    """
    extractions: dict[tuple[str, str], float] = defaultdict(float)
    others: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        if record.outcome != "succeeded" or record.seconds is None:
            continue
        if record.stage == "extractor":
            place = (record.run_id, str(record.first_date))
            extractions[place] = max(extractions[place], record.seconds)
        else:
            others[record.step][len(record.dates)].append(record.seconds)
    if not extractions or not others:
        return Estimate(None, timedelta(0), 0)
    growths = [_growth(of_step) for of_step in others.values()]
    runs = max(sum(map(len, of_step.values())) for of_step in others.values())
    return Estimate(
        timedelta(seconds=median(extractions.values())),
        timedelta(seconds=sum(fixed for fixed, _ in growths)),
        runs,
        timedelta(seconds=sum(each for _, each in growths)),
    )


def _growth(of_step: Mapping[int, list[float]]) -> tuple[float, float]:
    """Give the seconds that a step takes anyway, and for each date; by the seconds of its runs by number of dates."""
    middle = {dates: median(seconds) for dates, seconds in of_step.items()}
    if len(middle) > 1:
        each, fixed = linear_regression(list(middle), list(middle.values()))
        if each > 0:
            return max(0.0, fixed), each
    return median(seconds for all_of_length in of_step.values() for seconds in all_of_length), 0.0


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
    fits = (count for count in range(len(dates), 0, -1) if (expected.of(count, parallelism) or free) <= free)
    return next(fits, 1)


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
        of = "the date" if len(needs) == 1 else f"all {len(needs)} dates"
        yield f"nothing to do: {reason} for {of}"
        return
    told = list(_together(todo))
    for number, text in enumerate(told):
        if _SHOWN // 2 <= number < len(told) - _SHOWN // 2:
            if number == _SHOWN // 2:
                yield f"  … {len(told) - _SHOWN} more lines …"
            continue
        yield text
    time = expected.of(len(todo), parallelism)
    by = f"{expected.runs} run{'' if expected.runs == 1 else 's'} of the ledger"
    about = f"about {span(time)}, by {by}" if time else "the ledger cannot tell how long"
    yield f"{len(todo)} of {_dates(len(needs))}, {parallelism} at once, {where}: {about}"


def _dates(count: int) -> str:
    return f"{count} date{'' if count == 1 else 's'}"


def _together(needs: Iterable[Need]) -> Iterator[str]:
    """Write a line for dates that follow each other with the same reasons."""
    first: Need | None = None
    last: Need | None = None
    for need in needs:
        if first and last and need.date == last.date.plus(1) and need.reasons == first.reasons:
            last = need
            continue
        if first and last:
            yield _line(first, last)
        first = last = need
    if first and last:
        yield _line(first, last)


def _line(first: Need, last: Need) -> str:
    dates = str(first.date) if first is last else f"{first.date}..{last.date}"
    return f"  {dates}: {_why(first)}"


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


def ended(dates: DateRange, yesterday: BusinessDate) -> tuple[DateRange, str]:
    """Leave out the dates that have not ended, whose rows are not all there; and say so.

    Raises `ConfigurationError` when none has.
    """
    if dates.last <= yesterday:
        return dates, ""
    if dates.first > yesterday:
        message = f"{dates} {'has' if dates.first == dates.last else 'have'} not ended"
        raise ConfigurationError(message, next_step=f"give dates up to {yesterday}")
    left_out = DateRange(yesterday.plus(1), dates.last)
    return DateRange(dates.first, yesterday), f"{left_out} not ended yet: left out"


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
