"""What a scenario is: a fault, the steps that meet it, and what has to come of it; all of it happens on a `Ground`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ecomm_sandbox.gameday.ground import Ground

__all__ = ["PLACES", "QUICK", "WHOLE", "Deed", "Fault", "Named", "Scenario", "Step", "Stopped"]

PLACES: Final = {
    "P1": {"slack #data-eng", "pagerduty"},
    "P2": {"slack #analytics", "jira"},
    "P3": {"jira"},
}
"""Where an alert of a priority has to be told, and nowhere else."""
QUICK: Final = ("postgres", "s3", "tableau", "sinks")
"""Services of the sandbox that are enough for quick scenarios; the doctor asks Tableau."""
WHOLE: Final = ("postgres", "s3", "databricks", "tableau", "sinks")
"""Services that the others need, and repairs that go all the way through the chain."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault of a service of the sandbox, as `ecomm-sandbox fault` takes it."""

    service: str
    kind: str
    options: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        """Name it for the table."""
        return f"{self.service} {self.kind}"

    def on(self, ground: Ground) -> None:
        """Switch it on."""
        ground.sandbox.fault(self.service, self.kind, **self.options)

    def off(self, ground: Ground) -> None:
        """Switch it off; not an error where a step did it already."""
        ground.sandbox.clear_faults()


@dataclass(frozen=True, slots=True)
class Stopped:
    """One of those who watch is stopped: exporter, prometheus or alertmanager."""

    name: str

    def __str__(self) -> str:
        """Name it for the table."""
        return f"{self.name} stopped"

    def on(self, ground: Ground) -> None:
        """Stop it."""
        if ground.watch:
            ground.watch.stop(self.name)

    def off(self, ground: Ground) -> None:
        """Start it again."""
        if ground.watch:
            ground.watch.start(self.name)


def _leave(_ground: Ground) -> None:
    """Undo nothing: the repair mends it."""


@dataclass(frozen=True, slots=True)
class Deed:
    """Something that is done to data; `undo` is what a person would do before the repair, where a command cannot."""

    what: str
    do: Callable[[Ground], None]
    undo: Callable[[Ground], None] = _leave

    def __str__(self) -> str:
        """Name it for the table."""
        return self.what

    def on(self, ground: Ground) -> None:
        """Do it."""
        self.do(ground)

    def off(self, ground: Ground) -> None:
        """Take it back, as far as a person would."""
        self.undo(ground)


Step = tuple[str, ...] | Callable[["Ground"], None]
"""A command of `ecomm`, in which `{date}` is the date; or something that happens meanwhile."""


@dataclass(frozen=True, slots=True)
class Named:
    """What the doctor has to say: the cause, or a note where it is of P3."""

    section: str
    kind: str
    failure_class: str = ""
    """Empty: whatever it is."""

    def __str__(self) -> str:
        """Name it for the table."""
        return f"{self.section} {self.kind}{f' ({self.failure_class})' if self.failure_class else ''}"

    def fits(self, finding: Mapping[str, Any]) -> bool:
        """Tell whether it is what a finding of `ecomm doctor --json` tells."""
        same = (finding["section"], finding["kind"]) == (self.section, self.kind)
        return same and self.failure_class in ("", finding["failure_class"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One fault, from its beginning until the alert is over."""

    name: str
    runbook: str
    """Section of the runbook, A to F; empty for what it does not treat."""
    fault: Fault | Stopped | Deed
    alert: str
    priority: str
    doctor: Named | None
    """None for what is no part of the chain, which nobody asks the doctor about."""
    labels: dict[str, str] = field(default_factory=dict)
    """Labels that the alert must have, beside the date."""
    steps: tuple[Step, ...] = ()
    """What meets the fault; none where nobody has to do anything for it to be noticed."""
    fails: bool = True
    """Whether the last step fails; those before it must not."""
    environment: dict[str, str] = field(default_factory=dict)
    """Settings with which the steps meet the fault sooner."""
    state: Literal["nothing", "history", "prepared"] = "nothing"
    """What is there before: nothing of the date, extracts of the dates before it, or a date that went all the way
    through, with the dates before it. All but `prepared` are quick: they need no lakehouse."""
    repair: Literal["doctor", "alert", "none"] = "doctor"
    """Whose command repairs it; none where it is over with the fault."""
    dated: bool = True
    """Whether the alert is about the date."""
    places: frozenset[str] | None = None
    """Where it can be told, if not everywhere that its priority names."""

    @property
    def quick(self) -> bool:
        """Whether it needs no lakehouse."""
        return self.state != "prepared"
