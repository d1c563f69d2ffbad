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
from ecomm_pipeline.explain import derived, plan
from ecomm_pipeline.explain.node import Node, is_proven, lines
from ecomm_pipeline.manifest import Manifest
from ecomm_pipeline.reconciler import files, sql

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ecomm_pipeline.layout import Layout
    from ecomm_pipeline.settings import Business, Databricks
    from ecomm_pipeline.store import Store

__all__ = ["Explainer", "show_explanation"]

_READERS = 4


def show_explanation(
    date: BusinessDate,
    metric: str,
    *,
    product: str | None = None,
    business: Business,
    databricks: Databricks,
    store: Store,
    layout: Layout,
    output: Literal["tree", "json"] = "tree",
) -> None:
    """Print what a metric of a sales date (and one product, where it is named) is made of.

    Raises `ConfigurationError` for a metric that is none, `MissingSourceError` when the KPI table has no row of the
    date, `NotReconciledError`, after the tree is printed, when a place does not say what the one above it says.
    """
    measures = plan.measure_of(metric, product)
    warehouse = Warehouse(connect(databricks), databricks.warehouse_id, databricks.catalog, SystemClock())
    explainer = Explainer(date, business.business_timezone, warehouse, store, layout, product)
    with ThreadPoolExecutor(len(measures)) as pool:
        told = dict(zip((one.name for one in measures), pool.map(explainer.explain, measures), strict=True))
    name = metric.rpartition(".")[2]
    if name in derived.DERIVED:
        told = {name: explainer.derive(name, told), **told}
    of = f"{date}{f', product {product}' if product else ''}"
    if output == "json":
        print(json.dumps({each: node.as_dict() for each, node in told.items()}, indent=1))
    else:
        print("\n\n".join("\n".join(_lines(each, of, node)) for each, node in told.items()))
    if not all(map(is_proven, told.values())):
        message = f"{metric} of {of} is not proven: a place does not say what the one above it says"
        raise NotReconciledError(message, next_step=f"ecomm doctor {date}")


def _lines(name: str, of: str, node: Node) -> Iterable[str]:
    is_money = plan.MEASURES[name].is_money if name in plan.MEASURES else "revenue" in name
    verdict = "proven down to its files" if name in plan.MEASURES else "proven out of what is beneath it"
    return lines(f"{name} of {of}", node, money=is_money, proven=verdict)


@dataclass(slots=True)
class Explainer:
    """What is asked, of whom."""

    date: BusinessDate
    timezone: str
    warehouse: Warehouse
    store: Store
    layout: Layout
    product: str | None = None

    def explain(self, measure: plan.Measure) -> Node:
        """Make the tree of a measure: the sums of all hops, Silver's versions, and the files recounted."""
        with ThreadPoolExecutor(2) as pool:
            asked = pool.submit(self._measures)
            statement = plan.rows_sql(measure, self.date, self.timezone, self.product)
            rows = plan.read_rows(measure, self.warehouse.query(statement).dicts())
            recounts = [] if len(rows) > plan.LIMIT else self._recount(measure, plan.parts(measure, rows))
            measures = asked.result()
        hops = plan.PRODUCT_HOPS if self.product else plan.DAY_HOPS
        if hops[0] not in measures:
            raise self._missing(hops[0])
        return plan.tree(measure, measures, rows, recounts, hops)

    def _missing(self, table: str) -> MissingSourceError:
        if not self.product:
            message = f"kpi.{table} has no row of {self.date}"
            return MissingSourceError(message, next_step=f"ecomm doctor {self.date}")
        sold = f"SELECT * FROM kpi.{table} WHERE sales_date = DATE'{self.date}'"  # noqa: S608 (text for a person)
        message = f"kpi.{table} has no row of {self.product!r} on {self.date}"
        return MissingSourceError(message, next_step=f'see what was sold: ecomm query "{sold}"')

    def derive(self, name: str, explained: Mapping[str, Node]) -> Node:
        """Make the tree of a column that dbt works out of measures, which are explained already."""
        said = self.warehouse.query(derived.derived_sql(self.date)).dicts()
        is_ratio = bool(derived.DERIVED[name].over)
        weeks = [] if is_ratio else self.warehouse.query(derived.weeks_sql(self.date)).dicts()
        by_day = {row["date"] or "": Decimal(row["value"] or 0) for row in weeks}
        value = said[0][name] if said else None
        measures = {each: node.value for each, node in explained.items() if node.value is not None}
        return derived.derived_tree(name, None if value is None else Decimal(value), measures, by_day, self.date)

    def _measures(self) -> dict[str, dict[str, Decimal]]:
        """Ask for the measures of the sales date by table, with the reconciler's own questions."""
        if self.product:
            answer = self.warehouse.query(plan.product_sql(self.date, self.product)).dicts()
            return {row["table_name"] or "": _decimals(row) for row in answer}
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
