"""dbt in dbt Cloud: a run of the job that builds the KPI tables there (docs/dbt-cloud.md).

One build has one run, and those that retry it: a new process finds them by the reason that they were given.
"""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Final, Self, TypeVar

from ecomm_pipeline.dbt_runner import cloud_plan, plan
from ecomm_pipeline.dbt_runner.cloud_api import CloudApi
from ecomm_pipeline.errors import (
    CancelledError,
    ConfigurationError,
    EcommError,
    TimedOutError,
    UnavailableError,
    UpstreamFailedError,
)
from ecomm_pipeline.logs import get_logger
from ecomm_pipeline.patience import patiently
from ecomm_pipeline.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ecomm_pipeline.settings import DbtCloud
    from ecomm_pipeline.stage import StageContext

__all__ = ["CloudDbt"]

T = TypeVar("T")

_SERVICE: Final = "dbt-cloud"
_START_ATTEMPTS: Final = 5
_DONE: Final = {"trigger": "triggered", "retry": "retried", "follow": "followed"}
_LAST_LINES: Final = 5
"""Lines of a failed command's log that say why it failed, where dbt ran no model."""
_STOPS_WITHIN: Final = 15.0
"""Seconds to see a cancelled run end: Kubernetes kills 30 s after SIGTERM."""


class CloudDbt:
    """One try of the stage: the run that it waits for, and those that this one goes on with."""

    def __init__(self, context: StageContext, settings: DbtCloud) -> None:
        self._context = context
        self._clock = context.clock
        self._settings = settings
        self._api = CloudApi(settings, context.clock)
        self._cause = ""
        self._ours: list[cloud_plan.CloudRun] = []
        self._run: cloud_plan.CloudRun | None = None
        self._left_results = False
        self._unread: EcommError | None = None

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connections; the run goes on unless it ended or was cancelled."""
        self._api.close()

    @property
    def url(self) -> str | None:
        """The run's page."""
        return self._run.url or None if self._run else None

    @property
    def project(self) -> str:
        """What is built: whatever the job checks out."""
        return f"dbt Cloud {self._api.job}"

    def prepare(self) -> None:
        """See that the job is there. The warehouse is not awaited: dbt Cloud connects to it itself."""
        name = self._ask(self._api.name)
        get_logger().info("dbt-cloud.job", name=name, job=self._api.job)

    def start(self) -> bool:
        """Trigger the job, retry a run of ours that failed, or come back to one of ours."""
        record = self._context.record
        self._cause = cloud_plan.cause(self._context.run_id, self._context.dates, record.figures)
        try:
            self._run = self._begin()
        except CancelledError:
            self._cancel()
            raise
        # For people; `run` writes it down before it waits. We find the run by its cause.
        record.remote |= {"cloud_run_id": self._run.id, "cloud_run_url": self._run.url}
        return bool(self._run.retries)

    def _begin(self) -> cloud_plan.CloudRun:
        failed = 0
        while True:
            action = self._decide()
            try:
                run = self._act(action)
            except UnavailableError:  # it may have been started: the next look tells
                failed += 1
                if failed >= _START_ATTEMPTS:
                    raise
                self._clock.sleep(self._settings.poll_interval)
            else:
                get_logger().info(f"dbt-cloud.{_DONE[action.kind]}", run_id=run.id, url=run.url)
                return run

    def _decide(self) -> cloud_plan.Action:
        self._ours = cloud_plan.lineage(self._ask(self._api.runs), self._cause)
        previous = self._context.previous
        return cloud_plan.decide(
            self._ours,
            outcome=previous.outcome if previous else None,
            stopped=self._context.record.remote.get("stopped_cloud_run_id"),
        )

    def _act(self, action: cloud_plan.Action) -> cloud_plan.CloudRun:
        if action.kind == "follow" and action.run:
            return action.run
        if action.kind == "retry" and action.run:
            try:
                return self._api.retry(action.run.id)
            except ConfigurationError as error:
                get_logger().warning("dbt-cloud.not_retried", run_id=action.run.id, reason=error.message)
        return self._api.trigger(self._cause, cloud_plan.steps_override(self._context.record.figures["select"]))

    def wait(self) -> None:
        """Look at the run until it has ended; when we are stopped it is cancelled.

        Raises `TimedOutError` when a budget is exhausted, which a run has once, however many tries wait for it.
        """
        try:
            with Progress(_SERVICE, self._clock) as progress:
                while (run := self._look()).active:
                    self._spend(run)
                    step = run.steps[-1].name if run.steps else ""
                    progress(run=run.id, state=run.phase, step=step)
                    self._clock.sleep(self._settings.poll_interval)
        except CancelledError:
            self._cancel()
            raise

    def _look(self) -> cloud_plan.CloudRun:
        self._context.stop.check()
        self._run = self._ask(partial(self._api.run, self._id))
        return self._run

    def _spend(self, run: cloud_plan.CloudRun) -> None:
        budget, seconds = cloud_plan.spent(run, self._clock.now())
        limit = self._settings.queue_timeout if budget == "queue" else self._settings.run_timeout
        if seconds > limit:
            variable = f"ECOMM_DBT_CLOUD_{budget.upper()}_TIMEOUT"
            message = f"run {run.id} of dbt Cloud is {run.phase} after {seconds:.0f} s; {variable} is {limit} s"
            next_step = f"it goes on at {run.url}; continue this run once that has ended, or with a larger {variable}"
            raise TimedOutError(message, next_step=next_step)

    def _cancel(self) -> None:
        """Cancel the run that we wait for and see it end; what goes wrong is told, not raised."""
        deadline = self._clock.monotonic() + _STOPS_WITHIN
        try:
            ours = [self._run] if self._run else cloud_plan.lineage(self._api.runs(), self._cause)
            if not ours or not ours[-1].active:
                return
            run = ours[-1]
            self._context.record.remote["stopped_cloud_run_id"] = run.id
            self._api.cancel(run.id)
            self._context.checkpoint()
            while run.active and self._clock.monotonic() < deadline:
                self._clock.sleep(min(self._settings.poll_interval, 1.0))
                run = self._api.run(run.id)
            self._run = run
            get_logger().info("dbt-cloud.cancelled", run_id=run.id, state=run.phase)
        except EcommError as error:
            get_logger().warning("dbt-cloud.not_cancelled", cause=self._cause, reason=error.message)

    def end(self) -> dict[str, bytes]:
        """Fetch what the run, and those that it goes on with, left; what hinders that is told by `failure`."""
        if self._run is None or self._run.active:
            return {}
        try:
            return self._fetch(self._run)
        except EcommError as error:
            self._unread = error
        except (ValueError, KeyError, TypeError) as error:
            self._unread = UnavailableError(f"they are no JSON of dbt's: {type(error).__name__} {error}")
        get_logger().warning("dbt-cloud.artifacts_unread", run_id=self._id, reason=self._unread.message)
        return {}

    def _fetch(self, run: cloud_plan.CloudRun) -> dict[str, bytes]:
        pairs: list[tuple[bytes | None, bytes | None]] = []
        for one in cloud_plan.chain(self._ours, run):
            told = self._call(partial(self._api.run, one.id, logs=True))
            left = [self._artifacts(one.id, step.index) for step in told.steps if step.builds]
            self._left_results = any(results for results, _ in left)
            pairs += left
        self._run = told
        found = cloud_plan.artifacts(pairs)
        if results := found.get("run_results.json"):
            self._context.record.remote["invocation_id"] = json.loads(results)["metadata"]["invocation_id"]
        return {**found, "dbt.log": "\n".join(f"== {step.name}\n{step.log}" for step in told.steps).encode()}

    def _artifacts(self, run_id: int, step: int) -> tuple[bytes | None, bytes | None]:
        results = self._call(partial(self._api.artifact, run_id, "run_results.json", step))
        return results, self._call(partial(self._api.artifact, run_id, "manifest.json", step)) if results else None

    def failure(self, done: Sequence[plan.NodeOutcome]) -> EcommError | None:
        """Make the error of the run: by its models and tests where it ran any, else by what dbt Cloud says of it."""
        run = self._run
        if run is None:
            return None
        name = f"run {run.id} of dbt Cloud"
        if run.phase == "cancelled":
            next_step = f"see who cancelled it and why at {run.url}; then run it again"
            return UpstreamFailedError(f"{name} was cancelled there", next_step=next_step)
        if run.phase == "error":
            step = next((step for step in run.steps if step.failed), None)
            how = f"{name} failed{f' in the step {step.name}' if step else ''}"
            log = [run.said, *(step.log.splitlines()[-_LAST_LINES:] if step else ())]
            return plan.failure(done if self._left_results else (), how=how, log=log, url=run.url)
        if self._unread:
            message = f"{name} succeeded, but its artifacts cannot be had: {self._unread.message}"
            return UnavailableError(message, next_step="run the same command again: it looks at the same run")
        if not done:
            next_step = f"it must run `dbt build` in an environment of the project; see {run.url}"
            return ConfigurationError(f"{name} built no model and ran no test", next_step=next_step)
        return plan.failure(done, url=run.url)

    @property
    def _id(self) -> int:
        return self._run.id if self._run else 0

    def _ask(self, call: Callable[[], T]) -> T:
        return patiently(self._clock, _SERVICE, call)

    def _call(self, call: Callable[[], T]) -> T:
        """Ask patiently, or but once where we were told to stop."""
        return call() if self._context.stop.reason else self._ask(call)
