"""From the ledger's records to samples. Pure: the same records at the same instant give the same samples.

Whatever depends on the time of day (what is due, how long a stage has been running) is computed anew at every scrape,
so it stays true between two looks at the ledger.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from statistics import median
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ecomm_pipeline.dates import BusinessDate
from ecomm_pipeline.errors import FAILURE_CLASSES
from ecomm_pipeline.exporter import gate
from ecomm_pipeline.exporter.metrics import LAYERS, METRICS, WORDS
from ecomm_pipeline.layout import KPI_GATE, STAGES
from ecomm_pipeline.usual import FEW, HISTORY_DAYS, usual

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from zoneinfo import ZoneInfo

    from ecomm_pipeline.ledger import Record
    from ecomm_pipeline.settings import Exporter, Nightly

__all__ = ["Calendar", "Sample", "samples"]

TEXT: Final = 300
"""Characters of an error that a label holds."""
SALES: Final = {
    "sales_analytics": "gold",
    "agg_daily_sales": "gold",
    "agg_sales_kpi": "kpi",
    "agg_product_kpi": "kpi",
}
"""Tables with rows of a sales date, as the reconciler's sheet names them, by layer."""
_WORST_FIRST: Final = ("failed", "cancelled", "missing", "running", "succeeded")


class Sample(NamedTuple):
    """A value of a metric; labels in the metric's order."""

    metric: str
    labels: tuple[str, ...]
    value: float


@dataclass(frozen=True, slots=True)
class Calendar:
    """Which dates there are at an instant, and when each one's night is."""

    tz: ZoneInfo
    now: datetime
    nightly: Nightly
    settings: Exporter

    @property
    def newest(self) -> BusinessDate:
        """The newest date whose night has begun."""
        yesterday = BusinessDate.of(self.now, self.tz).plus(-1)
        return yesterday if self.scheduled(yesterday) <= self.now else yesterday.plus(-1)

    @property
    def ended(self) -> BusinessDate:
        """The newest date that has ended."""
        return BusinessDate.of(self.now, self.tz).plus(-1)

    def scheduled(self, date: BusinessDate) -> datetime:
        """When the night of a date begins."""
        return date.plus(1).at(self.nightly.starts, self.tz)

    def gate(self, date: BusinessDate) -> datetime:
        """When dbt may begin."""
        return date.plus(1).at(self.nightly.gate, self.tz)

    def due(self, date: BusinessDate) -> datetime:
        """When dashboards should show a date."""
        return date.plus(1).at(self.nightly.due, self.tz)

    def window(self) -> list[BusinessDate]:
        """The dates with metrics of their own, oldest first."""
        return [self.ended.plus(-days) for days in reversed(range(self.settings.days))]


@dataclass(slots=True)
class _Day:
    """The records of a date, oldest first; of the newest sheet that has it, the rows by table and hop."""

    date: BusinessDate
    records: list[Record] = field(default_factory=list)
    sheet: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    through: str | None = None

    def of_stage(self, stage: str) -> list[Record]:
        """The records of a stage, oldest first."""
        return [record for record in self.records if record.stage == stage]

    def newest(self, stage: str) -> list[Record]:
        """The newest record of each table; of the reconciler the newest of all."""
        return list({record.table: record for record in self.of_stage(stage)}.values())


def samples(records: Iterable[Record], calendar: Calendar, tables: Sequence[str]) -> list[Sample]:
    """Give all samples that the ledger tells.

    A reconciler's `figures["sheet"]` are the rows of the sheet that the ledger only names.
    """
    held = sorted(records, key=lambda record: record.began_at)
    days = _days(held)
    made = _Samples()
    for date in _shown(held, days, calendar):
        _of_date(made, days, date, calendar, tables)
    _of_all(made, held, calendar)
    _of_backfills(made, held, days)
    recent = calendar.now - timedelta(days=calendar.settings.days)
    for name, value, labels in gate.held((day.records for day in days.values()), recent):
        made.add(name, value, **labels)
    return made.samples


def _shown(held: Sequence[Record], days: Mapping[BusinessDate, _Day], calendar: Calendar) -> Iterator[BusinessDate]:
    """The window's dates that have records, or should: the newest, and all since the schedule's first night."""
    first = min((record.dates.first for record in held if record.trigger == "cron"), default=calendar.newest)
    return (date for date in calendar.window() if date in days or date >= min(first, calendar.newest))


class _Samples:
    """Collects samples, and holds them to the labels of their metric."""

    def __init__(self) -> None:
        self.samples: list[Sample] = []

    def add(self, name: str, value: float | datetime | None, **labels: str) -> None:
        """Add a sample; None is none."""
        if value is None:
            return
        number = value.timestamp() if isinstance(value, datetime) else float(value)
        self.samples.append(Sample(name, tuple(labels[label] for label in METRICS[name].labels), number))


def _days(records: Sequence[Record]) -> dict[BusinessDate, _Day]:
    """Put records and their sheets' rows under each of their dates."""
    days: dict[BusinessDate, _Day] = {}
    for record in records:
        for date in record.dates:
            days.setdefault(date, _Day(date)).records.append(record)
        if record.ended_at and record.figures.get("sheet"):
            _put_sheet(days, record)
    return days


def _put_sheet(days: Mapping[BusinessDate, _Day], record: Record) -> None:
    by_date: dict[str, dict[str, dict[str, dict[str, Any]]]] = defaultdict(lambda: defaultdict(dict))
    for row in record.figures["sheet"]:
        by_date[row["date"]][row["table"]][row["hop"]] = row
    for date in record.dates:
        if str(date) in by_date:
            days[date].sheet, days[date].through = dict(by_date[str(date)]), record.figures.get("through")


# --- a date -----------------------------------------------------------------------------------------------------------


def _of_date(
    made: _Samples, days: Mapping[BusinessDate, _Day], date: BusinessDate, calendar: Calendar, tables: Sequence[str]
) -> None:
    day = days.get(date, _Day(date))
    if calendar.scheduled(date) > calendar.now and not day.records:
        return
    _times(made, days, day, calendar, tables)
    for stage in STAGES:
        _stage(made, day, stage, calendar, tables)
    _failure(made, str(date), KPI_GATE, day.newest(KPI_GATE))
    for name, value, labels in gate.moves(str(date), day.records):
        made.add(name, value, **labels)
    _extracts(made, days, day, calendar, tables)
    _sheet(made, days, day)
    _quality(made, day)


def _times(
    made: _Samples, days: Mapping[BusinessDate, _Day], day: _Day, calendar: Calendar, tables: Sequence[str]
) -> None:
    date = str(day.date)
    due, complete = calendar.due(day.date), _complete(day)
    made.add("date_nightly", day.date == calendar.newest, date=date)
    made.add("date_scheduled_timestamp_seconds", calendar.scheduled(day.date), date=date)
    made.add("date_due_timestamp_seconds", due, date=date)
    made.add("date_started_timestamp_seconds", min((r.started_at for r in day.records), default=None), date=date)
    made.add("date_complete_timestamp_seconds", complete, date=date)
    if complete is None and day.date == calendar.newest:
        forecast = _forecast(days, day, calendar, tables)
        made.add("date_forecast_timestamp_seconds", forecast, date=date)
        made.add("date_margin_seconds", (due - forecast).total_seconds(), date=date)
    else:
        made.add("date_margin_seconds", (due - (complete or calendar.now)).total_seconds(), date=date)
    made.add("date_reconciled", _balanced(day), date=date)


def _complete(day: _Day) -> datetime | None:
    """When Tableau first was refreshed after dbt had built the date."""
    built: datetime | None = None
    ended = [r for r in day.records if r.outcome == "succeeded" and r.ended_at]
    for record in sorted(ended, key=lambda record: record.ended_at or record.began_at):
        if record.stage == "dbt-runner":
            built = built or record.ended_at
        elif record.stage == "tableau-refresher" and built and record.began_at >= built:
            return record.ended_at
    return None


def _balanced(day: _Day) -> bool | None:
    decided = [r for r in day.of_stage("reconciler") if r.ended_at and "balanced" in r.figures]
    return bool(decided[-1].figures["balanced"]) if decided else None


_ROUTE: Final = ("extractor", "dlt-trigger", "reconciler", "gate", "dbt-runner", "tableau-refresher")


def _forecast(days: Mapping[BusinessDate, _Day], day: _Day, calendar: Calendar, tables: Sequence[str]) -> datetime:
    """When the date will be complete if each stage that is left takes as long as usual, counted from now."""
    at = max(calendar.now, calendar.scheduled(day.date))
    for stage in _ROUTE:
        if stage == "gate":
            at = max(at, calendar.gate(day.date))
            continue
        outcome, records = _outcome(day, stage, tables)
        if outcome == "succeeded":
            continue
        left = timedelta(seconds=_usual_seconds(days, day.date, stage, calendar))
        if outcome == "running":
            left -= calendar.now - min(record.began_at for record in records if record.outcome == "running")
        at += max(left, timedelta(0))
    return at


def _usual_seconds(days: Mapping[BusinessDate, _Day], date: BusinessDate, stage: str, calendar: Calendar) -> float:
    """The median of the stage's runs of one date; what is expected of it where they are too few."""
    times = []
    for before in _history(days, date):
        took = [r.seconds for r in before.newest(stage) if r.outcome == "succeeded" and len(r.dates) == 1 and r.seconds]
        times += [max(took)] if took else []
    return median(times) if len(times) >= FEW else calendar.settings.expected(stage)


def _history(days: Mapping[BusinessDate, _Day], date: BusinessDate) -> Iterator[_Day]:
    return (days[date.plus(-n)] for n in range(1, HISTORY_DAYS + 1) if date.plus(-n) in days)


# --- a stage ----------------------------------------------------------------------------------------------------------


def _outcome(day: _Day, stage: str, tables: Sequence[str]) -> tuple[str, list[Record]]:
    """The worst of the newest records: a table that was not begun is `missing`."""
    records = day.newest(stage)
    outcomes = [record.outcome for record in records]
    begun = {record.table for record in records}
    missing = not records or (stage == "extractor" and any(table not in begun for table in tables))
    return min([*outcomes, *(["missing"] if missing else [])], key=_WORST_FIRST.index), records


def _stage(made: _Samples, day: _Day, stage: str, calendar: Calendar, tables: Sequence[str]) -> None:
    date = str(day.date)
    outcome, records = _outcome(day, stage, tables)
    trigger = max(records, key=lambda record: record.began_at).trigger if records else ""
    made.add("stage_outcome", 1, date=date, stage=stage, trigger=trigger, outcome=outcome)
    if not records:
        return
    took = [r.seconds if r.seconds is not None else (calendar.now - r.began_at).total_seconds() for r in records]
    made.add("stage_duration_seconds", max(took), date=date, stage=stage)
    expected = max(calendar.settings.expected(stage) * len(record.dates) for record in records)
    made.add("stage_expected_seconds", expected, date=date, stage=stage)
    for direction, rows in (("in", [r.rows_in for r in records]), ("out", [r.rows_out for r in records])):
        known = [count for count in rows if count is not None]
        made.add("stage_rows", sum(known) if known else None, date=date, stage=stage, direction=direction)
    _failure(made, date, stage, records)


def _failure(made: _Samples, date: str, stage: str, records: Sequence[Record]) -> None:
    failed = [record for record in records if record.outcome in ("failed", "cancelled")]
    if not failed:
        return
    worst = min(failed, key=lambda record: (_class(record).priority, _class(record).name))
    kind = _class(worst)
    made.add(
        "stage_failed_timestamp_seconds",
        max(record.ended_at or record.began_at for record in failed),
        date=date,
        stage=stage,
        trigger=worst.trigger,
        failure_class=kind.name,
        priority=kind.priority,
    )
    named = [f"{r.table}: {r.error}" if r.table else str(r.error) for r in failed]
    made.add(
        "stage_failure_info",
        1,
        date=date,
        stage=stage,
        error=_short("; ".join(dict.fromkeys(named))),
        next_step=_short(worst.next_step or ""),
    )


def _class(record: Record) -> Any:  # noqa: ANN401 (a FailureClass)
    return FAILURE_CLASSES.get(record.failure_class or "", FAILURE_CLASSES["internal"])


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= TEXT else f"{line[: TEXT - 1]}…"


# --- tables and rows --------------------------------------------------------------------------------------------------


def _extracts(
    made: _Samples, days: Mapping[BusinessDate, _Day], day: _Day, calendar: Calendar, tables: Sequence[str]
) -> None:
    date = str(day.date)
    for table in tables:
        record = _extract(day, table)
        made.add("extract_present", record is not None, date=date, table=table)
        usual = _usual(days, day.date, partial(_extracted, table=table))
        made.add("rows_usual", usual, date=date, table=table, hop="extracted")
        if record is None:
            continue
        made.add("extract_bytes", record.bytes, date=date, table=table)
        made.add("rows", record.rows_out, date=date, table=table, hop="extracted")
        made.add("watermark_lag_seconds", _lag(days, day.date, table, calendar), date=date, table=table)


def _extract(day: _Day, table: str) -> Record | None:
    found = [r for r in day.records if r.stage == "extractor" and r.table == table and r.outcome == "succeeded"]
    return found[-1] if found else None


def _extracted(day: _Day, table: str) -> int | None:
    record = _extract(day, table)
    return record.rows_out if record else None


def _usual(days: Mapping[BusinessDate, _Day], date: BusinessDate, count: Callable[[_Day], int | None]) -> float | None:
    counts = {before.date: rows for before in _history(days, date) if (rows := count(before)) is not None}
    return usual(counts, date)


def _lag(days: Mapping[BusinessDate, _Day], date: BusinessDate, table: str, calendar: Calendar) -> float | None:
    """How far the newest `updated_at` of this date or one before it is behind the date's end."""
    marks = []
    for day in (days[date], *_history(days, date)):
        record = _extract(day, table)
        mark = record.figures.get("max_updated_at") if record else None
        marks += [datetime.fromisoformat(mark)] if mark else []
    end = date.plus(1).starts(calendar.tz)
    return (end - max(marks)).total_seconds() if marks else None


def _sheet(made: _Samples, days: Mapping[BusinessDate, _Day], day: _Day) -> None:
    date = str(day.date)
    for table, hops in day.sheet.items():
        if table == "sales":
            _sales(made, date, hops, day.through)
            continue
        counts = {hop: int(row["rows"]) for hop, row in hops.items() if row.get("rows") is not None}
        if "bronze" in counts:
            counts.setdefault("quarantined", 0)
            counts["rescued"] = int(hops["bronze"].get("rescued") or 0)
            usual = _usual(days, day.date, partial(_quarantined, table=table))
            made.add("rows_usual", usual or 0, date=date, table=table, hop="quarantined")
        for hop, rows in counts.items():
            if hop != "extracted":
                made.add("rows", rows, date=date, table=table, hop=hop)
        made.add("rows_unexplained", _unexplained(counts), date=date, table=table)


def _quarantined(day: _Day, table: str) -> int | None:
    hops = day.sheet.get(table, {})
    return int(hops.get("quarantined", {}).get("rows") or 0) if "bronze" in hops else None


def _unexplained(counts: Mapping[str, int]) -> int:
    """Rows that the hops of a table differ by, beside what is late, moved, deleted, superseded or quarantined."""
    found = 0
    if "source" in counts and "extracted" in counts:
        explained = counts["source"] - counts.get("late", 0) + counts.get("moved", 0) + counts.get("deleted", 0)
        found += abs(counts["extracted"] - explained)
    if "bronze" in counts:
        found += abs(counts["bronze"] - counts.get("extracted", 0)) + counts.get("lost", 0)
        kept = sum(counts.get(hop, 0) for hop in ("kept", "superseded", "quarantined", "lost"))
        found += abs(kept - counts["bronze"])
    return found


def _sales(made: _Samples, date: str, hops: Mapping[str, Any], through: str | None) -> None:
    """Whether Gold and, once it was looked at, the KPI tables have the date that Silver has sales of."""
    if "silver" not in hops:
        return
    for table, layer in SALES.items():
        if layer == "gold" or through == "kpi":
            made.add("sales_present", table in hops, date=date, table=table, layer=layer)


def _quality(made: _Samples, day: _Day) -> None:
    date = str(day.date)
    for update in day.newest("dlt-trigger"):
        for row in update.figures.get("expectations") or []:
            if row["failed"]:
                labels = {"date": date, "table": str(row["dataset"]), "expectation": str(row["name"])}
                made.add("expectation_failed_rows", row["failed"], **labels)
    for build in day.newest("dbt-runner"):
        nodes = (build.figures.get("nodes") or {}).values()
        for (kind, status), count in sorted(Counter((n["kind"], n["status"]) for n in nodes).items()):
            made.add("dbt_nodes", count, date=date, kind=kind, status=status)
    found: Counter[tuple[str, str, str, str]] = Counter()
    for stage in STAGES:
        for record in day.newest(stage):
            found.update((stage, record.table or "", f.kind, f.priority) for f in record.findings)
    for (stage, table, kind, priority), count in sorted(found.items()):
        made.add("findings", count, date=date, stage=stage, table=table, kind=kind, priority=priority)


# --- all dates --------------------------------------------------------------------------------------------------------


def _of_all(made: _Samples, records: Sequence[Record], calendar: Calendar) -> None:
    succeeded = [record for record in records if record.outcome == "succeeded" and record.ended_at]
    newest: dict[tuple[str, str], datetime] = {}
    last: dict[tuple[str, str], BusinessDate] = {}
    for record in succeeded:
        key = (record.stage, record.table or "")
        newest[key] = max(newest.get(key, record.began_at), record.ended_at or record.began_at)
        last[key] = max(last.get(key, record.dates.last), record.dates.last)
    for (stage, table), at in sorted(newest.items()):
        made.add("last_success_timestamp_seconds", at, stage=stage, table=table)
    for (stage, table), date in sorted(last.items()):
        if stage in LAYERS:
            end = date.plus(1).starts(calendar.tz)
            made.add("newest_date_timestamp_seconds", end, layer=LAYERS[stage], table=table)
    for name, rows in sorted(_kpi_rows(succeeded).items()):
        made.add("kpi_rows", rows, table=name)
    _targets(made, records)


def _kpi_rows(succeeded: Iterable[Record]) -> dict[str, int]:
    """The rows of each model when it was last built; a later build counts, whatever its date."""
    rows: dict[str, int] = {}
    for record in succeeded:
        for name, node in (record.figures.get("nodes") or {}).items():
            if node["kind"] == "model" and node.get("rows") is not None:
                rows[name] = int(node["rows"])
    return rows


def _targets(made: _Samples, records: Iterable[Record]) -> None:
    newest: dict[str, Mapping[str, Any]] = {}
    for record in records:
        if record.stage == "tableau-refresher":
            newest |= record.figures.get("targets") or {}
    for target, figures in sorted(newest.items()):
        made.add("dashboard_refreshed_timestamp_seconds", _instant(figures.get("refreshed_at")), target=target)
        made.add("dashboard_kpi_committed_timestamp_seconds", _instant(figures.get("kpi_committed_at")), target=target)


def _instant(text: object) -> datetime | None:
    return datetime.fromisoformat(str(text)) if text else None


def _of_backfills(made: _Samples, records: Sequence[Record], days: Mapping[BusinessDate, _Day]) -> None:
    """The newest backfill's progress, and what backfills left failed, whatever their dates."""
    backfills = [record for record in records if record.trigger == "backfill"]
    newest = max((record.run_id for record in backfills), default=None)
    states = Counter(_state(day, newest) for day in days.values() if any(r.run_id == newest for r in day.records))
    for state in WORDS["state"] if newest else ():
        made.add("backfill_dates", states[state], state=state)
    failed: dict[tuple[str, str], list[tuple[BusinessDate, datetime]]] = defaultdict(list)
    for day in days.values():
        for stage in STAGES:
            for record in day.newest(stage):
                if record.trigger == "backfill" and record.outcome in ("failed", "cancelled"):
                    failed[stage, _class(record).name].append((day.date, record.ended_at or record.began_at))
    for (stage, name), places in sorted(failed.items()):
        first, final = min(date for date, _ in places), max(date for date, _ in places)
        dates = str(first) if first == final else f"{first}..{final}"
        at = max(moment for _, moment in places)
        made.add("backfill_failed_timestamp_seconds", at, date=dates, stage=stage, failure_class=name)


def _state(day: _Day, run_id: str | None) -> str:
    of_run = [record for record in day.records if record.run_id == run_id]
    newest = {(record.stage, record.part): record for record in of_run}.values()
    if any(record.outcome in ("failed", "cancelled") for record in newest):
        return "failed"
    return "done" if any(r.stage == "tableau-refresher" and r.outcome == "succeeded" for r in newest) else "running"
