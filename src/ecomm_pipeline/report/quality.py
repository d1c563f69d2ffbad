"""Expectations, dbt's tests, and what is to be remarked: failures, findings, slow stages. Pure."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, Final

from ecomm_pipeline.report.page import Check, Remark
from ecomm_pipeline.report.words import OUTCOME_TONE, counted, number, span, stage_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any

    from ecomm_pipeline.ledger import Record
    from ecomm_pipeline.report.page import Tone

__all__ = ["expectations", "expectations_summary", "failed_tests", "nodes_of", "remarks_of", "tests_summary"]

SLOW_FACTOR: Final = 2.0
SLOW_SECONDS: Final = 5.0
SLOW_HISTORY: Final = 3
"""A stage is slow when it took `SLOW_FACTOR` times the median of at least so many others, and this much longer."""
_PRIORITY_TONE: Final[dict[str, Tone]] = {"P1": "bad", "P2": "warn", "P3": "idle"}


def expectations(current: Sequence[Record]) -> Iterator[Check]:
    """Sum the pipeline's expectations over the records, those with failed rows first."""
    totals: dict[tuple[str, str], tuple[int, int]] = {}
    for record in current:
        for row in record.figures.get("expectations") or []:
            before = totals.get((row["dataset"], row["name"]), (0, 0))
            totals[row["dataset"], row["name"]] = (before[0] + row["passed"], before[1] + row["failed"])
    for (dataset, name), (passed, failed) in sorted(totals.items(), key=lambda item: (-item[1][1], item[0])):
        yield Check(name, dataset, number(passed), number(failed), "warn" if failed else "good")


def expectations_summary(checks: Sequence[Check]) -> str:
    """Say in a line how the expectations were met."""
    if not checks:
        return ""
    broken = sum(check.tone != "good" for check in checks)
    return f"{counted(len(checks), 'expectation')}, {f'{broken} of them with failed rows' if broken else 'all met'}"


def nodes_of(current: Sequence[Record]) -> dict[str, Mapping[str, Any]]:
    """Give the newest outcome of each of dbt's models and tests, by name."""
    found: dict[str, Mapping[str, Any]] = {}
    for record in current:
        found |= record.figures.get("nodes") or {}
    return found


_PASSED: Final = ("pass", "success")


def failed_tests(nodes: Mapping[str, Mapping[str, Any]]) -> Iterator[Check]:
    """Tell of each of dbt's models and tests that did not pass."""
    for name, node in nodes.items():
        status = node["status"]
        if status not in _PASSED:
            tone: Tone = "bad" if status in ("fail", "error", "runtime error") else "warn"
            yield Check(name, node["kind"].replace("_", " "), "", status, tone, node.get("message") or "")


def tests_summary(nodes: Mapping[str, Mapping[str, Any]]) -> str:
    """Say in a line how many models were built and how many tests passed."""
    parts = []
    for kind, built in (("model", True), ("test", False)):
        of_kind = [node for node in nodes.values() if (node["kind"] == "model") is built]
        good = sum(node["status"] in _PASSED for node in of_kind)
        if of_kind:
            parts.append(f"{good} of {counted(len(of_kind), kind)} {'built' if built else 'passed'}")
    return ", ".join(parts)


def remarks_of(records: Sequence[Record], current: Sequence[Record]) -> Iterator[Remark]:
    """Failures first, then findings by priority (alike ones together), then what was slow."""
    for record in reversed(current):
        if record.outcome in ("failed", "cancelled"):
            tone = OUTCOME_TONE[record.outcome]
            where = f"{stage_name(record)}, {record.dates}"
            text = record.error or "It left no reason."
            yield Remark(tone, record.failure_class or record.outcome, where, text, next_step=record.next_step or "")
    yield from _finding_remarks(current)
    yield from _slow(records, current)


def _finding_remarks(current: Sequence[Record]) -> Iterator[Remark]:
    alike: dict[tuple[str, str, str], list[tuple[Record, str]]] = {}
    for record in current:
        for finding in record.findings:
            alike.setdefault((finding.priority, finding.kind, record.stage), []).append((record, finding.message))
    for (priority, kind, stage), found in sorted(alike.items()):
        messages = list(dict.fromkeys(message for _, message in found))
        more = f" (and {len(messages) - 1} more)" if len(messages) > 1 else ""
        label = f"{priority} {kind.replace('_', ' ')}"
        yield Remark(_PRIORITY_TONE[priority], label, stage, f"{messages[0]}{more}", len(messages))


def _slow(records: Sequence[Record], current: Sequence[Record]) -> Iterator[Remark]:
    history: dict[tuple[str, str | None, int], list[Record]] = {}
    for record in records:
        if record.outcome == "succeeded" and record.seconds is not None:
            history.setdefault((record.stage, record.part, len(record.dates)), []).append(record)
    for record in current:
        others = [
            other.seconds or 0.0
            for other in history.get((record.stage, record.part, len(record.dates)), [])
            if other is not record
        ]
        if record.seconds is None or len(others) < SLOW_HISTORY:
            continue
        usual = median(others)
        if record.seconds > SLOW_FACTOR * usual and record.seconds > usual + SLOW_SECONDS:
            text = f"took {span(record.seconds)}; usual is {span(usual)}"
            yield Remark("warn", "slow", f"{stage_name(record)}, {record.dates}", text)
