"""tableau-refresher to run on the sandbox's site, over KPI tables that are there."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import tableauserverclient as tsc
from tests.support import kpi
from tests.support.trial import StageTrial, wait_until

from ecomm_pipeline.settings import TableauRefresherSettings
from ecomm_pipeline.tableau_refresher.run import refresh

if TYPE_CHECKING:
    from collections.abc import Iterator

SALES = "agg_sales_kpi"


class Site(StageTrial):
    """tableau-refresher and a person at Tableau.

    A second sign-in ends the first one's session: the person works only while the stage does not.
    """

    stage = "tableau-refresher"
    settings = TableauRefresherSettings
    work = refresh

    def __init__(self, sandbox: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(
            sandbox,
            monkeypatch,
            ECOMM_DBT_PROJECT_DIR=str(Path(__file__).parents[3] / "dbt"),
            ECOMM_TABLEAU_DATASOURCES=SALES,
            ECOMM_TABLEAU_POLL_INTERVAL="0.1",
        )
        self._before = set(self._listed())

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
def site(sandbox: Any, tables: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A `Site` for this test alone; no job is on its way before or after it."""
    made = Site(sandbox, monkeypatch)
    wait_until(made.quiet)
    yield made
    wait_until(made.quiet)
    sandbox.empty_bucket(made.prefix)
