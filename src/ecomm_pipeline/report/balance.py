"""Rows and money, hop by hop, as the reconciler's sheet has them. Pure."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from ecomm_pipeline.report.page import Cell, Check, Flow, OddDay
from ecomm_pipeline.report.words import counted, number, span

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from ecomm_pipeline.dates import DateRange
    from ecomm_pipeline.ledger import Record
    from ecomm_pipeline.report.page import Tone

    Sheet = Mapping[tuple[str, str], list[dict[str, Any]]]
    """The rows of the sheet by table and date."""

__all__ = ["flows", "odd_days", "quarantine", "reconciled", "sales"]

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


def _rows_of(sheet: Sheet, table: str) -> list[dict[str, Any]]:
    return [row for (name, _), rows in sheet.items() if name == table for row in rows]


def flows(sheet: Sheet) -> Iterator[Flow]:
    """Give the flow of each source table through the hops, summed over the dates."""
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


def sales(sheet: Sheet) -> Flow | None:
    """Give net revenue table by table, from Silver to the KPI tables; None where none was compared."""
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


def odd_days(sheet: Sheet) -> Iterator[OddDay]:
    """Tell of each table and date where something is not plainly equal, oldest first."""
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


def reconciled(sheet: Sheet, dates: DateRange | None, current: Sequence[Record]) -> str:
    """Say how many of the dates were reconciled."""
    if not dates or not sheet:
        return ""
    proven = len({date for table, date in sheet if table != "sales"})
    lookback = max((record.figures.get("lookback_seconds", 0) for record in current), default=0)
    twice = f", each with its look-back of {span(lookback)}, whose rows the date before counts too"
    return f"{number(proven)} of {counted(len(dates), 'date')} reconciled{twice if lookback and proven > 1 else ''}"


def quarantine(sheet: Sheet) -> Iterator[Check]:
    """Count quarantined rows by table and reason, most first."""
    totals: dict[tuple[str, str], int] = {}
    for (table, _), rows in sheet.items():
        for row in rows:
            for reason, count in (row.get("reasons") or {}).items():
                totals[table, reason] = totals.get((table, reason), 0) + count
    for (table, reason), count in sorted(totals.items(), key=lambda item: -item[1]):
        yield Check(reason or "no reason", table, "", number(count), "warn")
