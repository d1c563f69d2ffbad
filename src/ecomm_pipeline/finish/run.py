"""Close the ledger at the end of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ecomm_pipeline.errors import EcommError
from ecomm_pipeline.finish import plan
from ecomm_pipeline.kpi_gate.plan import hold_of, regardless
from ecomm_pipeline.logs import get_logger

if TYPE_CHECKING:
    from ecomm_pipeline.ledger import Ledger, Record, RunRecord
    from ecomm_pipeline.lineage.run import Lineage

__all__ = ["close_ledger"]


def close_ledger(run: RunRecord, ledger: Ledger, lineage: Lineage | None = None) -> RunRecord:
    """End the stages that a run left open, and record the run (`plan.end_of` makes it); gives what was recorded.

    `lineage`, if there is one, is told the ends that a killed process could not tell.

    Safe to repeat: the same end again changes nothing, and another one (the workflow was retried) replaces the first.
    Raises what `Store` raises, with a note that the run itself has not failed of it.
    """
    try:
        return _close(ledger, run, lineage)
    except EcommError as error:
        error.add_note(f"the run itself ended before that, {run.status}: only its ledger is not closed")
        raise
    finally:
        if lineage:
            lineage.close()


def _close(ledger: Ledger, run: RunRecord, lineage: Lineage | None) -> RunRecord:
    records = [record for record in ledger.of_range(run.dates) if record.run_id == run.run_id]
    log = get_logger().bind(run_id=run.run_id, workflow=run.workflow)
    for place, record in enumerate(records):
        if corrected := plan.ended(record, run.failures, run.ended_at):
            records[place] = corrected
            ledger.write(corrected)
            if lineage and record.outcome == "running":
                lineage.tell(corrected)
            run.closed.append(f"{record.step} {record.table}" if record.table else record.step)
            log.warning("finish.closed", stage=record.stage, part=record.part, error=corrected.error)
    if run.outcome != "succeeded":
        _explain(run, [_without_workflow(record, ledger) for record in records])
    before = ledger.run(run.dates.first, run.run_id)
    if before is None or not _same(before, run):
        ledger.write_run(run)
    log.info(
        "finish.recorded", status=run.status, outcome=run.outcome, seconds=run.seconds, failure_class=run.failure_class
    )
    return run


def _without_workflow(record: Record, ledger: Ledger) -> Record:
    """Have what is held back name a command that still works: the workflow that waited for a person is over."""
    command = regardless(record.dates)
    if hold_of([record]) is None or record.next_step == command:
        return record
    changed = record.model_copy(update={"next_step": command})
    ledger.write(changed)
    return changed


def _explain(run: RunRecord, records: list[Record]) -> None:
    """Say what the run failed of: what a stage said, else what Argo says of a pod that never got so far."""
    failed = plan.first_failure(records)
    if failed:
        run.failure_class, run.next_step = failed.failure_class, failed.next_step
        run.error = f"{failed.step}: {failed.error}"
        return
    told = next(iter(plan.telling(run.failures)), None)
    run.failure_class = plan.class_of_message(told.message if told else "")
    run.error = f"{told.step}: {told.message}" if told else "no stage and no node tells why"
    run.next_step = f"argo get {run.workflow}"
    if held := hold_of(records):
        run.error = f"{held.step}: {'; '.join(finding.message for finding in held.findings)}"
        run.next_step = held.next_step
        run.failure_class = "cancelled" if run.outcome == "cancelled" else "bad_data"


def _same(before: RunRecord, now: RunRecord) -> bool:
    """Tell whether this end was recorded already: then the first record stands, with what it closed."""
    apart = {"ended_at", "closed"}
    return before.model_dump(exclude=apart) == now.model_dump(exclude=apart)
