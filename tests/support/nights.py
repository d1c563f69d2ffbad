"""Nights as the ledger has them: the records of a date, in S3, without a pipeline having run."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta
from typing import TYPE_CHECKING, Any

from ecomm_pipeline.layout import Layout
from ecomm_pipeline.ledger import Finding, Ledger, Record
from ecomm_pipeline.settings import DEFAULT_TABLES

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

    from ecomm_pipeline.dates import BusinessDate
    from ecomm_pipeline.store import Store

MODEL = {"kind": "model", "file": "x", "status": "success", "seconds": 1, "rows": 4}
TEST = {"kind": "test", "file": "x", "status": "pass", "seconds": 0.1}
NODES = dict.fromkeys(("agg_sales_kpi", "agg_product_kpi", "agg_customer_kpi"), MODEL) | {
    f"test_{number}": TEST for number in range(25)
}


@dataclass
class Nights:
    """Writes nights into a bucket."""

    store: Store
    tz: ZoneInfo
    layout: Layout = field(default_factory=Layout)

    @property
    def ledger(self) -> Ledger:
        """The ledger that is written."""
        return Ledger(self.store, self.layout)

    def write(self, date: BusinessDate, *, fails: bool = False) -> None:
        """Write a date's records and its sheet; on a night that fails, DLT is slow, rows are odd and dbt fails."""
        began = date.plus(1).at(time(1), self.tz)
        run_id = f"{began:%Y%m%dT%H%M%S}Z-night"
        key = f"{self.layout.artifacts('reconciler', run_id)}/sheet-{date}.json"
        self.store.put(key, json.dumps(_sheet(date)).encode())
        for fields in _night(date, self.tz, key, fails=fails):
            at, took = began + timedelta(hours=fields.pop("hours")), timedelta(minutes=fields.pop("minutes", 10))
            common = {"first_date": date.day, "last_date": date.day, "run_id": run_id, "trigger": "cron"}
            times = {"started_at": at, "ended_at": at + took}
            self.ledger.write(Record(**{"outcome": "succeeded", **common, **times, **fields}))

    def fail_backfill(self, date: BusinessDate) -> None:
        """Write a backfill of a date that dlt-trigger ended just now."""
        now = datetime.now(UTC)
        common = {"first_date": date.day, "last_date": date.day, "run_id": f"{now:%Y%m%dT%H%M%S}Z-back"}
        ended = {"started_at": now, "ended_at": now, "outcome": "failed", "failure_class": "timed_out"}
        self.ledger.write(Record(stage="dlt-trigger", trigger="backfill", error="too slow", **common, **ended))


def _night(date: BusinessDate, tz: ZoneInfo, sheet_key: str, *, fails: bool) -> list[dict[str, Any]]:
    mark = (date.plus(1).starts(tz) - timedelta(minutes=3)).isoformat()
    drift = [Finding(priority="P3", kind="schema_drift", message="orders.note is new (text)")]
    counts = {"rows_in": 9, "rows_out": 9, "bytes": 900, "figures": {"max_updated_at": mark}}
    extracts = [
        {"stage": "extractor", "hours": 0, "table": table, **counts}
        | ({"findings": drift} if fails and table == "orders" else {})
        for table in DEFAULT_TABLES
    ]
    unknown = [{"dataset": "silver.dim_orders", "name": "known_status", "passed": 8, "failed": 1}]
    update = {"figures": {"expectations": unknown if fails else []}, "minutes": 100 if fails else 50}
    proof = {"balanced": not fails, "sheet_key": sheet_key, "through": "gold"}
    before_dbt = [
        *extracts,
        {"stage": "dlt-trigger", "hours": 0.2, "rows_in": 36, "rows_out": 36, **update},
        {"stage": "reconciler", "hours": 2, "through": "gold", "figures": proof},
    ]
    if fails:
        error = {"failure_class": "bad_data", "error": "1 row fails it", "next_step": "look at the row"}
        nodes = {"nodes": {"unique": {**TEST, "status": "fail"}}}
        return [*before_dbt, {"stage": "dbt-runner", "hours": 4, "outcome": "failed", "figures": nodes, **error}]
    began = date.plus(1).at(time(1), tz)
    target = {"refreshed_at": (began + timedelta(hours=5)).isoformat(), "kpi_committed_at": began.isoformat()}
    return [
        *before_dbt,
        {"stage": "dbt-runner", "hours": 4, "rows_in": 9, "rows_out": 4, "figures": {"nodes": NODES}},
        {"stage": "tableau-refresher", "hours": 4.8, "figures": {"targets": {"sales": target}}},
    ]


def _sheet(date: BusinessDate) -> list[dict[str, Any]]:
    hops = {"source": 9, "extracted": 9, "bronze": 9, "kept": 8, "quarantined": 1}
    rows = [{"table": t, "date": str(date), "hop": hop, "rows": n} for t in DEFAULT_TABLES for hop, n in hops.items()]
    return [*rows, {"table": "sales", "date": str(date), "hop": "silver", "rows": 9}]
