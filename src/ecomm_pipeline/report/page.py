"""The view model: everything that the page says, as texts and percentages. `plan` makes it, the template writes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping
    from decimal import Decimal

__all__ = [
    "Bar",
    "Cell",
    "Check",
    "Flow",
    "Kpi",
    "Lane",
    "OddDay",
    "Page",
    "Phase",
    "Remark",
    "RunRow",
    "Tick",
    "Tile",
    "Timeline",
    "Tone",
    "Trace",
    "Verdict",
]

Tone = Literal["good", "warn", "bad", "idle", "busy"]
"""What a colour means: fine, worth a look, wrong, nothing there, still going on."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The first line: in a word, in a sentence, and what to do."""

    tone: Tone
    headline: str
    sentence: str
    next_step: str = ""


@dataclass(frozen=True, slots=True)
class Tile:
    """A figure of the header."""

    label: str
    value: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Bar:
    """A stage run in a timeline; `left` and `width` in percent of the track."""

    left: float
    width: float
    tone: Tone
    title: str


@dataclass(frozen=True, slots=True)
class Lane:
    """A stage (and table) in a timeline."""

    label: str
    detail: str
    tone: Tone
    took: str
    bars: tuple[Bar, ...]


@dataclass(frozen=True, slots=True)
class Tick:
    """A mark of a time axis, in percent."""

    left: float
    label: str


@dataclass(frozen=True, slots=True)
class Phase:
    """A phase against what the runbook expects of it; `share` of its limit, in percent, at most 100."""

    label: str
    took: str
    expected: str
    share: float
    tone: Tone


@dataclass(frozen=True, slots=True)
class Timeline:
    """The stages of a run over time."""

    run_id: str
    began: str
    took: str
    lanes: tuple[Lane, ...]
    ticks: tuple[Tick, ...]
    phases: tuple[Phase, ...]


@dataclass(frozen=True, slots=True)
class RunRow:
    """A run in the list of runs."""

    run_id: str
    dates: str
    trigger: str
    began: str
    took: str
    stages: str
    tone: Tone
    outcome: str


@dataclass(frozen=True, slots=True)
class Cell:
    """A hop of a table: rows, and money where the table has any; `tone` is set where it is odd."""

    label: str
    rows: str
    money: str = ""
    tone: Tone | None = None


@dataclass(frozen=True, slots=True)
class Flow:
    """A table through the hops; `shares` are percent of Bronze's rows by what became of them, for a stacked bar."""

    table: str
    cells: tuple[Cell, ...]
    tone: Tone
    shares: tuple[tuple[str, float, str], ...] = ()


@dataclass(frozen=True, slots=True)
class OddDay:
    """A table's date that is not simply equal at every hop."""

    date: str
    table: str
    tone: Tone
    text: str


@dataclass(frozen=True, slots=True)
class Check:
    """An expectation or a dbt test."""

    name: str
    where: str
    passed: str
    failed: str
    tone: Tone
    note: str = ""


@dataclass(frozen=True, slots=True)
class Remark:
    """Something slow or odd; `count` alike."""

    tone: Tone
    label: str
    where: str
    text: str
    count: int = 1
    next_step: str = ""


@dataclass(frozen=True, slots=True)
class Kpi:
    """A day of agg_sales_kpi."""

    date: str
    figures: Mapping[str, Decimal | None]

    def __getitem__(self, name: str) -> Decimal | None:
        return self.figures.get(name)


@dataclass(frozen=True, slots=True)
class Trace:
    """A stage run by its ids."""

    stage: str
    dates: str
    run_id: str
    ids: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Page:
    """Everything that the template writes."""

    title: str
    dates: str
    generated: str
    timezone: str
    verdict: Verdict
    tiles: tuple[Tile, ...]
    timeline: Timeline | None
    runs: tuple[RunRow, ...]
    more_runs: int
    flows: tuple[Flow, ...]
    sales: Flow | None
    odd_days: tuple[OddDay, ...]
    more_odd_days: int
    reconciled: str
    expectations: tuple[Check, ...]
    expectations_summary: str
    quarantine: tuple[Check, ...]
    tests: tuple[Check, ...]
    tests_summary: str
    kpis: tuple[Kpi, ...]
    kpis_in_range: tuple[Kpi, ...]
    kpis_missing: str
    remarks: tuple[Remark, ...]
    traces: tuple[Trace, ...]
    more_traces: int
    versions: str
