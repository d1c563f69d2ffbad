"""What every stage does around its work: a record in the ledger, one canonical log line, an exit code.

A stage is a function of a `StageContext`; it fills `context.record` and raises an `EcommError` when it cannot go on.
"""

from __future__ import annotations

import signal
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ecomm_pipeline.errors import CancelledError, EcommError, classify
from ecomm_pipeline.ledger import Ledger, Record
from ecomm_pipeline.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from zoneinfo import ZoneInfo

    from ecomm_pipeline.clock import Clock
    from ecomm_pipeline.dates import DateRange
    from ecomm_pipeline.layout import Layout
    from ecomm_pipeline.lineage.run import Lineage
    from ecomm_pipeline.store import Store

__all__ = ["StageContext", "Stop", "run_stage", "stop_on_signals"]


@dataclass(slots=True)
class Stop:
    """Whether we were told to stop.

    The signal raises wherever the main thread is, and libraries are known to swallow that (databricks-sdk while it
    fetches a host's metadata): work that waits calls `check` each time it looks.
    """

    reason: str | None = None

    def check(self) -> None:
        """Raise `CancelledError` when we were told to stop."""
        if self.reason is not None:
            raise CancelledError(self.reason, next_step="run the same command again to continue")


@dataclass(frozen=True, slots=True)
class StageContext:
    """What a stage works with. `previous` is the record of an earlier, unfinished or finished try of the same run."""

    stage: str
    dates: DateRange
    tz: ZoneInfo
    run_id: str
    record: Record
    previous: Record | None
    store: Store
    layout: Layout
    ledger: Ledger
    clock: Clock
    stop: Stop = field(default_factory=Stop)

    def checkpoint(self) -> None:
        """Write the record as it is now: call it as soon as something was started remotely, before waiting for it."""
        self.ledger.write(self.record)


def run_stage(  # noqa: PLR0913 (a stage is all of these)
    work: Callable[[StageContext], None],
    *,
    stage: str,
    dates: DateRange,
    tz: ZoneInfo,
    run_id: str,
    trigger: str,
    store: Store,
    layout: Layout,
    clock: Clock,
    table: str | None = None,
    through: str | None = None,
    lineage: Lineage | None = None,
) -> Record:
    """Do the work of a stage once, and see that the ledger, and `lineage` if there is one, tell what became of it.

    Gives the finished record. Raises what the work raises, after it was recorded.
    """
    ledger = Ledger(store, layout)
    previous = ledger.read(stage, dates.first, run_id, part=table or through)
    now = clock.now()
    record = Record(
        stage=stage,
        table=table,
        through=through,
        first_date=dates.first.day,
        last_date=dates.last.day,
        run_id=run_id,
        trigger=trigger,
        started_at=previous.started_at if previous else now,
        tried_at=now,
        remote=dict(previous.remote) if previous else {},
    )
    context = StageContext(stage, dates, tz, run_id, record, previous, store, layout, ledger, clock)
    part = {"table": table, "through": through}
    log = get_logger().bind(
        stage=stage, date=str(dates), run_id=run_id, **{name: value for name, value in part.items() if value}
    )
    log.info(f"{stage}.started")
    context.checkpoint()
    with _told_to(lineage, record):
        try:
            with stop_on_signals(context.stop):
                work(context)
        except BaseException as error:
            _record_failure(record, error)
            _close(context, log, error)
            error.add_note(f"ECOMM_RUN_ID={run_id} before the same command continues this run")
            raise
        record.outcome = "succeeded"
        _close(context, log, None)
    return record


@contextmanager
def _told_to(lineage: Lineage | None, record: Record) -> Iterator[None]:
    """Tell a record's beginning and its end; a success that could not be recorded is told as the failure that it is."""
    if lineage is None:
        yield
        return
    lineage.tell(record)
    try:
        yield
    except BaseException as error:
        _record_failure(record, error)
        raise
    finally:
        lineage.tell(record)
        lineage.close()


def _record_failure(record: Record, error: BaseException) -> None:
    failure = classify(error)
    record.outcome = "cancelled" if failure.name == "cancelled" else "failed"
    record.failure_class = failure.name
    record.error = str(error) or type(error).__name__
    record.next_step = error.next_step if isinstance(error, EcommError) else None


def _close(context: StageContext, log: Any, error: BaseException | None) -> None:  # noqa: ANN401
    """Finish the record; when the ledger cannot be written, the work's own error stays the one that is raised."""
    record = context.record
    record.ended_at = context.clock.now()
    figures = record.model_dump(include={"rows_in", "rows_out", "bytes", "remote"}, exclude_none=True)
    figures["figures"] = {name: value for name, value in record.figures.items() if not isinstance(value, list | dict)}
    log.info(
        f"{context.stage}.{record.outcome}",
        seconds=round(record.seconds or 0, 3),
        findings=len(record.findings),
        **({"failure_class": record.failure_class, "error": record.error} if error else {}),
        **figures,
    )
    try:
        context.checkpoint()
    except EcommError as unwritten:
        if error is None:
            raise
        log.warning("ledger.unwritten", reason=unwritten.message)


@contextmanager
def stop_on_signals(stop: Stop | None = None) -> Iterator[None]:
    """Turn SIGTERM and SIGINT into a `CancelledError` in the main thread, so that a stage can stop what it started.

    `stop` remembers it, for work that may be inside a library which swallows the error.
    """
    told = stop or Stop()

    def handle(number: int, _frame: object) -> None:
        told.reason = f"stopped by {signal.Signals(number).name}"
        told.check()

    before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
