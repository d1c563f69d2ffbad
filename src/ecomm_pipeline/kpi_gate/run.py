"""Ask the warehouse for a date's KPIs and those of the weeks before, and tell the verdict."""

from __future__ import annotations

import sys
from datetime import date as calendar_date
from decimal import Decimal
from typing import TYPE_CHECKING, Final

from ecomm_pipeline.databricks import Warehouse, connect
from ecomm_pipeline.errors import ConfigurationError
from ecomm_pipeline.kpi_gate import plan
from ecomm_pipeline.logs import get_logger

if TYPE_CHECKING:
    from datetime import date

    from ecomm_pipeline.settings import KpiGateSettings
    from ecomm_pipeline.stage import StageContext

__all__ = ["judge"]

_NO_KPI: Final = ("DATE", "TIMESTAMP", "STRING")
"""Types of columns that are no number."""


def judge(context: StageContext, settings: KpiGateSettings, *, workflow: str = "") -> None:
    """Compare the KPIs of the context's dates with the same weekdays before; print `passed`, or what is held and why.

    Fills the record: figures `verdict`, `compared`, `moved`, `kpis` and, where Tableau is held back, `held_until`; a
    P2 finding, and as `next_step` the command that goes on regardless. `workflow` is that which waits then, as
    NAMESPACE/NAME. A date that is held is no failure. Raises `ConfigurationError` without a bound or with one of a
    column that is not there, and what `Warehouse.query` raises.
    """
    bounds, wanted = settings.kpi_gate.shares, settings.kpi_gate
    if not bounds:
        message = "ECOMM_KPI_GATE_BOUNDS is not set: there is nothing to compare"
        raise ConfigurationError(message, next_step="set it, as net_revenue=50%,orders=50%")
    rows = _read(context, settings, bounds)
    moves = plan.judge(context.dates, rows, bounds, weeks=wanted.weeks, needed=wanted.weeks_needed)
    for move in moves if len(context.dates) == 1 else ():
        get_logger().info("kpi-gate.compared", **move.as_dict())
    record = context.record
    record.figures = plan.figures(moves)
    held = plan.reason(moves)
    if held:
        record.next_step = plan.go_on(workflow, context.dates)
        record.figures["held_until"] = (context.clock.now() + plan.HOLD).isoformat()
        record.find("P2", "kpi_held", held)
    sys.stdout.write(f"{plan.HELD}: {held}. If that is right: {record.next_step}\n" if held else f"{plan.PASSED}\n")


def _read(context: StageContext, settings: KpiGateSettings, bounds: dict[str, Decimal]) -> dict[date, plan.Row]:
    """Read the KPI table's rows of the dates and of the weeks before, by sales date: the bounded columns."""
    lakehouse = settings.databricks
    warehouse = Warehouse(
        connect(lakehouse), lakehouse.warehouse_id, lakehouse.catalog, context.clock, stop=context.stop
    )
    first, last = plan.first_needed(context.dates, settings.kpi_gate.weeks), context.dates.last
    result = warehouse.query(
        f"SELECT * FROM kpi.{plan.TABLE} WHERE sales_date BETWEEN CAST(:first AS DATE) AND CAST(:last AS DATE)",  # noqa: S608 (a name of ours)
        {"first": str(first), "last": str(last)},
    )
    columns = zip(result.columns, result.types, strict=True)
    plan.check_names(bounds, [name for name, kind in columns if kind.upper() not in _NO_KPI])
    return {
        calendar_date.fromisoformat(str(row["sales_date"])): {
            kpi: None if (value := row[kpi]) is None else Decimal(value) for kpi in bounds
        }
        for row in result.dicts()
    }
