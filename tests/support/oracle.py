"""An independent computation of the KPI tables, in plain Python, from the raw transactions.

It shares nothing with the pipeline: no SQL, no Spark, no code of ours. Money is `Decimal`; ratios are exact
`Fraction`s until they are rounded to the scale of the column they are compared with.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import date, timedelta
from decimal import ROUND_HALF_UP, Decimal
from fractions import Fraction
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Line:
    """A line of an invoice, as the files have it. `day` is the day, in the shop's zone, of the order's first line."""

    order_id: str
    line_number: int
    product_id: str
    quantity: int
    unit_price: Decimal
    customer_id: int | None
    status: str
    day: date


@dataclass
class Day:
    """What `agg_daily_sales` should hold for a day."""

    completed: set[str] = field(default_factory=set)
    cancelled: set[str] = field(default_factory=set)
    known: set[int] = field(default_factory=set)
    units: int = 0
    gross: Decimal = Decimal(0)
    refunds: Decimal = Decimal(0)

    @property
    def net(self) -> Decimal:
        """Gross revenue less refunds."""
        return self.gross - self.refunds


def status_of(invoice: str) -> str:
    """Give an order's status from the letter that its number begins with."""
    return {"C": "cancelled", "A": "adjusted"}.get(invoice[:1], "completed")


def read_lines(files: list[Path]) -> list[Line]:
    """Read day files, in order; an invoice's lines are numbered from 1 over all of them."""
    rows = [row for path in sorted(files) for row in csv.DictReader(path.read_text("utf-8").splitlines(keepends=True))]
    first: dict[str, str] = {}
    customer: dict[str, int | None] = {}
    numbers: dict[str, int] = defaultdict(int)
    for row in rows:
        order = row["InvoiceNo"]
        first[order] = min(first.get(order, row["InvoiceDate"]), row["InvoiceDate"])
        customer[order] = int(float(row["CustomerID"])) if row["CustomerID"] else customer.get(order)
    lines = []
    for row in rows:
        order = row["InvoiceNo"]
        numbers[order] += 1
        lines.append(
            Line(
                order,
                numbers[order],
                row["StockCode"],
                int(row["Quantity"]),
                Decimal(row["UnitPrice"]),
                customer[order],
                status_of(order),
                date.fromisoformat(first[order][:10]),
            )
        )
    return lines


def daily_sales(lines: list[Line]) -> dict[date, Day]:
    """Compute `agg_daily_sales`: a day for each day that has an order, adjusted ones too."""
    days: dict[date, Day] = defaultdict(Day)
    for line in lines:
        day = days[line.day]
        amount = line.quantity * line.unit_price
        if line.status == "completed":
            day.completed.add(line.order_id)
            day.gross += amount
            day.units += max(line.quantity, 0)
            if line.customer_id is not None:
                day.known.add(line.customer_id)
        elif line.status == "cancelled":
            day.cancelled.add(line.order_id)
            day.refunds -= amount
    return dict(sorted(days.items()))


def rounded(value: Fraction | None, scale: int) -> Decimal | None:
    """Round half up to `scale` decimals, as SQL's decimal division does."""
    if value is None:
        return None
    exact = Fraction(abs(value)) * 10**scale
    whole, rest = divmod(exact.numerator, exact.denominator)
    whole += 2 * rest >= exact.denominator
    return (
        (Decimal(whole) * (1 if value >= 0 else -1))
        .scaleb(-scale)
        .quantize(Decimal(1).scaleb(-scale), rounding=ROUND_HALF_UP)
    )


def ratio(numerator: Decimal | int, denominator: Decimal | int) -> Fraction | None:
    """Divide exactly; nothing where there is nothing to divide by."""
    return None if denominator == 0 else Fraction(numerator) / Fraction(denominator)


def net_of_week(days: dict[date, Day], last: date) -> Decimal:
    """Sum net revenue over the seven calendar days ending with `last`."""
    week = {last - timedelta(days=back) for back in range(7)}
    return sum((value.net for day, value in days.items() if day in week), Decimal(0))


def week_change(days: dict[date, Day], last: date) -> Fraction | None:
    """Compare the week ending with `last` with the week before, as a ratio; None where there is nothing to compare."""
    before = net_of_week(days, last - timedelta(days=7))
    return ratio(net_of_week(days, last) - before, before)


def product_sales(lines: list[Line]) -> dict[tuple[date, str], tuple[int, Decimal, Decimal, Decimal, int]]:
    """Compute `agg_product_kpi`: units, gross revenue, refunds, net revenue and orders of a day and product."""
    products: dict[tuple[date, str], tuple[int, Decimal, Decimal, set[str]]] = {}
    for line in lines:
        if line.status == "adjusted":
            continue
        key, completed = (line.day, line.product_id), line.status == "completed"
        units, gross, refunds, orders = products.get(key, (0, Decimal(0), Decimal(0), set()))
        amount = line.quantity * line.unit_price
        products[key] = (
            units + (max(line.quantity, 0) if completed else 0),
            gross + (amount if completed else 0),
            refunds - (0 if completed else amount),
            orders | ({line.order_id} if completed else set()),
        )
    return {key: (u, g, r, g - r, len(o)) for key, (u, g, r, o) in products.items()}


def customer_sales(lines: list[Line]) -> dict[int, tuple[int, Decimal, Decimal, Decimal]]:
    """Compute `agg_customer_kpi`: orders, gross revenue, refunds and net revenue of each known customer."""
    customers: dict[int, tuple[set[str], Decimal, Decimal]] = {}
    for line in lines:
        if line.customer_id is None or line.status == "adjusted":
            continue
        orders, gross, refunds = customers.get(line.customer_id, (set(), Decimal(0), Decimal(0)))
        amount = line.quantity * line.unit_price
        if line.status == "completed":
            customers[line.customer_id] = (orders | {line.order_id}, gross + amount, refunds)
        else:
            customers[line.customer_id] = (orders, gross, refunds - amount)
    return {customer: (len(o), g, r, g - r) for customer, (o, g, r) in customers.items()}
