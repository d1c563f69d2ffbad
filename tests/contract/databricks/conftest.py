"""One process of the sandbox's Databricks for these tests, with a small pipeline over a local landing folder."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from databricks.sdk import WorkspaceClient
from databricks.sdk.service.sql import StatementState

from ecomm_sandbox.databricks_service import cache

if TYPE_CHECKING:
    from collections.abc import Iterator

    from databricks.sdk.service.pipelines import UpdateInfo
    from databricks.sdk.service.sql import StatementParameterListItem, StatementResponse

HERE = Path(__file__).parent
TOKEN = "a-token"
ENDED = {"COMPLETED", "FAILED", "CANCELED"}


class Databricks:
    """A running process, and what tests ask of it."""

    def __init__(self, home: Path) -> None:
        self.home, self.landing = home, home / "landing"
        self.port = _free_port()
        self.process: subprocess.Popen[bytes] | None = None
        (self.landing / "things").mkdir(parents=True)
        self.config = home / "config.json"
        spec = {
            "id": "tiny",
            "name": "tiny",
            "catalog": "ecomm",
            "schema": "bronze",
            "root_path": str(HERE / "tiny_pipeline"),
            "libraries": [{"glob": {"include": "transformations/**"}}],
            "configuration": {"tiny.landing": str(self.landing)},
        }
        settings = {"home": str(home / "state"), "port": self.port, "token": TOKEN, "pipelines": [spec]}
        settings["ivy"] = str(cache() / "ivy")
        self.config.write_text(json.dumps(settings))

    def start(self) -> None:
        """Start it and wait until it is ready."""
        with (self.home / "log").open("ab") as log:
            command = [sys.executable, "-m", "ecomm_sandbox.databricks", "--config", str(self.config)]
            self.process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            try:
                urllib.request.urlopen(f"{self.url}/sandbox/health", timeout=2).close()
            except OSError:
                assert self.process.poll() is None, (self.home / "log").read_text()[-3000:]
                time.sleep(0.1)
            else:
                return
        pytest.fail("not ready after 120 s")

    def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End it and its JVM."""
        assert self.process is not None
        if number == signal.SIGKILL:
            os.killpg(self.process.pid, number)
        else:
            self.process.send_signal(number)
        self.process.wait(60)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def workspace(self) -> WorkspaceClient:
        return WorkspaceClient(host=self.url, token=TOKEN)

    def execute(self, sql: str, *parameters: StatementParameterListItem, **options: Any) -> StatementResponse:
        return self.workspace.statement_execution.execute_statement(
            sql, "sandbox", parameters=list(parameters) or None, wait_timeout="50s", **options
        )

    def rows(self, sql: str) -> list[list[str | None]]:
        """The rows of a statement that succeeds."""
        answer = self.execute(sql)
        assert answer.status is not None
        assert answer.status.state is StatementState.SUCCEEDED, answer.status.error
        return (answer.result and answer.result.data_array) or []

    def put(self, name: str, *lines: str) -> None:
        """Land a file of things; visible at once, as an object in S3 is."""
        path = self.landing / "things" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.parent / f".{path.name}"
        partial.write_text("".join(f"{line}\n" for line in ("id,name,version,deleted", *lines)))
        partial.rename(path)

    def start_update(self, **options: Any) -> str:
        return str(self.workspace.pipelines.start_update("tiny", **options).update_id)

    def wait(self, update_id: str, seconds: float = 120) -> UpdateInfo:
        """The update once it has ended."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            update = self.workspace.pipelines.get_update("tiny", update_id).update
            assert update is not None
            assert update.state is not None
            if update.state.value in ENDED:
                return update
            time.sleep(0.1)
        pytest.fail(f"update {update_id} has not ended after {seconds} s")

    def update(self, **options: Any) -> str:
        """Run an update that completes; gives its id."""
        update_id = self.start_update(**options)
        ended = self.wait(update_id)
        assert ended.state is not None
        assert ended.state.value == "COMPLETED", self.events(update_id)[-1]
        return update_id

    def events(self, update_id: str) -> list[dict[str, Any]]:
        """An update's events in order, with the details that the SDK's class leaves out."""
        query = {"order_by": "timestamp asc", "max_results": 1000}
        answer = self.workspace.api_client.do("GET", "/api/2.0/pipelines/tiny/events", query=query)
        return [event for event in answer["events"] if event["origin"].get("update_id") == update_id]

    def faults(self, *faults: dict[str, Any]) -> None:
        self.workspace.api_client.do("PUT", "/sandbox/faults", body={"faults": list(faults)})


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def databricks_process(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Databricks]:
    if request.config.getoption("--target", default="sandbox") == "live":
        pytest.skip("these tests are of the sandbox's own process")
    server = Databricks(tmp_path_factory.mktemp("databricks"))
    server.start()
    yield server
    server.end()


@pytest.fixture
def databricks(databricks_process: Databricks) -> Iterator[Databricks]:
    yield databricks_process
    databricks_process.faults()
