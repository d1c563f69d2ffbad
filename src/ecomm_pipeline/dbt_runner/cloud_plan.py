"""What dbt Cloud is asked, and what its answers mean. Pure: its JSON comes in as data.

Upstream: https://docs.getdbt.com/dbt-cloud/api-v2 (the Administrative API, version 2).
"""

from __future__ import annotations

import hashlib
import json
import shlex
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Literal

from ecomm_pipeline.dbt_runner.plan import UNIT_TESTS_OUT

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = [
    "Action",
    "CloudRun",
    "Step",
    "artifacts",
    "cause",
    "chain",
    "decide",
    "lineage",
    "parse",
    "spent",
    "steps_override",
]

Phase = Literal["queued", "running", "success", "error", "cancelled"]

_PHASES: Final[dict[int, Phase]] = {
    1: "queued",
    2: "queued",  # Starting: it waits for a machine
    3: "running",
    10: "success",
    20: "error",
    30: "cancelled",
}
_BUILDS_NOTHING: Final = frozenset({"compile", "docs", "freshness", "generate", "list", "parse", "show", "source"})
"""Commands whose run results, where they have any, say nothing of what was built."""


@dataclass(frozen=True, slots=True)
class Step:
    """A command of a run; `index` counts from 1. `log` is what it wrote, as far as was asked for."""

    index: int
    name: str
    failed: bool
    log: str = ""

    @property
    def builds(self) -> bool:
        """Whether it may have left results: dbt's own commands may, fetching the project does not."""
        return self.name.startswith("Invoke dbt") and "`dbt deps" not in self.name


@dataclass(frozen=True, slots=True)
class CloudRun:
    """A run of the job. `retries` is the run that it goes on with, `said` what dbt Cloud says of its state."""

    id: int
    phase: Phase
    cause: str
    created: datetime
    started: datetime | None = None
    retries: int | None = None
    can_retry: bool = False
    url: str = ""
    said: str = ""
    steps: tuple[Step, ...] = ()

    @property
    def active(self) -> bool:
        """Whether it is yet to end."""
        return self.phase in ("queued", "running")


def parse(run: Mapping[str, Any]) -> CloudRun:
    """Read a run. Raises KeyError, TypeError or ValueError for what is none."""
    return CloudRun(
        id=int(run["id"]),
        phase=_PHASES[int(run["status"])],
        cause=str((run.get("trigger") or {}).get("cause") or ""),
        created=_instant(run["created_at"]),
        started=_instant(run["started_at"]) if run.get("started_at") else None,
        retries=run.get("retrying_run_id"),
        can_retry=bool(run.get("can_retry")),
        url=str(run.get("href") or ""),
        said=" ".join(str(run.get("status_message") or "").split()),
        steps=tuple(_step(step) for step in sorted(run.get("run_steps") or [], key=lambda step: int(step["index"]))),
    )


def _instant(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _step(step: Mapping[str, Any]) -> Step:
    log = next((str(step[name]) for name in ("debug_logs", "truncated_debug_logs", "logs") if step.get(name)), "")
    return Step(int(step["index"]), str(step["name"]), _PHASES.get(int(step["status"])) == "error", log)


def cause(run_id: str, dates: object, figures: Mapping[str, Any]) -> str:
    """Write the reason that a run of the job is given: by it a new process knows the run for ours.

    It tells apart what was built from what: another selection, or another state of the gold tables, is another build.
    """
    inputs = json.dumps([figures["select"], figures["sources"]], sort_keys=True)
    return f"ecomm {run_id} for {dates} ({hashlib.sha256(inputs.encode()).hexdigest()[:8]})"


def steps_override(select: str) -> list[str] | None:
    """Give the commands that build a selection; None leaves those of the job."""
    words = select.split()
    return [shlex.join(["dbt", "build", *UNIT_TESTS_OUT, "--select", *words])] if words else None


def lineage(runs: Iterable[CloudRun], cause_: str) -> list[CloudRun]:
    """Pick the runs that were started for a cause, and those that retry one of them, the oldest first."""
    ours: dict[int, CloudRun] = {}
    for run in sorted(runs, key=lambda run: run.id):
        if run.cause == cause_ or run.retries in ours:
            ours[run.id] = run
    return list(ours.values())


def chain(runs: Iterable[CloudRun], run: CloudRun) -> list[CloudRun]:
    """Give a run with those that it goes on with, the oldest first: together they built what there is."""
    by_id = {one.id: one for one in runs}
    found = [run]
    while (before := by_id.get(found[0].retries or 0)) is not None and before not in found:
        found.insert(0, before)
    return found


@dataclass(frozen=True, slots=True)
class Action:
    """What to do at the start of a try: trigger the job, retry a run of ours from its failure, or follow one."""

    kind: Literal["trigger", "retry", "follow"]
    run: CloudRun | None = None


def decide(ours: Sequence[CloudRun], *, outcome: str | None, stopped: int | None) -> Action:
    """Decide at the start of a try of the stage.

    `ours` are the runs of this build, the oldest first. `outcome` is that of the try before, None where there was
    none: `running` was killed and told nobody what became of the run. `stopped` is the run that an earlier try
    cancelled itself.
    """
    tip = ours[-1] if ours else None
    if tip is None:
        return Action("trigger")
    if tip.active:
        return Action("follow", tip)
    if tip.phase == "error":
        return Action("retry", tip) if tip.can_retry else Action("trigger")
    if tip.phase == "success":
        return Action("trigger") if outcome == "succeeded" else Action("follow", tip)
    # Cancelled there: told once as a failure, since whoever did it may not want it started again.
    told = tip.id == stopped or outcome in ("failed", "cancelled", "succeeded")
    return Action("trigger") if told else Action("follow", tip)


def spent(run: CloudRun, now: datetime) -> tuple[Literal["queue", "run"], float]:
    """Tell which budget a run that is active uses up, and how many seconds of it so far, whoever waited for it."""
    if run.phase == "running":
        return "run", max(0.0, (now - (run.started or run.created)).total_seconds())
    return "queue", max(0.0, (now - run.created).total_seconds())


def artifacts(found: Sequence[tuple[bytes | None, bytes | None]]) -> dict[str, bytes]:
    """Make one pair of artifacts of those of several commands: run results and manifest of each, in their order.

    The results of a later command go before those of an earlier one for the same node, as where a run was retried.
    Raises ValueError, KeyError or TypeError when one is no JSON of dbt's.
    """
    results: dict[str, Any] = {}
    newest: dict[str, Any] = {}
    kept: dict[str, bytes] = {}
    for content, manifest in found:
        document = json.loads(content or b"{}")
        if not document or str((document.get("args") or {}).get("which")) in _BUILDS_NOTHING:
            continue
        newest = document
        results |= {result["unique_id"]: result for result in document["results"]}
        if manifest:
            kept["manifest.json"] = manifest
    if newest:
        kept["run_results.json"] = json.dumps({**newest, "results": list(results.values())}).encode()
    return kept
