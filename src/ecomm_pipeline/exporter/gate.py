"""What the KPI gate tells: how far KPIs moved, and what is held back until a person lets it go on. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ecomm_pipeline.kpi_gate.plan import hold_of
from ecomm_pipeline.layout import KPI_GATE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import datetime

    from ecomm_pipeline.ledger import Record

__all__ = ["held", "moves"]

Told = tuple[str, Any, dict[str, str]]
"""A metric, its value and its labels."""


def moves(date: str, records: Iterable[Record]) -> Iterator[Told]:
    """Tell how far each KPI of a date moved, by its newest verdict, and how far it may."""
    verdicts = [record for record in records if record.stage == KPI_GATE and record.figures.get("kpis")]
    newest = max(verdicts, key=lambda record: record.began_at, default=None)
    for row in newest.figures["kpis"] if newest else ():
        if row["date"] == date:
            labels = {"date": date, "kpi": str(row["kpi"])}
            yield "kpi_bound_ratio", row["bound"], labels
            yield "kpi_move_ratio", row["move"], labels


def held(days: Iterable[Sequence[Record]], since: datetime) -> Iterator[Told]:
    """Tell what is held back, each hold once, whatever number of dates it has; those from before `since` are forgotten.

    `days` are all records of each date.
    """
    holds = filter(None, map(hold_of, days))
    for record in {(record.run_id, record.first_date): record for record in holds if record.began_at >= since}.values():
        date = str(record.dates)
        reason = "; ".join(finding.message for finding in record.findings)
        yield "kpi_held_timestamp_seconds", record.ended_at, {"date": date}
        yield "kpi_held_info", 1, {"date": date, "reason": reason, "next_step": record.next_step or ""}
