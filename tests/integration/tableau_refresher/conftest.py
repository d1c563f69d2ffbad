"""tableau-refresher to run on the sandbox's site, over KPI tables that are there."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import time
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import pytest
import tableauserverclient as tsc
from tests.support import kpi

from ecomm_pipeline.clock import SystemClock
from ecomm_pipeline.dates import parse_dates
from ecomm_pipeline.layout import Layout, new_run_id
from ecomm_pipeline.ledger import Ledger, Record
from ecomm_pipeline.settings import TableauRefresherSettings, load
from ecomm_pipeline.stage import run_stage
from ecomm_pipeline.store import Store
from ecomm_pipeline.tableau_refresher.run import refresh

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TZ = ZoneInfo("Asia/Ho_Chi_Minh")
DATE = "2026-01-02"
SALES = "agg_sales_kpi"


class Site:
    """tableau-refresher and a person at Tableau; each test has a run id and a folder of the bucket of its own.

    A second sign-in ends the first one's session: the person works only while the stage does not.
    """

    def __init__(self, sandbox: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sandbox = sandbox
        self.run_id = new_run_id(datetime.now(UTC))
        self.prefix = f"tableau-refresher-{secrets.token_hex(4)}"
        self._monkeypatch = monkeypatch
        self.env = {name: value for name, value in os.environ.items() if not name.startswith("ECOMM_")}
        self.set(**sandbox.env)
        self.set(
            ECOMM_STORE_PREFIX=self.prefix,
            ECOMM_DBT_PROJECT_DIR=str(Path(__file__).parents[3] / "dbt"),
            ECOMM_TABLEAU_DATASOURCES=SALES,
            ECOMM_TABLEAU_POLL_INTERVAL="0.1",
        )
        self._before = set(self._listed())

    def set(self, **environment: str) -> None:
        """Change the stage's environment."""
        self.env.update(environment)
        for name, value in environment.items():
            self._monkeypatch.setenv(name, value)

    def run(self) -> Record:
        """Run the stage, here in this process, as the command does."""
        settings = load(TableauRefresherSettings)
        store, layout = Store(settings.store), Layout(settings.store.prefix)
        return run_stage(
            lambda context: refresh(context, settings),
            stage="tableau-refresher",
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
        command = [sys.executable, "-m", "ecomm_pipeline.cli", "tableau-refresher", "--date", DATE]
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
        ledger = Ledger(Store(load(TableauRefresherSettings).store), Layout(self.prefix))
        return ledger.read("tableau-refresher", parse_dates(DATE, TZ).only, self.run_id)

    def queued(self) -> bool:
        """Whether the ledger tells a job."""
        record = self.record()
        return record is not None and bool(record.remote.get("jobs"))

    def commit(self) -> None:
        """Write to the KPI table, as dbt does."""
        self.sandbox.query(f"INSERT INTO ecomm.kpi.{SALES} SELECT * FROM ecomm.kpi.{SALES} LIMIT 1")

    @contextmanager
    def person(self) -> Iterator[tsc.Server]:
        """Sign in as a person."""
        server = tsc.Server(self.env["ECOMM_TABLEAU_SERVER"], use_server_version=True)
        token = tsc.PersonalAccessTokenAuth(
            self.env["ECOMM_TABLEAU_TOKEN_NAME"], self.env["ECOMM_TABLEAU_TOKEN_VALUE"], self.env["ECOMM_TABLEAU_SITE"]
        )
        with server.auth.sign_in(token):
            yield server

    def queue(self) -> str:
        """Ask for a refresh by hand; give the job's id."""
        with self.person() as server:
            (source,) = server.datasources.filter(name=SALES)
            return str(server.datasources.refresh(source.id).id)

    def jobs(self) -> list[str]:
        """Give the ids of the data source's jobs of this test."""
        return [id_ for id_ in self._listed() if id_ not in self._before]

    def _listed(self) -> list[str]:
        with self.person() as server:
            return [row.id for row in server.jobs.filter(title=SALES) if row.subtitle == "Datasource"]

    def quiet(self) -> bool:
        """Whether no job of the site is on its way."""
        with self.person() as server:
            return all(row.status not in ("Pending", "InProgress") for row in server.jobs.all())


@pytest.fixture(scope="module")
def tables(sandbox: Any) -> Iterator[None]:
    """The KPI tables: those that dbt left, or small ones for these tests."""
    with kpi.tables(sandbox):
        yield


@pytest.fixture
def site(
    sandbox: Any, tables: None, monkeypatch: pytest.MonkeyPatch, wait_until: Callable[..., None]
) -> Iterator[Site]:
    """A `Site` for this test alone; no job is on its way before or after it."""
    made = Site(sandbox, monkeypatch)
    wait_until(made.quiet)
    yield made
    wait_until(made.quiet)
    sandbox.empty_bucket(made.prefix)


@pytest.fixture
def wait_until() -> Callable[[Callable[[], Any]], None]:
    """Give a function that waits, 60 s at most, until what it is given is true."""

    def wait(condition: Callable[[], Any]) -> None:
        deadline = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < deadline, "it did not happen within 60 s"
            time.sleep(0.1)

    return wait
