"""Which update of the pipeline is ours, what to do next about it, and what its event log says. Pure.

An update is ours when it carries our run id and dates as parameters, when the ledger remembers its id, or when the
platform started it by itself in place of one of ours that ended badly (a retry, a changed schema). Ours, in the order
in which they were created, are a lineage; only its newest update decides.

::

    no lineage, pipeline busy ──► AwaitTurn ──► no lineage, pipeline free ──► Start
    lineage: active ──► Follow;  completed ──► Finish;  ended badly ──► Settle (will the platform retry?) ──► GiveUp
    lineage that ended badly before we came ──► as if there were none

Upstream: https://docs.databricks.com/api/workspace/pipelines and
https://docs.databricks.com/aws/en/ldp/monitor-event-log-schema
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

__all__ = [
    "AwaitTurn",
    "Budgets",
    "Event",
    "Expectation",
    "Figures",
    "Finish",
    "Follow",
    "GiveUp",
    "Key",
    "Settle",
    "Start",
    "Step",
    "Update",
    "collect",
    "decide",
    "durations",
    "ended",
    "is_capacity",
    "lineage",
    "progress",
    "spent",
    "summarise",
    "waiting_since",
]

Phase = Literal["queued", "running", "completed", "failed", "cancelled"]

_PHASES: Final[dict[str, Phase]] = {
    "CREATED": "queued",
    "QUEUED": "queued",
    "WAITING_FOR_RESOURCES": "queued",
    "COMPLETED": "completed",
    "FAILED": "failed",
    "CANCELED": "cancelled",
}
_SUCCESSOR_CAUSES: Final = frozenset(
    {"RETRY_ON_FAILURE", "SCHEMA_CHANGE", "SERVICE_UPGRADE", "INFRASTRUCTURE_MAINTENANCE"}
)
"""Causes of updates that the platform starts in place of one that ended badly."""


@dataclass(frozen=True, slots=True)
class Key:
    """What makes an update ours: it travels as the update's parameters and comes back with it."""

    run_id: str
    dates: str

    @property
    def parameters(self) -> dict[str, str]:
        """The parameters to start an update with."""
        return {"run_id": self.run_id, "dates": self.dates}


@dataclass(frozen=True, slots=True)
class Update:
    """An update of the pipeline.

    `created` is in milliseconds since 1970, by the platform's clock; `parameters` is None where it did not tell them.
    """

    id: str
    state: str
    created: int = 0
    cause: str = ""
    parameters: dict[str, str] | None = None

    @property
    def phase(self) -> Phase:
        """What the state means to somebody who waits; a state that is not known counts as running."""
        return _PHASES.get(self.state, "running")

    @property
    def active(self) -> bool:
        """Whether it will still change, and keeps others from starting."""
        return self.phase in ("queued", "running")

    @property
    def succeeds(self) -> bool:
        """Whether the platform started it in place of another."""
        return self.cause in _SUCCESSOR_CAUSES

    def carries(self, key: Key) -> bool:
        """Whether it was started with this key."""
        given = self.parameters or {}
        return all(given.get(name) == value for name, value in key.parameters.items())


def lineage(updates: Iterable[Update], key: Key, known: Collection[str] = ()) -> tuple[Update, ...]:
    """Give the newest lineage of ours among `updates` (in any order), oldest first; empty when there is none.

    `known` are the ids that the ledger remembers.
    """
    ours: list[Update] = []
    before: Update | None = None
    for update in sorted(updates, key=lambda update: update.created):
        replaces = before is not None and before in ours and before.phase != "completed" and update.succeeds
        if replaces:
            ours.append(update)
        elif update.id in known or update.carries(key):
            ours = [update]
        before = update
    return tuple(ours)


@dataclass(frozen=True, slots=True)
class Start:
    """Start an update: nothing of ours exists and nobody else's is active."""


@dataclass(frozen=True, slots=True)
class AwaitTurn:
    """Wait: the pipeline runs one update at a time, and `update` is somebody else's."""

    update: Update


@dataclass(frozen=True, slots=True)
class Follow:
    """Wait for the last of `updates`, which is ours and active."""

    updates: tuple[Update, ...]


@dataclass(frozen=True, slots=True)
class Settle:
    """The last of `updates` ended badly a moment ago: wait whether the platform replaces it."""

    updates: tuple[Update, ...]


@dataclass(frozen=True, slots=True)
class Finish:
    """The last of `updates` completed."""

    updates: tuple[Update, ...]


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The last of `updates` failed or was cancelled, and the platform does not replace it."""

    updates: tuple[Update, ...]


Step = Start | AwaitTurn | Follow | Settle | Finish | GiveUp


def decide(updates: Sequence[Update], key: Key, known: Collection[str], *, following: bool, settled: bool) -> Step:
    """Tell what to do next, from the updates of the pipeline as they are now.

    `following` is whether this process has seen an update of the lineage active: only then is its bad end ours to
    report; one that ended badly before is tried again. `settled` is whether the platform had its time to replace it.
    """
    ours = lineage(updates, key, known)
    others = [update for update in updates if update.active and update not in ours]
    if ours and ours[-1].active:
        return Follow(ours)
    if ours and ours[-1].phase == "completed":
        return Finish(ours)
    if ours and following:
        return GiveUp(ours) if settled or others else Settle(ours)
    return AwaitTurn(max(others, key=lambda update: update.created)) if others else Start()


@dataclass(slots=True)
class Budgets:
    """How many seconds may be spent on waiting for a turn and compute (`queue`), and on running (`run`).

    They are those of an update, over all tries of the run that wait for it.
    """

    queue: float
    run: float
    spent: dict[str, float] = field(default_factory=lambda: {"queue": 0.0, "run": 0.0})

    def spend(self, step: Step, seconds: float) -> Literal["queue", "run"] | None:
        """Count `seconds` of waiting in a step; give the name of the budget that is exhausted, None when none is."""
        running = isinstance(step, Settle) or (isinstance(step, Follow) and step.updates[-1].phase == "running")
        name: Literal["queue", "run"] = "run" if running else "queue"
        self.spent[name] += seconds
        return name if self.spent[name] > (self.run if running else self.queue) else None

    def catch_up(self, spent: Mapping[str, float]) -> None:
        """Count what earlier tries of the run have spent, where that is more than is counted already."""
        for name, seconds in spent.items():
            self.spent[name] = max(self.spent[name], seconds)


def waiting_since(update: Update, run_began: datetime) -> datetime:
    """Give since when a run that began at `run_began` waits for somebody else's update to end."""
    return max(run_began, datetime.fromtimestamp(update.created / 1000, UTC))


@dataclass(frozen=True, slots=True)
class Event:
    """An entry of the pipeline's event log, as its API writes it in JSON."""

    body: dict[str, Any]

    @property
    def id(self) -> str:
        """Its id."""
        return str(self.body.get("id", ""))

    @property
    def timestamp(self) -> str:
        """When, as text in UTC that sorts by time."""
        return str(self.body.get("timestamp", ""))

    @property
    def kind(self) -> str:
        """Its type, such as `flow_progress`."""
        return str(self.body.get("event_type", ""))

    @property
    def level(self) -> str:
        """INFO, WARN, ERROR or METRICS."""
        return str(self.body.get("level", ""))

    @property
    def update_id(self) -> str:
        """The update that it is about."""
        return str((self.body.get("origin") or {}).get("update_id", ""))

    @property
    def dataset(self) -> str:
        """The table or flow that it is about, as `schema.table`; empty when it is about the update as a whole."""
        origin = self.body.get("origin") or {}
        return short(str(origin.get("dataset_name") or origin.get("flow_name") or ""))

    @property
    def flow(self) -> str:
        """The flow that it is about."""
        origin = self.body.get("origin") or {}
        return str(origin.get("flow_name") or origin.get("dataset_name") or "")

    @property
    def details(self) -> dict[str, Any]:
        """What is particular to its type."""
        return (self.body.get("details") or {}).get(self.kind) or {}


def short(name: str) -> str:
    """Write `catalog.schema.table` as `schema.table`, without backquotes; other names as they are."""
    parts = name.replace("`", "").split(".")
    return ".".join(parts[-2:])


@dataclass(slots=True)
class Expectation:
    """Rows that met an expectation and rows that did not."""

    passed: int = 0
    failed: int = 0


@dataclass(slots=True)
class Figures:
    """What a lineage did.

    `tables` is rows written by table, `expectations` by dataset and name, `dropped` rows that an expectation kept out,
    by dataset, `rescued` rows of which something did not fit the table's columns, by dataset.
    A table that the platform wrote twice (an update failed half-way and was replaced) is counted twice.
    """

    tables: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    expectations: dict[tuple[str, str], Expectation] = field(default_factory=lambda: defaultdict(Expectation))
    dropped: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    flows: int = 0

    @property
    def rescued(self) -> dict[str, int]:
        """Rows with rescued values, by dataset."""
        return {
            dataset: counts.failed
            for (dataset, name), counts in sorted(self.expectations.items())
            if name == RESCUE_EXPECTATION and counts.failed
        }

    def as_dict(self) -> dict[str, Any]:
        """Give it as the ledger holds it."""
        return {
            "tables": dict(sorted(self.tables.items())),
            "expectations": [
                {"dataset": dataset, "name": name, "passed": counts.passed, "failed": counts.failed}
                for (dataset, name), counts in sorted(self.expectations.items())
            ],
            "rescued_rows": sum(self.rescued.values()),
            "dropped_rows": sum(self.dropped.values()),
            "flows": self.flows,
        }


RESCUE_EXPECTATION: Final = "no_rescued_data"
"""The name of Bronze's expectation that `_rescued_data` is empty: its failures are the rescued rows."""


def collect(events: Iterable[Event], update_ids: Collection[str]) -> Figures:
    """Add up the figures of the updates; each event's counts are of the rows since the event before, so they add up."""
    figures = Figures()
    flows: set[str] = set()
    for event in events:
        if event.kind != "flow_progress" or event.update_id not in update_ids:
            continue
        flows.add(event.flow)
        written = _written(event.details.get("metrics") or {})
        if written is not None:
            figures.tables[event.dataset] += written
        _add_quality(figures, event)
    figures.flows = len(flows)
    return figures


def _written(metrics: dict[str, Any]) -> int | None:
    """Rows appended, or changed by AUTO CDC; None when the event does not tell."""
    if metrics.get("num_output_rows") is not None:
        return int(metrics["num_output_rows"])
    changed = [metrics[name] for name in ("num_upserted_rows", "num_deleted_rows") if metrics.get(name) is not None]
    return sum(map(int, changed)) if changed else None


def _add_quality(figures: Figures, event: Event) -> None:
    quality = event.details.get("data_quality") or {}
    for row in quality.get("expectations") or []:
        counts = figures.expectations[short(str(row.get("dataset") or event.dataset)), str(row.get("name"))]
        counts.passed += int(row.get("passed_records") or 0)
        counts.failed += int(row.get("failed_records") or 0)
    if quality.get("dropped_records"):
        figures.dropped[event.dataset] += int(quality["dropped_records"])


_DONE: Final = frozenset({"COMPLETED", "SKIPPED", "EXCLUDED", "FAILED", "STOPPED"})


def progress(events: Iterable[Event], update_id: str) -> tuple[int, int]:
    """Give how many flows of an update are done, and how many there are as far as it has told."""
    flows: dict[str, bool] = {}
    for event in sorted(events, key=lambda event: event.timestamp):
        if event.update_id == update_id and event.flow and event.kind in ("flow_definition", "flow_progress"):
            done = event.details.get("status") in _DONE
            flows[event.flow] = flows.get(event.flow, False) or done
    return sum(flows.values()), len(flows)


def ended(events: Iterable[Event], update_id: str) -> bool:
    """Whether the log has arrived at the end of an update: it is written a moment after the state."""
    states = [
        str(event.details.get("state"))
        for event in events
        if event.kind == "update_progress" and event.update_id == update_id
    ]
    return any(_PHASES.get(state) in ("completed", "failed", "cancelled") for state in states)


def durations(events: Iterable[Event], update_ids: Collection[str]) -> dict[str, float]:
    """Give how many seconds the updates were queued and how many they ran, as the log tells it."""
    spent = {"queued": 0.0, "running": 0.0}
    told = list(events)
    for update_id in update_ids:
        for (since, phase), (until, _) in pairwise(_marks(told, update_id)):
            if phase in spent:
                spent[phase] += (until - since).total_seconds()
    return {phase: round(seconds, 3) for phase, seconds in spent.items()}


def spent(updates: Iterable[Update], events: Iterable[Event], now: datetime) -> dict[str, float]:
    """Give how many seconds of each budget a lineage has used up to `now`, since its first update was created.

    An update of which the log tells no state (yet) has been in its present one all the time. The wait for the
    platform's retry counts as running, as in `Budgets.spend`.
    """
    told = list(events)
    marks: list[tuple[datetime, Phase]] = []
    for update in updates:
        states = _marks(told, update.id)
        if update.created:
            marks.append((datetime.fromtimestamp(update.created / 1000, UTC), "queued" if states else update.phase))
        marks += states
    used = {"queue": 0.0, "run": 0.0}
    for (since, phase), (until, _) in pairwise([*marks, (now, "running")]):
        used["queue" if phase == "queued" else "run"] += max(0.0, (until - since).total_seconds())
    return used


def _marks(events: Iterable[Event], update_id: str) -> list[tuple[datetime, Phase]]:
    """Give when an update changed to which phase, in order."""
    return sorted(
        (datetime.fromisoformat(event.timestamp), _PHASES.get(str(event.details.get("state")), "running"))
        for event in events
        if event.kind == "update_progress" and event.update_id == update_id and event.timestamp
    )


_EXCERPT: Final = 400
_NOISE: Final = re.compile(r"^(at |\.\.\. \d+ more|Traceback |File \"|JVM stacktrace|== SQL|== Physical|SQLSTATE)")


def summarise(events: Iterable[Event], update_id: str) -> str:
    """Tell in a line why an update failed: the dataset, and the deepest cause without its stack.

    Empty when the log does not say.
    """
    of_update = [event for event in events if event.update_id == update_id]
    failures = [event for event in of_update if event.level == "ERROR" or event.body.get("error")]
    if not failures:
        return ""
    # The flow that failed knows the cause; the update's own entry often says only that a flow failed.
    best = max(failures, key=lambda event: (bool(_cause(event)), bool(event.dataset), event.timestamp))
    cause = _cause(best) or _line(str(best.body.get("message", "")))
    return f"{best.dataset}: {cause}" if best.dataset and best.dataset not in cause else cause


def _cause(event: Event) -> str:
    exceptions = (event.body.get("error") or {}).get("exceptions") or []
    lines = [_line(str(exception.get("message") or "")) for exception in exceptions]
    return next((line for line in reversed(lines) if line), "")


def _line(message: str) -> str:
    lines = [line.strip() for line in message.splitlines()]
    text = next((line for line in lines if line and not _NOISE.match(line)), "")
    return text if len(text) <= _EXCERPT else text[: _EXCERPT - 1] + "…"


_CAPACITY: Final = re.compile(
    r"INSUFFICIENT[_ ](?:[A-Z]+_)*CAPACITY|InsufficientInstanceCapacity|STOCKOUT|RESOURCE_EXHAUSTED|QUOTA_EXCEEDED"
    r"|QuotaExceeded|CLUSTER_REQUEST_LIMIT_EXCEEDED|WORKSPACE_RUN_LIMIT|MAX_CONCURRENT_RUNS|SPOT_INSTANCE_TERMINATION"
    r"|CLOUD_PROVIDER_(?:LAUNCH_FAILURE|RESOURCE_STOCKOUT|SHUTDOWN)|NO_COMPUTE|INSTANCE_UNREACHABLE"
)


def is_capacity(summary: str) -> bool:
    """Whether a failure is that of missing compute, which the same command may get later."""
    return _CAPACITY.search(summary) is not None
