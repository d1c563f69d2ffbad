"""`ecomm status`: read the ledger, and print what it says."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final, Literal

from ecomm_pipeline.ledger import Ledger
from ecomm_pipeline.status.plan import as_json, as_table, newest

if TYPE_CHECKING:
    from datetime import date

    from ecomm_pipeline.dates import DateRange
    from ecomm_pipeline.layout import Layout
    from ecomm_pipeline.ledger import Record
    from ecomm_pipeline.store import Store

__all__ = ["show_status"]

_DAYS: Final = 14
_AT_ONCE: Final = 8


def show_status(
    dates: DateRange | None, store: Store, layout: Layout, *, output: Literal["table", "json"] = "table"
) -> None:
    """Print dates × stages to standard output: of `dates`, or of the last 14 that the ledger knows.

    Raises what `Store` raises; a date without records is no error.
    """
    days = read_days(dates, Ledger(store, layout))
    if output == "json":
        print(json.dumps(as_json(days), indent=1, ensure_ascii=False))
    elif any(days.values()):
        print("\n".join(as_table(days)))
    else:
        print(f"the ledger in {store.url}/{layout.ledgers} has no record{f' of {dates}' if dates else ''}")


def read_days(dates: DateRange | None, ledger: Ledger) -> dict[date, list[Record]]:
    """Read the newest records of each date, many dates at once."""
    wanted = list(dates) if dates else ledger.dates()[-_DAYS:]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return {day.day: newest(records) for day, records in zip(wanted, pool.map(ledger.of_date, wanted), strict=True)}
