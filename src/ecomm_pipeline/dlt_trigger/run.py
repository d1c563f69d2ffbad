"""dlt-trigger: update the Databricks pipeline and wait for that update.

Upstream: https://databricks-sdk-py.readthedocs.io/en/latest/workspace/pipelines/pipelines.html
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final

from ecomm_pipeline.databricks import connect
from ecomm_pipeline.dlt_trigger import plan
from ecomm_pipeline.dlt_trigger.pipeline import EventLog, Pipeline
from ecomm_pipeline.errors import (
    CancelledError,
    EcommError,
    MissingSourceError,
    TimedOutError,
    UnavailableError,
    UpstreamFailedError,
)
from ecomm_pipeline.layout import begun_at
from ecomm_pipeline.logs import get_logger
from ecomm_pipeline.patience import patiently
from ecomm_pipeline.progress import Progress

if TYPE_CHECKING:
    from datetime import datetime

    from ecomm_pipeline.settings import DltTrigger, DltTriggerSettings
    from ecomm_pipeline.stage import StageContext

__all__ = ["Trigger", "update_pipeline"]

_SERVICE: Final = "databricks"
_START_ATTEMPTS: Final = 5
_APPEARS_WITHIN: Final = 60.0
"""Seconds that a started update may take to be found under its id."""
_LOG_ARRIVES_WITHIN: Final = 15.0
"""Seconds that the event log may take to tell an update's end after its state does."""
_STOPS_WITHIN: Final = 20.0
"""Seconds to see a stopped update end: Kubernetes kills 30 s after SIGTERM."""
_CLOCK_SKEW: Final = timedelta(hours=1)


def update_pipeline(context: StageContext, settings: DltTriggerSettings) -> None:
    """Update the pipeline once for this run and wait until that update, or what replaced it, has ended.

    Fills the record: `remote.update_id`, rows written by table, expectations, rescued and dropped rows. Raises
    `UpstreamFailedError` when the update failed or was cancelled there, `UnavailableError` when it got no compute or
    nobody answers, `TimedOutError` when a budget is exhausted, which an update has once, however many tries of the run
    wait for it (it goes on; the same run re-attaches), `CancelledError` when we are stopped here; then what we started
    is stopped too.
    """
    pipeline = Pipeline(connect(settings.databricks), settings.dlt.pipeline_id)
    with Progress(context.stage, context.clock) as progress:
        Trigger(context, settings.dlt, pipeline, progress).run()


class Trigger:
    """One try of the stage: what it knows between two looks at the pipeline."""

    def __init__(self, context: StageContext, settings: DltTrigger, pipeline: Pipeline, progress: Progress) -> None:
        self._context = context
        self._clock = context.clock
        self._settings = settings
        self._pipeline = pipeline
        self._progress = progress
        self._key = plan.Key(context.run_id, str(context.dates))
        self._budgets = plan.Budgets(queue=settings.queue_timeout, run=settings.run_timeout)
        self._began = _began(context)
        self._following = False
        self._failed_at: float | None = None
        self._started: dict[str, float] = {}
        self._failed_starts = 0
        self._awaited = ""
        self._waited_for_turn = 0.0
        self._log = EventLog(pipeline)
        self._run_began = context.record.started_at
        self._known = self._remembered()
        self._stopped = str(context.record.remote.get("stopped_update_id", ""))

    def run(self) -> None:
        """Do it all."""
        try:
            updates = self._follow()
        except CancelledError:
            self._stop_ours()
            raise
        self._record(updates)

    def _remembered(self) -> list[str]:
        """Give the ids of an earlier try of the same run and dates; another range's are not ours."""
        remote, previous = self._context.record.remote, self._context.previous
        if previous is not None and previous.dates != self._context.dates:
            remote.clear()
            self._run_began = self._clock.now()
        remote["pipeline_id"] = self._pipeline.id
        return [str(id_) for id_ in remote.get("update_ids", [])]

    def _follow(self) -> tuple[plan.Update, ...]:
        """Wait, looking now and then, until an update of ours completed."""
        looked = self._clock.monotonic()
        while True:
            self._context.stop.check()
            step = self._decide()
            if isinstance(step, plan.Finish):
                self._remember(step.updates)
                return step.updates
            if isinstance(step, plan.GiveUp):
                raise self._failure(step.updates)
            if isinstance(step, plan.Start):
                self._start()
            else:
                self._note(step)
                self._clock.sleep(self._settings.poll_interval)
            now = self._clock.monotonic()
            self._waited_for_turn += now - looked if isinstance(step, plan.AwaitTurn) else 0
            exhausted = self._budgets.spend(step, now - looked)
            looked = now
            if exhausted:
                raise self._timed_out(step, exhausted)

    def _decide(self) -> plan.Step:
        updates = patiently(self._clock, _SERVICE, self._survey)
        ours = plan.lineage(updates, self._key, self._known)
        # What an earlier try of this run stopped is no failure to report, nor time spent: it only has to end.
        stopped = bool(ours) and ours[-1].id == self._stopped
        following = self._following and not stopped
        step = plan.decide(updates, self._key, self._known, following=following, settled=self._is_settled(updates))
        if isinstance(step, plan.Follow) and not self._following and not stopped:
            self._catch_up(step.updates)
        if isinstance(step, plan.Follow | plan.Settle | plan.Finish | plan.GiveUp):
            self._following = True
        return step

    def _catch_up(self, updates: tuple[plan.Update, ...]) -> None:
        """Count what earlier tries spent on an update that we come back to: it has its budgets once."""
        self._read_log(updates)
        self._budgets.catch_up(plan.spent(updates, self._log.events, self._clock.now()))

    def _survey(self) -> list[plan.Update]:
        """Look at the pipeline's updates, and at the last of ours if its list does not have that (yet, or any more)."""
        updates = self._pipeline.updates(self._began)
        last = self._known[-1] if self._known else None
        if last is None or any(update.id == last for update in updates):
            return updates
        found = self._find(last, created=max((update.created for update in updates), default=0) + 1)
        return [found, *updates] if found else updates

    def _find(self, update_id: str, *, created: int) -> plan.Update | None:
        """Ask for an update by its id; one that was only just started is taken to exist, as the newest."""
        update = self._pipeline.update(update_id)
        if update is not None:
            return update
        started = self._started.get(update_id)
        if started is None:
            return None
        if self._clock.monotonic() - started > _APPEARS_WITHIN:
            message = f"update {update_id} of pipeline {self._pipeline.id} was started and is not to be found"
            raise MissingSourceError(message, next_step=f"look at {self._pipeline.url()}")
        return plan.Update(update_id, "CREATED", created, "API_CALL")

    def _is_settled(self, updates: list[plan.Update]) -> bool:
        """Whether the platform had its time to replace the last update of ours, if that ended badly."""
        ours = plan.lineage(updates, self._key, self._known)
        if not self._following or not ours or ours[-1].phase not in ("failed", "cancelled"):
            self._failed_at = None
            return False
        now = self._clock.monotonic()
        self._failed_at = now if self._failed_at is None else self._failed_at
        replaces = patiently(self._clock, _SERVICE, self._pipeline.may_replace)
        return now - self._failed_at >= self._settings.retry_grace if replaces is None else not replaces

    def _start(self) -> None:
        """Start an update; where it is not certain that it was, the next look tells."""
        try:
            update_id = self._pipeline.start(self._key.parameters)
        except UnavailableError:
            self._failed_starts += 1
            if self._failed_starts >= _START_ATTEMPTS:
                raise
            update_id = None
        if update_id is None:
            self._clock.sleep(self._settings.poll_interval)
            return
        self._started[update_id] = self._clock.monotonic()
        self._following = True
        get_logger().info("dlt-trigger.update_started", update_id=update_id)
        self._remember_ids([update_id])

    def _note(self, step: plan.Step) -> None:
        """Tell people and the ledger what is waited for."""
        if isinstance(step, plan.AwaitTurn):
            if step.update.id != self._awaited:
                get_logger().info("dlt-trigger.awaiting_turn", update_id=step.update.id, state=step.update.state)
                self._awaited = step.update.id
                since = plan.waiting_since(step.update, self._run_began)
                self._budgets.catch_up({"queue": (self._clock.now() - since).total_seconds()})
            self._progress(waiting_for=step.update.id, state=step.update.state)
        elif isinstance(step, plan.Follow | plan.Settle):
            self._remember(step.updates)
            tip = step.updates[-1]
            done, total = self._flows(step.updates) if tip.phase == "running" else (0, 0)
            self._progress(update=tip.id, state=tip.state, flows=f"{done}/{total}")

    def _flows(self, updates: tuple[plan.Update, ...]) -> tuple[int, int]:
        """Look how far the update is."""
        self._read_log(updates)
        return plan.progress(self._log.events, updates[-1].id)

    def _read_log(self, updates: tuple[plan.Update, ...]) -> None:
        """Read what is new in the event log; that it cannot be read is no reason to end the wait."""
        try:
            self._log.read(updates)
        except EcommError as error:
            get_logger().debug("dlt-trigger.log_unread", reason=error.message)

    def _remember(self, updates: tuple[plan.Update, ...]) -> None:
        new = [update for update in updates if update.id not in self._known]
        for update in new:
            event = "update_replaced" if update.succeeds else "update_adopted"
            get_logger().info(f"dlt-trigger.{event}", update_id=update.id, cause=update.cause, state=update.state)
        self._remember_ids([update.id for update in new])

    def _remember_ids(self, update_ids: list[str]) -> None:
        """Write down, before waiting, what a new process must find again."""
        if update_ids:
            self._known += update_ids
            self._context.record.remote |= {"update_id": self._known[-1], "update_ids": list(self._known)}
            self._context.checkpoint()

    def _failure(self, updates: tuple[plan.Update, ...]) -> EcommError:
        self._remember(updates)
        try:
            self._record(updates)
        except EcommError as error:
            get_logger().warning("dlt-trigger.log_unread", reason=error.message)
        tip, url = updates[-1], self._pipeline.url(updates[-1].id)
        summary = plan.summarise(self._log.events, tip.id) or "the event log does not say why"
        if tip.phase == "cancelled":
            message = f"update {tip.id} of pipeline {self._pipeline.id} was cancelled on the platform"
            return UpstreamFailedError(message, next_step=f"see who cancelled it and why at {url}; then run it again")
        message = f"update {tip.id} of pipeline {self._pipeline.id} failed: {summary}"
        if plan.is_capacity(summary):
            return UnavailableError(message, next_step=f"there was no compute: run it again later; {url}")
        return UpstreamFailedError(message, next_step=f"mend the cause ({url}), then run it again")

    def _timed_out(self, step: plan.Step, exhausted: str) -> TimedOutError:
        variable = f"ECOMM_DLT_{exhausted.upper()}_TIMEOUT"
        again = f"continue this run once that has ended, or with a larger {variable}"
        if isinstance(step, plan.Follow | plan.Settle):
            tip = step.updates[-1]
            message = f"update {tip.id} is {tip.state} after {self._budgets.spent[exhausted]:.0f} s"
            again = f"it goes on at {self._pipeline.url(tip.id)}; {again}"
        elif isinstance(step, plan.AwaitTurn):
            other = step.update
            message = f"update {other.id}, which is not of this run, is still {other.state}"
            again = f"look at {self._pipeline.url(other.id)}; {again}"
        else:
            message = f"pipeline {self._pipeline.id} took no update"
            again = f"look at {self._pipeline.url()}; then run it again"
        limit = self._settings.queue_timeout if exhausted == "queue" else self._settings.run_timeout
        return TimedOutError(f"{message}; {variable} is {limit} s", next_step=again)

    def _stop_ours(self) -> None:
        """Cancel the active update if it is ours, and see it end; what goes wrong is told, not raised."""
        deadline = self._clock.monotonic() + _STOPS_WITHIN
        asked = False
        try:
            while self._clock.monotonic() < deadline:
                ours = plan.lineage(self._survey(), self._key, self._known)
                if not ours or not ours[-1].active:
                    break
                self._remember(ours)
                if not asked:
                    self._context.record.remote["stopped_update_id"] = ours[-1].id
                    self._pipeline.stop()
                    asked = True
                    self._context.checkpoint()
                self._clock.sleep(min(self._settings.poll_interval, 1.0))
            get_logger().info("dlt-trigger.stopped_update", asked=asked, update_id=self._known[-1:])
        except EcommError as error:
            get_logger().warning("dlt-trigger.not_stopped", reason=error.message, update_ids=self._known)

    def _record(self, updates: tuple[plan.Update, ...]) -> None:
        """Fill the record from the event log, once that has arrived at the update's end."""
        patiently(self._clock, _SERVICE, lambda: self._log.read(updates, afresh=True))
        deadline = self._clock.monotonic() + _LOG_ARRIVES_WITHIN
        while not plan.ended(self._log.events, updates[-1].id) and self._clock.monotonic() < deadline:
            self._clock.sleep(0.5)
            patiently(self._clock, _SERVICE, lambda: self._log.read(updates, afresh=True))
        ids = [update.id for update in updates]
        figures, durations = plan.collect(self._log.events, ids), plan.durations(self._log.events, ids)
        record = self._context.record
        record.figures = {
            "updates": [{"id": update.id, "cause": update.cause, "state": update.state} for update in updates],
            "turn_seconds": round(self._waited_for_turn, 3),
            "queue_seconds": durations["queued"],
            "run_seconds": durations["running"],
            **figures.as_dict(),
        }
        record.rows_in = sum(rows for table, rows in figures.tables.items() if table.startswith("bronze."))
        record.rows_out = sum(rows for table, rows in figures.tables.items() if table.startswith("silver."))
        _find(self._context, figures)


def _find(context: StageContext, figures: plan.Figures) -> None:
    for dataset, rows in figures.rescued.items():
        message = f"{rows} rows of {dataset} hold values that fit none of its columns; they are in _rescued_data"
        context.record.find("P3", "schema_drift", message)
    for dataset, rows in sorted(figures.dropped.items()):
        message = f"{rows} rows were kept out of {dataset} by its expectations; silver.quarantine tells why"
        context.record.find("P2", "rows_dropped", message)


def _began(context: StageContext) -> datetime:
    """An instant before which no update of this run was created, by a clock that may go wrong."""
    return min(begun_at(context.run_id), context.record.started_at) - _CLOCK_SKEW
