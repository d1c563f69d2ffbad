"""What adds up and what does not, from Silver to the KPI tables: the measures of each sales date. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Final

from ecomm_pipeline.reconciler.amounts import Amount, plain
from ecomm_pipeline.reconciler.plan import Problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["DAILY", "STEPS", "WITHOUT_ORDER", "Measures", "SalesDay", "problems_of_customers", "problems_of_sales"]

MONEY: Final = ("gross_revenue", "refunds", "net_revenue")
DAILY: Final = ("orders", "cancelled_orders", "customers", "units", *MONEY)
STEPS: Final[tuple[tuple[str, str, tuple[str, ...], str], ...]] = (
    ("silver", "sales_analytics", ("lines", *MONEY), "dlt-trigger"),
    ("silver", "agg_daily_sales", DAILY, "dlt-trigger"),
    ("agg_daily_sales", "agg_sales_kpi", DAILY, "dbt-runner"),
    ("agg_daily_sales", "agg_product_kpi", ("units", *MONEY), "dbt-runner"),
)
"""What each table is compared with, in which measures, and the stage that builds it."""


Measures = dict[str, Decimal]
"""Figures by the names of DAILY, and `lines`; a table has those that it can tell."""

ZERO: Final = Decimal(0)
WITHOUT_ORDER: Final = "lines without their order"
"""What stands for the date of order lines whose order has not arrived."""


@dataclass(frozen=True, slots=True)
class SalesDay:
    """The measures of one sales date by table (`silver`, …); `date` is empty for lines without their order.

    A table without a row for the date is not in `tables`.
    """

    date: str
    tables: Mapping[str, Measures]


def problems_of_sales(day: SalesDay, *, through: str, dates: object) -> list[Problem]:
    """Compare a sales date's measures along STEPS, up to Gold or the KPI tables; a missing row counts as zeros.

    `dates` is what the commands that mend it are to be run for.
    """
    problems = []
    for before, after, names, stage in STEPS:
        if through == "gold" and stage == "dbt-runner":
            continue
        wrong = _differing(names, day.tables.get(before, {}), day.tables.get(after, {}))
        if wrong:
            hop = f"{before} → {after}"
            next_step = f"ecomm {stage} --date {dates}"
            problems.append(_sales_problem(day.date or WITHOUT_ORDER, hop, wrong, next_step))
    return problems


def _differing(names: Iterable[str], expected: Measures, found: Measures) -> Measures:
    pairs = {name: found.get(name, ZERO) - expected.get(name, ZERO) for name in names}
    return {name: difference for name, difference in pairs.items() if difference}


def problems_of_customers(expected: Measures, found: Measures, *, dates: object) -> list[Problem]:
    """Compare the totals over all known customers: `gold.sales_analytics` against `kpi.agg_customer_kpi`."""
    wrong = _differing(MONEY, expected, found)
    if not wrong:
        return []
    step = f"ecomm dbt-runner --date {dates}"
    return [_sales_problem("all dates", "sales_analytics → agg_customer_kpi", wrong, step)]


def _sales_problem(date: str, hop: str, wrong: Measures, next_step: str) -> Problem:
    words = [f"{name} {'+' if value > 0 else '−'}{_measure(name, abs(value))}" for name, value in wrong.items()]
    difference = Amount(int(wrong.get("lines", ZERO)), wrong.get("net_revenue", wrong.get("gross_revenue")))
    return Problem("sales", date, hop, difference, f"sales of {date}, {hop}: {', '.join(words)}", next_step)


def _measure(name: str, value: Decimal) -> str:
    return plain(value) if name in MONEY else f"{value:f}"
