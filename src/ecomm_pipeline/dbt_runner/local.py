"""dbt in a process of its own beside this one (docs/adr/0003-dbt-as-a-subprocess.md)."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, TYPE_CHECKING, Final, Self

from ecomm_pipeline.databricks import connect, databricks_errors, look_at_warehouse
from ecomm_pipeline.dbt_runner import plan
from ecomm_pipeline.dbt_runner.project import digest
from ecomm_pipeline.errors import ConfigurationError, TimedOutError
from ecomm_pipeline.logs import get_logger
from ecomm_pipeline.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ecomm_pipeline.errors import EcommError
    from ecomm_pipeline.settings import DbtRunnerSettings
    from ecomm_pipeline.stage import StageContext

__all__ = ["LocalDbt"]

_ARTIFACTS: Final = ("target/manifest.json", "target/run_results.json", "dbt.log")
_STOP_SECONDS: Final = 15
"""How long an interrupted dbt may take to cancel its statements, before it is killed."""
_POLL: Final = 2.0


class LocalDbt:
    """One build by a process of ours, in a folder of its own. The process is gone when the `with` block ends."""

    url = None

    def __init__(self, context: StageContext, settings: DbtRunnerSettings, project: Path) -> None:
        self._context = context
        self._settings = settings
        self._folder = project
        self._temporary = TemporaryDirectory(prefix="ecomm-dbt-", ignore_cleanup_errors=True)
        self._work = Path(self._temporary.name)
        self._errors: list[str] = []

    def __enter__(self) -> Self:
        """Start the process, which imports dbt while we ask Databricks."""
        self._process = _spawn(self._context.run_id, self._settings, self._work)
        return self

    def __exit__(self, *_: object) -> None:
        """See that nothing is left of it."""
        _stop(self._process)
        self._temporary.cleanup()

    @property
    def project(self) -> str:
        """What is built; results of another are not resumed."""
        return digest(self._folder)

    def prepare(self) -> None:
        """Start the SQL warehouse and wait until it runs: a cold one answers dbt's connections with errors."""
        from databricks.sdk.service.sql import State

        name, clock, limit = self._settings.databricks.warehouse_id, self._context.clock, self._settings.dbt
        client = connect(self._settings.databricks)
        deadline = clock.monotonic() + limit.warmup_timeout
        with databricks_errors(f"SQL warehouse {name}"), Progress("warehouse", clock) as progress:
            while (state := look_at_warehouse(client, name).state) is not State.RUNNING:
                if clock.monotonic() > deadline:
                    message = (
                        f"the SQL warehouse {name} is still {state and state.value} after {limit.warmup_timeout} s"
                    )
                    next_step = "look at the warehouse's events; then run the same command again"
                    raise TimedOutError(message, next_step=next_step)
                if state is State.STOPPED:
                    client.warehouses.start(name)
                progress(state=state.value if state else "unknown")
                clock.sleep(_POLL)

    def start(self) -> bool:
        """Let dbt go; whether it does only what an earlier try left."""
        figures = self._context.record.figures
        resumed = plan.may_resume(self._context.previous, figures) and self._restore()
        arguments = plan.arguments(
            project=self._folder,
            target=self._work / "target",
            logs=self._work,
            threads=self._settings.dbt.threads,
            select=figures["select"],
            resume_from=self._work / "state" if resumed else None,
        )
        if self._process.stdin:
            with contextlib.suppress(BrokenPipeError):  # it died on import: its exit code and standard error tell why
                self._process.stdin.write(json.dumps(arguments) + "\n")
                self._process.stdin.flush()
        return resumed

    def _restore(self) -> bool:
        """Fetch the results of this run's earlier try; False when they are not there."""
        kept = self._context.layout.artifacts("dbt-runner", self._context.run_id)
        results = self._context.store.get(f"{kept}/run_results.json")
        if results is None:
            return False
        (self._work / "state").mkdir()
        (self._work / "state" / "run_results.json").write_bytes(results)
        return True

    def wait(self) -> None:
        """Read dbt's log to the end. Raises `TimedOutError`; `end` stops the process."""
        lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        threading.Thread(target=_read, args=(self._process.stdout, lines), daemon=True).start()
        clock, limit = self._context.clock, self._settings.dbt.timeout
        deadline = clock.monotonic() + limit
        with Progress("dbt", clock) as progress:
            while (line := _next(lines, deadline - clock.monotonic(), limit)) is not None:
                event = plan.parse_event(line)
                if event:
                    self._note(event, progress)
                elif line.strip():
                    self._errors.append(line.strip())
        with contextlib.suppress(subprocess.TimeoutExpired):  # it has said all; `end` ends it
            self._process.wait(_STOP_SECONDS)

    def _note(self, event: plan.Event, progress: Progress) -> None:
        remote = self._context.record.remote
        if remote.get("invocation_id") != event.invocation_id:
            remote["invocation_id"] = event.invocation_id
            self._context.checkpoint()
        if event.level == "error":
            self._errors.append(event.message)
        elif event.level == "warn":
            get_logger().warning("dbt.warning", message=event.message)
        if event.index and event.total:
            progress(node=event.node or "", done=event.index, of=event.total)

    def end(self) -> dict[str, bytes]:
        """Stop dbt if it still runs, and give its artifacts by name."""
        _stop(self._process)
        paths = (self._work / name for name in _ARTIFACTS)
        return {path.name: path.read_bytes() for path in paths if path.is_file()}

    def failure(self, done: Sequence[plan.NodeOutcome]) -> EcommError | None:
        """Make the error of the build; None when it went well."""
        code = self._process.returncode
        how = f"dbt ended with exit code {code} before it ran a model" if code else ""
        # Of standard error the last lines: a traceback's end, where it died on its own.
        said = (self._work / "stderr.txt").read_text(errors="replace").splitlines()[-3:]
        error = plan.failure(done, how=how, log=[*self._errors, *said])
        if error is None and not done:
            message = f"--select {self._context.record.figures['select']!r} names no model or test of the dbt project"
            return ConfigurationError(message, next_step="see the names with `dbt list` in the project's folder")
        return error


def _spawn(run_id: str, settings: DbtRunnerSettings, folder: Path) -> subprocess.Popen[str]:
    """Start the process that dbt runs in."""
    command = [sys.executable, "-P", "-m", "ecomm_pipeline.dbt_runner.child"]
    with (folder / "stderr.txt").open("w") as stderr:
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            cwd=folder,
            env=_environment(run_id, settings),
            start_new_session=True,  # a ^C on the terminal is ours to pass on, and killing the group reaches all of it
        )


def _environment(run_id: str, settings: DbtRunnerSettings) -> dict[str, str]:
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
