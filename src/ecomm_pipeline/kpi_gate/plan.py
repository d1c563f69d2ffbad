"""Whether a date's KPIs moved further than they may, against the same weekday of the weeks before. Pure.

What is expected is the median, which one odd week does not move. A bound is a share of it: 0.5 lets a KPI halve, or
grow by half. Where too few of the weeks have the KPI nothing is expected, and nothing is held back.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from statistics import median
from typing import TYPE_CHECKING, Any, Final

from ecomm_pipeline.errors import ConfigurationError
from ecomm_pipeline.layout import KPI_GATE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import date

    from ecomm_pipeline.dates import BusinessDate, DateRange
    from ecomm_pipeline.ledger import Record

__all__ = [
    "HELD",
    "HOLD",
    "PASSED",
    "TABLE",
    "Move",
    "check_names",
    "figures",
    "first_needed",
    "go_on",
    "hold_of",
    "judge",
    "reason",
    "regardless",
]

TABLE: Final = "agg_sales_kpi"
"""The table of schema `kpi` whose columns are the KPIs."""
PASSED: Final = "passed"
HELD: Final = "held"
"""The verdicts."""
HOLD: Final = timedelta(hours=12)
"""How long a run waits for a person. A night is held at about 05:30, and must be over when the next begins at 01:00:
while it goes on, the clock begins none (`concurrencyPolicy: Forbid`)."""
_TOLD: Final = 3
"""Moves that a sentence names."""
_KEPT: Final = 20
"""Moves of a range that the record keeps: it lies under each of its dates."""

Row = dict[str, Decimal | None]


@dataclass(frozen=True, slots=True)
class Move:
    """A KPI of a sales date beside its history: the values of the same weekday, as far as there are any.

    `bound` is the share of the expected value that it may move by, `needed` the weeks without which none is expected.
    """

    date: BusinessDate
    kpi: str
    value: Decimal | None
    history: tuple[Decimal, ...]
    bound: Decimal
    needed: int

    @property
    def expected(self) -> Decimal | None:
        """The median of the history; None where that is too short."""
        return median(self.history) if len(self.history) >= self.needed else None

    @property
    def ratio(self) -> Decimal | None:
        """The move as a share of what was expected, negative when it fell; None where there is no such share."""
        if not self.expected or self.value is None:
            return None
        return (self.value - self.expected) / abs(self.expected)

    @property
    def is_held(self) -> bool:
        """Whether it moved further than it may: by more than the bound, from 0, or to nothing at all."""
        if self.expected is None:
            return False
        return self.value != self.expected if self.ratio is None else abs(self.ratio) > self.bound

    def __str__(self) -> str:
        """Write it as `orders of 2026-01-02 is 40, −50.0 % against 80 (median of 5 Fridays; bound 30 %)`."""
        weekdays = f"median of {len(self.history)} {self.date.day:%A}s" if self.expected is not None else ""
        named = f"{self.kpi} of {self.date} is {'missing' if self.value is None else _number(self.value)}"
        if self.expected is None:
            return f"{named}; {len(self.history)} of {self.needed} weeks tell what is usual"
        share = "" if self.ratio is None else f" {_percent(self.ratio, signed=True)}"
        return f"{named},{share} against {_number(self.expected)} ({weekdays}; bound {_percent(self.bound)})"

    def as_dict(self) -> dict[str, Any]:
        """Give it as the ledger keeps it: numbers as text, all digits kept."""
        return {
            "date": str(self.date),
            "kpi": self.kpi,
            "value": _text(self.value),
            "expected": _text(self.expected),
            "weeks": len(self.history),
            "move": None if self.ratio is None else f"{self.ratio:.4f}",
            "bound": str(self.bound),
            "held": self.is_held,
        }


def first_needed(dates: DateRange, weeks: int) -> BusinessDate:
    """Give the first sales date whose KPIs have to be asked for."""
    return dates.first.plus(-7 * weeks)


def check_names(bounds: Mapping[str, Decimal], known: Sequence[str]) -> None:
    """Raise `ConfigurationError` when a bound is of a column that the table does not have."""
    if unknown := sorted(bounds.keys() - set(known)):
        message = f"ECOMM_KPI_GATE_BOUNDS: kpi.{TABLE} has no {', '.join(unknown)}"
        raise ConfigurationError(message, next_step=f"bound one of {', '.join(known)}")


def judge(
    dates: DateRange, rows: Mapping[date, Row], bounds: Mapping[str, Decimal], *, weeks: int, needed: int
) -> list[Move]:
    """Compare every bounded KPI of every date; `rows` are the table's by sales date, `needed` at most `weeks`."""
    return [
        Move(day, kpi, rows.get(day.day, {}).get(kpi), _history(day, rows, kpi, weeks), bound, needed)
        for day in dates
        for kpi, bound in bounds.items()
    ]


def _history(day: BusinessDate, rows: Mapping[date, Row], kpi: str, weeks: int) -> tuple[Decimal, ...]:
    values = (rows.get(day.plus(-7 * back).day, {}).get(kpi) for back in range(1, weeks + 1))
    return tuple(value for value in values if value is not None)


def figures(moves: Sequence[Move]) -> dict[str, Any]:
    """Give what the ledger keeps: the verdict, and every KPI of one date, or of a range those that moved furthest."""
    held = _furthest(moves)
    kept = held[:_KEPT] if len({move.date for move in moves}) > 1 else moves
    return {
        "verdict": HELD if held else PASSED,
        "compared": len(moves),
        "moved": len(held),
        "kpis": [move.as_dict() for move in kept],
    }


def reason(moves: Sequence[Move]) -> str:
    """Tell in a line what moved too far, the furthest first; empty where nothing did."""
    held = _furthest(moves)
    more = f"; and {len(held) - _TOLD} more" if len(held) > _TOLD else ""
    return "; ".join(map(str, held[:_TOLD])) + more


def _furthest(moves: Iterable[Move]) -> list[Move]:
    """Give the moves that are held, the furthest first; one that has no share before all that have."""
    held = [move for move in moves if move.is_held]
    return sorted(held, key=lambda move: Decimal("Infinity") if move.ratio is None else abs(move.ratio), reverse=True)


def regardless(dates: object) -> str:
    """Give the command that refreshes Tableau although a KPI moved, where no workflow waits for a word."""
    return f"ecomm rerun tableau {dates} --onwards"


def go_on(workflow: str, dates: DateRange) -> str:
    """Give the command that lets a held run go on; `workflow` is NAMESPACE/NAME, without a namespace on one machine."""
    namespace, _, name = workflow.rpartition("/")
    return f"argo resume -n {namespace} {name}" if namespace else regardless(dates)


def hold_of(records: Iterable[Record]) -> Record | None:
    """Give the record of what keeps a date from the dashboards: its newest verdict, if Tableau was not refreshed since.

    `records` are all of a date, or the newest of each stage.
    """
    held = list(records)
    verdicts = [record for record in held if record.stage == KPI_GATE and record.outcome == "succeeded"]
    newest = max(verdicts, key=lambda record: record.began_at, default=None)
    if newest is None or newest.figures.get("verdict") != HELD:
        return None
    released = any(
        record.stage == "tableau-refresher" and record.outcome == "succeeded" and record.began_at > newest.began_at
        for record in held
    )
    return None if released else newest


def _text(value: Decimal | None) -> str | None:
    return None if value is None else str(value)


def _number(value: Decimal) -> str:
    """Write it as people read it: `6 808.45`, four decimals at most."""
    whole, _, decimals = f"{value:,.4f}".replace(",", " ").partition(".")
    return f"{whole}.{decimals}".rstrip("0").rstrip(".")


def _percent(share: Decimal, *, signed: bool = False) -> str:
    number = f"{abs(100 * share):.1f}".removesuffix("" if signed else ".0")
    return f"{('−' if share < 0 else '+') if signed else ''}{number} %"
