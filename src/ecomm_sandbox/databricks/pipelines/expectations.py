"""Expectations: counted while the rows pass by, in the same job that writes them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pyspark.sql import Observation
from pyspark.sql import functions as F  # noqa: N812 - its usual name

from ecomm_sandbox.databricks.pipelines.graph import Action

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pyspark.sql import Column, DataFrame

    from ecomm_sandbox.databricks.pipelines.graph import Dataset, Expectation

_ROWS, _DROPPED = "rows", "dropped"


@dataclass(slots=True)
class Counts:
    """What one evaluation of a dataset has counted."""

    dataset: str
    expectations: Sequence[Expectation]
    name: str
    observation: Observation | None
    values: dict[str, int] = field(default_factory=dict)

    def add(self, values: dict[str, Any]) -> None:
        """Count a batch."""
        for key, value in values.items():
            self.values[key] = self.values.get(key, 0) + int(value or 0)

    def as_json(self) -> list[dict[str, Any]]:
        """The entries of `data_quality.expectations`."""
        rows = self.values.get(_ROWS, 0)
        shown = []
        for at, expectation in enumerate(self.expectations):
            failed = self.values.get(f"e{at}", 0)
            entry = {"name": expectation.name, "dataset": self.dataset}
            shown.append(entry | {"passed_records": rows - failed, "failed_records": failed})
        return shown

    @property
    def dropped(self) -> int:
        """Rows that expectations kept out."""
        return self.values.get(_DROPPED, 0)


class Observer:
    """Everything that is counted while one flow runs."""

    def __init__(self, flow: str) -> None:
        """`flow` is the name that a violation shows."""
        self._flow = flow
        self.counts: list[Counts] = []
        self._written: Counts | None = None

    def apply(self, frame: DataFrame, dataset: Dataset) -> DataFrame:
        """The rows that the dataset's expectations let through; a violated `fail` one fails the job that writes."""
        expectations = list(dataset.expectations)
        if not expectations:
            return frame
        drops = [_met(e) for e in expectations if e.action is Action.DROP]
        counted = [F.count(F.lit(1)).alias(_ROWS), F.count_if(~_all(drops)).alias(_DROPPED)]
        counted += [F.count_if(~_met(e)).alias(f"e{at}") for at, e in enumerate(expectations)]
        frame = self._observe(frame, counted, dataset.label, expectations)
        for expectation in expectations:
            if expectation.action is Action.FAIL:
                kept = F.when(_met(expectation), F.lit(True))  # noqa: FBT003 - a literal
                frame = frame.where(kept.otherwise(self._violation(expectation)))
        return frame.where(_all(drops)) if drops else frame

    def _violation(self, expectation: Expectation) -> Column:
        message = (
            f"[EXPECTATION_VIOLATION] Flow '{self._flow}' failed to meet the expectation."
            f" Violated expectations: '{expectation.name}' ({expectation.condition})"
        )
        return F.raise_error(F.lit(message)).cast("boolean")

    def written(self, frame: DataFrame) -> DataFrame:
        """Count the rows that are left to be written."""
        frame = self._observe(frame, [F.count(F.lit(1)).alias(_ROWS)], "", [])
        self._written = self.counts.pop()
        return frame

    def _observe(
        self, frame: DataFrame, counted: list[Column], label: str, expectations: Sequence[Expectation]
    ) -> DataFrame:
        name = f"sandbox_{len(self.counts)}_{'rows' if not expectations else 'expectations'}"
        observation = None if frame.isStreaming else Observation(name)
        self.counts.append(Counts(label, expectations, name, observation))
        return frame.observe(name if observation is None else observation, *counted)

    def collect_batch(self) -> None:
        """Take what a batch query observed; call after its write."""
        for counts in self._all():
            if counts.observation is not None:
                counts.add(counts.observation.get)

    def collect_stream(self, progress: Iterable[Any]) -> None:
        """Take what a streaming query observed, from its progress reports."""
        by_name = {counts.name: counts for counts in self._all()}
        for report in progress:
            for name, row in (report["observedMetrics"] or {}).items():
                if name in by_name:
                    by_name[name].add(row if isinstance(row, dict) else row.asDict())

    def _all(self) -> list[Counts]:
        return [*self.counts, *([self._written] if self._written else [])]

    @property
    def rows(self) -> int:
        """The rows written."""
        return self._written.values.get(_ROWS, 0) if self._written else 0

    def quality(self) -> dict[str, Any]:
        """`data_quality` of a flow_progress event; empty when nothing is expected."""
        if not self.counts:
            return {}
        return {
            "dropped_records": sum(counts.dropped for counts in self.counts),
            "expectations": [entry for counts in self.counts for entry in counts.as_json()],
        }


def _met(expectation: Expectation) -> Column:
    """Whether a row meets it; a condition that is NULL is not met."""
    return F.coalesce(F.expr(expectation.condition), F.lit(False))  # noqa: FBT003 - a literal


def _all(conditions: Sequence[Column]) -> Column:
    met = F.lit(True)  # noqa: FBT003 - as above
    for condition in conditions:
        met = met & condition
    return met
