"""What a KPI of a day is made of: the tree of hops, each proven against the one above it. Pure.

::

    kpi.agg_sales_kpi = gold.agg_daily_sales = gold.sales_analytics = Silver's versions = Σ over their files

The arithmetic is the one of docs/architecture.md, written a second time on purpose: it proves what SQL and dbt made.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, Literal

from ecomm_pipeline.errors import ConfigurationError
from ecomm_pipeline.reconciler.sql import business_day

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

    from ecomm_pipeline.dates import BusinessDate
    from ecomm_pipeline.manifest import Manifest

__all__ = [
    "DERIVED",
    "MEASURES",
    "Measure",
    "Node",
    "Part",
    "Recount",
    "Row",
    "is_proven",
    "lines",
    "measure_of",
    "parts",
    "rows_sql",
    "tree",
]

KPI: Final = "agg_sales_kpi"
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

DERIVED: Final[dict[str, tuple[str, str]]] = {
    "average_order_value": ("gross_revenue", "orders"),
    "units_per_order": ("units", "orders"),
    "cancellation_rate": ("cancelled_orders", "orders"),
}
"""Ratios of dbt/models/marts/agg_sales_kpi.sql, by the measures that they are made of."""


def measure_of(metric: str) -> tuple[Measure, ...]:
    """Give the measures that a metric is made of, itself or those of a ratio.

    `metric` is a column of agg_sales_kpi, with or without its table. Raises `ConfigurationError` for any other.
    """
    name = metric.removeprefix("kpi.").removeprefix(f"{KPI}.")
    if name in MEASURES:
        return (MEASURES[name],)
    if name not in DERIVED:
        message = f"{metric!r} is not a metric that can be explained"
        raise ConfigurationError(message, next_step=f"use one of {', '.join([*MEASURES, *DERIVED])}")
    return tuple(MEASURES[each] for each in DERIVED[name])


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


def rows_sql(measure: Measure, date: BusinessDate, timezone: str) -> str:
    """Ask Silver for the versions of the day that count; answers (order_id, line_number, value, customer, date, …)."""
    statuses = ", ".join(f"'{status}'" for status in measure.statuses)
    of_lines = measure.of == "order_items"
    origin = "l" if of_lines else "o"
    value = {"money": f"{measure.sign} * l.quantity * l.unit_price", "units": "l.quantity"}.get(measure.counts, "1")
    join = "JOIN silver.fact_orders AS l ON l.order_id = o.order_id" if of_lines else ""
    positive = "AND l.quantity > 0" if measure.counts == "units" else ""
    return f"""
SELECT o.order_id, {"CAST(l.line_number AS STRING)" if of_lines else "''"} AS line_number,
  CAST({value} AS STRING) AS value, CAST(o.customer_id AS STRING) AS customer, CAST({origin}._date AS STRING) AS date,
  {origin}._run_id AS run_id, substring_index({origin}._source_file, '/', -1) AS file
FROM silver.dim_orders AS o {join}
WHERE o.status IN ({statuses}) AND {business_day("o.ordered_at", timezone)} = DATE'{date}' {positive}
LIMIT {LIMIT + 1}""".strip()  # noqa: S608 (names and words are ours, date and zone are parsed)


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


@dataclass(frozen=True, slots=True)
class Node:
    """A place and what it says. `expected` is what the place above says of the same; None where nothing is compared."""

    label: str
    value: Decimal | None
    expected: Decimal | None = None
    note: str = ""
    children: tuple[Node, ...] = field(default=())

    @property
    def differs(self) -> bool:
        """Whether it does not say what the place above says."""
        return self.expected is not None and self.value != self.expected

    def as_dict(self) -> dict[str, Any]:
        """Give it as `--json` writes it."""
        return {
            "place": self.label,
            "value": None if self.value is None else str(self.value),
            "proven": not self.differs,
            "note": self.note,
            "from": [child.as_dict() for child in self.children],
        }


def tree(
    measure: Measure,
    measures: Mapping[str, Mapping[str, Decimal]],
    rows: Sequence[Row],
    recounts: Sequence[Recount],
) -> Node:
    """Make the tree of a measure. `measures` are those of the sales date by table, as the reconciler asks for them.

    Where there are more than LIMIT rows, the tree ends at Silver.
    """
    silver = _silver(measure, measures, rows, recounts)
    lake = _hop(measure, measures, "sales_analytics", "agg_daily_sales", silver)
    daily = _hop(measure, measures, "agg_daily_sales", KPI, lake)
    products = measures.get("agg_product_kpi", {}).get(measure.name)
    told = _number(products, money=measure.is_money)
    note = "" if products is None else f"the products of kpi.agg_product_kpi sum to {told}"
    return Node(f"kpi.{KPI}", measures.get(KPI, {}).get(measure.name), None, note, (daily,))


def _hop(measure: Measure, measures: Mapping[str, Mapping[str, Decimal]], table: str, above: str, below: Node) -> Node:
    """Make the node of a Gold table, with that below; a table that cannot tell the measure is left out."""
    value = measures.get(table, {}).get(measure.name)
    if value is None and table == "sales_analytics":
        return below
    said = measures.get(above, {}).get(measure.name)
    told = measures.get(table, {}).get("lines")
    note = f"over {told:,f} lines".replace(",", " ") if told is not None else ""
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
    note = f"{len(rows):,} versions from {len(recounts)} file{'' if len(recounts) == 1 else 's'}".replace(",", " ")
    return Node(label, total(measure, rows), above if above is not None else Decimal(0), note, children)


def _file(measure: Measure, recount: Recount) -> Node:
    part, manifest = recount.part, recount.manifest
    label = f"{part.table}/date={part.date}/run={part.run_id}/{part.file}"
    told = f"{len(part.keys)} of its {manifest.rows} rows; read {_utc(manifest.snapshot_at)}" if manifest else ""
    note = recount.problem or told or f"{len(part.keys)} rows; no manifest lists it"
    missing = len(part.keys) - recount.found
    if missing and not recount.problem:
        note = f"{missing} of Silver's {len(part.keys)} versions are not in it"
    if not measure.additive:
        return Node(label, Decimal(recount.found), Decimal(len(part.keys)), f"orders, which name customers; {note}")
    return Node(label, recount.value, part.value, note)


def _utc(instant: datetime) -> str:
    return f"{instant:%Y-%m-%d %H:%M}Z"


def is_proven(node: Node) -> bool:
    """Tell whether every place below says what the one above it says."""
    return not node.differs and all(map(is_proven, node.children))


def lines(title: str, node: Node, *, money: bool) -> Iterator[str]:
    """Draw the tree."""
    verdict = "proven down to its files" if is_proven(node) else "NOT PROVEN: see ≠ below"
    yield f"{title} is {_number(node.value, money=money)}: {verdict}"
    yield from _draw(node, "", "", money=money)


def _draw(node: Node, first: str, rest: str, *, money: bool) -> Iterator[str]:
    sign = "" if node.expected is None else f"  ≠ {_number(node.expected, money=money)}" if node.differs else "  ="
    note = f"   {node.note}" if node.note else ""
    yield f"{first}{node.label}  {_number(node.value, money=money)}{sign}{note}"
    for number, child in enumerate(node.children, 1):
        last = number == len(node.children)
        yield from _draw(child, f"{rest}{'└ ' if last else '├ '}", f"{rest}{'  ' if last else '│ '}", money=money)


def _number(value: Decimal | None, *, money: bool) -> str:
    if value is None:
        return "nothing"
    places = 2 if money and value == value.quantize(Decimal("0.01")) else None
    return (f"{value:,.{places}f}" if places is not None else f"{value.normalize():,f}").replace(",", " ")
