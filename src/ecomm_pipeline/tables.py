"""Tables of text for terminals: aligned by what people see, whatever a value holds."""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["text_table"]


def text_table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[bool]) -> str:
    r"""Write rows under a ruled heading; `right` says which columns are aligned right, as numbers are.

    Control characters are written as escapes (a newline as `\n`), so that a row is a line.
    """
    head = [_visible(name) for name in columns]
    body = [[_visible(value) for value in row] for row in rows]
    widths = [max(map(_width, column)) for column in zip(head, *body, strict=True)]
    rule = "  ".join("─" * width for width in widths)
    lines = [_line(head, widths, right), rule, *(_line(row, widths, right) for row in body)]
    return "\n".join(line.rstrip() for line in lines)


def _line(row: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> str:
    cells = []
    for value, width, to_right in zip(row, widths, right, strict=True):
        space = " " * (width - _width(value))
        cells.append(space + value if to_right else value + space)
    return "  ".join(cells)


def _visible(value: str) -> str:
    if value.isprintable():
        return value
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in value)


def _width(value: str) -> int:
    """Count the columns of a terminal that a text takes: wide characters two, combining ones none."""
    if value.isascii():
        return len(value)
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in value)
