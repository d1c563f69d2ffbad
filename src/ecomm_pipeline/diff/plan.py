"""What differs between two sides: outcomes, rows, bytes, money, columns, findings and durations. Pure.

A side is a date, or one run of it: its newest records in the ledger, its manifests, and the rows of the balance sheet
that the reconciler wrote.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from ecomm_pipeline.errors import ConfigurationError
from ecomm_pipeline.tables import text_table

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from ecomm_pipeline.ledger import Record
    from ecomm_pipeline.manifest import Manifest

__all__ = ["Difference", "Side", "as_table", "choose_run", "compare"]

NOTICED: Final = 0.2
"""Share by which a duration must differ to be told; and `SECONDS`, so that the noise of short stages is not."""
SECONDS: Final = 1.0
ABSENT: Final = "–"

Value = int | Decimal | str | None


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two: `name` is what the person wrote."""

    name: str
    date: str
    records: Sequence[Record] = ()
    manifests: Mapping[str, Manifest] = field(default_factory=dict)
    sheet: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True, slots=True)
class Difference:
    """One figure that differs; `group` is rows, bytes, money, columns, outcome, findings or seconds."""

    group: str
    what: str
    one: Value
    other: Value

    @property
    def change(self) -> str:
        """By how much, where both are numbers."""
        if isinstance(self.one, str) or isinstance(self.other, str) or self.one is None or self.other is None:
            return ""
        change = self.other - self.one
        share = f" ({100 * float(change) / abs(float(self.one)):+.1f} %)" if self.one else ""
        return f"{change:+,}{share}".replace(",", " ")

    def as_dict(self) -> dict[str, Any]:
        """Give it as `--format json` writes it; money as text."""
        values = {"one": self.one, "other": self.other}
        told = {name: str(value) if isinstance(value, Decimal) else value for name, value in values.items()}
        return {"group": self.group, "what": self.what, **told, "change": self.change}


def choose_run(run_ids: Iterable[str], prefix: str, date: str) -> str:
    """Give the one run whose id begins with `prefix`. Raises `ConfigurationError` when it is none, or more."""
    known = sorted(set(run_ids))
    found = [run_id for run_id in known if run_id.startswith(prefix)]
    if len(found) == 1:
        return found[0]
    problem = "no run" if not found else f"{len(found)} runs"
    message = f"{date} has {problem} whose id begins with {prefix!r}"
    raise ConfigurationError(message, next_step=f"name one of: {', '.join(found or known) or 'none: it has no run'}")


def compare(one: Side, other: Side) -> tuple[list[Difference], int]:
    """Give what differs, by group and in the order of the chain, and how many figures are equal.

    Columns are compared of tables that both sides have extracted: of the others, the outcome tells enough.
    """
    both = one.manifests.keys() & other.manifests.keys()
    one, other = (replace(side, manifests=_only(side.manifests, both)) for side in (one, other))
    figures = [(group, *_figures(of(one), of(other))) for group, of in _GROUPS.items()]
    found: list[Difference] = []
    equal = 0
    for group, names, left, right in figures:
        for name in names:
            if _differs(group, left.get(name), right.get(name)):
                found.append(Difference(group, name, left.get(name), right.get(name)))
            else:
                equal += 1
    return found, equal


def _only(manifests: Mapping[str, Manifest], tables: AbstractSet[str]) -> dict[str, Manifest]:
    return {table: manifest for table, manifest in manifests.items() if table in tables}


def _figures(
    left: Mapping[str, Value], right: Mapping[str, Value]
) -> tuple[list[str], Mapping[str, Value], Mapping[str, Value]]:
    return list(dict.fromkeys([*left, *right])), left, right


def _differs(group: str, one: Value, other: Value) -> bool:
    if group == "seconds" and isinstance(one, Decimal) and isinstance(other, Decimal):
        change = abs(other - one)
        return change > Decimal(str(SECONDS)) and change > Decimal(str(NOTICED)) * max(one, other)
    return one != other


def _outcomes(side: Side) -> dict[str, Value]:
    def told(record: Record) -> str:
        return f"{record.outcome}: {record.failure_class}" if record.failure_class else record.outcome

    return {_name(record): told(record) for record in side.records}


def _name(record: Record) -> str:
    return f"{record.stage} {record.table}" if record.table else record.stage


def _rows(side: Side) -> dict[str, Value]:
    of_stages = {f"{_name(record)}": record.rows_out for record in side.records if record.stage != "reconciler"}
    return {**of_stages, **{f"{table} {hop}": rows for table, hop, rows, _ in _sheet(side) if rows is not None}}


def _money(side: Side) -> dict[str, Value]:
    return {f"{table} {hop}": money for table, hop, _, money in _sheet(side) if money is not None}


def _sheet(side: Side) -> Iterator[tuple[str, str, int | None, Decimal | None]]:
    """Give the sheet's rows of the side's own date; it may hold other sales dates, and the other dates of a range."""
    for row in side.sheet:
        if row["date"] == side.date:
            yield row["table"], row["hop"], row["rows"], Decimal(row["money"]) if "money" in row else None


def _bytes(side: Side) -> dict[str, Value]:
    return {table: manifest.bytes for table, manifest in side.manifests.items()}


def _columns(side: Side) -> dict[str, Value]:
    return {
        f"{table}.{column.name}": column.type
        for table, manifest in side.manifests.items()
        for column in manifest.columns
    }


def _findings(side: Side) -> dict[str, Value]:
    counts = Counter(f"{finding.priority} {finding.kind}" for record in side.records for finding in record.findings)
    return dict(sorted(counts.items()))


def _seconds(side: Side) -> dict[str, Value]:
    return {_name(r): Decimal(f"{r.seconds:.1f}") for r in side.records if r.seconds is not None}


_GROUPS: Final = {
    "outcome": _outcomes,
    "columns": _columns,
    "rows": _rows,
    "bytes": _bytes,
    "money": _money,
    "findings": _findings,
    "seconds": _seconds,
}


def as_table(one: Side, other: Side, found: Sequence[Difference], equal: int) -> str:
    """Write it for people."""
    if not found:
        return f"{one.name} and {other.name} do not differ: {equal} figures are equal"
    body = [[each.group, each.what, _write(each.one), _write(each.other), each.change] for each in found]
    right = [False, False, True, True, True]
    table = text_table(("", "what", one.name, other.name, "change"), body, right=right)
    return f"{table}\n{equal} other figures are equal"


def _write(value: Value) -> str:
    if value is None:
        return ABSENT
    return value if isinstance(value, str) else f"{value:,}".replace(",", " ")
