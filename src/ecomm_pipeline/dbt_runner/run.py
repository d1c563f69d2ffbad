"""Builds and tests the KPI tables with dbt, in a process of its own (docs/adr/0003-dbt-as-a-subprocess.md)."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, TYPE_CHECKING, Any, Final

from ecomm_pipeline.databricks import Warehouse, connect, databricks_errors
from ecomm_pipeline.dbt_runner import plan
from ecomm_pipeline.errors import (
    ConfigurationError,
    EcommError,
    MissingSourceError,
    TimedOutError,
)
from ecomm_pipeline.logs import get_logger
from ecomm_pipeline.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Iterator

    from databricks.sdk import WorkspaceClient

    from ecomm_pipeline.settings import DbtRunnerSettings
    from ecomm_pipeline.stage import StageContext

__all__ = ["build"]

ARTIFACTS: Final = ("manifest.json", "run_results.json", "dbt.log")
"""What is kept on S3 of every run, under `Layout.artifacts`."""
_STOP_SECONDS: Final = 15
"""How long an interrupted dbt may take to cancel its statements, before it is killed."""
_POLL: Final = 2.0


def build(context: StageContext, settings: DbtRunnerSettings, *, select: str = "") -> None:
    """Run `dbt build` on the SQL warehouse, or what is left of it from an earlier try of the same run.

    `select` is dbt's node selection, all when empty. Fills the record: `rows_in` of the gold tables, `rows_out` of the
    KPI tables that were built, `remote["invocation_id"]`, `figures["nodes"]` (status, seconds, rows, message of each
    model and test), a P3 finding for each test that warns. The artifacts are on S3 afterwards, however it ends.

    Raises `ConfigurationError` when the project or the selection is wrong, `MissingSourceError` that names the gold
    tables that are not there, `BadDataError` for a failing test or contract, `UpstreamFailedError` for SQL that the
    warehouse refused, `TimedOutError`, `CancelledError`, and what `databricks_errors` raises.
    """
    project = _project(settings.dbt.project_dir)
    with TemporaryDirectory(prefix="ecomm-dbt-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        with _process(context, folder, settings) as process:  # imports dbt while we ask Databricks
            client = connect(settings.databricks)
            _warm_up(context, client, settings)
            warehouse = Warehouse(
                client,
                settings.databricks.warehouse_id,
                settings.databricks.catalog,
                context.clock,
                context.stop,
            )
            figures = context.record.figures
            figures.update(
                select=select, project=_digest(project), sources=_look_at_sources(warehouse, project, settings)
            )
            context.record.rows_in = sum(int(source["rows"]) for source in figures["sources"].values())
            resumed = plan.may_resume(context.previous, figures) and _restore(context, folder)
            arguments = plan.arguments(
                project=project,
                target=folder / "target",
                logs=folder,
                threads=settings.dbt.threads,
                select=select,
                resume_from=folder / "state" if resumed else None,
            )
            _run(context, settings, process, arguments, folder, warehouse, resumed=resumed)


def _run(
    context: StageContext,
    settings: DbtRunnerSettings,
    process: subprocess.Popen[str],
    arguments: list[str],
    folder: Path,
    warehouse: Warehouse,
    *,
    resumed: bool,
) -> None:
    before = context.previous.figures.get("nodes", {}) if resumed and context.previous else {}
    context.record.figures.update(resumed=resumed, nodes=before)
    context.checkpoint()
    try:
        log = _follow(context, process, arguments, settings.dbt.timeout)
    finally:
        _stop(process)
        done = _keep(context, folder)
        context.record.figures["nodes"] = nodes = plan.merged(before, done)
        context.record.findings = plan.findings(nodes)
    _report(done)
    error = plan.failure(done, exit_code=process.returncode, log=[*log, *_stderr(folder)])
    if error is None and not done:
        message = f"--select {context.record.figures['select']!r} names no model or test of the dbt project"
        raise ConfigurationError(message, next_step="see the names with `dbt list` in the project's folder")
    _count_rows(context, warehouse, done)
    if error:
        raise error


# The project


def _project(folder: Path) -> Path:
    project = folder.resolve()
    if (project / "dbt_project.yml").is_file():
        return project
    message = f"there is no dbt project in {folder}"
    raise ConfigurationError(message, next_step="set ECOMM_DBT_PROJECT_DIR to the folder that holds dbt_project.yml")


def _files(project: Path) -> list[Path]:
    left_out = {"target", "logs", "dbt_packages"}
    return sorted(
        path
        for path in project.rglob("*")
        if path.is_file()
        and path.suffix in {".sql", ".yml", ".yaml", ".csv"}
        and not left_out.intersection(path.relative_to(project).parts)
    )


def _digest(project: Path) -> str:
    digest = hashlib.sha256()
    for path in _files(project):
        digest.update(f"{path.relative_to(project)}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def _sources(project: Path) -> list[plan.SourceTable]:
    import yaml

    documents = [path for path in _files(project) if path.suffix in {".yml", ".yaml"}]
    try:
        return plan.source_tables(yaml.safe_load(path.read_text()) for path in documents)
    except yaml.YAMLError as error:
        message = f"a YAML file of the dbt project cannot be read: {' '.join(str(error).split())}"
        raise ConfigurationError(message, next_step="mend it; `dbt parse` checks the whole project") from error


# The warehouse, before dbt


def _warm_up(context: StageContext, client: WorkspaceClient, settings: DbtRunnerSettings) -> None:
    """Start the SQL warehouse and wait until it runs: a cold one answers dbt's connections with errors."""
    from databricks.sdk.service.sql import State

    name, clock = settings.databricks.warehouse_id, context.clock
    deadline = clock.monotonic() + settings.dbt.warmup_timeout
    with databricks_errors(f"SQL warehouse {name}"), Progress("warehouse", clock) as progress:
        while (state := client.warehouses.get(name).state) is not State.RUNNING:
            if state in (State.DELETED, State.DELETING):
                message = f"the SQL warehouse {name} is deleted"
                raise MissingSourceError(message, next_step="set ECOMM_DATABRICKS_WAREHOUSE_ID to one that exists")
            if clock.monotonic() > deadline:
                message = (
                    f"the SQL warehouse {name} is still {state and state.value} after {settings.dbt.warmup_timeout} s"
                )
                raise TimedOutError(
                    message, next_step="look at the warehouse's events; then run the same command again"
                )
            if state is State.STOPPED:
                client.warehouses.start(name)
            progress(state=state.value if state else "unknown")
            clock.sleep(_POLL)


def _look_at_sources(warehouse: Warehouse, project: Path, settings: DbtRunnerSettings) -> dict[str, Any]:
    """Give rows and newest time of each table that the project reads; `MissingSourceError` names all that lack."""
    tables, catalog = _sources(project), settings.databricks.catalog
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


# The process


@contextmanager
def _process(context: StageContext, folder: Path, settings: DbtRunnerSettings) -> Iterator[subprocess.Popen[str]]:
    """Start the process that dbt runs in; it is gone when the block ends, with all that it started."""
    command = [sys.executable, "-P", "-m", "ecomm_pipeline.dbt_runner.child"]
    with (folder / "stderr.txt").open("w") as stderr:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            cwd=folder,
            env=_child_environment(context.run_id, settings),
            start_new_session=True,  # a ^C on the terminal is ours to pass on, and killing the group reaches all of it
        )
    try:
        yield process
    finally:
        _stop(process)


def _child_environment(run_id: str, settings: DbtRunnerSettings) -> dict[str, str]:
    """Our own environment (proxies, certificates) without what would steer dbt, and the settings for profiles.yml."""
    databricks = settings.databricks
    secrets = {
        "TOKEN": databricks.token and databricks.token.get_secret_value(),
        "CLIENT_ID": databricks.client_id,
        "CLIENT_SECRET": databricks.client_secret and databricks.client_secret.get_secret_value(),
    }
    ours = {
        "HOST": databricks.host,
        "WAREHOUSE_ID": databricks.warehouse_id,
        "CATALOG": databricks.catalog,
        **{name: value or "" for name, value in secrets.items()},
    }
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("DBT_", "DATABRICKS_"))}
    return {
        **inherited,
        **{f"ECOMM_DATABRICKS_{name}": value for name, value in ours.items()},
        "ECOMM_RUN_ID": run_id,
    }


def _follow(context: StageContext, process: subprocess.Popen[str], arguments: list[str], timeout: float) -> list[str]:
    """Let dbt go and read its log to the end; gives the error lines.

    Raises `TimedOutError` after `timeout` seconds. The caller stops the process.
    """
    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(process.stdout, lines), daemon=True).start()
    if process.stdin:
        with contextlib.suppress(BrokenPipeError):  # it died on import: its exit code and standard error tell why
            process.stdin.write(json.dumps(arguments) + "\n")
            process.stdin.flush()
    deadline = context.clock.monotonic() + timeout
    errors: list[str] = []
    with Progress("dbt", context.clock) as progress:
        while (line := _next(lines, deadline - context.clock.monotonic(), timeout)) is not None:
            event = plan.parse_event(line)
            if event:
                _note(context, event, errors, progress)
            elif line.strip():
                errors.append(line.strip())
    with contextlib.suppress(subprocess.TimeoutExpired):  # it has said all; the caller ends it
        process.wait(_STOP_SECONDS)
    return errors


def _read(stream: IO[str] | None, lines: queue.SimpleQueue[str | None]) -> None:
    for line in stream or ():
        lines.put(line)
    lines.put(None)


def _next(lines: queue.SimpleQueue[str | None], seconds: float, limit: float) -> str | None:
    try:
        return lines.get(timeout=max(0, seconds))
    except queue.Empty:
        message = f"dbt did not end within {limit:.0f} s and was stopped"
        raise TimedOutError(message, next_step="see dbt.log among the run's artifacts for what it waited for") from None


def _note(context: StageContext, event: plan.Event, errors: list[str], progress: Progress) -> None:
    if context.record.remote.get("invocation_id") != event.invocation_id:
        context.record.remote["invocation_id"] = event.invocation_id
        context.checkpoint()
    if event.level == "error":
        errors.append(event.message)
    elif event.level == "warn":
        get_logger().warning("dbt.warning", message=event.message)
    if event.index and event.total:
        progress(node=event.node or "", done=event.index, of=event.total)


def _stop(process: subprocess.Popen[str]) -> None:
    """Interrupt dbt, so that it cancels its statements; kill it and what it started when that takes too long."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    for stream in (process.stdin, process.stdout):
        if stream:
            with contextlib.suppress(OSError):
                stream.close()


def _stderr(folder: Path) -> list[str]:
    """Give the last lines that the process wrote to standard error: a traceback's end, where it died on its own."""
    return (folder / "stderr.txt").read_text(errors="replace").splitlines()[-3:]


# What is kept


def _restore(context: StageContext, folder: Path) -> bool:
    """Fetch the results of this run's earlier try into `folder`/state; False when they are not there."""
    kept = context.layout.artifacts("dbt-runner", context.run_id)
    results = context.store.get(f"{kept}/run_results.json")
    if results is None:
        return False
    (folder / "state").mkdir()
    (folder / "state" / "run_results.json").write_bytes(results)
    return True


def _keep(context: StageContext, folder: Path) -> list[plan.NodeOutcome]:
    """Copy dbt's artifacts to S3 and give the outcomes in them; what hinders that must not hide why dbt failed."""
    paths = {name: folder / ("dbt.log" if name == "dbt.log" else f"target/{name}") for name in ARTIFACTS}
    contents = {name: path.read_bytes() for name, path in paths.items() if path.is_file()}
    kept = context.layout.artifacts("dbt-runner", context.run_id)
    try:
        context.store.put_all({f"{kept}/{name}": content for name, content in contents.items()})
    except EcommError as error:
        get_logger().warning("dbt.artifacts_not_kept", reason=error.message)
    if not {"run_results.json", "manifest.json"} <= contents.keys():
        return []
    try:
        return plan.outcomes(json.loads(contents["run_results.json"]), json.loads(contents["manifest.json"]))
    except (ValueError, KeyError) as error:
        get_logger().warning("dbt.artifacts_unreadable", reason=str(error))
        return []


def _report(done: list[plan.NodeOutcome]) -> None:
    """Log one line for each model or test that failed."""
    for outcome in done:
        if outcome.failed:
            get_logger().error("dbt.failed", node=outcome.name, file=outcome.file, **_what(outcome))


def _what(outcome: plan.NodeOutcome) -> dict[str, Any]:
    figures = outcome.figures()
    return {name: figures[name] for name in ("status", "failures", "message", "seconds") if name in figures}
