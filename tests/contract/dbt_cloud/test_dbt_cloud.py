"""What dbt-runner relies on of dbt Cloud's Administrative API, version 2.

Against live services the job is run once with a command that only reads the project, and once to be cancelled.
"""

from __future__ import annotations

import json
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
import requests
from pydantic import SecretStr

from ecomm_pipeline.clock import SystemClock
from ecomm_pipeline.dbt_runner.cloud_api import CloudApi
from ecomm_pipeline.errors import ConfigurationError, CredentialsError
from ecomm_pipeline.settings import DbtCloud

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ecomm_pipeline.dbt_runner.cloud_plan import CloudRun

CAUSE = f"ecomm contract test of {datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"


@pytest.fixture(scope="module")
def cloud(request: pytest.FixtureRequest, target: str) -> Iterator[DbtCloud]:
    """The settings of the target."""
    if target == "live":
        settings: Callable[[type[Any]], Any] = request.getfixturevalue("settings")
        found = settings(DbtCloud)
        if found.job_id is None:
            pytest.skip("ECOMM_DBT_CLOUD_JOB_ID is not set")
        yield found
        return
    sandbox = request.getfixturevalue("sandbox")
    with sandbox.service("dbt-cloud"), pytest.MonkeyPatch.context() as patch:
        for name, value in sandbox.env.items():
            patch.setenv(name, value)
        yield DbtCloud()


@pytest.fixture(scope="module")
def api(cloud: DbtCloud) -> Iterator[CloudApi]:
    with closing(CloudApi(cloud, SystemClock())) as made:
        yield made


def get(cloud: DbtCloud, path: str, **params: Any) -> requests.Response:
    """Ask as the documentation writes it, without our client."""
    host = cloud.host if "://" in cloud.host else f"https://{cloud.host}"
    headers = {"Authorization": f"Token {cloud.token.get_secret_value() if cloud.token else ''}"}
    url = f"{host}/api/v2/accounts/{cloud.account_id}/{path}"
    return requests.get(url, headers=headers, params=params, timeout=60)


@pytest.fixture(scope="module")
def run(api: CloudApi) -> CloudRun:
    """A run of a command of our own, which has ended."""
    return ended(api, api.trigger(CAUSE, ["dbt parse"]).id)


def ended(api: CloudApi, run_id: int) -> CloudRun:
    deadline = time.monotonic() + 900
    while (found := api.run(run_id, logs=True)).active:
        assert time.monotonic() < deadline, f"run {run_id} is {found.phase}"
        time.sleep(0.2)
    return found


def test_the_job_has_a_name(api):
    assert api.name()


def test_a_run_that_was_triggered_ends_with_steps_and_what_they_wrote(run):
    assert run.phase == "success"
    assert run.cause == CAUSE
    assert timedelta() <= run.started - run.created < timedelta(minutes=15)
    assert [step.index for step in run.steps] == list(range(1, len(run.steps) + 1))
    assert run.steps[-1].name.startswith("Invoke dbt with `dbt parse")
    assert run.steps[-1].builds
    assert run.steps[-1].log
    assert not any(step.failed for step in run.steps)
    assert f"/runs/{run.id}" in run.url


def test_a_run_is_found_by_its_cause_among_the_newest(api, run):
    runs = api.runs()
    assert [one.id for one in runs] == sorted((one.id for one in runs), reverse=True)
    assert [one.id for one in runs if one.cause == CAUSE] == [run.id]


def test_artifacts_are_had_by_the_step_that_left_them(api, run):
    manifest = api.artifact(run.id, "manifest.json", run.steps[-1].index)
    assert "nodes" in json.loads(manifest)
    assert api.artifact(run.id, "no_such_artifact.json", run.steps[-1].index) is None


def test_a_run_that_went_well_cannot_be_retried(api, run):
    assert run.can_retry is False
    with pytest.raises(ConfigurationError):
        api.retry(run.id)


def test_a_run_can_be_cancelled(api):
    begun = api.trigger(CAUSE, ["dbt parse"])
    assert begun.active
    api.cancel(begun.id)
    assert ended(api, begun.id).phase == "cancelled"


def test_answers_are_in_an_envelope(cloud, run):
    body = get(cloud, "runs/", job_definition_id=cloud.job_id, order_by="-id", limit=1).json()
    assert body["status"]["code"] == 200
    assert body["status"]["is_success"] is True
    assert len(body["data"]) == body["extra"]["pagination"]["count"] == 1
    assert body["extra"]["pagination"]["total_count"] >= 2


def test_runs_are_filtered_by_status_and_related_objects_are_given_only_where_asked_for(cloud, run):
    body = get(cloud, "runs/", job_definition_id=cloud.job_id, status__in="[10]", order_by="-id").json()
    assert {one["status"] for one in body["data"]} == {10}
    assert all(one["trigger"] is None for one in body["data"])
    assert get(cloud, f"runs/{run.id}/", include_related='["trigger"]').json()["data"]["trigger"]["cause"] == CAUSE


def test_a_job_that_is_not_there_is_refused_in_an_envelope(cloud):
    answer = get(cloud, "jobs/1/")
    assert (answer.status_code, answer.json()["status"]["is_success"]) == (404, False)


def test_a_wrong_token_is_refused(cloud):
    wrong = cloud.model_copy(update={"token": SecretStr("wrong")})
    with closing(CloudApi(wrong, SystemClock())) as api, pytest.raises(CredentialsError):
        api.name()
