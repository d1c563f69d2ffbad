"""What the page says: records of the ledger and rows of the KPI table in, a view model out. Pure.

Nothing is judged twice: a stage's outcome, the reconciler's sheet and the findings are told as the ledger has them.
What is decided here is what is current (the newest record of a stage for a date), what is slow, and what the first line
says.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from statistics import median
from typing import TYPE_CHECKING, Any, Final

from ecomm_pipeline.report.page import (
    Bar,
    Cell,
    Check,
    Flow,
    Kpi,
    Lane,
    OddDay,
    Page,
    Phase,
    Remark,
    RunRow,
    Tick,
    Tile,
    Timeline,
    Trace,
    Verdict,
)
from ecomm_pipeline.report.words import counted, number, short_number, span

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from zoneinfo import ZoneInfo

    from ecomm_pipeline.dates import BusinessDate, DateRange
    from ecomm_pipeline.ledger import Record
    from ecomm_pipeline.report.page import Tone

__all__ = ["EXPECTED", "build", "calendar", "kpi_dates"]

EXPECTED: Final[tuple[tuple[str, tuple[str, ...], float, float], ...]] = (
    ("Extraction and DLT", ("extractor", "dlt-trigger"), 7200, 9000),
    ("dbt", ("dbt-runner",), 1200, 1200),
    ("Tableau", ("tableau-refresher",), 1800, 1800),
)
"""The runbook's expectations: phase, its stages, seconds from and to."""

HOPS: Final = (
    ("source", "Postgres now"),
    ("extracted", "Extracted"),
    ("bronze", "Bronze"),
    ("kept", "Silver: kept"),
    ("superseded", "Superseded"),
    ("quarantined", "Quarantined"),
    ("lost", "Unexplained"),
)
SALES: Final = (
    ("silver", "Silver"),
    ("sales_analytics", "sales_analytics"),
    ("agg_daily_sales", "agg_daily_sales"),
    ("agg_sales_kpi", "agg_sales_kpi"),
    ("agg_product_kpi", "agg_product_kpi"),
)
RUNS_SHOWN: Final = 12
DAYS_SHOWN: Final = 24
TRACED: Final = 80
CHART_DAYS: Final = 30
"""Days that the charts of a short range go back to, so that a day is seen among its neighbours."""
SLOW_FACTOR: Final = 2.0
SLOW_SECONDS: Final = 5.0
SLOW_HISTORY: Final = 3
"""A stage is slow when it took `SLOW_FACTOR` times the median of at least so many others, and this much longer."""

_PRIORITY_TONE: Final[dict[str, Tone]] = {"P1": "bad", "P2": "warn", "P3": "idle"}
_OUTCOME_TONE: Final[dict[str, Tone]] = {"succeeded": "good", "failed": "bad", "cancelled": "warn", "running": "busy"}


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
    remarks = tuple(_remarks(records, current))
    runs = _runs(records)
    odd = list(_odd_days(sheet))
    in_range = tuple(kpi for kpi in kpis if dates and str(dates.first) <= kpi.date <= str(dates.last))
    traces = [_trace(record) for record in sorted(records, key=lambda record: record.started_at, reverse=True)]
    tests = _nodes(current)
    expectations = tuple(_expectations(current))
    return Page(
        title="E-commerce daily batch",
        dates=_date_words(dates),
        generated=_moment(now, tz),
        timezone=str(tz),
        verdict=_verdict(dates, current, sheet, remarks),
        tiles=tuple(_tiles(dates, sheet, in_range, runs)),
        timeline=_timeline(runs[0], tz, now) if runs else None,
        runs=tuple(_run_row(run, tz, now) for run in runs[:RUNS_SHOWN]),
        more_runs=max(0, len(runs) - RUNS_SHOWN),
        flows=tuple(_flows(sheet)),
        sales=_sales(sheet),
        odd_days=tuple(odd[:DAYS_SHOWN]),
        more_odd_days=max(0, len(odd) - DAYS_SHOWN),
        reconciled=_reconciled(sheet, dates, current),
        expectations=expectations,
        expectations_summary=_expectations_summary(expectations),
        quarantine=tuple(_quarantine(sheet)),
        tests=tuple(_failed_tests(tests)),
        tests_summary=_tests_summary(tests),
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


def _moment(instant: datetime, tz: ZoneInfo) -> str:
    return f"{instant.astimezone(tz):%Y-%m-%d %H:%M}"


def _stage_name(record: Record) -> str:
    return f"{record.stage} {record.table}" if record.table else record.stage


# --- what is current --------------------------------------------------------------------------------------------------


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
        headline = (
            "Does not add up" if last.failure_class == "not_reconciled" else f"{_stage_name(last)} {last.outcome}"
        )
        return Verdict("bad", headline, last.error or "It left no reason.", last.next_step or "")
    running = [record for record in current if record.outcome == "running"]
    if running:
        names = ", ".join(dict.fromkeys(_stage_name(record) for record in running))
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
    runs: Sequence[_Run],
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


# --- runs and their timeline ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Run:
    run_id: str
    records: tuple[Record, ...]

    @property
    def began(self) -> datetime:
        return min(record.started_at for record in self.records)

    @property
    def ended(self) -> datetime:
        return max(record.ended_at or record.started_at for record in self.records)

    @property
    def seconds(self) -> float:
        return (self.ended - self.began).total_seconds()

    @property
    def outcome(self) -> str:
        outcomes = {record.outcome for record in self.records}
        return next((one for one in ("failed", "cancelled", "running") if one in outcomes), "succeeded")


def _runs(records: Sequence[Record]) -> list[_Run]:
    """Group records by run, newest first."""
    grouped: dict[str, list[Record]] = {}
    for record in records:
        grouped.setdefault(record.run_id, []).append(record)
    runs = [_Run(run_id, tuple(of_run)) for run_id, of_run in grouped.items()]
    return sorted(runs, key=lambda run: run.began, reverse=True)


def _run_row(run: _Run, tz: ZoneInfo, now: datetime) -> RunRow:
    first = min(record.first_date for record in run.records)
    last = max(record.last_date for record in run.records)
    done = sum(record.outcome == "succeeded" for record in run.records)
    took = (now - run.began).total_seconds() if run.outcome == "running" else run.seconds
    return RunRow(
        run.run_id,
        str(first) if first == last else f"{first} – {last}",
        run.records[0].trigger,
        _moment(run.began, tz),
        span(took),
        f"{done} of {len(run.records)}",
        _OUTCOME_TONE[run.outcome],
        run.outcome,
    )


def _timeline(run: _Run, tz: ZoneInfo, now: datetime) -> Timeline:
    end = max(run.ended, min(now, run.ended + timedelta(hours=6))) if run.outcome == "running" else run.ended
    total = max((end - run.began).total_seconds(), 0.001)
    lanes: dict[tuple[str, str | None], list[Record]] = {}
    for record in sorted(run.records, key=lambda record: record.started_at):
        lanes.setdefault((record.step, record.table), []).append(record)
    return Timeline(
        run.run_id,
        _moment(run.began, tz),
        span(total),
        tuple(_lane(records, run.began, total, end) for records in lanes.values()),
        tuple(_ticks(run.began, total, tz)),
        tuple(_phases(run)),
    )


def _lane(records: Sequence[Record], began: datetime, total: float, end: datetime) -> Lane:
    first = records[0]
    bars = tuple(_bar(record, began, total, end) for record in records)
    took = sum(((record.ended_at or end) - record.began_at).total_seconds() for record in records)
    tones = [_OUTCOME_TONE[record.outcome] for record in records]
    tone = next((one for one in ("bad", "warn", "busy") if one in tones), "good")
    many = f"{len(records)}×" if len(records) > 1 else ""
    return Lane(first.step, " ".join(filter(None, (first.table, many))), tone, span(took), bars)  # type: ignore[arg-type]


def _bar(record: Record, began: datetime, total: float, end: datetime) -> Bar:
    seconds = ((record.ended_at or end) - record.began_at).total_seconds()
    left = 100 * (record.began_at - began).total_seconds() / total
    title = f"{_stage_name(record)}, {record.dates}: {record.outcome}, {span(seconds)}"
    return Bar(round(left, 3), round(100 * seconds / total, 3), _OUTCOME_TONE[record.outcome], title)


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


def _phases(run: _Run) -> Iterator[Phase]:
    for label, stages, low, high in EXPECTED:
        records = [record for record in run.records if record.stage in stages]
        if not records:
            continue
        ends = [record.ended_at for record in records if record.ended_at]
        took = (max(ends) - min(record.started_at for record in records)).total_seconds() if ends else 0.0
        expected = span(high) if low == high else f"{span(low)} to {span(high)}"
        tone: Tone = "bad" if took > high else "warn" if took > low else "good"
        yield Phase(label, span(took), expected, round(min(100.0, 100 * took / high), 2), tone)


# --- rows and money ---------------------------------------------------------------------------------------------------


def _rows_of(sheet: Mapping[tuple[str, str], list[dict[str, Any]]], table: str) -> list[dict[str, Any]]:
    return [row for (name, _), rows in sheet.items() if name == table for row in rows]


def _flows(sheet: Mapping[tuple[str, str], list[dict[str, Any]]]) -> Iterator[Flow]:
    for table in dict.fromkeys(name for name, _ in sheet if name != "sales"):
        rows = _rows_of(sheet, table)
        cells = tuple(_cell(rows, hop, label) for hop, label in HOPS)
        missing = any(row.get("missing") for row in rows)
        tone: Tone = "bad" if missing or _sum(rows, "lost")[0] or not _equal(rows) else "good"
        if tone == "good" and _sum(rows, "quarantined")[0]:
            tone = "warn"
        yield Flow(table, cells, tone, tuple(_shares(rows)))


def _sum(rows: Iterable[Mapping[str, Any]], hop: str) -> tuple[int, Decimal | None]:
    found = [row for row in rows if row["hop"] == hop]
    money = [Decimal(row["money"]) for row in found if row.get("money") is not None]
    return sum(row["rows"] or 0 for row in found), sum(money, Decimal(0)) if money else None


def _equal(rows: Sequence[Mapping[str, Any]]) -> bool:
    """Tell whether extracted, Bronze and Silver agree in rows and money; a table that is only extracted agrees."""
    if not any(row["hop"] == "bronze" for row in rows):
        return True
    extracted, bronze = _sum(rows, "extracted"), _sum(rows, "bronze")
    parts = [_sum(rows, hop) for hop in ("kept", "superseded", "quarantined", "lost")]
    money = sum((part[1] or Decimal(0) for part in parts), Decimal(0))
    after = sum(part[0] for part in parts), money
    return extracted == bronze and after == (bronze[0], bronze[1] or Decimal(0))


def _cell(rows: Sequence[Mapping[str, Any]], hop: str, label: str) -> Cell:
    if not any(row["hop"] == hop for row in rows):
        asked = hop in ("superseded", "quarantined", "lost") and any(row["hop"] == "bronze" for row in rows)
        return Cell(label, "0" if asked else "–")
    count, money = _sum(rows, hop)
    tones: dict[str, Tone] = {"lost": "bad", "quarantined": "warn"}
    return Cell(label, number(count), "" if money is None else number(money, 2), tones.get(hop) if count else None)


def _shares(rows: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, float, str]]:
    parts = [(hop, _sum(rows, hop)[0]) for hop in ("kept", "superseded", "quarantined", "lost")]
    total = sum(count for _, count in parts)
    for hop, count in parts:
        if count:
            name = "unexplained" if hop == "lost" else hop
            yield hop, round(100 * count / total, 3), f"{name}: {counted(count, 'row')}"


def _sales(sheet: Mapping[tuple[str, str], list[dict[str, Any]]]) -> Flow | None:
    rows = _rows_of(sheet, "sales")
    if not rows:
        return None
    totals = {table: _sum(rows, table) for table, _ in SALES if any(row["hop"] == table for row in rows)}
    amounts = {money for _, money in totals.values()}
    cells = tuple(
        Cell(label, number(totals[table][0]) if totals[table][0] else "", number(totals[table][1] or 0, 2))
        for table, label in SALES
        if table in totals
    )
    return Flow("net revenue", cells, "good" if len(amounts) == 1 else "bad")


def _odd_days(sheet: Mapping[tuple[str, str], list[dict[str, Any]]]) -> Iterator[OddDay]:
    for (table, date), rows in sorted(sheet.items(), key=lambda item: (item[0][1], item[0][0])):
        if table == "sales":
            amounts = {row["hop"]: Decimal(row["money"]) for row in rows if row.get("money") is not None}
            if len(set(amounts.values())) > 1:
                text = ", ".join(f"{hop} {number(amount, 2)}" for hop, amount in amounts.items())
                yield OddDay(date, "net revenue", "bad", text)
            continue
        words = list(_odd_words(rows))
        if words:
            tones = [tone for tone, _ in words]
            tone: Tone = "bad" if "bad" in tones else "warn" if "warn" in tones else "idle"
            yield OddDay(date, table, tone, "; ".join(text for _, text in words))


def _odd_words(rows: Sequence[Mapping[str, Any]]) -> Iterator[tuple[Tone, str]]:
    by_hop = {row["hop"]: row for row in rows}
    if by_hop.get("extracted", {}).get("missing"):
        yield "bad", "no extract"
        return
    if not _equal(rows):
        extracted, bronze = _sum(rows, "extracted")[0], _sum(rows, "bronze")[0]
        told = sum(_sum(rows, hop)[0] for hop in ("kept", "superseded", "quarantined", "lost"))
        counts = f"{number(extracted)} extracted, {number(bronze)} in Bronze, {number(told)} told of by Silver"
        yield "bad", f"rows or money differ: {counts}"
    named: tuple[tuple[str, Tone, str], ...] = (
        ("lost", "bad", "unexplained"),
        ("quarantined", "warn", "quarantined"),
        ("late", "idle", "committed after the extract"),
        ("moved", "idle", "updated since, into a later window"),
        ("deleted", "idle", "deleted in Postgres since"),
        ("orphans", "idle", "in Bronze from files no manifest lists"),
    )
    for hop, tone, words in named:
        if hop in by_hop:
            yield tone, f"{counted(by_hop[hop]['rows'], 'row')} {words}"
    if rescued := by_hop.get("bronze", {}).get("rescued"):
        yield "idle", f"{counted(rescued, 'row')} with rescued values"


def _reconciled(sheet: Mapping[tuple[str, str], Any], dates: DateRange | None, current: Sequence[Record]) -> str:
    if not dates or not sheet:
        return ""
    proven = len({date for table, date in sheet if table != "sales"})
    lookback = max((record.figures.get("lookback_seconds", 0) for record in current), default=0)
    twice = f", each with its look-back of {span(lookback)}, whose rows the date before counts too"
    return f"{number(proven)} of {counted(len(dates), 'date')} reconciled{twice if lookback and proven > 1 else ''}"


# --- quality ----------------------------------------------------------------------------------------------------------


def _expectations(current: Sequence[Record]) -> Iterator[Check]:
    totals: dict[tuple[str, str], tuple[int, int]] = {}
    for record in current:
        for row in record.figures.get("expectations") or []:
            before = totals.get((row["dataset"], row["name"]), (0, 0))
            totals[row["dataset"], row["name"]] = (before[0] + row["passed"], before[1] + row["failed"])
    for (dataset, name), (passed, failed) in sorted(totals.items(), key=lambda item: (-item[1][1], item[0])):
        yield Check(name, dataset, number(passed), number(failed), "warn" if failed else "good")


def _expectations_summary(checks: Sequence[Check]) -> str:
    if not checks:
        return ""
    broken = sum(check.tone != "good" for check in checks)
    return f"{counted(len(checks), 'expectation')}, {f'{broken} of them with failed rows' if broken else 'all met'}"


def _quarantine(sheet: Mapping[tuple[str, str], list[dict[str, Any]]]) -> Iterator[Check]:
    totals: dict[tuple[str, str], int] = {}
    for (table, _), rows in sheet.items():
        for row in rows:
            for reason, count in (row.get("reasons") or {}).items():
                totals[table, reason] = totals.get((table, reason), 0) + count
    for (table, reason), count in sorted(totals.items(), key=lambda item: -item[1]):
        yield Check(reason or "no reason", table, "", number(count), "warn")


def _nodes(current: Sequence[Record]) -> dict[str, Mapping[str, Any]]:
    """Give the newest outcome of each of dbt's models and tests, by name."""
    found: dict[str, Mapping[str, Any]] = {}
    for record in current:
        found |= record.figures.get("nodes") or {}
    return found


_PASSED: Final = ("pass", "success")


def _failed_tests(nodes: Mapping[str, Mapping[str, Any]]) -> Iterator[Check]:
    for name, node in nodes.items():
        status = node["status"]
        if status not in _PASSED:
            tone: Tone = "bad" if status in ("fail", "error", "runtime error") else "warn"
            yield Check(name, node["kind"].replace("_", " "), "", status, tone, node.get("message") or "")


def _tests_summary(nodes: Mapping[str, Mapping[str, Any]]) -> str:
    parts = []
    for kind, built in (("model", True), ("test", False)):
        of_kind = [node for node in nodes.values() if (node["kind"] == "model") is built]
        good = sum(node["status"] in _PASSED for node in of_kind)
        if of_kind:
            parts.append(f"{good} of {counted(len(of_kind), kind)} {'built' if built else 'passed'}")
    return ", ".join(parts)


# --- slow or odd ------------------------------------------------------------------------------------------------------


def _remarks(records: Sequence[Record], current: Sequence[Record]) -> Iterator[Remark]:
    """Failures first, then findings by priority (alike ones together), then what was slow."""
    for record in reversed(current):
        if record.outcome in ("failed", "cancelled"):
            tone = _OUTCOME_TONE[record.outcome]
            where = f"{_stage_name(record)}, {record.dates}"
            text = record.error or "It left no reason."
            yield Remark(tone, record.failure_class or record.outcome, where, text, next_step=record.next_step or "")
    yield from _finding_remarks(current)
    yield from _slow(records, current)


def _finding_remarks(current: Sequence[Record]) -> Iterator[Remark]:
    alike: dict[tuple[str, str, str], list[tuple[Record, str]]] = {}
    for record in current:
        for finding in record.findings:
            alike.setdefault((finding.priority, finding.kind, record.stage), []).append((record, finding.message))
    for (priority, kind, stage), found in sorted(alike.items()):
        messages = list(dict.fromkeys(message for _, message in found))
        more = f" (and {len(messages) - 1} more)" if len(messages) > 1 else ""
        label = f"{priority} {kind.replace('_', ' ')}"
        yield Remark(_PRIORITY_TONE[priority], label, stage, f"{messages[0]}{more}", len(messages))


def _slow(records: Sequence[Record], current: Sequence[Record]) -> Iterator[Remark]:
    history: dict[tuple[str, str | None, int], list[Record]] = {}
    for record in records:
        if record.outcome == "succeeded" and record.seconds is not None:
            history.setdefault((record.stage, record.part, len(record.dates)), []).append(record)
    for record in current:
        others = [
            other.seconds or 0.0
            for other in history.get((record.stage, record.part, len(record.dates)), [])
            if other is not record
        ]
        if record.seconds is None or len(others) < SLOW_HISTORY:
            continue
        usual = median(others)
        if record.seconds > SLOW_FACTOR * usual and record.seconds > usual + SLOW_SECONDS:
            text = f"took {span(record.seconds)}; usual is {span(usual)}"
            yield Remark("warn", "slow", f"{_stage_name(record)}, {record.dates}", text)


# --- trace ------------------------------------------------------------------------------------------------------------


def _trace(record: Record) -> Trace:
    ids = [(name.replace("_", " "), _id_text(value)) for name, value in record.remote.items() if value]
    manifest = record.figures.get("manifest")
    return Trace(
        _stage_name(record),
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
