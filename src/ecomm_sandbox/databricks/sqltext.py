"""Spark SQL as tokens: enough of a lexer to find names and markers outside strings and comments."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_TOKEN = re.compile(
    r"""
    (?P<space>\s+)
  | (?P<comment>--[^\n]*|/\*.*?\*/)
  | (?P<string>[rR]'[^']*'|[rR]"[^"]*"|'(?:\\.|''|[^'\\])*'|"(?:\\.|""|[^"\\])*")
  | (?P<quoted>`(?:``|[^`])*`)
  | (?P<number>\d+(?:\.\d*)?(?:[eE][+-]?\d+)?\w*)
  | (?P<word>[^\W\d]\w*)
  | (?P<mark>::|->>?|=>|[<>!=]=|<=>|\|\||.)
    """,
    re.VERBOSE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Token:
    """One piece of a statement; the pieces' texts joined are the statement again."""

    kind: str
    text: str

    @property
    def is_code(self) -> bool:
        """False for white space and comments."""
        return self.kind not in ("space", "comment")

    @property
    def upper(self) -> str:
        """The text of a word in upper case; empty for everything that is not an unquoted word."""
        return self.text.upper() if self.kind == "word" else ""

    @property
    def name(self) -> str:
        """An identifier without its quotes; empty for everything else."""
        if self.kind == "word":
            return self.text
        return self.text[1:-1].replace("``", "`") if self.kind == "quoted" else ""


def tokens(sql: str) -> list[Token]:
    """The statement as tokens, white space and comments included."""
    return [Token(match.lastgroup or "mark", match.group()) for match in _TOKEN.finditer(sql)]


def code(sql: str) -> list[Token]:
    """The statement's tokens without white space, comments and a closing semicolon."""
    found = [token for token in tokens(sql) if token.is_code]
    while found and found[-1].text == ";":
        found.pop()
    return found


def text(parts: Iterable[Token]) -> str:
    """The tokens as a statement again."""
    return "".join(part.text for part in parts)


def quote_name(name: str) -> str:
    """An identifier in backticks."""
    return "`" + name.replace("`", "``") + "`"


def quote_string(value: str) -> str:
    """A string literal that Spark reads back as exactly `value`."""
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def string_value(literal: str) -> str:
    """What a string literal's text means (escapes undone for quotes and backslashes)."""
    body, quote = literal[1:-1], literal[0]
    return re.sub(r"\\(.)", r"\1", body.replace(quote * 2, quote), flags=re.DOTALL)


_TYPE = re.compile(r"^[A-Za-z_]+(?:\(\s*\d+(?:\s*,\s*\d+)?\s*\))?(?: [A-Za-z]+)*$")


def literal(value: str | None, sql_type: str | None) -> str:
    """A parameter as SQL: `value` is its text as Databricks' clients send it, None means NULL.

    Raises `ValueError` when `sql_type` is not the name of a simple type.
    """
    kind = (sql_type or "STRING").strip()
    if not _TYPE.match(kind):
        message = f"parameter type {kind!r} is not a type that a parameter can have"
        raise ValueError(message)
    if value is None or kind.upper() == "VOID":
        return "NULL" if kind.upper() == "VOID" else f"CAST(NULL AS {kind})"
    if kind.upper() == "STRING":
        return quote_string(value)
    return f"CAST({quote_string(value)} AS {kind})"


def bind(sql: str, named: Mapping[str, str], positional: Sequence[str]) -> str:
    """Put literals in place of `:name` and `?` markers, outside strings, comments and `a:b` paths.

    Markers without a value stay, so that Spark reports them (UNBOUND_SQL_PARAMETER).
    """
    if not named and not positional:
        return sql
    parts, out, left = tokens(sql), [], list(positional)
    before: Token | None = None
    at = 0
    while at < len(parts):
        part = parts[at]
        following = parts[at + 1] if at + 1 < len(parts) else None
        if part.text == ":" and following and following.name in named and not _ends_operand(before):
            out.append(named[following.name])
            before, at = following, at + 2
            continue
        if part.text == "?" and part.kind == "mark" and left:
            out.append(left.pop(0))
        else:
            out.append(part.text)
        before = part if part.is_code else before
        at += 1
    return "".join(out)


_OPERATORS = frozenset({
    "SELECT", "WHERE", "AND", "OR", "BY", "THEN", "ELSE", "WHEN", "IN", "LIKE", "LIMIT", "OFFSET", "BETWEEN", "NOT",
    "ON", "VALUES", "SET", "AS", "IS", "CASE", "INTERVAL",
})  # fmt: skip


def _ends_operand(token: Token | None) -> bool:
    """Whether a `:` after this token would be a path into a variant (`payload:field`)."""
    if token is None:
        return False
    return token.upper not in _OPERATORS and (token.kind in ("word", "quoted", "string") or token.text in (")", "]"))
