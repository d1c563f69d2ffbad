"""The runs of the page: a row each, and the newest one's timeline. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from ecomm_pipeline.report.page import Bar, Lane, Phase, RunRow, Tick, Timeline
from ecomm_pipeline.report.words import OUTCOME_TONE, moment_text, span, stage_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from zoneinfo import ZoneInfo

    from ecomm_pipeline.ledger import Record
    from ecomm_pipeline.report.page import Tone

__all__ = ["EXPECTED", "Run", "run_row", "runs_of", "timeline"]

EXPECTED: Final[tuple[tuple[str, tuple[str, ...], float, float], ...]] = (
    ("Extraction and DLT", ("extractor", "dlt-trigger"), 7200, 9000),
    ("dbt", ("dbt-runner",), 1200, 1200),
    ("Tableau", ("tableau-refresher",), 1800, 1800),
)
"""The runbook's expectations: phase, its stages, seconds from and to."""


@dataclass(frozen=True, slots=True)
class Run:
    """The records of one run."""

    run_id: str
    records: tuple[Record, ...]

    @property
    def began(self) -> datetime:
        """When its first record began."""
        return min(record.started_at for record in self.records)

    @property
    def ended(self) -> datetime:
        """When its last record ended, or began where it has not ended."""
        return max(record.ended_at or record.started_at for record in self.records)

    @property
    def seconds(self) -> float:
        """How long it took."""
        return (self.ended - self.began).total_seconds()

    @property
    def outcome(self) -> str:
        """The worst outcome of its records."""
        outcomes = {record.outcome for record in self.records}
        return next((one for one in ("failed", "cancelled", "running") if one in outcomes), "succeeded")


def runs_of(records: Sequence[Record]) -> list[Run]:
    """Group records by run, newest first."""
    grouped: dict[str, list[Record]] = {}
    for record in records:
        grouped.setdefault(record.run_id, []).append(record)
    runs = [Run(run_id, tuple(of_run)) for run_id, of_run in grouped.items()]
    return sorted(runs, key=lambda run: run.began, reverse=True)


def run_row(run: Run, tz: ZoneInfo, now: datetime) -> RunRow:
    """Give the row of a run."""
    first = min(record.first_date for record in run.records)
    last = max(record.last_date for record in run.records)
    done = sum(record.outcome == "succeeded" for record in run.records)
    took = (now - run.began).total_seconds() if run.outcome == "running" else run.seconds
    return RunRow(
        run.run_id,
        str(first) if first == last else f"{first} – {last}",
        run.records[0].trigger,
        moment_text(run.began, tz),
        span(took),
        f"{done} of {len(run.records)}",
        OUTCOME_TONE[run.outcome],
        run.outcome,
    )


def timeline(run: Run, tz: ZoneInfo, now: datetime) -> Timeline:
    """Give the timeline of a run: a lane for each step and table."""
    end = max(run.ended, min(now, run.ended + timedelta(hours=6))) if run.outcome == "running" else run.ended
    total = max((end - run.began).total_seconds(), 0.001)
    lanes: dict[tuple[str, str | None], list[Record]] = {}
    for record in sorted(run.records, key=lambda record: record.started_at):
        lanes.setdefault((record.step, record.table), []).append(record)
    return Timeline(
        run.run_id,
        moment_text(run.began, tz),
        span(total),
        tuple(_lane(records, run.began, total, end) for records in lanes.values()),
        tuple(_ticks(run.began, total, tz)),
        tuple(_phases(run)),
    )


def _lane(records: Sequence[Record], began: datetime, total: float, end: datetime) -> Lane:
    first = records[0]
    bars = tuple(_bar(record, began, total, end) for record in records)
    took = sum(((record.ended_at or end) - record.began_at).total_seconds() for record in records)
    tones = [OUTCOME_TONE[record.outcome] for record in records]
    tone = next((one for one in ("bad", "warn", "busy") if one in tones), "good")
    many = f"{len(records)}×" if len(records) > 1 else ""
    return Lane(first.step, " ".join(filter(None, (first.table, many))), tone, span(took), bars)  # type: ignore[arg-type]


def _bar(record: Record, began: datetime, total: float, end: datetime) -> Bar:
    seconds = ((record.ended_at or end) - record.began_at).total_seconds()
    left = 100 * (record.began_at - began).total_seconds() / total
    title = f"{stage_name(record)}, {record.dates}: {record.outcome}, {span(seconds)}"
    return Bar(round(left, 3), round(100 * seconds / total, 3), OUTCOME_TONE[record.outcome], title)


_STEPS: Final = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400)


def _ticks(began: datetime, total: float, tz: ZoneInfo) -> Iterator[Tick]:
    """Mark three to five round times of the day."""
    step = next((step for step in _STEPS if total / step <= 4), _STEPS[-1])  # noqa: PLR2004
    local = began.astimezone(tz)
    midnight = local.replace(hour=0, minute=0, second=0, microsecond=0)
    first = -(-(local - midnight).total_seconds() // step) * step
    moment = midnight + timedelta(seconds=first)
    layout = "%H:%M" if step >= 60 else "%H:%M:%S"  # noqa: PLR2004
    while (left := 100 * (moment - local).total_seconds() / total) <= 100:  # noqa: PLR2004
        yield Tick(round(left, 3), moment.strftime(layout))
        moment += timedelta(seconds=step)


def _phases(run: Run) -> Iterator[Phase]:
    for label, stages, low, high in EXPECTED:
        records = [record for record in run.records if record.stage in stages]
        if not records:
            continue
        ends = [record.ended_at for record in records if record.ended_at]
        took = (max(ends) - min(record.started_at for record in records)).total_seconds() if ends else 0.0
        expected = span(high) if low == high else f"{span(low)} to {span(high)}"
        tone: Tone = "bad" if took > high else "warn" if took > low else "good"
        yield Phase(label, span(took), expected, round(min(100.0, 100 * took / high), 2), tone)
