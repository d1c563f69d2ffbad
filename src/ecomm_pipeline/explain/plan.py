"""What a KPI of a day is made of: the tree of hops, each proven against the one above it. Pure.

::

    kpi.agg_sales_kpi = gold.agg_daily_sales = gold.sales_analytics = Silver's versions = Σ over their files
    kpi.agg_product_kpi of a product         = gold.sales_analytics = Silver's versions = Σ over their files

The arithmetic is the one of docs/architecture.md, written a second time on purpose: it proves what SQL and dbt made.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from decimal import Decimal
from itertools import pairwise
from typing import TYPE_CHECKING, Final, Literal

from ecomm_pipeline.errors import ConfigurationError
from ecomm_pipeline.explain.derived import DERIVED
from ecomm_pipeline.explain.derived import TABLE as KPI
from ecomm_pipeline.explain.node import Node, number
from ecomm_pipeline.reconciler.sql import business_day

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from ecomm_pipeline.dates import BusinessDate
    from ecomm_pipeline.manifest import Manifest

__all__ = [
    "DAY_HOPS",
    "LIMIT",
    "MEASURES",
    "PRODUCT_HOPS",
    "Measure",
    "Part",
    "Recount",
    "Row",
    "measure_of",
    "parts",
    "product_sql",
    "rows_sql",
    "tree",
]

PRODUCT_KPI: Final = "agg_product_kpi"
LIMIT: Final = 100_000
"""Rows of Silver that are fetched to be recounted in the files; a day that has more is proven down to Silver only."""


@dataclass(frozen=True, slots=True)
class Measure:
    """A figure of a sales date that is counted from rows: which rows of Silver count in it, and as what.

    `of` is the source table whose files it comes from; `statuses` are of the orders that count; `sign` is −1 where the
    rows' money counts against it. `additive` is whether the files' parts sum to it.
    """

    name: str
    of: Literal["order_items", "orders"]
    counts: Literal["money", "units", "rows", "customers"]
    statuses: tuple[str, ...]
    sign: int = 1

    @property
    def additive(self) -> bool:
        """Whether the parts of the files sum to it: a customer may have ordered in two of them."""
        return self.counts != "customers"

    @property
    def is_money(self) -> bool:
        """Whether it is in the shop's currency."""
        return self.counts == "money"


MEASURES: Final[dict[str, Measure]] = {
    measure.name: measure
    for measure in (
        Measure("orders", "orders", "rows", ("completed",)),
        Measure("cancelled_orders", "orders", "rows", ("cancelled",)),
        Measure("customers", "orders", "customers", ("completed",)),
        Measure("units", "order_items", "units", ("completed",)),
        Measure("gross_revenue", "order_items", "money", ("completed",)),
        Measure("refunds", "order_items", "money", ("cancelled",), sign=-1),
        Measure("net_revenue", "order_items", "money", ("completed", "cancelled")),
    )
}

PRODUCT_MEASURES: Final = tuple(name for name, measure in MEASURES.items() if measure.of == "order_items")
"""What can be explained of one product."""

DAY_HOPS: Final = (KPI, "agg_daily_sales", "sales_analytics")
PRODUCT_HOPS: Final = (PRODUCT_KPI, "sales_analytics")
"""The tables between a KPI and Silver, from the top."""


def measure_of(metric: str, product: str | None = None) -> tuple[Measure, ...]:
    """Give the measures that a metric is made of, itself or those of a ratio.

    `metric` is a column of agg_sales_kpi (of agg_product_kpi where a product is named), with or without its table.
    Raises `ConfigurationError` for any other.
    """
    table, _, name = metric.removeprefix("kpi.").rpartition(".")
    known = PRODUCT_MEASURES if product else (*MEASURES, *DERIVED)
    if name in known and table in ("", PRODUCT_KPI if product else KPI):
        return tuple(MEASURES[each] for each in (DERIVED[name].measures if name in DERIVED else (name,)))
    message = f"{metric!r} is not a metric that can be explained{' of a product' if product else ''}"
    hint = ""
    if table == PRODUCT_KPI and not product:
        hint = f"name the product with --product (`ecomm query` shows those of kpi.{PRODUCT_KPI}), or "
    elif table not in ("", KPI, PRODUCT_KPI):
        hint = f"kpi.{table} has no row a day; of a day, or with --product of a product, "
    raise ConfigurationError(message, next_step=f"{hint}use one of {', '.join(known)}")


# --- what Silver is asked ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Row:
    """A version in Silver that counts: its key, what it counts as, and the file that it came from."""

    key: tuple[str, ...]
    value: Decimal
    customer: str | None
    date: str
    run_id: str
    file: str


def rows_sql(measure: Measure, date: BusinessDate, timezone: str, product: str | None = None) -> str:
    """Ask Silver for the versions of the day that count; answers (order_id, line_number, value, customer, date, …)."""
    statuses = ", ".join(f"'{status}'" for status in measure.statuses)
    of_lines = measure.of == "order_items"
    origin = "l" if of_lines else "o"
    value = {"money": f"{measure.sign} * l.quantity * l.unit_price", "units": "l.quantity"}.get(measure.counts, "1")
    join = "JOIN silver.fact_orders AS l ON l.order_id = o.order_id" if of_lines else ""
    positive = "AND l.quantity > 0" if measure.counts == "units" else ""
    of_product = f"AND {_is_product('l.product_id', product)}" if product else ""
    return f"""
SELECT o.order_id, {"CAST(l.line_number AS STRING)" if of_lines else "''"} AS line_number,
  CAST({value} AS STRING) AS value, CAST(o.customer_id AS STRING) AS customer, CAST({origin}._date AS STRING) AS date,
  {origin}._run_id AS run_id, substring_index({origin}._source_file, '/', -1) AS file
FROM silver.dim_orders AS o {join}
WHERE o.status IN ({statuses}) AND {business_day("o.ordered_at", timezone)} = DATE'{date}' {positive} {of_product}
LIMIT {LIMIT + 1}""".strip()  # noqa: S608 (names and words are ours, date and zone are parsed)


def product_sql(date: BusinessDate, product: str) -> str:
    """Ask for the measures of a product on a day, as `reconciler.sql.sales` is answered: of its KPI, and in Gold."""
    day, completed = f"sales_date = DATE'{date}'", "status = 'completed' AND quantity > 0"
    return f"""
SELECT '{PRODUCT_KPI}' AS table_name, NULL AS lines, units, CAST(gross_revenue AS STRING) AS gross_revenue,
  CAST(refunds AS STRING) AS refunds, CAST(net_revenue AS STRING) AS net_revenue
FROM kpi.{PRODUCT_KPI} WHERE {day} AND {_is_product("product_id", product)}
UNION ALL
SELECT 'sales_analytics', count(*), coalesce(sum(CASE WHEN {completed} THEN quantity END), 0),
  CAST(sum(gross_revenue) AS STRING), CAST(sum(refund) AS STRING), CAST(sum(gross_revenue) - sum(refund) AS STRING)
FROM gold.sales_analytics WHERE {day} AND {_is_product("product_id", product)}""".strip()  # noqa: S608 (a literal)


def _is_product(column: str, product: str) -> str:
    """Compare with a product by its code; `unknown` is that of lines that name none, as in the KPI table."""
    literal = product.replace("\\", "\\\\").replace("'", "\\'")
    return f"coalesce({column}, 'unknown') = '{literal}'"


def read_rows(measure: Measure, answer: Iterable[Mapping[str, str | None]]) -> list[Row]:
    """Read what `rows_sql` was answered."""
    of_lines = measure.of == "order_items"
    return [
        Row(
            key=(row["order_id"] or "", *([row["line_number"] or ""] if of_lines else [])),
            value=Decimal(row["value"] or 0),
            customer=row["customer"],
            date=row["date"] or "",
            run_id=row["run_id"] or "",
            file=row["file"] or "",
        )
        for row in answer
    ]


def total(measure: Measure, rows: Sequence[Row]) -> Decimal:
    """Count the rows as the measure does."""
    if measure.counts == "customers":
        return Decimal(len({row.customer for row in rows if row.customer is not None}))
    return sum((row.value for row in rows), Decimal(0))


# --- the files --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Part:
    """What of a measure one file brought, as Silver has it."""

    table: str
    date: str
    run_id: str
    file: str
    value: Decimal
    keys: frozenset[tuple[str, ...]]


def parts(measure: Measure, rows: Iterable[Row]) -> list[Part]:
    """Group the rows by the file that they came from, in the order of the files' dates and runs."""
    groups: dict[tuple[str, str, str], list[Row]] = defaultdict(list)
    for row in rows:
        groups[row.date, row.run_id, row.file].append(row)
    return [
        Part(measure.of, *place, total(measure, group), frozenset(row.key for row in group))
        for place, group in sorted(groups.items())
    ]


@dataclass(frozen=True, slots=True)
class Recount:
    """What the file itself says of a part: its rows' value, and what is told of the file. `manifest` may be gone."""

    part: Part
    value: Decimal | None
    found: int
    problem: str = ""
    manifest: Manifest | None = None


# --- the tree ---------------------------------------------------------------------------------------------------------


def tree(
    measure: Measure,
    measures: Mapping[str, Mapping[str, Decimal]],
    rows: Sequence[Row],
    recounts: Sequence[Recount],
    hops: Sequence[str] = DAY_HOPS,
) -> Node:
    """Make the tree of a measure. `measures` are those of the sales date by table, as the reconciler asks for them.

    Where there are more than LIMIT rows, the tree ends at Silver.
    """
    node = _silver(measure, measures, rows, recounts)
    for above, table in reversed(list(pairwise(hops))):
        node = _hop(measure, measures, table, above, node)
    products = measures.get(PRODUCT_KPI, {}).get(measure.name) if hops[0] == KPI else None
    told = number(products, money=measure.is_money)
    note = "" if products is None else f"the products of kpi.{PRODUCT_KPI} sum to {told}"
    return Node(f"kpi.{hops[0]}", measures.get(hops[0], {}).get(measure.name), None, note, (node,))


def _hop(measure: Measure, measures: Mapping[str, Mapping[str, Decimal]], table: str, above: str, below: Node) -> Node:
    """Make the node of a Gold table, with that below; a table that cannot tell the measure is left out."""
    value = measures.get(table, {}).get(measure.name)
    if value is None and table == "sales_analytics":
        return below
    said = measures.get(above, {}).get(measure.name)
    told = measures.get(table, {}).get("lines")
    note = f"over {_counted(int(told), 'line')}" if told is not None else ""
    return Node(f"gold.{table}", value, said if said is not None else Decimal(0), note, (below,))


def _silver(
    measure: Measure,
    measures: Mapping[str, Mapping[str, Decimal]],
    rows: Sequence[Row],
    recounts: Sequence[Recount],
) -> Node:
    above = measures.get("sales_analytics", {}).get(measure.name, measures.get("agg_daily_sales", {}).get(measure.name))
    label = "silver.fact_orders × silver.dim_orders" if measure.of == "order_items" else "silver.dim_orders"
    if len(rows) > LIMIT:
        value = measures.get("silver", {}).get(measure.name)
        return Node(label, value, above, f"more than {LIMIT} versions: the files are not recounted")
    children = tuple(_file(measure, recount) for recount in recounts)
    note = f"{_counted(len(rows), 'version')} from {_counted(len(recounts), 'file')}"
    return Node(label, total(measure, rows), above if above is not None else Decimal(0), note, children)


def _file(measure: Measure, recount: Recount) -> Node:
    part, manifest = recount.part, recount.manifest
    label = f"{part.table}/date={part.date}/run={part.run_id}/{part.file}"
    told = f"{len(part.keys)} of its {manifest.rows} rows; read {_utc(manifest.snapshot_at)}" if manifest else ""
    note = recount.problem or told or f"{_counted(len(part.keys), 'row')}; no manifest lists it"
    missing = len(part.keys) - recount.found
    if missing and not recount.problem:
        note = f"{missing} of Silver's {len(part.keys)} versions are not in it"
    if not measure.additive:
        return Node(label, Decimal(recount.found), Decimal(len(part.keys)), f"orders, which name customers; {note}")
    return Node(label, recount.value, part.value, note)


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}".replace(",", " ")


def _utc(instant: datetime) -> str:
    return f"{instant:%Y-%m-%d %H:%M}Z"
