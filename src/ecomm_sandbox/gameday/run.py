"""Plays scenarios on a sandbox: fault on, the step that meets it, wait for the alert, fault off, repair, wait again."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ecomm_sandbox.gameday.scenarios import Result, Scenario, problems_of_places
from ecomm_sandbox.gameday.watch import until, watching
from ecomm_sandbox.sinks.inbox import Secrets

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ecomm_sandbox.gameday.watch import Watch
    from ecomm_sandbox.sandbox import Sandbox

__all__ = ["SERVICES", "play"]

SERVICES: Final = ("postgres", "s3", "sinks")
"""What the scenarios need of a sandbox."""
_NOTICED_WITHIN: Final = 60.0
_OVER_WITHIN: Final = 60.0
_STEP_SECONDS: Final = 300


def play(sandbox: Sandbox, scenarios: Sequence[Scenario], say: Callable[[str, str], None]) -> Iterator[Result]:
    """Play scenarios one after the other, each with a ledger of its own; gives each result as it is known.

    Faults are off, and what was told is forgotten, after each. The shop has to be there; nothing of it is changed but
    by the faults, which are taken back.
    """
    for scenario in scenarios:
        environment = {**os.environ, **sandbox.env()}
        environment["ECOMM_STORE_PREFIX"] = f"gameday/{scenario.name}-{secrets.token_hex(3)}"
        sandbox.clear_messages()
        with tempfile.TemporaryDirectory(prefix="gameday-") as folder:
            sinks = f"http://127.0.0.1:{sandbox.state.ports['sinks']}"
            with watching(Secrets.of(sandbox.state), sinks, environment, Path(folder)) as watch:
                result = _Play(sandbox, scenario, environment, watch).play()
        say(scenario.name, "ok" if result.good else "; ".join(result.problems))
        yield result


def _newest_date(environment: dict[str, str]) -> str:
    """Give the date whose night is the newest, as the exporter takes it."""
    from ecomm_pipeline.dates import zone
    from ecomm_pipeline.exporter.plan import Calendar
    from ecomm_pipeline.settings import Exporter, Nightly

    tz = zone(environment["ECOMM_BUSINESS_TIMEZONE"])
    return str(Calendar(tz, datetime.now(UTC), Nightly(), Exporter()).newest)


class _Play:
    """One scenario."""

    def __init__(self, sandbox: Sandbox, scenario: Scenario, environment: dict[str, str], watch: Watch) -> None:
        self._sandbox = sandbox
        self._watch = watch
        self._scenario = scenario
        self._environment = environment
        self._date = _newest_date(environment)
        self._result = Result(scenario)

    def play(self) -> Result:
        """Do it."""
        one = self._scenario
        self._break()
        try:
            code = self._step(one.environment)
            if bool(code) != one.fails:
                self._result.problems.append(f"the step ended with {code}")
            self._await_notice()
        finally:
            self._mend()
        self._repair()
        return self._result

    def _break(self) -> None:
        name, kind = self._scenario.fault
        if kind == "stop":
            self._watch.stop(name)
        else:
            self._sandbox.fault(name, kind, **self._scenario.options)

    def _mend(self) -> None:
        name, kind = self._scenario.fault
        if kind == "stop":
            self._watch.start(name)
        else:
            self._sandbox.clear_faults()

    def _step(self, environment: dict[str, str]) -> int:
        if not self._scenario.step:
            return 0
        command = [part.format(date=self._date) for part in self._scenario.step]
        done = subprocess.run(
            [sys.executable, "-m", "ecomm_pipeline.cli", *command],
            env={**self._environment, **environment},
            capture_output=True,
            check=False,
            timeout=_STEP_SECONDS,
        )
        return done.returncode

    def _await_notice(self) -> None:
        began = time.monotonic()
        if until(lambda: not self._problems_of_places(), _NOTICED_WITHIN):
            self._result.noticed = time.monotonic() - began
        self._result.problems += self._problems_of_places()

    def _problems_of_places(self) -> list[str]:
        return problems_of_places(self._scenario.priority, self._places())

    def _repair(self) -> None:
        began = time.monotonic()
        if code := self._step({}):
            self._result.problems.append(f"the repair ended with {code}")
        if until(self._is_over, _OVER_WITHIN):
            self._result.repaired = time.monotonic() - began
        else:
            self._result.problems.append("it is not told that it is over")

    def _about(self, message: dict[str, Any]) -> bool:
        """Tell whether a message is about the scenario's alert: by its runbook, its date and its labels."""
        text = f"{message['text']} {message['body']}"
        page = "-".join(_words(self._scenario.alert.removeprefix("Ecomm")))
        labels = [f"{name.replace('_', ' ')} {value}" for name, value in self._scenario.labels.items()]
        over = message["what"] == "resolve" or "Resolved: " in text
        of_date = not self._scenario.dated or self._date in text
        return f"runbooks/{page}.md" in text and of_date and (over or all(one in text for one in labels))

    def _messages(self) -> list[dict[str, Any]]:
        """Give the messages about the alert, and what was told later of the same incident or ticket."""
        everything = self._sandbox.messages()["messages"]
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
