"""The balance sheet: ask Postgres, the files, Bronze, Silver, Gold and the KPI tables, and compare.

The lakehouse is asked one statement a hop, whatever the number of tables and dates; Postgres one for all windows. The
files are read back while it answers.
"""

from __future__ import annotations

import json
import sys
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from ecomm_pipeline.contract import CONTRACT
from ecomm_pipeline.databricks import Warehouse, connect
from ecomm_pipeline.errors import ConfigurationError
from ecomm_pipeline.layout import MANIFEST_NAME
from ecomm_pipeline.manifest import Manifest
from ecomm_pipeline.postgres import interruptible
from ecomm_pipeline.progress import Progress
from ecomm_pipeline.reconciler import files, plan, show, sql
from ecomm_pipeline.stage import Stop

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

    from psycopg2.extensions import connection as Connection  # noqa: N812 (it is a class)

    from ecomm_pipeline.dates import BusinessDate
    from ecomm_pipeline.reconciler.plan import Amount, Changes, Day, KeyDifferences, Measures, SalesDay
    from ecomm_pipeline.reconciler.source import Source
    from ecomm_pipeline.settings import ReconcilerSettings
    from ecomm_pipeline.stage import StageContext

__all__ = ["Figures", "collect", "reconcile"]

THROUGH: Final = ("gold", "kpi")
_PARALLEL_FILES: Final = 4
_PARALLEL_LISTINGS: Final = 16
_PROBLEMS_TOLD: Final = 20

Place = tuple[str, str]
"""A table and a business date."""


def reconcile(context: StageContext, settings: ReconcilerSettings, *, through: str = "kpi") -> None:
    """Prove that rows and money add up for the dates of the context, from Postgres through Gold or the KPI tables.

    Fills the record: `rows_in` extracted and `rows_out` kept rows; figures `through`, `balanced`, `lookback_seconds`,
    `sheet_key` (the object of the rows that `plan.sheet` writes) and `problems` (a sentence each, the first of them);
    findings for what is explained and odd. The sheet lies once among the artifacts, since the record lies under each
    date. On a terminal it is printed too.

    Raises `NotReconciledError` or `MissingSourceError` when something is not explained.
    """
    if through not in THROUGH:
        message = f"--through: {through!r} is not how far to prove"
        raise ConfigurationError(message, next_step=f"use one of {', '.join(THROUGH)}")
    stop = Stop()
    figures = interruptible(lambda opened: collect(context, settings, through, opened, stop), stop)
    days, sales = figures.days, figures.sales
    problems = [problem for day in days for problem in plan.problems_of_day(day)]
    problems += [p for day in sales for p in plan.problems_of_sales(day, through=through, dates=context.dates)]
    if through == "kpi":
        problems += plan.problems_of_customers(*figures.customers, dates=context.dates)
    sheet = plan.sheet(days, sales)
    _record(context, days, sheet, problems)
    context.record.figures |= {"through": through, "lookback_seconds": settings.extractor.lookback}
    if sys.stdout.isatty():
        print(show.sheet(sheet, problems, lookback=settings.extractor.lookback))
    if error := plan.error_of(problems, context.dates):
        raise error


def _record(
    context: StageContext,
    days: Sequence[Day],
    sheet: Sequence[dict[str, Any]],
    problems: Sequence[plan.Problem],
) -> None:
    record = context.record
    record.rows_in = sum(day.extracted.rows for day in days)
    record.rows_out = sum(day.kept.rows for day in days)
    folder = context.layout.artifacts(context.stage, context.run_id)
    key = f"{folder}/sheet-{record.through}-{context.dates}.json"
    context.store.put(key, json.dumps(sheet, ensure_ascii=False).encode())
    record.figures = {
        "balanced": not problems,
        "sheet_key": key,
        "problems": [problem.message for problem in problems[:_PROBLEMS_TOLD]],
    }
    record.findings.extend(plan.findings(days))


@dataclass(slots=True)
class Figures:
    """What everybody was asked: days by table, sales dates, and the totals of known customers in Gold and as KPI."""

    days: list[Day]
    sales: list[SalesDay]
    customers: tuple[Measures, Measures]


def collect(
    context: StageContext, settings: ReconcilerSettings, through: str, opened: list[Connection], stop: Stop
) -> Figures:
    """Ask everybody at once. Where one fails, or `stop` says so, the others are told to stop and not waited for."""
    with ExitStack() as stack:
        source = _open_source(settings, opened, stack) if settings.reconciler.check_source else None
        pool = ThreadPoolExecutor(3, "reconciler")
        try:
            return _ask(context, settings, through, source, pool.submit, stop)
        except BaseException:
            stop.reason = stop.reason or "another part of the reconciliation failed"
            for connection in opened:
                connection.cancel()
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _ask(
    context: StageContext,
    settings: ReconcilerSettings,
    through: str,
    source: Source | None,
    submit: Callable[..., Future[Any]],
    stop: Stop,
) -> Figures:
    manifests = _manifests(context, settings.business.tables)
    chosen = {place: plan.newest(found, context.run_id) for place, found in manifests.items()}
    extracts = {place: manifest for place, manifest in chosen.items() if manifest is not None}
    lakehouse = settings.databricks
    warehouse = Warehouse(connect(lakehouse), lakehouse.warehouse_id, lakehouse.catalog, context.clock, stop)
    lake = _Lakehouse(warehouse, context, settings.business.business_timezone)
    counted = submit(source.count, list(extracts.values())) if source else None
    answers = [submit(lake.ask_tables, extracts), submit(lake.ask_sales, through)]
    counts = _count_files(context, extracts, stop)
    for answer in as_completed([*answers, *([counted] if counted else [])]):
        answer.result()
    now = counted.result() if counted else {}
    days = [
        _day(place, date, chosen[place], now.get(place), counts.get(place), lake, manifests[place])
        for date in context.dates
        for place in ((table, str(date)) for table in settings.business.tables)
    ]
    if source:
        days = _explain(context, settings, source, warehouse, days, manifests, stop)
    return Figures(days, lake.sales, lake.customers)


def _open_source(settings: ReconcilerSettings, opened: list[Connection], stack: ExitStack) -> Source:
    from ecomm_pipeline.reconciler.source import open_source

    return stack.enter_context(open_source(settings.postgres, settings.extractor, opened))


# --- the store --------------------------------------------------------------------------------------------------------


def _manifests(context: StageContext, tables: Iterable[str]) -> dict[Place, list[Manifest]]:
    """Read the manifests of all runs, by table and date."""
    places = [(table, date) for date in context.dates for table in tables]
    with ThreadPoolExecutor(_PARALLEL_LISTINGS) as pool:
        listed = list(pool.map(lambda place: _manifest_keys(context, *place), places))
    keys = [key for found in listed for key in found]
    contents = dict(zip(keys, context.store.get_all(keys), strict=True))
    read = {key: Manifest.from_json(content, key=key) for key, content in contents.items() if content is not None}
    return {
        (table, str(date)): [read[key] for key in found if key in read]
        for (table, date), found in zip(places, listed, strict=True)
    }


def _manifest_keys(context: StageContext, table: str, date: BusinessDate) -> list[str]:
    folder = context.layout.extracts(table, date)
    return [key for key in context.store.keys(folder) if key.endswith(f"/{MANIFEST_NAME}")]


@dataclass(slots=True)
class _Count:
    """What the files of one extract hold, and what is wrong with them."""

    amount: Amount
    checksum: int | None
    damaged: tuple[str, ...] = ()


def _count_files(context: StageContext, extracts: dict[Place, Manifest], stop: Stop) -> dict[Place, _Count]:
    """Read every file of every extract back, and count it."""
    done = rows = 0
    counts = {}
    with Progress("reconciler", context.clock) as progress, ThreadPoolExecutor(_PARALLEL_FILES) as pool:
        for place, count in zip(
            extracts, pool.map(lambda manifest: _count_extract(context, manifest, stop), extracts.values()), strict=True
        ):
            counts[place] = count
            done, rows = done + 1, rows + count.amount.rows
            progress(extracts=f"{done}/{len(extracts)}", rows=rows)
    return counts


def _count_extract(context: StageContext, manifest: Manifest, stop: Stop) -> _Count:
    table = CONTRACT.get(manifest.table)
    money = sql.factors(table) if table else ()
    of_key = table.key if table else ()
    amount, checksum = plan.Amount(0, Decimal(0) if money else None), 0 if table else None
    damaged = []
    for file in manifest.files:
        key = _key(context, manifest, file.name)
        chunks = _chunks(context, key, stop)
        found = files.count(chunks, compressed=file.name.endswith(".gz"), key=of_key, money=money)
        amount += found.amount
        checksum = None if checksum is None or found.checksum is None else checksum + found.checksum
        if found.sha256 != file.sha256:
            damaged.append(
                f"{key} is not what was written: its SHA-256 is {found.sha256}, the manifest's {file.sha256}"
            )
        elif found.broken:
            damaged.append(f"{key} cannot be read: {found.broken}")
    return _Count(amount, checksum, tuple(damaged))


def _chunks(context: StageContext, key: str, stop: Stop) -> Iterator[bytes]:
    for chunk in context.store.chunks(key):
        stop.check()
        yield chunk


def _key(context: StageContext, manifest: Manifest, name: str) -> str:
    from datetime import date

    from ecomm_pipeline.dates import BusinessDate

    return context.layout.part(manifest.table, BusinessDate(date.fromisoformat(manifest.date)), manifest.run_id, name)


# --- the lakehouse ----------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Lakehouse:
    """The answers of the lakehouse, by table and date."""

    warehouse: Warehouse
    context: StageContext
    timezone: str
    bronze: dict[Place, dict[tuple[str, str], tuple[Amount, int]]] = field(default_factory=dict)
    quarantined: dict[Place, dict[tuple[str, str], int]] = field(default_factory=dict)
    states: dict[Place, list[dict[str, str | None]]] = field(default_factory=dict)
    sales: list[SalesDay] = field(default_factory=list)
    customers: tuple[Measures, Measures] = field(default_factory=lambda: ({}, {}))

    def ask_tables(self, extracts: dict[Place, Manifest]) -> None:
        """Ask Bronze, then Silver, of the extracts."""
        tables = [table for table in dict.fromkeys(table for table, _ in extracts) if table in CONTRACT]
        if tables:
            self._ask_bronze(tables)
        listed: dict[str, list[tuple[str, str, str]]] = {}
        for (table, date), manifest in extracts.items():
            if table in CONTRACT:
                listed.setdefault(table, []).extend((date, manifest.run_id, file.name) for file in manifest.files)
        listed = {table: found for table, found in listed.items() if found}
        if listed:
            refused = {table for table, _ in self.quarantined}
            for row in self.warehouse.query(sql.silver(listed, refused, self.context.dates)).dicts():
                self.states.setdefault(_place(row), []).append(row)

    def _ask_bronze(self, tables: list[str]) -> None:
        for row in self.warehouse.query(sql.bronze(tables, self.context.dates)).dicts():
            file = (row["run_id"] or "", row["file"] or "")
            if row["layer"] == "quarantine":
                self.quarantined.setdefault(_place(row), {})[file] = int(row["row_count"] or 0)
            else:
                self.bronze.setdefault(_place(row), {})[file] = (_amount(row), int(row["rescued"] or 0))

    def ask_sales(self, through: str) -> None:
        """Ask Silver and Gold, and then the KPI tables, of the sales dates."""
        found: dict[str, dict[str, Measures]] = {}
        for row in self.warehouse.query(sql.sales(self.context.dates, self.timezone)).dicts():
            found.setdefault(row["date"] or "", {})[row["table_name"] or ""] = _measures(row)
        if through == "kpi":
            totals: dict[str, Measures] = {}
            for row in self.warehouse.query(sql.kpis(sorted(date for date in found if date))).dicts():
                of_date = found.setdefault(row["date"], {}) if row["date"] else totals
                of_date[row["table_name"] or ""] = _measures(row)
            self.customers = (totals.get("sales_analytics", {}), totals.get("agg_customer_kpi", {}))
        self.sales = [plan.SalesDay(date, tables) for date, tables in sorted(found.items())]


def _place(row: dict[str, str | None]) -> Place:
    return row["table_name"] or "", row["date"] or ""


def _amount(row: dict[str, str | None]) -> Amount:
    money = row["money"]
    return plan.Amount(int(row["row_count"] or 0), None if money is None else Decimal(money))


def _measures(row: dict[str, str | None]) -> Measures:
    return {
        name: Decimal(value) for name, value in row.items() if name not in {"table_name", "date"} and value is not None
    }


def _day(
    place: Place,
    date: BusinessDate,
    manifest: Manifest | None,
    source: tuple[Amount, int | None] | None,
    count: _Count | None,
    lake: _Lakehouse,
    manifests: Sequence[Manifest],
) -> Day:
    """Put the figures of a table and date together."""
    table = place[0]
    if manifest is None or count is None:
        return plan.Day(table, date)
    money = Decimal(0) if table in CONTRACT and CONTRACT[table].money else None
    nothing = plan.Amount(0, money)
    loaded = lake.bronze.get(place, {})
    names = [(manifest.run_id, file.name) for file in manifest.files]
    own = [loaded[name] for name in names if name in loaded]
    refused = lake.quarantined.get(place, {})
    listed = {(other.run_id, file.name) for other in manifests for file in other.files}
    states = lake.states.get(place, [])

    def of_state(state: str) -> Amount:
        return sum((_amount(row) for row in states if row["state"] == state), nothing)

    return plan.Day(
        table,
        date,
        manifest,
        source=source[0] if source else None,
        source_checksum=source[1] if source else None,
        extracted=count.amount,
        checksum=count.checksum,
        damaged=count.damaged,
        in_lakehouse=table in CONTRACT,
        bronze=sum((amount for amount, _ in own), nothing),
        rescued=sum(rescued for _, rescued in own),
        orphans=sum((amount for name, (amount, _) in loaded.items() if name not in listed), nothing),
        kept=of_state("kept"),
        kept_in_silver=sum((Decimal(row["silver_money"] or 0) for row in states if row["state"] == "kept"), Decimal(0)),
        superseded=of_state("superseded"),
        quarantined={row["reason"] or "": _amount(row) for row in states if row["state"] == "quarantined"},
        in_quarantine=sum(refused.get(name, 0) for name in names),
        lost=of_state("lost"),
    )


# --- why Postgres' window differs from the extract --------------------------------------------------------------------


def _explain(
    context: StageContext,
    settings: ReconcilerSettings,
    source: Source,
    warehouse: Warehouse,
    days: Sequence[Day],
    manifests: dict[Place, list[Manifest]],
    stop: Stop,
) -> list[Day]:
    """Compare, by key, the windows that differ from their extract, and say what became of the rows."""
    from dataclasses import replace

    differing = [day for day in days if day.in_lakehouse and not day.damaged and day.has_keys and day.moved_on]
    found = [(day, _compare(context, source, day.manifest, stop)) for day in differing if day.manifest is not None]
    loaded = _loaded(warehouse, [(day.table, changes) for day, changes in found])
    explained: dict[int, Day] = {}
    for day, changes in found:
        manifest = day.manifest
        if manifest is None:
            continue
        late = plan.cover(
            changes.late,
            loaded=loaded.get(day.table, frozenset()),
            until=manifest.window.until,
            lookback=timedelta(seconds=settings.extractor.lookback),
            next_extracted=_is_extracted(context, day.table, day.date.plus(1), manifests),
        )
        explained[id(day)] = replace(day, changes=replace(changes, late=tuple(late)))
    return [explained.get(id(day), day) for day in days]


def _compare(context: StageContext, source: Source, manifest: Manifest, stop: Stop) -> Changes:
    """Compare a window with its extract, bucket by bucket: what is held are some of the versions that differ."""

    def extracted(wanted: Collection[int] | None = None) -> Iterator[tuple[plan.Key, plan.Version]]:
        contract = CONTRACT[manifest.table]
        for file in manifest.files:
            chunks = _chunks(context, _key(context, manifest, file.name), stop)
            yield from files.versions(
                chunks,
                compressed=file.name.endswith(".gz"),
                key=contract.key,
                money=sql.factors(contract),
                wanted=wanted,
            )

    changes = plan.Changes()
    for group in plan.bucket_groups(source.buckets(manifest), files.buckets(extracted())):
        keys = plan.compare_keys(source.versions(manifest, group), dict(extracted(group)))
        changes += _changes(source, manifest.table, keys)
    return changes


def _changes(source: Source, table: str, keys: KeyDifferences) -> Changes:
    existing = source.existing(table, keys.gone) if keys.gone else set()
    nothing = plan.Amount()

    def together(alive: bool) -> Amount:  # noqa: FBT001 (a nested function)
        return sum((plan.Amount(1, v.money) for key, v in keys.gone.items() if (key in existing) is alive), nothing)

    moved, deleted = together(True), together(False)  # noqa: FBT003
    return plan.Changes(late=tuple(keys.late), moved=moved, deleted=deleted, altered=keys.altered)


def _loaded(warehouse: Warehouse, found: Sequence[tuple[str, Changes]]) -> dict[str, frozenset[tuple[plan.Key, str]]]:
    """Ask Bronze which of the late versions it holds from any extract."""
    late = {
        sql.SEPARATOR.join((table, *map(str, row.key), row.updated_at)): (table, (row.key, row.updated_at))
        for table, changes in found
        for row in changes.late
    }
    if not late:
        return {}
    tables = list(dict.fromkeys(table for table, changes in found if changes.late))
    loaded: dict[str, set[tuple[plan.Key, str]]] = {}
    for (version,) in warehouse.query(sql.late_in_bronze(tables, late)).rows:
        table, held = late[version or ""]
        loaded.setdefault(table, set()).add(held)
    return {table: frozenset(versions) for table, versions in loaded.items()}


def _is_extracted(
    context: StageContext, table: str, date: BusinessDate, manifests: dict[Place, list[Manifest]]
) -> bool:
    known = manifests.get((table, str(date)))
    return bool(_manifest_keys(context, table, date) if known is None else known)
