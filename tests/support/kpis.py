"""The KPI tables of some days, as they are and as the independent computation has them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from tests.support import oracle

if TYPE_CHECKING:
    from tests.support.invoices import Days

    from ecomm_sandbox.sandbox import Sandbox


@dataclass(frozen=True)
class Kpis:
    """Rows by key: of sales the day, of products the day and the product, of customers the customer."""

    sales: dict[date, tuple[Any, ...]]
    products: dict[tuple[date, str], tuple[Any, ...]]
    customers: dict[int, tuple[Any, ...]]


def read_kpis(sandbox: Sandbox, days: Days) -> Kpis:
    """Read the rows of days, and of the customers that bought on them."""
    first, last = days.range
    span = f"sales_date BETWEEN DATE '{first}' AND DATE '{last}'"
    known = sorted({line.customer_id for line in days.lines if line.customer_id is not None})
    sales = sandbox.query(
        "SELECT sales_date, orders, cancelled_orders, customers, units, gross_revenue, refunds, net_revenue, "
        "average_order_value, cancellation_rate, units_per_order, net_revenue_7d, net_revenue_change_7d "
        f"FROM kpi.agg_sales_kpi WHERE {span}"
    )
    products = sandbox.query(
        "SELECT sales_date, product_id, units, gross_revenue, refunds, net_revenue, orders "
        f"FROM kpi.agg_product_kpi WHERE {span}"
    )
    customers = sandbox.query(
        "SELECT customer_id, orders, gross_revenue, refunds, net_revenue FROM kpi.agg_customer_kpi "
        f"WHERE customer_id IN ({', '.join(map(str, known))})"
    )
    return Kpis(
        {date.fromisoformat(str(row[0])): (*map(int, row[1:5]), *map(_decimal, row[5:])) for row in sales},
        {(date.fromisoformat(str(r[0])), r[1]): (int(r[2]), *map(Decimal, r[3:6]), int(r[6])) for r in products},
        {int(row[0]): (int(row[1]), *map(Decimal, row[2:])) for row in customers},
    )


def expected_kpis(days: Days) -> Kpis:
    """Compute them from the day files."""
    lines = days.lines
    sales = oracle.daily_sales(lines)
    return Kpis(
        {day: _sales(sales, day) for day in sales},
        oracle.product_sales(lines),
        oracle.customer_sales(lines),
    )


def _sales(days: dict[date, oracle.Day], day: date) -> tuple[Any, ...]:
    sales = days[day]
    orders, cancelled = len(sales.completed), len(sales.cancelled)
    return (
        *(orders, cancelled, len(sales.known), sales.units, sales.gross, sales.refunds, sales.net),
        oracle.rounded(oracle.ratio(sales.gross, orders), 4),
        oracle.rounded(oracle.ratio(cancelled, orders + cancelled), 6),
        oracle.rounded(oracle.ratio(sales.units, orders), 4),
        oracle.net_of_week(days, day),
        oracle.rounded(oracle.week_change(days, day), 6),
    )


def _decimal(value: str | None) -> Decimal | None:
    return None if value is None else Decimal(value)
