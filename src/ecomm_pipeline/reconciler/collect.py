"""Asks Postgres, S3 and the lakehouse at once, and puts the figures of each table and date together."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from ecomm_pipeline.contract import CONTRACT
from ecomm_pipeline.databricks import Warehouse, connect
from ecomm_pipeline.reconciler.amounts import Amount
from ecomm_pipeline.reconciler.extracts import count_files, read_manifests
from ecomm_pipeline.reconciler.lakehouse import Lakehouse, amount_of
from ecomm_pipeline.reconciler.late import explain
from ecomm_pipeline.reconciler.plan import Day, newest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from psycopg2.extensions import connection as Connection  # noqa: N812 (it is a class)

    from ecomm_pipeline.dates import BusinessDate
    from ecomm_pipeline.manifest import Manifest
    from ecomm_pipeline.reconciler.extracts import Count, Place
    from ecomm_pipeline.reconciler.sales import Measures, SalesDay
    from ecomm_pipeline.reconciler.source import Source
    from ecomm_pipeline.settings import ReconcilerSettings
    from ecomm_pipeline.stage import StageContext, Stop

__all__ = ["Figures", "collect"]


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
    manifests = read_manifests(context, settings.business.tables)
    chosen = {place: newest(found, context.run_id) for place, found in manifests.items()}
    extracts = {place: manifest for place, manifest in chosen.items() if manifest is not None}
    lakehouse = settings.databricks
    warehouse = Warehouse(connect(lakehouse), lakehouse.warehouse_id, lakehouse.catalog, context.clock, stop)
    lake = Lakehouse(warehouse, context, settings.business.business_timezone)
    counted = submit(source.count, list(extracts.values())) if source else None
    answers = [submit(lake.ask_tables, extracts), submit(lake.ask_sales, through)]
    counts = count_files(context, extracts, stop)
    for answer in as_completed([*answers, *([counted] if counted else [])]):
        answer.result()
    now = counted.result() if counted else {}
    days = [
        _day(place, date, chosen[place], now.get(place), counts.get(place), lake, manifests[place])
        for date in context.dates
        for place in ((table, str(date)) for table in settings.business.tables)
    ]
    if source:
        days = explain(context, settings, source, warehouse, days, manifests, stop)
    return Figures(days, lake.sales, lake.customers)


def _open_source(settings: ReconcilerSettings, opened: list[Connection], stack: ExitStack) -> Source:
    from ecomm_pipeline.reconciler.source import open_source

    return stack.enter_context(open_source(settings.postgres, settings.extractor, opened))


def _day(
    place: Place,
    date: BusinessDate,
    manifest: Manifest | None,
    source: tuple[Amount, int | None] | None,
    count: Count | None,
    lake: Lakehouse,
    manifests: Sequence[Manifest],
) -> Day:
    """Put the figures of a table and date together."""
    table = place[0]
    if manifest is None or count is None:
        return Day(table, date)
    money = Decimal(0) if table in CONTRACT and CONTRACT[table].money else None
    nothing = Amount(0, money)
    loaded = lake.bronze.get(place, {})
    names = [(manifest.run_id, file.name) for file in manifest.files]
    own = [loaded[name] for name in names if name in loaded]
    refused = lake.quarantined.get(place, {})
    listed = {(other.run_id, file.name) for other in manifests for file in other.files}
    states = lake.states.get(place, [])

    def of_state(state: str) -> Amount:
        return sum((amount_of(row) for row in states if row["state"] == state), nothing)

    return Day(
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
        quarantined={row["reason"] or "": amount_of(row) for row in states if row["state"] == "quarantined"},
        in_quarantine=sum(refused.get(name, 0) for name in names),
        lost=of_state("lost"),
    )
