"""What came of scenarios, and how it is written down. Pure."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from ecomm_sandbox.gameday.scenarios.model import PLACES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from ecomm_sandbox.gameday.scenarios.model import Scenario

__all__ = ["Result", "kept", "merged", "page", "problems_of_places", "table"]


@dataclass(slots=True)
class Result:
    """What came of a scenario; seconds are None for what did not happen."""

    scenario: Scenario
    noticed: float | None = None
    diagnosed: float | None = None
    """How long the doctor took."""
    named: str = ""
    """The cause that the doctor named."""
    command: str = ""
    """What repaired it, as it was printed."""
    repaired: float | None = None
    problems: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        """Whether all went as it must."""
        return not self.problems


def merged(kept: Mapping[str, dict[str, Any]], results: Iterable[Result]) -> dict[str, dict[str, Any]]:
    """Give what is to be kept as JSON, by scenario: what was kept before, and of each newer result its words."""
    of_result = {one.scenario.name: asdict(one) for one in results}
    return {
        **kept,
        **{name: {key: words[key] for key in words if key != "scenario"} for name, words in of_result.items()},
    }


def kept(found: Mapping[str, dict[str, Any]], scenarios: Iterable[Scenario]) -> list[Result]:
    """Read what was kept, in the order of the scenarios; those that were never played are left out."""
    return [Result(one, **found[one.name]) for one in scenarios if one.name in found]


def problems_of_places(scenario: Scenario, places: set[str]) -> list[str]:
    """Tell where an alert was not told, or should not have been."""
    wanted = PLACES[scenario.priority] if scenario.places is None else scenario.places
    missing = [f"{place} was not told" for place in sorted(wanted - places)]
    return missing + [f"{place} was told" for place in sorted(places - wanted)]


def page(results: Sequence[Result], scenarios: Iterable[Scenario]) -> str:
    """Write a page about the results; of the scenarios, those without one are named."""
    good = sum(result.good for result in results)
    played = {result.scenario.name for result in results}
    left = ", ".join(one.name for one in scenarios if one.name not in played)
    rest = f" Not played: {left}." if left else ""
    return f"""# Game day

<!-- Made by `ecomm-sandbox gameday --results FILE -o docs/gameday.md`: each row is its scenario's newest play. -->

Each scenario switches one fault on, takes the steps that meet it, and waits until the alert has been told at every
place that its priority names and at no other ([alerting.md](alerting.md)). While the fault is on, `ecomm doctor DATE`
has to name the cause. Then what caused it is over, the command that the doctor printed (or the alert's message, where
it says so) is run as it was printed, and the alert has to be over. The exporter, Prometheus with the chart's alerts and
Alertmanager with its routes are real; the sinks are the sandbox's.

- *noticed*: from the end of the step that met the fault until every place was told. All waits are left out (`for`,
  grouping, the minutes in which nothing may have happened): add the alert's `for` and its priority's `group_wait`.
- *repaired*: from the command until it was told everywhere that it is over. The command goes on to the end of the
  chain; on a lakehouse of one small machine an update takes most of it. A machine that does other things besides takes
  several times as long.
- DATE is the newest date. What needs no lakehouse is played without one: its repair then ends behind the extraction,
  where the doctor does not name the cause any more. All others have to end with a date that is all right.

{table(results)}

{good} of {len(results)} as they must be.{rest}
"""


def table(results: Sequence[Result]) -> str:
    """Write the results as a table in Markdown."""
    lines = [
        "| scenario | runbook | alert | priority | noticed | the doctor names | command | repaired | |",
        "| --- | --- | --- | --- | ---: | --- | --- | ---: | --- |",
    ]
    for result in results:
        one = result.scenario
        command = f"`{result.command}`" if result.command else "–"
        lines.append(
            f"| {one.name} | {one.runbook} | {one.alert} | {one.priority} | {_seconds(result.noticed)} "
            f"| {result.named or '–'} | {command} | {_seconds(result.repaired)} "
            f"| {'ok' if result.good else '; '.join(result.problems)} |"
        )
    return "\n".join(lines)


def _seconds(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f} s"
