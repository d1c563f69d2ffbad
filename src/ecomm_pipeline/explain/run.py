"""`ecomm explain`: ask the lakehouse hop by hop, read the files back, and print the tree with its proofs."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date as calendar_date
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal

from ecomm_pipeline.clock import SystemClock
from ecomm_pipeline.contract import CONTRACT
from ecomm_pipeline.databricks import Warehouse, connect
from ecomm_pipeline.dates import BusinessDate, DateRange
from ecomm_pipeline.errors import EcommError, MissingSourceError, NotReconciledError
from ecomm_pipeline.explain import plan
from ecomm_pipeline.manifest import Manifest
from ecomm_pipeline.reconciler import files, sql

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ecomm_pipeline.layout import Layout
    from ecomm_pipeline.settings import Business, Databricks
    from ecomm_pipeline.store import Store

__all__ = ["Explainer", "show_explanation"]

_READERS = 4


def show_explanation(
    date: BusinessDate,
    metric: str,
    *,
    business: Business,
    databricks: Databricks,
    store: Store,
    layout: Layout,
    output: Literal["tree", "json"] = "tree",
) -> None:
    """Print what a metric of a sales date is made of.

    Raises `ConfigurationError` for a metric that is none, `MissingSourceError` when the KPI table has no row of the
    date, `NotReconciledError`, after the tree is printed, when a place does not say what the one above it says.
    """
    measures = plan.measure_of(metric)
    warehouse = Warehouse(connect(databricks), databricks.warehouse_id, databricks.catalog, SystemClock())
    explainer = Explainer(date, business.business_timezone, warehouse, store, layout)
    with ThreadPoolExecutor(len(measures)) as pool:
        nodes = list(pool.map(explainer.explain, measures))
    told = dict(zip(measures, nodes, strict=True))
    if output == "json":
        print(json.dumps({measure.name: node.as_dict() for measure, node in told.items()}, indent=1))
    else:
        print("\n\n".join(_text(date, measure, node) for measure, node in told.items()))
    if not all(map(plan.is_proven, nodes)):
        message = f"{metric} of {date} is not proven: a place does not say what the one above it says"
        raise NotReconciledError(message, next_step=f"ecomm doctor {date}")


def _text(date: BusinessDate, measure: plan.Measure, node: plan.Node) -> str:
    return "\n".join(plan.lines(f"{measure.name} of {date}", node, money=measure.is_money))


@dataclass(slots=True)
class Explainer:
    """What is asked, of whom."""

    date: BusinessDate
    timezone: str
    warehouse: Warehouse
    store: Store
    layout: Layout

    def explain(self, measure: plan.Measure) -> plan.Node:
        """Make the tree of a measure: the sums of all hops, Silver's versions, and the files recounted."""
        with ThreadPoolExecutor(2) as pool:
            asked = pool.submit(self._measures)
            rows = plan.read_rows(
                measure, self.warehouse.query(plan.rows_sql(measure, self.date, self.timezone)).dicts()
            )
            recounts = [] if len(rows) > plan.LIMIT else self._recount(measure, plan.parts(measure, rows))
            measures = asked.result()
        if plan.KPI not in measures:
            message = f"kpi.{plan.KPI} has no row of {self.date}"
            raise MissingSourceError(message, next_step=f"ecomm doctor {self.date}")
        return plan.tree(measure, measures, rows, recounts)

    def _measures(self) -> dict[str, dict[str, Decimal]]:
        """Ask for the measures of the sales date by table, with the reconciler's own questions."""
        dates = DateRange(self.date, self.date)
        answers = [sql.sales(dates, self.timezone), sql.kpis([str(self.date)])]
        rows = [row for answer in answers for row in self.warehouse.query(answer).dicts()]
        return {row["table_name"] or "": _decimals(row) for row in rows if row["date"] == str(self.date)}

    def _recount(self, measure: plan.Measure, parts: Iterable[plan.Part]) -> list[plan.Recount]:
        with ThreadPoolExecutor(_READERS) as pool:
            return list(pool.map(lambda part: self._recount_part(measure, part), parts))

    def _recount_part(self, measure: plan.Measure, part: plan.Part) -> plan.Recount:
        """Read a file back, and count in it the versions that Silver has from it."""
        date = BusinessDate(calendar_date.fromisoformat(part.date))
        manifest = self._manifest(part.table, date, part.run_id)
        contract = CONTRACT[part.table]
        money = [f for f in sql.factors(contract) if measure.is_money or f.column == "quantity"]
        value, found = Decimal(0), 0
        try:
            chunks = self.store.chunks(self.layout.part(part.table, date, part.run_id, part.file))
            compressed = part.file.endswith(".gz")
            for key, version in files.versions(chunks, compressed=compressed, key=contract.key, money=money):
                if key in part.keys:
                    found += 1
                    value += (version.money or Decimal(0)) * measure.sign if money else 1
        except (EcommError, EOFError, OSError, ValueError) as error:
            return plan.Recount(part, None, 0, f"cannot be read: {error}", manifest)
        return plan.Recount(part, value, found, manifest=manifest)

    def _manifest(self, table: str, date: BusinessDate, run_id: str) -> Manifest | None:
        key = self.layout.manifest(table, date, run_id)
        content = self.store.get(key)
        return None if content is None else Manifest.from_json(content, key=key)


def _decimals(row: dict[str, Any]) -> dict[str, Decimal]:
    return {name: Decimal(value) for name, value in row.items() if name not in {"table_name", "date"} and value}
