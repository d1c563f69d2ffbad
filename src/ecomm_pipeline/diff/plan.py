"""What differs between two sides: outcomes, rows, bytes, money, columns, findings and durations. Pure.

A side is a date, or one run of it: its newest records in the ledger, its manifests, and the rows of the balance sheet
that the reconciler wrote.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from decimal import Decimal
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final

from ecomm_pipeline.errors import ConfigurationError
from ecomm_pipeline.tables import text_table

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

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
    """One figure that differs; `group` is rows, bytes, money, columns, outcome, dates, findings or seconds."""

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

    Of what only one of them did, as a run of one stage does, the outcome tells enough: rows, bytes, columns, findings
    and durations are compared of the stages, tables and sheets that both have. `dates` is of how many dates a stage's
    run was: rows and durations are of all of them.
    """
    outcomes = _figures("outcome", _outcomes(one), _outcomes(other))
    one, other = _common(one, other), _common(other, one)
    figures = [*outcomes, *(figure for group, of in _GROUPS.items() for figure in _figures(group, of(one), of(other)))]
    found = [each for each in figures if _differs(each)]
    return found, len(figures) - len(found)


def _common(side: Side, other: Side) -> Side:
    """Leave out what the other does not have."""
    names = {_name(record) for record in other.records}
    return replace(
        side,
        records=[record for record in side.records if _name(record) in names],
        manifests={table: manifest for table, manifest in side.manifests.items() if table in other.manifests},
        sheet=side.sheet if other.sheet else (),
    )


def _figures(group: str, left: Mapping[str, Value], right: Mapping[str, Value]) -> list[Difference]:
    return [Difference(group, name, left.get(name), right.get(name)) for name in dict.fromkeys([*left, *right])]


def _differs(each: Difference) -> bool:
    one, other = each.one, each.other
    if each.group == "seconds" and isinstance(one, Decimal) and isinstance(other, Decimal):
        change = abs(other - one)
        return change > Decimal(str(SECONDS)) and change > Decimal(str(NOTICED)) * max(one, other)
    return one != other


def _outcomes(side: Side) -> dict[str, Value]:
    def told(record: Record) -> str:
        return f"{record.outcome}: {record.failure_class}" if record.failure_class else record.outcome

    return {_name(record): told(record) for record in side.records}


def _name(record: Record) -> str:
    return f"{record.stage} {record.table}" if record.table else record.stage


def _dates(side: Side) -> dict[str, Value]:
    return {_name(record): len(record.dates) for record in side.records}


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
    "dates": _dates,
    "columns": _columns,
    "rows": _rows,
    "bytes": _bytes,
    "money": _money,
    "findings": _findings,
    "seconds": _seconds,
}


def as_table(one: Side, other: Side, found: Sequence[Difference], equal: int) -> str:
    """Write it for people; hops of a table that say the same share a line."""
    figures = f"{equal}{' other' if found else ''} figure{' is' if equal == 1 else 's are'} equal"
    if not found:
        return f"{one.name} and {other.name} do not differ: {figures}"
    body = [[each.group, each.what, _write(each.one), _write(each.other), each.change] for each in _merged(found)]
    right = [False, False, True, True, True]
    return f"{text_table(('', 'what', one.name, other.name, 'change'), body, right=right)}\n{figures}"


def _merged(found: Sequence[Difference]) -> Iterator[Difference]:
    """Put the hops together that follow each other with the same figures: `orders source … kept`."""
    for _, same in groupby(found, key=lambda each: (each.group, each.what.split()[0], each.one, each.other)):
        run = list(same)
        if len(run) == 1 or run[0].group not in ("rows", "money"):
            yield from run
        else:
            yield replace(run[0], what=f"{run[0].what} … {run[-1].what.rpartition(' ')[2]}")


def _write(value: Value) -> str:
    if value is None:
        return ABSENT
    return value if isinstance(value, str) else f"{value:,}".replace(",", " ")
