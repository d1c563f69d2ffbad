"""The account: one project with one job, whose runs wait for each other. Runs survive a restart.

What a run is told to be follows https://docs.getdbt.com/dbt-cloud/api-v2 and
https://docs.getdbt.com/docs/deploy/retry-jobs.
"""

from __future__ import annotations

import json
import shutil
import threading
import time
from copy import copy
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from ecomm_sandbox.dbt_cloud.commands import ARTIFACTS, LOG
from ecomm_sandbox.faults import FaultBox

if TYPE_CHECKING:
    from pathlib import Path

    from ecomm_sandbox.dbt_cloud.commands import Execute

__all__ = ["COMMANDS", "JOB", "Account", "CloudError", "Run", "Step"]

JOB: Final = "DailyRefresh"
COMMANDS: Final = ("dbt build --exclude-resource-type unit_test",)
QUEUED, STARTING, RUNNING, SUCCESS, ERROR, CANCELLED = 1, 2, 3, 10, 20, 30
_FIRST_RUN: Final = 7000
_RUNS_KEPT: Final = 200
_LOOK_EVERY: Final = 0.05
_BEFORE: Final = (
    "Clone git repository",
    "Create profile from connection Databricks",
    "Invoke dbt with `dbt deps`",
)
"""What each run does first; here there is nothing to it."""


class CloudError(Exception):
    """Raised for a request that is refused, with what the service says."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message


@dataclass(slots=True)
class Step:
    """A step of a run. `index` counts from 1; times are as dbt Cloud writes them."""

    index: int
    name: str
    status: int
    started_at: str
    finished_at: str | None = None
    logs: str = ""


@dataclass(slots=True)
class Run:
    """A run of the job. `commands` are those that it has to run, of which `retrying` says where the first goes on."""

    id: int
    cause: str
    commands: list[str]
    created_at: str
    status: int = QUEUED
    started_at: str | None = None
    finished_at: str | None = None
    said: str | None = None
    steps_override: list[str] | None = None
    retrying_run_id: int | None = None
    retrying_step: int | None = None
    steps: list[Step] = field(default_factory=list)

    @property
    def active(self) -> bool:
        """Whether it is yet to end."""
        return self.status in (QUEUED, STARTING, RUNNING)

    @property
    def failed_step(self) -> Step | None:
        """The step that it failed at."""
        return next((step for step in self.steps if step.status == ERROR), None)


class Account:
    """All of it. Threads may share it; `execute` runs the commands, one at a time."""

    def __init__(self, folder: Path, execute: Execute) -> None:
        self.faults = FaultBox()
        self._folder, self._execute = folder, execute
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = threading.RLock()
        self._runs: dict[int, Run] = {run.id: run for run in self._read()}
        self._stops: dict[int, threading.Event] = {}
        threading.Thread(target=self._work, name="runs", daemon=True).start()

    # -- what is asked for

    def trigger(self, cause: str, steps: list[str] | None) -> Run:
        """Queue a run of the job, with its own commands or others."""
        with self._lock:
            return self._queue(Run(self._next_id(), cause, list(steps or COMMANDS), _now(), steps_override=steps))

    def retry(self, run_id: int) -> Run:
        """Queue a run that goes on at the step at which one failed. Raises for one that cannot be retried."""
        with self._lock:
            failed = self._find(run_id)
            reason = self.not_retried(failed)
            step = failed.failed_step
            if reason or step is None:
                raise CloudError(HTTPStatus.BAD_REQUEST, f"This run can't be retried: {reason}")
            left = failed.commands[step.index - len(_BEFORE) - 1 :]
            cause = f"Retry of run {failed.id}"
            return self._queue(
                Run(
                    self._next_id(),
                    cause,
                    left,
                    _now(),
                    steps_override=failed.steps_override,
                    retrying_run_id=failed.id,
                    retrying_step=step.index,
                )
            )

    def not_retried(self, run: Run) -> str | None:
        """Tell why a run cannot be retried, in dbt Cloud's words; None where it can."""
        if run.status != ERROR:
            return "RETRY_NOT_FAILED_RUN"
        if run.id != max(self._runs):
            return "RETRY_NOT_LATEST_RUN"
        step = run.failed_step
        if step is None or self.artifact(run, "run_results.json", step.index) is None:
            return "RETRY_NO_RUN_RESULTS"
        return None

    def rerun(self) -> Run:
        """Retry the newest run if that failed and can be, else queue a new one."""
        newest = self._runs[max(self._runs)] if self._runs else None
        retriable = newest is not None and self.not_retried(newest) is None
        return self.retry(newest.id) if newest and retriable else self.trigger("Triggered via API", None)

    def cancel(self, run_id: int) -> Run:
        """End a run that is active."""
        with self._lock:
            run = self._find(run_id)
            if run.active:
                self._stops.setdefault(run.id, threading.Event()).set()
                if run.status == QUEUED:
                    self._end(run, CANCELLED, None)
            return copy(run)

    def run(self, run_id: int) -> Run:
        """Give a run as it is written down."""
        with self._lock:
            return copy(self._find(run_id))

    def runs(self) -> list[Run]:
        """Give all runs as they are written down, the oldest first."""
        with self._lock:
            return [copy(run) for run in self._runs.values()]

    def _find(self, run_id: int) -> Run:
        found = self._runs.get(run_id)
        if found is None:
            raise CloudError(HTTPStatus.NOT_FOUND, "The requested resource was not found.")
        return found

    def artifact(self, run: Run, name: str, step: int | None) -> bytes | None:
        """Give an artifact of a step, by default the last; None when it left none of that name."""
        index = step or (run.steps[-1].index if run.steps else 0)
        place = self._place(run.id, index) / name
        return place.read_bytes() if name in ARTIFACTS and place.is_file() else None

    def log(self, run: Run, step: Step) -> str:
        """Give all that dbt wrote about a step."""
        place = self._place(run.id, step.index) / LOG
        return place.read_text(errors="replace") if place.is_file() else step.logs

    # -- running

    def _work(self) -> None:
        while True:
            first = next((run for run in list(self._runs.values()) if run.status == QUEUED), None)
            if first and not self.faults.peek("stuck"):
                self._begin(first)
            else:
                time.sleep(_LOOK_EVERY)

    def _begin(self, run: Run) -> None:
        with self._lock:
            if run.status != QUEUED:
                return
            stop = self._stops.setdefault(run.id, threading.Event())
            run.status, run.started_at = RUNNING, _now()
            self._write()
        try:
            well = self._do(run, stop)
        except Exception as error:  # noqa: BLE001 (whatever it is, the run has failed)
            well, run.said = False, f"{type(error).__name__}: {error}"
        with self._lock:
            self._end(run, CANCELLED if stop.is_set() else SUCCESS if well else ERROR, run.said)

    def _do(self, run: Run, stop: threading.Event) -> bool:
        failure = self.faults.take("fail")
        for number, name in enumerate(_BEFORE, 1):
            broken = str(failure.options["notes"]) if failure and number == 1 else ""
            run.steps.append(Step(number, name, ERROR if broken else SUCCESS, _now(), _now(), broken))
            if broken:
                run.said = f"Run failed at step {number}"
                return False
        return all(self._command(run, command, stop) for command in run.commands)

    def _command(self, run: Run, command: str, stop: threading.Event) -> bool:
        first = run.retrying_run_id is not None and len(run.steps) == len(_BEFORE)
        step = Step(len(run.steps) + 1, f"Invoke dbt with `{'dbt retry' if first else command}`", RUNNING, _now())
        run.steps.append(step)
        before = self._place(run.retrying_run_id or 0, run.retrying_step or 0) if first else None
        well, step.logs = self._execute(command, self._place(run.id, step.index), resume=before, stop=stop)
        step.status, step.finished_at = SUCCESS if well else CANCELLED if stop.is_set() else ERROR, _now()
        return well

    def _queue(self, run: Run) -> Run:
        self._runs[run.id] = run
        for old in list(self._runs)[:-_RUNS_KEPT]:
            del self._runs[old]
            shutil.rmtree(self._folder / "runs" / str(old), ignore_errors=True)
        self._write()
        return copy(run)

    def _end(self, run: Run, status: int, said: str | None) -> None:
        run.status, run.finished_at, run.said = status, _now(), said
        self._write()

    def _next_id(self) -> int:
        return max(self._runs, default=_FIRST_RUN) + 1

    # -- what is kept

    def _place(self, run_id: int, step: int) -> Path:
        return self._folder / "runs" / str(run_id) / str(step)

    def _write(self) -> None:
        new = self._folder / "runs.json.new"
        new.write_text(json.dumps([asdict(run) for run in self._runs.values()]))
        new.replace(self._folder / "runs.json")

    def _read(self) -> list[Run]:
        """Read the runs of an earlier process; what it was at work on has failed."""
        try:
            kept: list[dict[str, Any]] = json.loads((self._folder / "runs.json").read_text())
        except FileNotFoundError:
            return []
        runs = [Run(**{**fields, "steps": [Step(**step) for step in fields["steps"]]}) for fields in kept]
        for run in runs:
            if run.status in (STARTING, RUNNING):
                run.status, run.finished_at, run.said = ERROR, _now(), "The machine of the run was lost."
        return runs


def _now() -> str:
    """Write this instant as dbt Cloud does."""
    return datetime.now(UTC).isoformat(sep=" ", timespec="microseconds")
