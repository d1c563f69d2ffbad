"""The columns of agg_sales_kpi that dbt works out of its others, worked out a second time. Pure.

As dbt/models/marts/agg_sales_kpi.sql does it.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from typing import TYPE_CHECKING, Final

from ecomm_pipeline.explain.node import Node

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ecomm_pipeline.dates import BusinessDate

__all__ = ["DERIVED", "TABLE", "Derived", "derived_sql", "derived_tree", "weeks_sql"]

TABLE: Final = "agg_sales_kpi"


@dataclass(frozen=True, slots=True)
class Derived:
    """A column of agg_sales_kpi that dbt works out of others, as dbt/models/marts/agg_sales_kpi.sql does.

    `measures` are explained beneath it. A ratio is `over` the sum of `under`, with `places` decimals; with neither, it
    is of the net revenue of the last weeks.
    """

    formula: str
    measures: tuple[str, ...]
    over: str = ""
    under: tuple[str, ...] = ()
    places: int = 4


WEEK: Final = 7
DERIVED: Final[dict[str, Derived]] = {
    "average_order_value": Derived("gross_revenue ÷ orders", ("gross_revenue", "orders"), "gross_revenue", ("orders",)),
    "units_per_order": Derived("units ÷ orders", ("units", "orders"), "units", ("orders",)),
    "cancellation_rate": Derived(
        "cancelled_orders ÷ (orders + cancelled_orders)",
        ("cancelled_orders", "orders"),
        "cancelled_orders",
        ("orders", "cancelled_orders"),
        6,
    ),
    "net_revenue_7d": Derived("net_revenue of the day and the 6 before it", ("net_revenue",)),
    "net_revenue_change_7d": Derived(
        "net_revenue of 7 days ÷ that of the 7 before them − 1", ("net_revenue",), places=6
    ),
}
"""By column."""


def derived_sql(date: BusinessDate) -> str:
    """Ask for the derived columns of a day; answers one row, or none."""
    return f"SELECT {', '.join(DERIVED)} FROM kpi.{TABLE} WHERE sales_date = DATE'{date}'"  # noqa: S608 (names are ours)


def weeks_sql(date: BusinessDate) -> str:
    """Ask Gold for the net revenue of two weeks up to a day; answers (date, value)."""
    return f"""
SELECT CAST(sales_date AS STRING) AS date, CAST(net_revenue AS STRING) AS value FROM gold.agg_daily_sales
WHERE sales_date BETWEEN DATE'{date.plus(1 - 2 * WEEK)}' AND DATE'{date}' ORDER BY sales_date""".strip()  # noqa: S608 (dates are parsed)


def derived_tree(
    name: str, said: Decimal | None, measures: Mapping[str, Decimal], weeks: Mapping[str, Decimal], date: BusinessDate
) -> Node:
    """Make the tree of a derived column: what the table says, and the same worked out of what is beneath it.

    `said` is what the table says, `measures` are those of the day in agg_sales_kpi, `weeks` the net revenue by day.
    """
    derived = DERIVED[name]
    days = [str(date.plus(-n)) for n in range(2 * WEEK)]
    week, before = (
        sum((weeks.get(day, Decimal(0)) for day in part), Decimal(0)) for part in (days[:WEEK], days[WEEK:])
    )
    if derived.over:
        values = {one: measures.get(one, Decimal(0)) for one in (derived.over, *derived.under)}
        worked_out = _divide(values[derived.over], sum(values[one] for one in derived.under), derived.places)
        beneath: tuple[Node, ...] = ()
    else:
        worked_out = week if name == "net_revenue_7d" else _divide(week - before, before, derived.places)
        shown = days if name == "net_revenue_change_7d" else days[:WEEK]
        beneath = tuple(
            Node(day, weeks.get(day), note="" if day in weeks else "no sales; counts as 0") for day in reversed(shown)
        )
    nothing = None if worked_out is None else Decimal(0)
    expected = nothing if said is None else said
    return Node(f"kpi.{TABLE}", said, None, "", (Node(derived.formula, worked_out, expected, "", beneath),))


def _divide(over: Decimal, under: Decimal | int, places: int) -> Decimal | None:
    """Divide as dbt's macro `ratio` does."""
    return (over / under).quantize(Decimal(1).scaleb(-places), ROUND_HALF_UP) if under else None
