"""A stage to run on the sandbox, in this process or in one of its own, and to look at afterwards."""

from __future__ import annotations

import os
import secrets
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar
from zoneinfo import ZoneInfo

import pytest
from tests.support.command import start_ecomm

from ecomm_pipeline.clock import SystemClock
from ecomm_pipeline.dates import parse_dates
from ecomm_pipeline.layout import Layout, new_run_id
from ecomm_pipeline.ledger import Ledger, Record
from ecomm_pipeline.settings import load
from ecomm_pipeline.stage import run_stage
from ecomm_pipeline.store import Store

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

TZ = ZoneInfo("Asia/Ho_Chi_Minh")
DATE = "2026-01-02"


class StageTrial:
    """A stage; each test has a run id and a folder of the bucket of its own."""

    stage: ClassVar[str]
    settings: ClassVar[type]
    work: ClassVar[Callable[..., None]]

    def __init__(self, sandbox: Any, monkeypatch: pytest.MonkeyPatch, **environment: str) -> None:
        self.sandbox = sandbox
        self.run_id = new_run_id(datetime.now(UTC))
        self.prefix = f"{self.stage}-{secrets.token_hex(4)}"
        self._monkeypatch = monkeypatch
        self.env = {name: value for name, value in os.environ.items() if not name.startswith("ECOMM_")}
        self.set(**sandbox.env)
        self.set(ECOMM_STORE_PREFIX=self.prefix, **environment)

    def set(self, **environment: str) -> None:
        """Change the stage's environment."""
        self.env.update(environment)
        for name, value in environment.items():
            self._monkeypatch.setenv(name, value)

    def run(self) -> Record:
        """Run the stage, here in this process, as the command does."""
        settings: Any = load(self.settings)
        work = type(self).work
        return run_stage(
            lambda context: work(context, settings),
            stage=self.stage,
            dates=parse_dates(DATE, TZ),
            tz=TZ,
            run_id=self.run_id,
            trigger="local",
            store=Store(settings.store),
            layout=Layout(self.prefix),
            clock=SystemClock(),
        )

    def start(self) -> subprocess.Popen[str]:
        """Start the command in a process of its own."""
        return start_ecomm(self.stage, "--date", DATE, env={**self.env, "ECOMM_RUN_ID": self.run_id})

    @staticmethod
    def hear(process: subprocess.Popen[str], event: str) -> None:
        """Wait until a process logs an event."""
        assert process.stderr is not None
        heard: list[str] = []
        for line in process.stderr:
            heard.append(line)
            if event in line:
                return
        pytest.fail(f"it ended without {event}:\n{''.join(heard)}")

    def record(self) -> Record | None:
        """Read the ledger's record."""
        settings: Any = load(self.settings)
        return Ledger(Store(settings.store), Layout(self.prefix)).read(
            self.stage, parse_dates(DATE, TZ).only, self.run_id
        )


def wait_until(condition: Callable[[], Any]) -> None:
    """Wait, 60 s at most, until a condition is true."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it did not happen within 60 s"
        time.sleep(0.1)
