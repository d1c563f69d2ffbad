"""The balance sheet as it is kept, and the findings of a date that adds up and is still worth a look. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from ecomm_pipeline.ledger import Finding
from ecomm_pipeline.reconciler.amounts import Amount, plain
from ecomm_pipeline.reconciler.keys import Changes
from ecomm_pipeline.reconciler.sales import WITHOUT_ORDER, SalesDay

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from ecomm_pipeline.errors import Priority
    from ecomm_pipeline.ledger import FindingKind
    from ecomm_pipeline.reconciler.plan import Day

__all__ = ["HOPS", "findings", "sheet"]

HOPS: Final = (
    "source",
    "extracted",
    "late",
    "moved",
    "deleted",
    "bronze",
    "kept",
    "superseded",
    "quarantined",
    "lost",
    "orphans",
)
"""The hops of a source table, in the order in which they are written."""


def sheet(days: Iterable[Day], sales: Iterable[SalesDay] = ()) -> list[dict[str, Any]]:
    """Write the balance sheet: a row for each table, date and hop; money as text.

    HOPS of a source table: the explained differences of the source (`late`, `moved`, `deleted`) and `orphans` are in no
    sum; of them, and of what comes after `kept`, only those that have rows are written. The table `sales` has the sales
    dates: hops are the names of the tables, `rows` are order lines (None where a table has none), `money` is net
    revenue.
    """
    return [row for day in days for row in _day_rows(day)] + [row for day in sales for row in _sales_rows(day)]


def _row(table: str, date: object, hop: str, amount: Amount, **more: object) -> dict[str, Any]:
    money = {} if amount.money is None else {"money": plain(amount.money)}
    return {"table": table, "date": str(date), "hop": hop, "rows": amount.rows, **money, **more}


def _day_rows(day: Day) -> Iterator[dict[str, Any]]:
    if day.manifest is None:
        yield {"table": day.table, "date": str(day.date), "hop": "extracted", "rows": None, "missing": True}
        return
    if day.source is not None:
        yield _row(day.table, day.date, "source", day.source)
    yield _row(day.table, day.date, "extracted", day.extracted, run_id=day.manifest.run_id)
    changes = day.changes or Changes()
    explained = {"late": changes.late_amount, "moved": changes.moved, "deleted": changes.deleted}
    yield from (_row(day.table, day.date, hop, amount) for hop, amount in explained.items() if amount)
    if not day.in_lakehouse:
        return
    rescued = {"rescued": day.rescued} if day.rescued else {}
    yield _row(day.table, day.date, "bronze", day.bronze, **rescued)
    yield _row(day.table, day.date, "kept", day.kept)
    reasons = {"reasons": {reason: amount.rows for reason, amount in sorted(day.quarantined.items())}}
    rest: dict[str, tuple[Amount, dict[str, Any]]] = {
        "superseded": (day.superseded, {}),
        "quarantined": (day.quarantine, reasons),
        "lost": (day.lost, {}),
        "orphans": (day.orphans, {}),
    }
    yield from (_row(day.table, day.date, hop, amount, **more) for hop, (amount, more) in rest.items() if amount)


def _sales_rows(day: SalesDay) -> Iterator[dict[str, Any]]:
    for table, measures in day.tables.items():
        rows = int(measures["lines"]) if "lines" in measures else None
        money = {"money": plain(measures["net_revenue"])} if "net_revenue" in measures else {}
        date = day.date or WITHOUT_ORDER
        yield {"table": "sales", "date": date, "hop": table, "rows": rows, **money}


def findings(days: Sequence[Day]) -> Iterator[Finding]:
    """Tell what is explained and still worth a look, a finding a table: quarantined, late, deleted, orphan.

    Rescued values are told by dlt-trigger (`schema_drift`) when they arrive; here they are in the sheet.
    """
    for table in dict.fromkeys(day.table for day in days):
        of_table = [day for day in days if day.table == table]
        for priority, kind, count, text in _odd(of_table):
            if count:
                rows = f"{count} row{'' if count == 1 else 's'}"
                dates = _dates([day for day in of_table if _has(day, kind)])
                yield Finding(priority=priority, kind=kind, message=f"{table}, {dates}: {rows} {text}")


def _has(day: Day, kind: str) -> bool:
    return any(count for _, k, count, _ in _odd([day]) if k == kind)


def _odd(days: Sequence[Day]) -> Iterator[tuple[Priority, FindingKind, int, str]]:
    reasons: dict[str, int] = {}
    for day in days:
        for reason, amount in day.quarantined.items():
            reasons[reason] = reasons.get(reason, 0) + amount.rows
    why = "; ".join(f"{reason} ({count})" for reason, count in sorted(reasons.items(), key=lambda item: -item[1]))
    changes = [day.changes or Changes() for day in days]
    late = [row for change in changes for row in change.late if row.covered]
    covered = "; ".join(sorted({row.covered for row in late if row.covered}))
    yield "P2", "rows_quarantined", sum(reasons.values()), f"in silver.quarantine: {why}"
    yield "P3", "committed_late", len(late), f"committed after the extract: {covered}"
    deleted = sum(change.deleted.rows for change in changes)
    yield "P3", "deleted_in_source", deleted, "deleted in Postgres since the extract; the lakehouse keeps them"
    orphans = sum(day.orphans.rows for day in days)
    yield "P3", "orphan_files", orphans, "in Bronze from files of a killed run that no manifest lists; harmless"


def _dates(days: Sequence[Day]) -> str:
    names = [str(day.date) for day in days]
    return names[0] if len(names) == 1 else f"{len(names)} dates from {names[0]} to {names[-1]}"
