"""A tree of places and what each says, and how it is drawn. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Node", "is_proven", "lines", "number"]


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


def is_proven(node: Node) -> bool:
    """Tell whether every place below says what the one above it says."""
    return not node.differs and all(map(is_proven, node.children))


def lines(title: str, node: Node, *, money: bool, proven: str = "proven down to its files") -> Iterator[str]:
    """Draw the tree."""
    verdict = proven if is_proven(node) else "NOT PROVEN: see ≠ below"
    yield f"{title} is {number(node.value, money=money)}: {verdict}"
    yield from _draw(node, "", "", money=money)


def _draw(node: Node, first: str, rest: str, *, money: bool) -> Iterator[str]:
    sign = "" if node.expected is None else f"  ≠ {number(node.expected, money=money)}" if node.differs else "  ="
    note = f"   {node.note}" if node.note else ""
    yield f"{first}{node.label}  {number(node.value, money=money)}{sign}{note}"
    for place, child in enumerate(node.children, 1):
        last = place == len(node.children)
        yield from _draw(child, f"{rest}{'└ ' if last else '├ '}", f"{rest}{'  ' if last else '│ '}", money=money)


def number(value: Decimal | None, *, money: bool) -> str:
    """Write a number for people; money with its cents, and with more decimals where it has them."""
    if value is None:
        return "nothing"
    places = 2 if money and value == value.quantize(Decimal("0.01")) else None
    return (f"{value:,.{places}f}" if places is not None else f"{value.normalize():,f}").replace(",", " ")
