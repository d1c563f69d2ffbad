"""As much of Jira's query language as Alertmanager writes: comparisons, `and`, `or`, brackets, `order by`.

https://support.atlassian.com/jira-service-management-cloud/docs/use-advanced-search-with-jira-query-language-jql/
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["JqlError", "search"]

Fields = dict[str, Any]
"""The fields of an issue by the names that JQL has for them."""

_TOKEN: Final = re.compile(r"""\s*(?:"((?:[^"\\]|\\.)*)"|(>=|<=|!=|=|>|<|\(|\))|([^\s()=!<>"]+))""")
_KNOWN: Final = ("project", "labels", "status", "statuscategory", "resolution", "resolutiondate")


class JqlError(ValueError):
    """Raised for a query that Jira does not understand."""


def search(jql: str, issues: list[Fields]) -> list[Fields]:
    """Give the issues that a query finds, in its order."""
    where, *order = re.split(r"\border\s+by\b", jql, maxsplit=1, flags=re.IGNORECASE)
    parser = _Parser(_tokens(where))
    matches = parser.any_of()
    parser.end()
    found = [issue for issue in issues if matches(issue)]
    for name, descending in reversed(_order("".join(order))):
        found.sort(key=lambda issue: str(issue.get(name) or ""), reverse=descending)
    return found


def _order(text: str) -> list[tuple[str, bool]]:
    parts = [part.split() for part in text.split(",") if part.strip()]
    return [(part[0].lower(), part[-1].upper() == "DESC") for part in parts]


def _tokens(text: str) -> list[tuple[str, bool]]:
    """Split a query into tokens and whether each was quoted."""
    tokens, at, text = [], 0, text.rstrip()
    while at < len(text):
        found = _TOKEN.match(text, at)
        if not found:
            message = f"Error in the JQL Query: The character '{text[at]}' is a reserved JQL character. (position {at})"
            raise JqlError(message)
        quoted, sign, word = found.groups()
        tokens.append((re.sub(r"\\(.)", r"\1", quoted), True) if quoted is not None else (sign or word, False))
        at = found.end()
    return tokens


class _Parser:
    def __init__(self, tokens: list[tuple[str, bool]]) -> None:
        self._tokens = tokens
        self._at = 0

    def _next(self) -> str:
        if self._at >= len(self._tokens):
            message = "Error in the JQL Query: The query ends too early."
            raise JqlError(message)
        self._at += 1
        return self._tokens[self._at - 1][0]

    def _accept(self, word: str) -> bool:
        if self._at < len(self._tokens):
            text, quoted = self._tokens[self._at]
            if not quoted and text.lower() == word:
                self._at += 1
                return True
        return False

    def end(self) -> None:
        """Refuse what follows a whole query."""
        if self._at < len(self._tokens):
            message = f"Error in the JQL Query: Expecting either 'OR' or 'AND' but got '{self._tokens[self._at][0]}'."
            raise JqlError(message)

    def any_of(self) -> Callable[[Fields], bool]:
        """Read terms joined by `or`."""
        terms = [self.all_of()]
        while self._accept("or"):
            terms.append(self.all_of())
        return lambda issue: any(term(issue) for term in terms)

    def all_of(self) -> Callable[[Fields], bool]:
        """Read terms joined by `and`."""
        terms = [self.term()]
        while self._accept("and"):
            terms.append(self.term())
        return lambda issue: all(term(issue) for term in terms)

    def term(self) -> Callable[[Fields], bool]:
        """Read a comparison, or terms in brackets."""
        if self._accept("("):
            inner = self.any_of()
            if not self._accept(")"):
                message = "Error in the JQL Query: Expecting ')'."
                raise JqlError(message)
            return inner
        name = self._next().lower()
        if name not in _KNOWN:
            message = f"Field '{name}' does not exist or you do not have permission to view it."
            raise JqlError(message)
        return self._comparison(name)

    def _comparison(self, name: str) -> Callable[[Fields], bool]:
        operator = self._next().lower()
        if operator == "is":
            negated = self._accept("not")
            if self._next().lower() not in ("empty", "null"):
                message = "Error in the JQL Query: 'is' takes EMPTY or NULL."
                raise JqlError(message)
            return lambda issue: bool(issue.get(name)) is negated
        wanted = self._next()
        if operator == "=":
            return lambda issue: _equals(issue.get(name), wanted)
        if operator == "!=":  # as in Jira: nothing is not unequal to anything
            return lambda issue: bool(issue.get(name)) and not _equals(issue.get(name), wanted)
        if operator == ">=" and name == "resolutiondate":
            since = _moment(wanted)
            return lambda issue: bool(issue.get(name)) and datetime.fromisoformat(issue[name]) >= since
        message = f"The operator '{operator}' is not supported by the '{name}' field."
        raise JqlError(message)


def _equals(found: Any, wanted: str) -> bool:  # noqa: ANN401 (a field's value)
    if isinstance(found, list):
        return wanted in found  # labels, which tell upper from lower case
    return str(found or "").lower() == wanted.lower()


def _moment(text: str) -> datetime:
    """Read how long ago: `-60m`, `-2h`, `-3d`, `-1w`."""
    found = re.fullmatch(r"-(\d+)([mhdw])", text)
    if not found:
        message = f"Date value '{text}' for field 'resolutiondate' is invalid."
        raise JqlError(message)
    units = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
    return datetime.now(UTC) - timedelta(**{units[found[2]]: int(found[1])})
