"""What is made to go wrong, and what must come of it; and how the results are written down. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

__all__ = ["PLACES", "SCENARIOS", "Result", "Scenario", "page", "problems_of_places", "table"]

PLACES: Final = {
    "P1": {"slack #data-eng", "pagerduty"},
    "P2": {"slack #analytics", "jira"},
    "P3": {"jira"},
}
"""Where an alert of a priority has to be told, and nowhere else."""


def _extract(table: str) -> tuple[str, ...]:
    return ("extractor", "--table", table, "--date", "{date}")


@dataclass(frozen=True, slots=True)
class Scenario:
    """One fault: `step` meets it, and the same step mends what it did once it is off. `{date}` is the date."""

    name: str
    runbook: str
    """Section of the runbook, A to F; empty for what it does not treat."""
    fault: tuple[str, str]
    """Service and kind, as `ecomm-sandbox fault` takes them; or a name of those who watch, and `stop`."""
    alert: str
    priority: str
    labels: dict[str, str]
    """Labels that the alert must have, beside the date."""
    options: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    """Settings with which the step meets the fault sooner."""
    step: tuple[str, ...] = _extract("orders")
    """A command of `ecomm`; none where nobody has to do anything for it to be noticed."""
    fails: bool = True
    """Whether the step fails."""
    dated: bool = True
    """Whether the alert is about the date."""


def _extraction(name: str, kind: str, failure_class: str, priority: str = "P1", **more: Any) -> Scenario:  # noqa: ANN401
    labels = {"stage": "extractor", "failure_class": failure_class}
    return Scenario(name, "A", ("postgres", kind), "EcommNightlyFailed", priority, labels, **more)


SCENARIOS: Final = (
    _extraction("database-down", "refuse", "unavailable", environment={"ECOMM_POSTGRES_CONNECT_TIMEOUT": "1"}),
    _extraction("wrong-password", "password", "credentials"),
    _extraction("table-not-readable", "permission", "credentials", options={"table": "orders"}),
    _extraction(
        "table-locked",
        "lock",
        "timed_out",
        options={"table": "orders"},
        environment={"ECOMM_EXTRACTOR_LOCK_TIMEOUT": "1"},
    ),
    *(
        Scenario(name, "B", ("postgres", kind), "EcommSchemaDrift", "P3", {}, step=_extract(table), fails=False)
        for name, kind, table in (
            ("column-added", "add-column", "orders"),
            ("column-dropped", "drop-column", "customers"),
            ("column-renamed", "rename-column", "customers"),
            ("column-widened", "widen-column", "order_items"),
        )
    ),
    Scenario(
        "exporter-down", "", ("exporter", "stop"), "EcommExporterDown", "P1", {}, step=(), fails=False, dated=False
    ),
)
"""The quick ones: they need Postgres, S3 and the sinks."""


@dataclass(slots=True)
class Result:
    """What came of a scenario; seconds are None for what did not happen."""

    scenario: Scenario
    noticed: float | None = None
    repaired: float | None = None
    problems: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        """Whether all went as it must."""
        return not self.problems


def problems_of_places(priority: str, places: set[str]) -> list[str]:
    """Tell where an alert was not told, or should not have been."""
    wanted = PLACES[priority]
    missing = [f"{place} was not told" for place in sorted(wanted - places)]
    return missing + [f"{place} was told" for place in sorted(places - wanted)]


def page(results: list[Result]) -> str:
    """Write a page about the results."""
    good = sum(result.good for result in results)
    return f"""# Game day

<!-- Made by `ecomm-sandbox gameday -o docs/gameday.md`. -->

Each scenario switches one fault on, takes the step that meets it, and waits until the alert has been told at every
place that its priority names and at no other ([alerting.md](alerting.md)); then the fault is off, the step is taken
again, and the alert has to be over. The exporter, Prometheus with the chart's alerts and Alertmanager with its routes
are real; the sinks are the sandbox's. All waits (`for`, grouping) are left out, so the seconds are those of the
machinery: add an alert's `for` and its priority's `group_wait`.

{table(results)}

{good} of {len(results)} as they must be.
"""


def table(results: list[Result]) -> str:
    """Write the results as a table in Markdown."""
    lines = [
        "| scenario | runbook | alert | priority | told | noticed after | over after the repair | |",
        "| --- | --- | --- | --- | --- | ---: | ---: | --- |",
    ]
    for result in results:
        one = result.scenario
        lines.append(
            f"| {one.name} | {one.runbook} | {one.alert} | {one.priority} | {', '.join(sorted(PLACES[one.priority]))} "
            f"| {_seconds(result.noticed)} | {_seconds(result.repaired)} "
            f"| {'ok' if result.good else '; '.join(result.problems)} |"
        )
    return "\n".join(lines)


def _seconds(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f} s"
