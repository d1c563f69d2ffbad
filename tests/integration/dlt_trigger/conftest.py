"""A pipeline of one small table, and dlt-trigger to run on it."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from databricks.sdk import WorkspaceClient
from databricks.sdk.service.pipelines import FileLibrary, PipelineLibrary, UpdateInfo
from tests.support.trial import StageTrial

from ecomm_pipeline.databricks import connect
from ecomm_pipeline.dlt_trigger.run import update_pipeline
from ecomm_pipeline.settings import Databricks, DltTriggerSettings, load

if TYPE_CHECKING:
    from collections.abc import Iterator

SOURCE = """
from pyspark import pipelines as dp


@dp.materialized_view(name="trial.numbers")
@dp.expect("no_rescued_data", "id <> 3")
@dp.expect_or_drop("valid_key", "id < 8")
def numbers():
    return spark.range(10)
"""


class Trial(StageTrial):
    """dlt-trigger on the trial pipeline."""

    stage = "dlt-trigger"
    settings = DltTriggerSettings
    work = update_pipeline

    def __init__(self, sandbox: Any, pipeline_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(
            sandbox,
            monkeypatch,
            ECOMM_DATABRICKS_PIPELINE_ID=pipeline_id,
            ECOMM_DLT_POLL_INTERVAL="0.1",
            ECOMM_DLT_RETRY_GRACE="1",
        )
        self.pipeline_id = pipeline_id
        self.client = connect(load(Databricks))

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
