"""What runs next, and whether a failure is tried again: the decisions of `ecomm run`, without a process or a clock."""

from __future__ import annotations

import json
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ecomm_pipeline.errors import FAILURE_CLASSES, ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ecomm_pipeline.backlog import Mode
    from ecomm_pipeline.dates import DateRange
    from ecomm_pipeline.runner.workflow import Dag, Retry, Task

__all__ = ["Choice", "Node", "Schedule", "choose", "choose_backfill", "class_of", "delay", "items_of", "run_scope"]

_SINGLE: Final = "batch-ecomm-pipeline"
_RANGE: Final = "backfill"


@dataclass(frozen=True, slots=True)
class Choice:
    """A WorkflowTemplate by name, and its arguments; `again` is the command that goes on with its run."""

    workflow: str
    arguments: Mapping[str, str]
    dates: DateRange
    again: str


def choose(dates: DateRange, tables: tuple[str, ...], bounds: str = "") -> Choice:
    """Choose the workflow that does all of it: the nightly one for a date, the backfill for more.

    `bounds` are those of the KPI gate; empty, there is none. The gate before dbt is told to open at once: it keeps the
    nightly run off a warehouse that is busy, and people here wait.
    """
    again = f"ecomm run {dates}"
    if len(dates) > 1:
        return choose_backfill(dates, tables, bounds, mode="all", again=again)
    arguments = {"date": str(dates.only), "not-before": "now", **_common(tables, bounds)}
    return Choice(_SINGLE, arguments, dates, again)


def choose_backfill(
    dates: DateRange, tables: tuple[str, ...], bounds: str, *, mode: Mode, again: str, parallelism: int | None = None
) -> Choice:
    """Choose the backfill, of the dates that `mode` says; `parallelism` is how many it extracts at once."""
    arguments = {"from": str(dates.first), "to": str(dates.last), "mode": mode, **_common(tables, bounds)}
    if parallelism is not None:
        arguments["parallelism"] = str(parallelism)
    return Choice(_RANGE, arguments, dates, again)


def _common(tables: tuple[str, ...], bounds: str) -> dict[str, str]:
    return {"tables": json.dumps(tables), "bounds": bounds, "trigger": "local"}


def run_scope(workflow: str, run_id: str, arguments: Mapping[str, str]) -> dict[str, str]:
    """Give the values of `{{workflow.…}}`: creation time and uid are the two parts of the run id."""
    stamp, uid = run_id.split("-", 1)
    moment = {"Y": stamp[:4], "m": stamp[4:6], "d": stamp[6:8], "H": stamp[9:11], "M": stamp[11:13], "S": stamp[13:15]}
    return {
        "workflow.name": workflow,
        "workflow.namespace": "",
        "workflow.uid": uid,
        **{f"workflow.creationTimestamp.{letter}": digits for letter, digits in moment.items()},
        **{f"workflow.parameters.{name}": value for name, value in arguments.items()},
    }


@dataclass(frozen=True, slots=True)
class Node:
    """One run of a task: the only one, or that of an item of its list."""

    task: Task
    name: str
    item: str | None = None


def items_of(task: Task, items: str | None, place: str) -> list[Node]:
    """Make a task's nodes: one, or one for each element of the JSON list `items`.

    An element that is a list is passed on as JSON. Raises `ConfigurationError` for elements of other kinds.
    """
    if items is None:
        return [Node(task, task.name)]
    try:
        elements = json.loads(items)
    except ValueError:
        elements = None
    if not isinstance(elements, list) or not all(isinstance(element, str | int | float | list) for element in elements):
        message = f"{place}: task {task.name}.withParam is not a JSON list of texts or lists: {items[:100]!r}"
        raise ConfigurationError(message, next_step="see what the task before it printed")
    return [
        Node(task, f"{task.name}({i})", json.dumps(element))
        if isinstance(element, list)
        else Node(task, f"{task.name}({i}:{element})", str(element))
        for i, element in enumerate(elements)
    ]


class Schedule:
    """The state of one run of a DAG: ask `start` what may begin now, tell `finish` what ended, until it is `over`.

    Each node begins at most once, after all nodes of all tasks that its task needs have succeeded, and never more than
    `parallelism` at once. A task with an empty list has succeeded when its turn comes.
    """

    def __init__(self, dag: Dag, parallelism: int | None, expand: Callable[[Task], list[Node]]) -> None:
        self._fail_fast = dag.fail_fast
        self._parallelism = parallelism
        self._expand = expand
        self._waiting = list(dag.tasks)
        self._queue: deque[Node] = deque()
        self._running: set[str] = set()
        self._open: dict[str, int] = {}
        self._succeeded: set[str] = set()
        self.failed: list[Node] = []

    def start(self) -> list[Node]:
        """Give the nodes that are to begin now; they count as running from here on."""
        if self.failed and self._fail_fast:
            return []
        while ready := [task for task in self._waiting if task.needs <= self._succeeded]:
            for task in ready:
                self._waiting.remove(task)
                nodes = self._expand(task)
                self._queue.extend(nodes)
                self._open[task.name] = len(nodes)
                if not nodes:
                    self._succeeded.add(task.name)
        room = len(self._queue) if self._parallelism is None else self._parallelism - len(self._running)
        begun = [self._queue.popleft() for _ in range(min(room, len(self._queue)))]
        self._running.update(node.name for node in begun)
        return begun

    def finish(self, node: Node, *, succeeded: bool) -> None:
        """Take note of how a node ended."""
        self._running.remove(node.name)
        if not succeeded:
            self.failed.append(node)
            return
        self._open[node.task.name] -= 1
        if not self._open[node.task.name]:
            self._succeeded.add(node.task.name)

    @property
    def over(self) -> bool:
        """Whether nothing runs and, as `start` has just said, nothing can begin."""
        return not self._running


def delay(retry: Retry | None, tries: int, exit_code: int) -> float | None:
    """Give the seconds until a container that has failed `tries` times is tried again; None when it is not."""
    if retry is None or tries > retry.limit:
        return None
    values = {"lastRetry.exitCode": str(exit_code), "lastRetry.status": "Failed"}
    if retry.expression and not retry.expression(values):
        return None
    return retry.first_delay * retry.factor ** (tries - 1)


def class_of(exit_code: int, reported: str | None) -> str:
    """Give the failure class of an exit code; where several share it, what the stage itself reported decides."""
    names = [row.name for row in FAILURE_CLASSES.values() if row.exit_code == exit_code]
    if reported in names:
        return str(reported)
    return names[0] if names else "internal"
