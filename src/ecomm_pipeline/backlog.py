"""Which business dates a backfill has to do, and why each: pure, from the ledger's records.

A date is through when every stage has succeeded for it: the extractor for each table, then all the others, of which
one record may cover many dates. A date that is not is done as a whole, since a stage is safe to repeat.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ecomm_pipeline.layout import STAGES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from ecomm_pipeline.dates import BusinessDate, DateRange
    from ecomm_pipeline.ledger import Record

__all__ = ["MODES", "Mode", "Need", "lanes", "needed", "plan_backfill"]

Mode = Literal["missing", "failed", "all"]
MODES: tuple[Mode, ...] = ("missing", "failed", "all")
"""What a backfill takes up: dates that some stage has never succeeded for, dates of which some stage's newest try did
not succeed, or every date."""


@dataclass(frozen=True, slots=True)
class Need:
    """A business date, and why it has to be done: `reasons` are texts for people; without any it need not be."""

    date: BusinessDate
    reasons: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        """Whether the date has to be done."""
        return bool(self.reasons)

    def __str__(self) -> str:
        """Write it as `2026-01-02: extractor orders never succeeded; dlt-trigger failed (unavailable)`."""
        return f"{self.date}: {'; '.join(self.reasons) or 'nothing to do'}"


def plan_backfill(dates: DateRange, mode: Mode, records: Iterable[Record], tables: Sequence[str]) -> list[Need]:
    """Decide about every date of a range, in order; `records` are the ledger's of that range (`Ledger.of_range`)."""
    if mode == "all":
        return [Need(date, ("asked for",)) for date in dates]
    of_date: dict[BusinessDate, list[Record]] = {date: [] for date in dates}
    for record in sorted(records, key=lambda record: record.began_at):
        for date in record.dates:
            if date in of_date:
                of_date[date].append(record)
    why = _missing if mode == "missing" else _failed
    return [Need(date, tuple(why(found, tables))) for date, found in of_date.items()]


def needed(needs: Iterable[Need]) -> list[BusinessDate]:
    """Give the dates that have to be done."""
    return [need.date for need in needs if need]


def lanes(dates: Sequence[BusinessDate], count: int) -> str:
    """Deal dates to as many lists, as JSON: a workflow walks the lists at once, and each one date after the other.

    Argo's `parallelism` cannot be a parameter; the length of a list can.
    """
    dealt = [[str(date) for date in dates[lane::count]] for lane in range(max(1, count))]
    return json.dumps([lane for lane in dealt if lane])


def _missing(records: Sequence[Record], tables: Sequence[str]) -> Iterator[str]:
    if not records:
        yield "never ran"
        return
    for name, found in _parts(records, tables):
        if not any(record.outcome == "succeeded" for record in found):
            yield _story(name, found[-1]) if found else f"{name} never ran"


def _failed(records: Sequence[Record], tables: Sequence[str]) -> Iterator[str]:
    for name, found in _parts(records, tables):
        if found and found[-1].outcome in ("failed", "cancelled"):
            yield _story(name, found[-1])


def _parts(records: Sequence[Record], tables: Sequence[str]) -> Iterator[tuple[str, list[Record]]]:
    """Give what a date needs, by name, and the records of each, the newest last."""
    for stage in STAGES:
        of_stage = [record for record in records if record.stage == stage and not _partial(record)]
        if stage == "extractor":
            yield from ((f"{stage} {table}", [r for r in of_stage if r.table == table]) for table in tables)
        else:
            yield stage, of_stage


def _partial(record: Record) -> bool:
    """Tell what succeeded but proves nothing about the whole date: a build of some KPI tables, a proof up to Gold."""
    return record.outcome == "succeeded" and bool(record.figures.get("select") or record.through == "gold")


def _story(name: str, record: Record) -> str:
    return f"{name} {'has not ended' if record.outcome == 'running' else f'{record.outcome} ({record.failure_class})'}"
