"""A few invoices a day, as day files that `ecomm-sandbox load` reads: small enough to compute everything of by hand."""

from __future__ import annotations

import csv
import random
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

from tests.support import oracle

if TYPE_CHECKING:
    from pathlib import Path

ZONE = "Asia/Ho_Chi_Minh"
_HEADER = ("InvoiceNo", "StockCode", "Description", "Quantity", "InvoiceDate", "UnitPrice", "CustomerID", "Country")
_INVOICES = 8


@dataclass(frozen=True)
class Days:
    """Consecutive days of a shop, in a folder of day files.

    No two days share an invoice, a product or a customer, so that a day's extract is complete whatever came later.
    """

    folder: Path
    first: date
    count: int

    @property
    def dates(self) -> list[str]:
        """The days, in order."""
        return [str(self.first + timedelta(days=n)) for n in range(self.count)]

    @property
    def lines(self) -> list[oracle.Line]:
        """All order lines, as the files have them."""
        return oracle.read_lines([self.folder / f"{day}.csv" for day in self.dates])

    @property
    def range(self) -> tuple[str, str]:
        """The first day and the last."""
        return self.dates[0], self.dates[-1]


def write(folder: Path, first: date, count: int) -> Days:
    """Make up days: the same `first` makes up the same."""
    folder.mkdir(parents=True, exist_ok=True)
    made = Days(folder, first, count)
    for day in made.dates:
        with (folder / f"{day}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(_HEADER)
            writer.writerows(_day(date.fromisoformat(day)))
    return made


def _day(day: date) -> list[tuple[object, ...]]:
    chance = random.Random(day.toordinal())
    rows: list[tuple[object, ...]] = []
    for number in range(_INVOICES):
        letter = {_INVOICES - 2: "C", _INVOICES - 1: "A"}.get(number, "")  # one cancelled, one adjusted
        customer = "" if number == 0 else day.toordinal() * 10 + number % 4  # one of a guest
        sign = -1 if letter == "C" else 1
        for _ in range(chance.randint(1, 3)):
            product = f"P{day:%Y%m%d}-{chance.randint(0, 5)}"
            price = Decimal(chance.randint(50, 5000)) / 100
            when = f"{day} {9 + number:02}:{chance.randint(0, 59):02}:00"
            quantity = sign * chance.randint(1, 12)
            rows.append(
                (
                    f"{letter}{day:%Y%m%d}{number}",
                    product,
                    f"Thing, {product}",
                    quantity,
                    when,
                    price,
                    customer,
                    "Vietnam",
                )
            )
    return rows
