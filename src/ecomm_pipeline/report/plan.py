"""What the page says: records of the ledger and rows of the KPI table in, a view model out. Pure.

Nothing is judged twice: a stage's outcome, the reconciler's sheet and the findings are told as the ledger has them.
What is decided here is what is current (the newest record of a stage for a date) and what the first line says; runs are
drawn by `timeline.py`, rows and money by `balance.py`, tests and remarks, with what is slow, by `quality.py`.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from ecomm_pipeline.report import balance, quality
from ecomm_pipeline.report.page import Kpi, Page, Remark, Tile, Trace, Verdict
from ecomm_pipeline.report.timeline import Run, run_row, runs_of, timeline
from ecomm_pipeline.report.words import counted, moment_text, number, short_number, span, stage_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from zoneinfo import ZoneInfo

    from ecomm_pipeline.dates import BusinessDate, DateRange
    from ecomm_pipeline.ledger import Record

__all__ = ["build", "calendar", "kpi_dates"]

RUNS_SHOWN: Final = 12
DAYS_SHOWN: Final = 24
TRACED: Final = 80
CHART_DAYS: Final = 30
"""Days that the charts of a short range go back to, so that a day is seen among its neighbours."""


def build(
    records: Sequence[Record],
    dates: DateRange | None,
    *,
    tz: ZoneInfo,
    now: datetime,
    kpis: Sequence[Kpi] = (),
    kpis_missing: str = "",
) -> Page:
    """Make the page of `dates` (None: the ledger is empty) from the ledger's records of them.

    A reconciler's `figures["sheet"]` are the rows of its sheet, which the ledger only names.
    """
    current = _current(records, dates)
    sheet = _sheet(records, dates)
    remarks = tuple(quality.remarks_of(records, current))
    runs = runs_of(records)
    odd = list(balance.odd_days(sheet))
    in_range = tuple(kpi for kpi in kpis if dates and str(dates.first) <= kpi.date <= str(dates.last))
    traces = [_trace(record) for record in sorted(records, key=lambda record: record.started_at, reverse=True)]
    tests = quality.nodes_of(current)
    expectations = tuple(quality.expectations(current))
    return Page(
        title="E-commerce daily batch",
        dates=_date_words(dates),
        generated=moment_text(now, tz),
        timezone=str(tz),
        verdict=_verdict(dates, current, sheet, remarks),
        tiles=tuple(_tiles(dates, sheet, in_range, runs)),
        timeline=timeline(runs[0], tz, now) if runs else None,
        runs=tuple(run_row(run, tz, now) for run in runs[:RUNS_SHOWN]),
        more_runs=max(0, len(runs) - RUNS_SHOWN),
        flows=tuple(balance.flows(sheet)),
        sales=balance.sales(sheet),
        odd_days=tuple(odd[:DAYS_SHOWN]),
        more_odd_days=max(0, len(odd) - DAYS_SHOWN),
        reconciled=balance.reconciled(sheet, dates, current),
        expectations=expectations,
        expectations_summary=quality.expectations_summary(expectations),
        quarantine=tuple(balance.quarantine(sheet)),
        tests=tuple(quality.failed_tests(tests)),
        tests_summary=quality.tests_summary(tests),
        kpis=tuple(kpis),
        kpis_in_range=in_range,
        kpis_missing=kpis_missing,
        remarks=remarks,
        traces=tuple(traces[:TRACED]),
        more_traces=max(0, len(traces) - TRACED),
        versions=_versions(records),
    )


def kpi_dates(dates: DateRange) -> DateRange:
    """Give the dates that the charts show: the range, and before a short one as many days as make `CHART_DAYS`."""
    from ecomm_pipeline.dates import DateRange

    return DateRange(dates.first.plus(-max(0, CHART_DAYS - len(dates))), dates.last)


def calendar(kpis: Sequence[Kpi]) -> list[Kpi]:
    """Give a day for each date from the first to the last: a day without orders has no row, and an empty place."""
    from datetime import date

    if not kpis:
        return []
    known = {kpi.date: kpi for kpi in kpis}
    first, last = date.fromisoformat(kpis[0].date), date.fromisoformat(kpis[-1].date)
    days = (str(first + timedelta(days=number)) for number in range((last - first).days + 1))
    return [known.get(day) or Kpi(day, {}) for day in days]


def _date_words(dates: DateRange | None) -> str:
    if dates is None:
        return "no dates yet"
    return str(dates.first) if dates.first == dates.last else f"{dates.first} – {dates.last}"


def _current(records: Sequence[Record], dates: DateRange | None) -> list[Record]:
    """Choose, for each date, the newest record of each stage and table; each once, oldest first.

    The newest is the one that was tried last: a run that was continued is newer than one that began after it.
    """
    chosen: dict[tuple[BusinessDate, str, str | None], Record] = {}
    for record in sorted(records, key=lambda record: record.began_at):
        for date in record.dates:
            if dates is None or date in dates:
                chosen[date, record.stage, record.table] = record
    unique = {id(record): record for record in chosen.values()}
    return sorted(unique.values(), key=lambda record: record.began_at)


def _sheet(records: Sequence[Record], dates: DateRange | None) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """Choose, for each table and date, the rows of the newest reconciliation that has any, by table and date."""
    sheet: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for record in sorted(records, key=lambda record: record.ended_at or record.started_at):
        by_place: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for row in record.figures.get("sheet") or []:
            by_place.setdefault((row["table"], row["date"]), []).append(row)
        sheet |= by_place
    wanted = {str(date) for date in dates} if dates else set()
    return {place: rows for place, rows in sheet.items() if place[1] in wanted}


def _verdict(
    dates: DateRange | None, current: Sequence[Record], sheet: Mapping[tuple[str, str], Any], remarks: Sequence[Remark]
) -> Verdict:
    if dates is None or not current:
        what = f"The ledger has no record of {_date_words(dates)}." if dates else "The ledger is empty."
        return Verdict("idle", "Nothing ran yet", what, f"ecomm run {dates or 'DATE'}")
    failed = [record for record in current if record.outcome in ("failed", "cancelled")]
    if failed:
        last = failed[-1]
        headline = "Does not add up" if last.failure_class == "not_reconciled" else f"{stage_name(last)} {last.outcome}"
        return Verdict("bad", headline, last.error or "It left no reason.", last.next_step or "")
    running = [record for record in current if record.outcome == "running"]
    if running:
        names = ", ".join(dict.fromkeys(stage_name(record) for record in running))
        return Verdict("busy", "Still running", f"{names}: begun, and not yet ended.")
    proven = {date for table, date in sheet if table != "sales"}
    missing = [str(date) for date in dates if str(date) not in proven]
    if missing:
        names = f"{missing[0]} and {len(missing) - 1} more dates" if len(missing) > 1 else missing[0]
        return Verdict("warn", "Not proven", f"Nothing has reconciled {names}.", f"ecomm reconciler --date {dates}")
    looks = sum(remark.count for remark in remarks if remark.tone in ("warn", "bad"))
    note = f" {counted(looks, 'remark')} below." if looks else ""
    proof = [record for record in current if record.stage == "reconciler"]
    end = "the KPI tables" if any(record.figures.get("through") == "kpi" for record in proof) else "Gold"
    return Verdict(
        "good", "Everything adds up", f"Every row and all money from Postgres to {end} is accounted for.{note}"
    )


def _tiles(
    dates: DateRange | None,
    sheet: Mapping[tuple[str, str], list[dict[str, Any]]],
    kpis: Sequence[Kpi],
    runs: Sequence[Run],
) -> Iterator[Tile]:
    if dates is None:
        return
    yield Tile("business dates", number(len(dates)))
    rows = sum(row["rows"] or 0 for rows in sheet.values() for row in rows if row["hop"] == "extracted")
    if sheet:
        note = ", with every look-back" if len(dates) > 1 else ""
        yield Tile("rows extracted", short_number(rows), f"{number(rows)} rows{note}")
    if kpis:
        yield Tile("orders", number(_total(kpis, "orders")))
        net = _total(kpis, "net_revenue")
        yield Tile("net revenue", short_number(net), number(net, 2))
    if runs:
        yield Tile("newest run took", span(runs[0].seconds), runs[0].run_id)


def _total(kpis: Iterable[Kpi], name: str) -> Decimal:
    return sum((kpi[name] or Decimal(0) for kpi in kpis), Decimal(0))


def _trace(record: Record) -> Trace:
    ids = [(name.replace("_", " "), _id_text(value)) for name, value in record.remote.items() if value]
    manifest = record.figures.get("manifest")
    return Trace(
        stage_name(record),
        str(record.dates),
        record.run_id,
        (*ids, *([("manifest", str(manifest))] if manifest else [])),
    )


def _id_text(value: object) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(_id_text(item) for item in value)
    return (
        ", ".join(f"{key}: {_id_text(item)}" for key, item in value.items()) if isinstance(value, dict) else str(value)
    )


def _versions(records: Sequence[Record]) -> str:
    found: dict[str, str] = {}
    for record in records:
        found |= record.versions
    return " · ".join(f"{name} {version}" for name, version in sorted(found.items()))
