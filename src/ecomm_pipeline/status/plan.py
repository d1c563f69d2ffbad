"""What `ecomm status` shows of the ledger's records: which of them count, and the table that they make."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import date

    from ecomm_pipeline.ledger import Outcome, Record

__all__ = ["Cell", "as_json", "as_table", "cell_of", "newest"]

_WORST_FIRST: tuple[Outcome, ...] = ("failed", "cancelled", "running", "succeeded")


@dataclass(frozen=True, slots=True)
class Cell:
    """A stage of a date: its worst outcome over its tables, its time from first to last, its rows together."""

    outcome: Outcome
    seconds: float | None
    rows: int | None

    def __str__(self) -> str:
        """Write it as `ok 12.3s 1 234`; the outcome alone when it did not end well."""
        if self.outcome != "succeeded":
            return self.outcome
        rows = "" if self.rows is None else f" {self.rows:,}".replace(",", " ")
        return f"ok {self.seconds or 0:.1f}s{rows}"


def newest(records: Iterable[Record]) -> list[Record]:
    """Keep the newest record of each stage and table of a date, in the order in which they began.

    Of a run's two proofs the later one counts, which proves all that the earlier one did.
    """
    chosen: dict[tuple[str, str | None], Record] = {}
    for record in sorted(records, key=lambda record: record.began_at):
        chosen.pop((record.stage, record.table), None)
        chosen[record.stage, record.table] = record
    return list(chosen.values())


def cell_of(records: Sequence[Record]) -> Cell:
    """Sum up the records of one stage of a date (the extractor has one a table)."""
    ends = [record.ended_at for record in records if record.ended_at]
    rows = [record.rows_out for record in records if record.rows_out is not None]
    began = min(record.started_at for record in records)
    return Cell(
        outcome=min((record.outcome for record in records), key=_WORST_FIRST.index),
        seconds=(max(ends) - began).total_seconds() if len(ends) == len(records) else None,
        rows=sum(rows) if rows else None,
    )


def as_table(days: Mapping[date, Sequence[Record]]) -> list[str]:
    """Give the lines of a table of dates × stages, and below it what failed and what was found, with what to do.

    The columns are the stages that there are records of, in the order in which the newest date went through them.
    """
    stages = _stages(days)
    header = ["date", *stages, "findings"]
    rows = [
        [str(day), *(_cell(records, stage) for stage in stages), _findings(records)] for day, records in days.items()
    ]
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = [
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        for row in [header, *rows]
    ]
    notes = [note for day, records in days.items() for record in records for note in _notes(day, record)]
    return [*lines, *([""] if notes else []), *notes]


def as_json(days: Mapping[date, Sequence[Record]]) -> list[dict[str, Any]]:
    """Give one object for each date, stage and table: the ledger's record with its date and its seconds."""
    return [
        {"date": str(day), "seconds": record.seconds, **record.model_dump(mode="json", exclude={"version"})}
        for day, records in days.items()
        for record in records
    ]


def _stages(days: Mapping[date, Sequence[Record]]) -> list[str]:
    newest_first = (record.stage for day in sorted(days, reverse=True) for record in days[day])
    return list(dict.fromkeys(newest_first))


def _cell(records: Sequence[Record], stage: str) -> str:
    of_stage = [record for record in records if record.stage == stage]
    return str(cell_of(of_stage)) if of_stage else "-"


def _findings(records: Sequence[Record]) -> str:
    count = sum(len(record.findings) for record in records)
    return str(count) if count else "-"


def _notes(day: date, record: Record) -> Iterable[str]:
    name = f"{day} {record.stage}{f' {record.table}' if record.table else ''}"
    if record.outcome in ("failed", "cancelled"):
        yield f"{name}: {record.failure_class}: {record.error}{f'; {record.next_step}' if record.next_step else ''}"
    for finding in record.findings:
        yield f"{name}: {finding.priority} {finding.kind}: {finding.message}"
