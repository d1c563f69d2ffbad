"""`ecomm backfill`: ask the ledger, show the plan, and run it here or on the cluster; then ask the ledger again."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from ecomm_pipeline.backfill import plan
from ecomm_pipeline.backlog import needed, plan_backfill
from ecomm_pipeline.dates import BusinessDate, DateRange
from ecomm_pipeline.runner.plan import choose_backfill
from ecomm_pipeline.runner.run import run_workflow

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path
    from zoneinfo import ZoneInfo

    from ecomm_pipeline.argo import Argo
    from ecomm_pipeline.backlog import Mode, Need
    from ecomm_pipeline.clock import Clock
    from ecomm_pipeline.ledger import Ledger, Record
    from ecomm_pipeline.settings import Nightly

__all__ = ["Backfill", "Here"]

_HISTORY: Final = 14
"""Dates of the ledger that an estimate is made from, beside those of the range."""
_RUNS_FOR: Final = timedelta(hours=4)
"""A stage that says it runs for longer is of a process that is gone: no stage may run so long."""
_POLL: Final = 30.0


@dataclass(frozen=True, slots=True)
class Here:
    """What walking workflows on this machine takes; `new_run_id` gives the id of each run."""

    new_run_id: Callable[[], str]
    workflows: Path
    runs: Path
    environment: Mapping[str, str]


@dataclass(slots=True)
class Backfill:
    """A backfill of a range. `parallelism` is how many dates are extracted at once, `bounds` are of its KPI gate."""

    dates: DateRange
    mode: Mode
    tables: tuple[str, ...]
    bounds: str
    tz: ZoneInfo
    nightly: Nightly
    parallelism: int
    ledger: Ledger
    clock: Clock

    def show(self, *, where: str, as_json: bool = False) -> list[BusinessDate]:
        """Print the plan; gives the dates that are to be done.

        Raises `ConfigurationError` when no date of the range has ended.
        """
        self.dates, left_out = plan.ended(self.dates, self._yesterday())
        needs, expected = self._plan(self.mode), self._estimate()
        if as_json:
            told = plan.as_dict(needs, self.mode, expected, self.parallelism)
            print(json.dumps(told, indent=1, ensure_ascii=False))
        else:
            if left_out:
                print(left_out)
            print("\n".join(plan.lines(needs, self.mode, expected, self.parallelism, where=where)), flush=True)
        return needed(needs)

    def run_here(self, todo: Sequence[BusinessDate], here: Here) -> None:
        """Walk the workflow here, for as many dates at a time as are done before the nightly run begins.

        While a nightly run goes on it is waited for. Raises what `run_workflow` raises, and `UpstreamFailedError` when
        a date that was planned is not done in the end.
        """
        left = list(todo)
        while left:
            self._give_way()
            count = plan.part_of(left, self._estimate(), self.parallelism, self._until_the_night())
            part, left = left[:count], left[count:]
            span = DateRange(part[0], part[-1])
            choice = choose_backfill(
                span,
                self.tables,
                self.bounds,
                mode=self.mode,
                again=plan.command(span, self.mode),
                parallelism=self.parallelism,
            )
            run_workflow(
                choice,
                run_id=here.new_run_id(),
                workflows=here.workflows,
                runs=here.runs,
                environment=here.environment,
                clock=self.clock,
            )
            if left:
                print(f"{len(todo) - len(left)} of {len(todo)} dates are done", flush=True)
        self._prove(todo)

    def run_on_argo(self, todo: Sequence[BusinessDate], argo: Argo, *, follow: bool) -> None:
        """Submit the workflow, whose priority and locks give way to the nightly run; with `follow`, see it end well.

        Its KPI gate has the bounds of the cluster, unless there are other ones here.
        """
        arguments = {
            "from": str(todo[0]),
            "to": str(todo[-1]),
            "mode": self.mode,
            "parallelism": str(self.parallelism),
            "tables": json.dumps(self.tables),
            "trigger": "backfill",
            **({"bounds": self.bounds} if self.bounds else {}),
        }
        name = argo.submit("backfill", arguments)
        print(f"submitted as {name}", flush=True)
        if follow:
            argo.follow(name, lambda text: print(text, flush=True))
            self._prove(todo)

    def _plan(self, mode: Mode) -> list[Need]:
        return plan_backfill(self.dates, mode, self.ledger.of_range(self.dates), self.tables)

    def _estimate(self) -> plan.Estimate:
        last = self.ledger.dates()[-_HISTORY:]
        return plan.estimate(self.ledger.of_range(DateRange(last[0], last[-1])) if last else [])

    def _give_way(self) -> None:
        told = False
        while night := plan.in_the_way(self._of_the_night(), self.clock.now(), limit=_RUNS_FOR):
            if not told:
                print(f"waiting for the nightly run: {night.stage} of {night.dates} goes on", flush=True)
                told = True
            self.clock.sleep(_POLL)

    def _of_the_night(self) -> Sequence[Record]:
        return self.ledger.of_date(self._yesterday())

    def _yesterday(self) -> BusinessDate:
        return BusinessDate.of(self.clock.now(), self.tz).plus(-1)

    def _until_the_night(self) -> timedelta:
        """How long it is until the next nightly run begins."""
        now, today = self.clock.now(), BusinessDate.of(self.clock.now(), self.tz)
        starts = [today.plus(days).at(self.nightly.starts, self.tz) for days in (0, 1)]
        return min(start for start in starts if start > now) - now

    def _prove(self, todo: Sequence[BusinessDate]) -> None:
        """Ask the ledger again: every date that was planned is done, or it is an error."""
        if error := plan.unfinished(todo, self._plan("missing")):
            raise error
        print(f"{len(todo)} dates planned, {len(todo)} done", flush=True)
