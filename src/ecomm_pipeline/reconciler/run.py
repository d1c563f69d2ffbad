"""The balance sheet: ask Postgres, the files, Bronze, Silver, Gold and the KPI tables, and compare.

The lakehouse is asked one statement a hop, whatever the number of tables and dates; Postgres one for all windows. The
files are read back while it answers.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any, Final

from ecomm_pipeline.errors import ConfigurationError
from ecomm_pipeline.postgres import interruptible
from ecomm_pipeline.reconciler import show, sql
from ecomm_pipeline.reconciler.collect import collect
from ecomm_pipeline.reconciler.plan import error_of, problems_of_day
from ecomm_pipeline.reconciler.sales import problems_of_customers, problems_of_sales
from ecomm_pipeline.reconciler.sheet import findings
from ecomm_pipeline.reconciler.sheet import sheet as write_sheet
from ecomm_pipeline.stage import Stop

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ecomm_pipeline.reconciler.plan import Day, Problem
    from ecomm_pipeline.settings import ReconcilerSettings
    from ecomm_pipeline.stage import StageContext

__all__ = ["reconcile"]

THROUGH: Final = ("gold", "kpi")
_PROBLEMS_TOLD: Final = 20


def reconcile(context: StageContext, settings: ReconcilerSettings, *, through: str = "kpi") -> None:
    """Prove that rows and money add up for the dates of the context, from Postgres through Gold or the KPI tables.

    Fills the record: `rows_in` extracted and `rows_out` kept rows; figures `through`, `balanced`, `lookback_seconds`,
    `sheet_key` (the object of the rows that `sheet.sheet` writes), `problems` (a sentence each, the first of them) and
    `tables` (those of the lakehouse that are compared); findings for what is explained and odd. The sheet lies once
    among the artifacts, since the record lies under each date. On a terminal it is printed too.

    Raises `NotReconciledError` or `MissingSourceError` when something is not explained.
    """
    if through not in THROUGH:
        message = f"--through: {through!r} is not how far to prove"
        raise ConfigurationError(message, next_step=f"use one of {', '.join(THROUGH)}")
    stop = Stop()
    figures = interruptible(lambda opened: collect(context, settings, through, opened, stop), stop)
    days, sales = figures.days, figures.sales
    problems = [problem for day in days for problem in problems_of_day(day)]
    problems += [p for day in sales for p in problems_of_sales(day, through=through, dates=context.dates)]
    if through == "kpi":
        problems += problems_of_customers(*figures.customers, dates=context.dates)
    sheet = write_sheet(days, sales)
    _record(context, days, sheet, problems)
    context.record.figures |= {
        "through": through,
        "lookback_seconds": settings.extractor.lookback,
        "tables": sql.compared(settings.business.tables, through),
    }
    if sys.stdout.isatty():
        print(show.sheet(sheet, problems, lookback=settings.extractor.lookback))
    if error := error_of(problems, context.dates):
        raise error


def _record(
    context: StageContext,
    days: Sequence[Day],
    sheet: Sequence[dict[str, Any]],
    problems: Sequence[Problem],
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
    record.findings.extend(findings(days))
