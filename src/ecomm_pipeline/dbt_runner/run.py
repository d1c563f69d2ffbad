"""Builds and tests the KPI tables: with dbt in a process of ours, or in dbt Cloud where the settings name a job."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Protocol

from ecomm_pipeline.databricks import Warehouse, connect
from ecomm_pipeline.dbt_runner import plan
from ecomm_pipeline.dbt_runner.cloud import CloudDbt
from ecomm_pipeline.dbt_runner.local import LocalDbt
from ecomm_pipeline.dbt_runner.project import find, sources
from ecomm_pipeline.errors import EcommError, MissingSourceError
from ecomm_pipeline.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from ecomm_pipeline.settings import DbtRunnerSettings
    from ecomm_pipeline.stage import StageContext

__all__ = ["Dbt", "build", "run"]


class Dbt(Protocol):
    """Where dbt runs, for one try of the stage. Each method is called once, in this order."""

    @property
    def url(self) -> str | None:
        """Where people see it, once it has started."""

    @property
    def project(self) -> str:
        """What is built, as the ledger keeps it."""

    def prepare(self) -> None:
        """See that it can begin."""

    def start(self) -> bool:
        """Begin a build of `figures["select"]`; whether it does only what an earlier try of the run left."""

    def wait(self) -> None:
        """Wait until it has ended, well or badly."""

    def end(self) -> dict[str, bytes]:
        """Give its artifacts by name, however the wait ended: manifest.json, run_results.json, dbt.log."""

    def failure(self, done: Sequence[plan.NodeOutcome]) -> EcommError | None:
        """Make the error of the build from the outcomes in its artifacts; None when it went well."""


def build(context: StageContext, settings: DbtRunnerSettings, *, select: str = "") -> None:
    """Build all KPI tables on the SQL warehouse, or what is left to do of an earlier try of the same run.

    `select` is dbt's node selection, all when empty. Fills the record: `rows_in` of the gold tables, `rows_out` of the
    KPI tables that were built, `remote["invocation_id"]`, `figures["nodes"]` (status, seconds, rows, message of each
    model and test), a P3 finding for each test that warns. The artifacts are on S3 afterwards, however it ends.

    Raises `ConfigurationError` when the project, the selection or the job is wrong, `MissingSourceError` that names the
    gold tables that are not there, `BadDataError` for a failing test or contract, `UpstreamFailedError` for SQL that
    the warehouse refused, `TimedOutError`, `CancelledError`, and what `databricks_errors` and `CloudApi` raise.
    """
    project = find(settings.dbt.project_dir)
    in_cloud = settings.dbt_cloud.job_id is not None
    chosen: AbstractContextManager[Dbt] = (
        CloudDbt(context, settings.dbt_cloud) if in_cloud else LocalDbt(context, settings, project)
    )
    with chosen as dbt:
        warehouse = _warehouse(context, settings)
        dbt.prepare()
        tables = _look_at_sources(warehouse, sources(project), settings.databricks.catalog)
        context.record.figures.update(select=select, project=dbt.project, sources=tables)
        context.record.rows_in = sum(int(source["rows"]) for source in tables.values())
        run(context, dbt, warehouse)


def run(context: StageContext, dbt: Dbt, warehouse: Warehouse) -> None:
    """Have dbt build `figures["select"]`, and fill the record with what became of it, however it ends."""
    figures = context.record.figures
    resumed = dbt.start()
    before = context.previous.figures.get("nodes", {}) if resumed and context.previous else {}
    figures.update(resumed=resumed, nodes=before)
    context.checkpoint()
    try:
        dbt.wait()
    finally:
        done = _keep(context, dbt.end())
        figures["nodes"] = nodes = plan.merged(before, done)
        context.record.findings = plan.findings(nodes)
    _report(done, dbt.url)
    error = dbt.failure(done)
    _count_rows(context, warehouse, done)
    if error:
        raise error


# The warehouse


def _warehouse(context: StageContext, settings: DbtRunnerSettings) -> Warehouse:
    databricks = settings.databricks
    return Warehouse(connect(databricks), databricks.warehouse_id, databricks.catalog, context.clock, context.stop)


def _look_at_sources(warehouse: Warehouse, tables: list[plan.SourceTable], catalog: str) -> dict[str, Any]:
    """Give rows and newest time of each table that the project reads; `MissingSourceError` names all that lack."""
    if not tables:
        return {}
    try:
        found = warehouse.query(plan.fingerprint_sql(catalog, tables)).rows
    except MissingSourceError as error:
        missing = [str(table) for table in tables if not _exists(warehouse, catalog, table)]
        if not missing:
            raise
        message = f"missing in catalog {catalog}: {', '.join(missing)}"
        raise MissingSourceError(message, next_step="run dlt-trigger for the date, then this command again") from error
    return {str(name): {"rows": int(rows or 0), "newest": newest} for name, rows, newest in found}


def _exists(warehouse: Warehouse, catalog: str, table: plan.SourceTable) -> bool:
    try:
        warehouse.query(f"SELECT 1 FROM `{catalog}`.`{table.schema}`.`{table.name}` LIMIT 0")  # noqa: S608 (project's names)
    except MissingSourceError:
        return False
    return True


def _count_rows(context: StageContext, warehouse: Warehouse, done: list[plan.NodeOutcome]) -> None:
    """Note the rows of each table that was built; a count is not worth failing for."""
    built = {outcome.name: outcome.relation for outcome in done if outcome.status == "success" and outcome.relation}
    if not built:
        return
    try:
        rows = {str(name): int(count or 0) for name, count in warehouse.query(plan.count_sql(built)).rows}
    except EcommError as error:
        get_logger().warning("dbt.rows_uncounted", reason=error.message)
        return
    nodes = context.record.figures["nodes"]
    for name, count in rows.items():
        nodes[name]["rows"] = count
    context.record.rows_out = sum(node.get("rows", 0) for node in nodes.values())


# What is kept


def _keep(context: StageContext, artifacts: dict[str, bytes]) -> list[plan.NodeOutcome]:
    """Copy dbt's artifacts to S3 and give the outcomes in them; what hinders that must not hide why dbt failed."""
    kept = context.layout.artifacts("dbt-runner", context.run_id)
    try:
        context.store.put_all({f"{kept}/{name}": content for name, content in artifacts.items()})
    except EcommError as error:
        get_logger().warning("dbt.artifacts_not_kept", reason=error.message)
    if not {"run_results.json", "manifest.json"} <= artifacts.keys():
        return []
    try:
        return plan.outcomes(json.loads(artifacts["run_results.json"]), json.loads(artifacts["manifest.json"]))
    except (ValueError, KeyError) as error:
        get_logger().warning("dbt.artifacts_unreadable", reason=str(error))
        return []


def _report(done: list[plan.NodeOutcome], url: str | None) -> None:
    """Log one line for each model or test that failed."""
    where = {"url": url} if url else {}
    for outcome in done:
        if outcome.failed:
            get_logger().error("dbt.failed", node=outcome.name, file=outcome.file, **_what(outcome), **where)


def _what(outcome: plan.NodeOutcome) -> dict[str, Any]:
    figures = outcome.figures()
    return {name: figures[name] for name in ("status", "failures", "message", "seconds") if name in figures}
