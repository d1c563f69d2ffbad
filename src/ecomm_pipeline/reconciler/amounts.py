"""Rows and their money, as they are added up and written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from decimal import Decimal

__all__ = ["Amount", "plain"]


@dataclass(frozen=True, slots=True)
class Amount:
    """Rows and their money, in the shop's currency; `money` is None where the table's rows have none."""

    rows: int = 0
    money: Decimal | None = None

    def __add__(self, other: Amount) -> Amount:
        return Amount(self.rows + other.rows, _plus(self.money, other.money))

    def __sub__(self, other: Amount) -> Amount:
        return Amount(self.rows - other.rows, _plus(self.money, None if other.money is None else -other.money))

    def __neg__(self) -> Amount:
        return Amount(-self.rows, None if self.money is None else -self.money)

    def __bool__(self) -> bool:
        """Tell whether there is anything: rows, or money without rows."""
        return bool(self.rows or self.money)

    def __str__(self) -> str:
        """Write it as people read it: `3 rows, 12.50 of money`; the direction (more, fewer) is the caller's."""
        rows = f"{abs(self.rows)} row{'' if abs(self.rows) == 1 else 's'}"
        return f"{rows}, {plain(abs(self.money))} of money" if self.money else rows

    @classmethod
    def total(cls, amounts: Iterable[Amount]) -> Amount:
        """Add up."""
        result = cls()
        for amount in amounts:
            result += amount
        return result


def _plus(one: Decimal | None, other: Decimal | None) -> Decimal | None:
    if one is None or other is None:
        return one if other is None else other
    return one + other


def plain(value: Decimal) -> str:
    """Write a number without an exponent and without zeros past the cents: `1234.5` → `1234.50`, `0.0125` stays."""
    text = f"{value:f}"
    whole, _, fraction = text.partition(".")
    return f"{whole}.{fraction.rstrip('0'):0<2}"
