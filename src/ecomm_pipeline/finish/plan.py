"""What the end of a run means: for the stages that it left open, and for the run as a whole."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final

from ecomm_pipeline.errors import FAILURE_CLASSES
from ecomm_pipeline.layout import begun_at
from ecomm_pipeline.ledger import Outcome, Record, RunFailure, RunRecord

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from ecomm_pipeline.dates import DateRange

__all__ = ["class_of_message", "end_of", "ended", "first_failure", "outcome_of", "read_failures", "telling"]

_SUCCEEDED: Final = "Succeeded"
_STOPPED: Final = re.compile(r"strategy:? '?(Stop|Terminate)")
_EXIT_CODE: Final = re.compile(r"exit code (-?\d+)")
_FOLLOWS: Final = re.compile(r"child '.*' (failed|errored)|No more retries left|.* failed$")
"""Messages of nodes that failed only because one below them did."""


def end_of(
    dates: DateRange,
    *,
    workflow: str,
    run_id: str,
    trigger: str,
    status: str,
    seconds: float,
    failures: str,
    now: datetime,
) -> RunRecord:
    """Make the record of a run that has ended; `failures` is Argo's `{{workflow.failures}}`."""
    nodes = read_failures(failures)
    return RunRecord(
        workflow=workflow,
        run_id=run_id,
        trigger=trigger,
        first_date=dates.first.day,
        last_date=dates.last.day,
        started_at=begun_at(run_id),
        ended_at=now,
        seconds=seconds,
        status=status,
        outcome=outcome_of(status, nodes),
        failures=nodes,
    )


def read_failures(text: str) -> list[RunFailure]:
    """Read Argo's `{{workflow.failures}}`: a JSON list of nodes, quoted once more as a JSON text.

    What cannot be read is kept as one failure with that text as its message: it must not keep the ledger open.
    """
    try:
        nodes = json.loads(text or "null")
        nodes = json.loads(nodes) if isinstance(nodes, str) else nodes
        return [_failure(node) for node in nodes or []]
    except (ValueError, TypeError, AttributeError):
        return [RunFailure(step="unknown", message=text[:500])]


def _failure(node: dict[str, Any]) -> RunFailure:
    return RunFailure(
        step=node.get("displayName") or "",
        template=node.get("templateName") or "",
        message=node.get("message") or "",
        ended_at=node.get("finishedAt") or None,
    )


def outcome_of(status: str, failures: Iterable[RunFailure]) -> Outcome:
    """Give the outcome that a workflow's status stands for; one that somebody stopped was cancelled."""
    if status == _SUCCEEDED:
        return "succeeded"
    return "cancelled" if any(_STOPPED.search(failure.message) for failure in failures) else "failed"


def ended(record: Record, failures: Sequence[RunFailure], now: datetime) -> Record | None:
    """Tell how a stage of a run that is over really ended, with what Argo knows of it; None where its record says so.

    It does not where the process was killed before it could say anything, or was stopped because its time was over.
    """
    failure = _failure_of(record, failures)
    message = failure.message if failure else ""
    name = class_of_message(message)
    late = record.outcome == "cancelled" and name == "timed_out"
    if record.outcome != "running" and not late:
        return None
    how = "was stopped" if late else "ended without a word"
    update: dict[str, Any] = {
        "ended_at": record.ended_at or max((failure and failure.ended_at) or now, record.began_at),
        "outcome": "cancelled" if name == "cancelled" else "failed",
        "failure_class": name,
        "error": f"{record.stage} {how}: {message or 'its process was killed, or could not report'}",
        "next_step": _next_step(name, message),
    }
    return record.model_copy(update=update)


def first_failure(records: Iterable[Record]) -> Record | None:
    """Give the record of the stage that failed first, which is what the run failed of."""
    ended = [record for record in records if record.outcome in ("failed", "cancelled")]
    return min(ended, key=lambda record: record.ended_at or record.began_at, default=None)


def class_of_message(message: str) -> str:
    """Give the failure class of a node that Argo describes so; `lost` when it does not tell more."""
    if _STOPPED.search(message):
        return "cancelled"
    if "deadline" in message or "Max duration limit exceeded" in message:
        return "timed_out"
    match = _EXIT_CODE.search(message)
    if match is None:
        return "lost"
    return next((row.name for row in FAILURE_CLASSES.values() if row.exit_code == int(match[1])), "internal")


def telling(failures: Iterable[RunFailure]) -> list[RunFailure]:
    """Give the nodes that say why, in the order in which they failed: not those that failed of one below them."""
    said = [node for node in failures if node.message and not _FOLLOWS.fullmatch(node.message)]
    return sorted(said, key=lambda node: (node.ended_at is None, node.ended_at))


def _failure_of(record: Record, failures: Sequence[RunFailure]) -> RunFailure | None:
    """Find the failed node of a stage: of several tries the last. A node's name has the table, if there is one."""
    nodes = [node for node in telling(failures) if node.template == record.stage]
    own = [node for node in nodes if (record.part or "") in node.step]
    found = own or ([] if record.table else nodes)
    return found[-1] if found else None


def _next_step(name: str, message: str) -> str:
    if "OOM" in message:
        return "raise the stage's memory limit, and retry the workflow"
    if name == "timed_out":
        return "look for what it waits for, and retry the workflow"
    return "retry the workflow: the stage continues or repeats what it was doing"
