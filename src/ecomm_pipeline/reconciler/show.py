"""The balance sheet for people: a table a terminal can show, of the range as a whole."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from ecomm_pipeline.tables import text_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ecomm_pipeline.reconciler.plan import Problem

__all__ = ["sheet"]

HOPS: Final = ("source", "extracted", "bronze", "kept", "superseded", "quarantined", "lost")


def sheet(rows: Sequence[dict[str, Any]], problems: Sequence[Problem], *, lookback: int) -> str:
    """Write the source tables' rows and money by hop, summed over the dates, and every problem below.

    `lookback` is in seconds: where there are many dates it is told that the sums hold it twice.
    """
    tables = [table for table in dict.fromkeys(row["table"] for row in rows) if table != "sales"]
    body = [[table, *(_rows(rows, table, hop) for hop in HOPS), _money(rows, table)] for table in tables]
    columns = ("table", *HOPS, "money extracted")
    lines = [text_table(columns, body, right=[False, *[True] * (len(columns) - 1)])]
    if lookback and len({row["date"] for row in rows if row["table"] != "sales"}) > 1:
        lines.append(f"sums with each date's look-back of {lookback / 3600:g} h, whose rows the date before counts too")
    lines += [f"✗ {problem.message}\n  next: {problem.next_step}" for problem in problems]
    return "\n".join(lines if problems else [*lines, "✓ everything adds up"])


def _rows(rows: Sequence[dict[str, Any]], table: str, hop: str) -> str:
    found = [row["rows"] or 0 for row in rows if row["table"] == table and row["hop"] == hop]
    return f"{sum(found):,}".replace(",", " ") if found else "–"


def _money(rows: Sequence[dict[str, Any]], table: str) -> str:
    found = [
        Decimal(row["money"]) for row in rows if row["table"] == table and row["hop"] == "extracted" and "money" in row
    ]
    return f"{sum(found):,.2f}".replace(",", " ") if found else "–"
