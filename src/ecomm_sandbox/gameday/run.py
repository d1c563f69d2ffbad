"""Plays scenarios on a sandbox: a fault, its alert, its diagnosis, its repair.

The fault is on, the steps meet it, the alert is waited for, the doctor is asked; the fault is off, the command that was
printed is run, and the alert has to be over.
"""

from __future__ import annotations

import re
import secrets
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ecomm_sandbox.gameday.ground import HISTORY, make_ground
from ecomm_sandbox.gameday.results import Result, problems_of_places
from ecomm_sandbox.gameday.watch import until, watching
from ecomm_sandbox.sinks.inbox import Secrets
from ecomm_sandbox.state import SandboxError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ecomm_sandbox.gameday.ground import Done, Ground
    from ecomm_sandbox.gameday.scenarios.model import Scenario, Step
    from ecomm_sandbox.sandbox import Sandbox

__all__ = ["play"]

_NOTICED_WITHIN: Final = 60.0
_OVER_WITHIN: Final = 60.0
_PRINTED: Final = re.compile(r"(?:```|\{noformat\})(.+?)(?:```|\{noformat\})")
"""How the command stands in a message of Slack or Jira."""


def play(sandbox: Sandbox, scenarios: Sequence[Scenario], say: Callable[[str, str], None]) -> Iterator[Result]:
    """Play scenarios one after the other; gives each result as it is known.

    A quick one has a ledger of its own and no lakehouse, so that a repair goes as far as that. The others work on the
    sandbox's own ledger and extracts, and their repair has to bring the date all the way through: the sandbox should
    be there for this only. Faults are off, and what was told is forgotten, after each. Raises `SandboxError` when a
    date cannot be prepared.
    """
    prepared = False
    for scenario in scenarios:
        with tempfile.TemporaryDirectory(prefix="gameday-") as name:
            folder = Path(name)
            (folder / "watch").mkdir()
            prefix = f"gameday/{scenario.name}-{secrets.token_hex(3)}" if scenario.quick else ""
            ground = make_ground(sandbox, folder, prefix)
            if not scenario.quick and not prepared:
                _prepare(ground, say)
            if scenario.state == "history":
                _make_history(ground)
            sandbox.clear_messages()
            sinks = f"http://127.0.0.1:{sandbox.state.ports['sinks']}"
            with watching(Secrets.of(sandbox.state), sinks, ground.environment, folder / "watch") as watch:
                ground.watch = watch
                result = _Play(ground, scenario).play()
        prepared = result.good if not scenario.quick else prepared
        say(scenario.name, "ok" if result.good else "; ".join(result.problems))
        yield result


def _prepare(ground: Ground, say: Callable[[str, str], None]) -> None:
    """Bring the date, and those before it, all the way through; nothing where they are."""
    first = ground.before(HISTORY)
    if ground.has_run(first):
        cause = ground.doctor()["cause"]
        if cause is None:
            return
        say("prepare", f"{cause['message']}: {cause['command']}")
        ground.shell(cause["command"])
        if ground.doctor()["ok"]:
            return
    say("prepare", f"runs {first}..{ground.date}")
    _must(ground.ecomm("run", f"{first}..{ground.date}"))


def _make_history(ground: Ground) -> None:
    """Extract one table of the dates before."""
    for days in range(1, HISTORY + 1):
        _must(ground.ecomm("extractor", "--table", "orders", "--date", ground.before(days)))


def _must(done: Done) -> None:
    if done.returncode:
        message = f"the date cannot be prepared: {(done.stderr or done.stdout).strip()[-1000:]}"
        raise SandboxError(message, next_step="see what the sandbox's logs say: ecomm-sandbox status")


class _Play:
    """One scenario."""

    def __init__(self, ground: Ground, scenario: Scenario) -> None:
        self._ground = ground
        self._scenario = scenario
        self._result = Result(scenario)

    def play(self) -> Result:
        """Do it."""
        one = self._scenario
        one.fault.on(self._ground)
        try:
            self._meet(one.steps)
            self._await_notice()
            command = self._ask_doctor()
            if one.repair == "alert":
                command = self._printed()
        finally:
            one.fault.off(self._ground)
            self._ground.sandbox.clear_faults()
        self._repair(command if one.repair != "none" else "")
        return self._result

    def _meet(self, steps: Sequence[Step]) -> None:
        """Take the steps; only the last may fail, and must where the scenario says so."""
        for number, step in enumerate(steps, 1):
            if callable(step):
                step(self._ground)
                continue
            done = self._ground.ecomm(*step, **self._scenario.environment)
            fails = self._scenario.fails and number == len(steps)
            if bool(done.returncode) != fails:
                said = done.stderr.strip().splitlines()[-1:] or [""]
                self._result.problems.append(f"{' '.join(step)} ended with {done.returncode} {said[0][:300]}".strip())

    def _await_notice(self) -> None:
        began = time.monotonic()
        if until(lambda: not self._problems_of_places(), _NOTICED_WITHIN):
            self._result.noticed = time.monotonic() - began
        self._result.problems += self._problems_of_places()

    def _problems_of_places(self) -> list[str]:
        return problems_of_places(self._scenario, self._places())

    def _ask_doctor(self) -> str:
        """Ask for the cause; gives the command that repairs it."""
        if self._scenario.doctor is None:
            return ""
        began = time.monotonic()
        told = self._ground.doctor()
        self._result.diagnosed = time.monotonic() - began
        found = self._finding(told)
        if found is None:
            cause = told["cause"]
            named = f"{cause['section']} {cause['kind']} ({cause['failure_class']})" if cause else "nothing"
            self._result.problems.append(f"the doctor names {named}: {cause['message'] if cause else ''}")
            return ""
        self._result.named = f"{found['section']} {found['kind']} ({found['failure_class']})"
        return str(found["command"])

    def _finding(self, told: dict[str, Any]) -> dict[str, Any] | None:
        """Give what the doctor has to name, if it is the cause, or a note."""
        wanted = self._scenario.doctor
        for one in [told["cause"], *told["notes"]]:
            if one and wanted and wanted.fits(one):
                return dict(one)
        return None

    def _printed(self) -> str:
        """Give the command that the alert's messages hold."""
        texts = "\n".join(f"{one['text']}\n{one['body']}" for one in self._messages())
        found = [line for line in _PRINTED.findall(texts) if line.startswith("ecomm ")]
        if not found:
            self._result.problems.append("no message holds a command")
        return found[-1] if found else ""

    def _repair(self, command: str) -> None:
        self._result.command = command
        began = time.monotonic()
        done = self._ground.shell(command) if command else None
        if done and done.returncode and self._ground.whole:
            said = done.stderr.strip().splitlines()[-1:] or [""]
            self._result.problems.append(f"{command} ended with {done.returncode}: {said[0][:300]}")
        if until(self._is_over, _OVER_WITHIN):
            self._result.repaired = time.monotonic() - began
        else:
            self._result.problems.append("it is not told that it is over")
        if command:
            self._prove()

    def _prove(self) -> None:
        """Ask the doctor again: it does not name it any more, and with a lakehouse nothing is wrong."""
        told = self._ground.doctor()
        if self._finding(told):
            self._result.problems.append("the doctor still names it after the repair")
        elif self._ground.whole and told["cause"]:
            self._result.problems.append(f"after the repair the doctor names: {told['cause']['message']}")

    def _about(self, message: dict[str, Any]) -> bool:
        """Tell whether a message is about the scenario's alert: by its runbook, its date and its labels."""
        text = f"{message['text']} {message['body']}"
        page = "-".join(_words(self._scenario.alert.removeprefix("Ecomm")))
        labels = [f"{name.replace('_', ' ')} {value}" for name, value in self._scenario.labels.items()]
        over = message["what"] == "resolve" or "Resolved: " in text
        of_date = not self._scenario.dated or self._ground.date in text
        return f"runbooks/{page}.md" in text and of_date and (over or all(one in text for one in labels))

    def _messages(self) -> list[dict[str, Any]]:
        """Give the messages about the alert, and what was told later of the same incident or ticket."""
        everything = self._ground.sandbox.messages()["messages"]
        incidents = {one["to"] for one in everything if one["service"] != "slack" and self._about(one)}
        return [one for one in everything if one["to"] in incidents or self._about(one)]

    def _places(self) -> set[str]:
        return {f"slack {one['to']}" if one["service"] == "slack" else one["service"] for one in self._messages()}

    def _is_over(self) -> bool:
        told = self._messages()
        if self._scenario.priority == "P1":
            return any(one["what"] == "resolve" for one in told)
        return any("Resolved: " in one["text"] for one in told)


def _words(name: str) -> list[str]:
    """Split a name in capitals: NightlyFailed is nightly, failed."""
    spaced = "".join(f" {letter}" if letter.isupper() else letter for letter in name)
    return spaced.lower().split()
