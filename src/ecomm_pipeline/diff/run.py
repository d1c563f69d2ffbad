"""`ecomm diff`: read the ledger, the manifests and the balance sheets of two sides, and print what differs."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Literal

from ecomm_pipeline.dates import parse_dates
from ecomm_pipeline.diff import plan
from ecomm_pipeline.errors import ConfigurationError
from ecomm_pipeline.layout import MANIFEST_NAME
from ecomm_pipeline.ledger import Ledger
from ecomm_pipeline.manifest import Manifest
from ecomm_pipeline.status.plan import newest

if TYPE_CHECKING:
    from collections.abc import Sequence
    from zoneinfo import ZoneInfo

    from ecomm_pipeline.dates import BusinessDate
    from ecomm_pipeline.layout import Layout
    from ecomm_pipeline.ledger import Record
    from ecomm_pipeline.store import Store

__all__ = ["read_side", "show_diff"]


def show_diff(
    one: str,
    other: str,
    *,
    tables: Sequence[str],
    tz: ZoneInfo,
    store: Store,
    layout: Layout,
    output: Literal["table", "json"] = "table",
) -> None:
    """Print what differs between two sides, each `DATE` or `DATE@RUN` with the beginning of a run's id.

    Raises `ConfigurationError` when a side is not there, and what `Store` raises.
    """
    if one == other:
        message = f"both sides are {one}"
        raise ConfigurationError(message, next_step=f"compare two dates, or two runs of one as {one}@RUN {one}@RUN")
    with ThreadPoolExecutor(2) as pool:
        left, right = pool.map(lambda text: read_side(text, tables, tz, store, layout), (one, other))
    found, equal = plan.compare(left, right)
    if output == "json":
        print(json.dumps([each.as_dict() for each in found], indent=1, ensure_ascii=False))
    else:
        print(plan.as_table(left, right, found, equal))


def read_side(text: str, tables: Sequence[str], tz: ZoneInfo, store: Store, layout: Layout) -> plan.Side:
    """Read a date, or one run of it."""
    day, _, prefix = text.partition("@")
    date = parse_dates(day, tz).only
    records = Ledger(store, layout).of_date(date)
    run_id = plan.choose_run((record.run_id for record in records), prefix, str(date)) if prefix else None
    chosen = newest(record for record in records if run_id in (None, record.run_id))
    if not chosen:
        message = f"the ledger has no record of {date}"
        raise ConfigurationError(message, next_step="see which dates it has: ecomm status")
    manifests = _manifests(date, tables, run_id, store, layout)
    return plan.Side(text, str(date), chosen, manifests, _sheet(chosen, store))


def _manifests(
    date: BusinessDate, tables: Sequence[str], run_id: str | None, store: Store, layout: Layout
) -> dict[str, Manifest]:
    """Read the newest manifest of each table, or that of the run."""

    def read(table: str) -> Manifest | None:
        names = [key for key in store.keys(layout.extracts(table, date)) if key.endswith(f"/{MANIFEST_NAME}")]
        own = [key for key in names if run_id is None or f"/run={run_id}/" in key]
        content = store.get(own[-1]) if own else None
        return Manifest.from_json(content, key=own[-1]) if content is not None else None

    with ThreadPoolExecutor(len(tables)) as pool:
        found = zip(tables, pool.map(read, tables), strict=True)
        return {table: manifest for table, manifest in found if manifest is not None}


def _sheet(records: Sequence[Record], store: Store) -> list[dict[str, Any]]:
    keys = [record.figures["sheet_key"] for record in records if "sheet_key" in record.figures]
    content = store.get(keys[-1]) if keys else None
    return [] if content is None else list(json.loads(content))
