"""What tableau-refresher relies on of Tableau's REST API, by the official client."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
import tableauserverclient as tsc
from tableauserverclient.server.endpoint.exceptions import NonXMLResponseError
from tests.support import kpi

from ecomm_pipeline.settings import Tableau

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture(scope="module")
def tableau(settings: Callable[[type[Any]], Any]) -> Tableau:
    return settings(Tableau)


def token(tableau: Tableau, value: str | None = None) -> tsc.PersonalAccessTokenAuth:
    return tsc.PersonalAccessTokenAuth(
        tableau.token_name, value or tableau.token_value.get_secret_value(), tableau.site
    )


@pytest.fixture(scope="module")
def server(tableau: Tableau) -> Iterator[tsc.Server]:
    made = tsc.Server(tableau.server, use_server_version=True)
    with made.auth.sign_in(token(tableau)):
        yield made


@pytest.fixture(scope="module", autouse=True)
def tables(request: pytest.FixtureRequest, target: str) -> Iterator[None]:
    """What the sandbox's data sources read."""
    if target == "live":
        yield
        return
    with kpi.tables(request.getfixturevalue("sandbox")):
        yield


@pytest.fixture(scope="module")
def datasource(server: tsc.Server) -> tsc.DatasourceItem:
    name = os.environ.get("ECOMM_CONTRACT_DATASOURCE")
    return next(iter(server.datasources.filter(name=name) if name else server.datasources.all()))


@pytest.fixture(scope="module")
def job(server: tsc.Server, datasource: tsc.DatasourceItem) -> tsc.JobItem:
    """A refresh that was asked for."""
    queued = server.datasources.refresh(datasource.id)
    assert queued is not None, f"a refresh of {datasource.name} was queued before the test"
    return queued


def ended(server: tsc.Server, job_id: str) -> tsc.JobItem:
    return server.jobs.wait_for_job(job_id, timeout=1800)


def test_a_data_source_is_found_by_its_name_with_its_project(server, datasource):
    found = list(server.datasources.filter(name=datasource.name))
    assert datasource.id in [item.id for item in found]
    assert all(item.name == datasource.name for item in found)
    assert all(item.project_name for item in found)
    assert list(server.datasources.filter(name="no such data source")) == []


def test_a_refresh_answers_a_job_that_is_found_by_its_id_and_among_all(server, datasource, job):
    asked = server.jobs.get_by_id(job.id)
    assert asked.datasource_id == datasource.id
    assert abs(asked.created_at - datetime.now(UTC)) < timedelta(hours=1)
    since = (datetime.now(UTC) - timedelta(days=1)).replace(microsecond=0)
    listed = {row.id: row for row in server.jobs.filter(created_at__gte=since)}
    assert "extract" in listed[job.id].type.lower()
    assert listed[job.id].title in (None, datasource.name)


def test_a_refresh_of_what_is_queued_already_answers_no_job(server, datasource, job):
    if server.jobs.get_by_id(job.id).completed_at is None:
        assert server.datasources.refresh(datasource.id) is None


def test_a_job_that_is_done_has_a_finish_code_and_the_extract_a_new_time(server, datasource, job):
    done = ended(server, job.id)
    assert done.finish_code in (tsc.JobItem.FinishCode.Success, tsc.JobItem.FinishCode.Completed)
    assert done.started_at >= done.created_at
    deadline = time.monotonic() + 120
    while extract_time(server, datasource.id) < done.created_at:
        assert time.monotonic() < deadline, "the extract does not show its refresh"
        time.sleep(0.2)


def extract_time(server: tsc.Server, id_: str) -> datetime:
    query = "query extract($luid: String!) { publishedDatasources(filter: {luid: $luid}) { extractLastUpdateTime } }"
    try:
        found = server.metadata.query(query, {"luid": id_})["data"]["publishedDatasources"]
    except (tsc.ServerResponseError, NonXMLResponseError):  # the Metadata API is switched off
        return server.datasources.get_by_id(id_).updated_at
    return datetime.fromisoformat(found[0]["extractLastUpdateTime"])


def test_a_job_that_is_not_there_is_refused_in_words(server):
    with pytest.raises(tsc.ServerResponseError) as caught:
        server.jobs.get_by_id("00000000-0000-0000-0000-000000000000")
    assert caught.value.code.startswith(("400", "404"))


def test_a_wrong_token_is_refused(tableau):
    with pytest.raises(tsc.FailedSignInError):
        tsc.Server(tableau.server).auth.sign_in(token(tableau, "wrong:wrong"))
