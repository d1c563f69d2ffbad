"""A pipeline of one small table, and dlt-trigger to run on it."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import pytest
from databricks.sdk import WorkspaceClient
from databricks.sdk.service.pipelines import FileLibrary, PipelineLibrary, UpdateInfo

from ecomm_pipeline.clock import SystemClock
from ecomm_pipeline.databricks import connect
from ecomm_pipeline.dates import parse_dates
from ecomm_pipeline.dlt_trigger.run import update_pipeline
from ecomm_pipeline.layout import Layout, new_run_id
from ecomm_pipeline.ledger import Ledger, Record
from ecomm_pipeline.settings import Databricks, DltTriggerSettings, load
from ecomm_pipeline.stage import run_stage
from ecomm_pipeline.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TZ = ZoneInfo("Asia/Ho_Chi_Minh")
DATE = "2026-01-02"
SOURCE = """
from pyspark import pipelines as dp


@dp.materialized_view(name="trial.numbers")
@dp.expect("no_rescued_data", "id <> 3")
@dp.expect_or_drop("valid_key", "id < 8")
def numbers():
    return spark.range(10)
"""


class Trial:
    """dlt-trigger on the trial pipeline; each test has a run id and a folder of the bucket of its own."""

    def __init__(self, sandbox: Any, pipeline_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sandbox = sandbox
        self.pipeline_id = pipeline_id
        self.run_id = new_run_id(datetime.now(UTC))
        self.prefix = f"dlt-trigger-{secrets.token_hex(4)}"
        self._monkeypatch = monkeypatch
        self.env = {name: value for name, value in os.environ.items() if not name.startswith("ECOMM_")} | sandbox.env
        self.set(**sandbox.env)
        self.set(
            ECOMM_STORE_PREFIX=self.prefix,
            ECOMM_DATABRICKS_PIPELINE_ID=pipeline_id,
            ECOMM_DLT_POLL_INTERVAL="0.1",
            ECOMM_DLT_RETRY_GRACE="1",
        )
        self.client = connect(load(Databricks))

    def set(self, **environment: str) -> None:
        """Change the stage's environment."""
        self.env.update(environment)
        for name, value in environment.items():
            self._monkeypatch.setenv(name, value)

    def run(self) -> Record:
        """Run the stage, here in this process, as the command does."""
        settings = load(DltTriggerSettings)
        store, layout = Store(settings.store), Layout(settings.store.prefix)
        return run_stage(
            lambda context: update_pipeline(context, settings),
            stage="dlt-trigger",
            dates=parse_dates(DATE, TZ),
            tz=TZ,
            run_id=self.run_id,
            trigger="local",
            store=store,
            layout=layout,
            clock=SystemClock(),
        )

    def start(self) -> subprocess.Popen[str]:
        """Start the command in a process of its own."""
        command = [sys.executable, "-m", "ecomm_pipeline.cli", "dlt-trigger", "--date", DATE]
        environment = {**self.env, "ECOMM_RUN_ID": self.run_id}
        return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)

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
        settings = load(DltTriggerSettings)
        ledger = Ledger(Store(settings.store), Layout(self.prefix))
        return ledger.read("dlt-trigger", parse_dates(DATE, TZ).only, self.run_id)

    def started(self) -> bool:
        """Whether the ledger tells an update."""
        record = self.record()
        return record is not None and "update_id" in record.remote

    def begin(self, parameters: dict[str, str] | None = None) -> str:
        """Start an update by hand."""
        return str(self.client.pipelines.start_update(self.pipeline_id, parameters=parameters).update_id)

    def state(self, update_id: str) -> str:
        """Give the state of an update."""
        return str(self.client.pipelines.get_update(self.pipeline_id, update_id).update.state.value)

    def stop(self) -> None:
        """Stop whatever is active, and see it end."""
        self.client.pipelines.stop(self.pipeline_id)
        self.client.pipelines.wait_get_pipeline_idle(self.pipeline_id)

    def ours(self) -> list[UpdateInfo]:
        """Give the updates that carry the run id, oldest first."""
        listed = self.client.pipelines.list_updates(self.pipeline_id, max_results=100).updates or []
        all_ = [
            self.client.pipelines.get_update(self.pipeline_id, str(row.update_id)).update for row in reversed(listed)
        ]
        return [update for update in all_ if update and (update.parameters or {}).get("run_id") == self.run_id]


@pytest.fixture(scope="module")
def pipeline(sandbox: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A pipeline that the platform retries, as it does in production."""
    source = tmp_path_factory.mktemp("pipeline") / "numbers.py"
    source.write_text(SOURCE)
    client = WorkspaceClient(
        host=sandbox.env["ECOMM_DATABRICKS_HOST"], token=sandbox.env["ECOMM_DATABRICKS_TOKEN"], auth_type="pat"
    )
    made = client.pipelines.create(
        name=f"trial-{secrets.token_hex(4)}",
        catalog="ecomm",
        schema="trial",
        development=False,
        libraries=[PipelineLibrary(file=FileLibrary(path=str(Path(source))))],
    )
    yield str(made.pipeline_id)
    client.pipelines.delete(str(made.pipeline_id))


@pytest.fixture
def trial(sandbox: Any, pipeline: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Trial]:
    """A `Trial` for this test alone; nothing is active before or after it."""
    made = Trial(sandbox, pipeline, monkeypatch)
    yield made
    made.stop()
    sandbox.empty_bucket(made.prefix)


@pytest.fixture
def wait_until() -> Callable[[Callable[[], Any]], None]:
    """Give a function that waits, 60 s at most, until what it is given is true."""

    def wait(condition: Callable[[], Any]) -> None:
        deadline = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < deadline, "it did not happen within 60 s"
            time.sleep(0.05)

    return wait
