"""The OpenLineage event of a ledger's record. Pure: a record in, an event of the client's classes out.

Upstream: https://openlineage.io/docs/spec/run-cycle, and https://openlineage.io/docs/spec/naming for jobs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from openlineage.client.event_v2 import InputDataset, Job, OutputDataset, Run, RunEvent, RunState, set_producer
from openlineage.client.facet_v2 import (
    data_quality_assertions_dataset,
    error_message_run,
    input_statistics_input_dataset,
    job_type_job,
    nominal_time_run,
    output_statistics_output_dataset,
    parent_run,
    processing_engine_run,
    schema_dataset,
    tags_run,
    test_run,
)
from openlineage.client.uuid import generate_static_uuid

from ecomm_pipeline import __version__
from ecomm_pipeline.layout import begun_at

if TYPE_CHECKING:
    from collections.abc import Iterator
    from uuid import UUID
    from zoneinfo import ZoneInfo

    from openlineage.client.facet_v2 import DatasetFacet, InputDatasetFacet, OutputDatasetFacet, RunFacet

    from ecomm_pipeline.ledger import Record
    from ecomm_pipeline.lineage.places import Name, Places
    from ecomm_pipeline.manifest import Manifest

__all__ = ["PIPELINE", "PRODUCER", "Where", "event", "parent_id", "run_id"]

PIPELINE: Final = "batch-ecomm-pipeline"
"""The job that every stage is a part of: in a backfill or by hand a stage is the same job as at night."""
PRODUCER: Final = f"pkg:pypi/ecomm-data-pipeline@{__version__}"
set_producer(PRODUCER)

_Assertion = data_quality_assertions_dataset.Assertion

_STATES: Final = {
    "running": RunState.START,
    "succeeded": RunState.COMPLETE,
    "failed": RunState.FAIL,
    "cancelled": RunState.ABORT,
}


@dataclass(frozen=True, slots=True)
class Where:
    """What every event tells: the jobs' namespace, where data sets are if that is known, the zone of business dates."""

    namespace: str
    places: Places | None
    tz: ZoneInfo


def event(record: Record, where: Where, manifest: Manifest | None = None) -> RunEvent:
    """Make the event of a record as it is now: START while it runs, else what became of it.

    `manifest` is that of the extract which the record names; it knows columns and files.
    """
    state = _STATES[record.outcome]
    moment = record.began_at if state is RunState.START else record.ended_at or record.began_at
    return RunEvent(
        eventType=state,
        eventTime=moment.isoformat(),
        run=Run(runId=str(run_id(record)), facets=dict(_run_facets(record, where))),
        job=Job(where.namespace, _job(record), {"jobType": job_type_job.JobTypeJobFacet("BATCH", "ECOMM", "TASK")}),
        inputs=list(_inputs(record, where.places, manifest)) if where.places else [],
        outputs=list(_outputs(record, where.places, manifest)) if where.places else [],
    )


def run_id(record: Record) -> UUID:
    """Give the id of one try: it has one START and one end, so that the run's next try needs an id of its own."""
    identity = f"{record.step}/{record.table or ''}/{record.dates}/{record.run_id}"
    return generate_static_uuid(record.began_at, identity.encode())


def parent_id(run: str) -> UUID:
    """Give the id of a whole run of the pipeline by its run id, which all its stages and their tries share."""
    return generate_static_uuid(begun_at(run), run.encode())


def _job(record: Record) -> str:
    return ".".join(part for part in (PIPELINE, record.step, record.table) if part)


# --- the run ----------------------------------------------------------------------------------------------------------


def _run_facets(record: Record, where: Where) -> Iterator[tuple[str, RunFacet]]:
    since, until = record.dates.first.starts(where.tz), record.dates.last.plus(1).starts(where.tz)
    yield "nominalTime", nominal_time_run.NominalTimeRunFacet(since.isoformat(), until.isoformat())
    yield "parent", _parent(record, where.namespace)
    version = record.versions.get("ecomm", __version__)
    yield "processing_engine", processing_engine_run.ProcessingEngineRunFacet(version, "ecomm-data-pipeline")
    yield "tags", tags_run.TagsRunFacet(list(_tags(record)))
    if record.error is not None:
        yield "errorMessage", error_message_run.ErrorMessageRunFacet(record.error, "PYTHON")
    if tests := [*_expectations(record), *_dbt_tests(record)]:
        yield "test", test_run.TestRunFacet(tests)


def _parent(record: Record, namespace: str) -> parent_run.ParentRunFacet:
    """Name the whole run, which is the root too: nothing that sends events begins it."""
    whole = str(parent_id(record.run_id))
    root = parent_run.Root(parent_run.RootRun(whole), parent_run.RootJob(namespace, PIPELINE))
    return parent_run.ParentRunFacet(parent_run.Run(whole), parent_run.Job(namespace, PIPELINE), root)


def _tags(record: Record) -> Iterator[tags_run.TagsRunFacetFields]:
    """Give what leads from an event to the ledger, and from a failure to its page of the runbook."""
    tags = {
        "ecomm_run_id": record.run_id,
        "ecomm_dates": str(record.dates),
        "ecomm_trigger": record.trigger,
        "ecomm_failure_class": record.failure_class,
    }
    return (tags_run.TagsRunFacetFields(key, value, "ECOMM") for key, value in tags.items() if value)


def _expectations(record: Record) -> Iterator[test_run.TestExecution]:
    """Give the expectations of the lakehouse's tables: none of them stops an update."""
    for row in record.figures.get("expectations") or ():
        yield test_run.TestExecution(
            f"{row['dataset']}.{row['name']}",
            "fail" if row["failed"] else "pass",
            severity="warn",
            type="expectation",
            params={"passed": row["passed"], "failed": row["failed"]},
        )


_DBT_STATUS: Final = {"pass": "pass", "warn": "fail", "fail": "fail"}
"""What the specification calls dbt's statuses of a test that ran: a warning found something, and stopped nothing."""


def _dbt_tests(record: Record) -> Iterator[test_run.TestExecution]:
    for name, node in (record.figures.get("nodes") or {}).items():
        if node["kind"] == "test":
            yield test_run.TestExecution(
                name,
                _DBT_STATUS.get(node["status"], "skip"),
                severity="warn" if node["status"] == "warn" else "error",
                params={key: node[key] for key in ("file", "failures") if key in node},
            )


# --- the data sets ----------------------------------------------------------------------------------------------------


def _inputs(record: Record, places: Places, manifest: Manifest | None) -> Iterator[InputDataset]:
    """Give what the stage read, as far as the record tells yet."""
    figures = record.figures
    match record.stage:
        case "extractor" if record.table:
            yield _input(places.source(record.table), record.rows_in, _columns(manifest))
        case "dlt-trigger":
            yield from (_input(places.extracts(table)) for table in places.tables)
        case "dbt-runner":
            for name, source in (figures.get("sources") or {}).items():
                yield _input(places.lakehouse(name), source["rows"])
        case "tableau-refresher":
            targets = (figures.get("targets") or {}).values()
            for name in sorted({name for target in targets for name in target["tables"]}):
                yield _input(places.lakehouse(f"kpi.{name}"))
        case "reconciler":
            names = [places.source(table) for table in places.tables] if places.source_is_asked_again else []
            names += [places.extracts(table) for table in places.tables]
            names += [places.lakehouse(name) for name in figures.get("tables") or ()]
            yield from (InputDataset(*name, inputFacets=_proof(record)) for name in names)
        case "kpi-gate":
            yield InputDataset(*places.lakehouse("kpi.agg_sales_kpi"), inputFacets=_judged(record))


def _outputs(record: Record, places: Places, manifest: Manifest | None) -> Iterator[OutputDataset]:
    """Give what the stage wrote, as far as the record tells yet; what proves or judges writes no data."""
    figures = record.figures
    match record.stage:
        case "extractor" if record.table:
            files = len(manifest.files) if manifest else None
            written = _written(record.rows_out, record.bytes, files)
            yield OutputDataset(*places.extracts(record.table), outputFacets=written, facets=_columns(manifest))
        case "dlt-trigger":
            for name, rows in (figures.get("tables") or {}).items():
                yield OutputDataset(*places.lakehouse(name), outputFacets=_written(rows))
        case "dbt-runner":
            for name, node in (figures.get("nodes") or {}).items():
                if (node["kind"], node["status"]) == ("model", "success"):
                    yield OutputDataset(*places.lakehouse(f"kpi.{name}"), outputFacets=_written(node.get("rows")))
        case "tableau-refresher":
            yield from (OutputDataset(*places.tableau(name)) for name in figures.get("targets") or {})


def _input(name: Name, rows: int | None = None, columns: dict[str, DatasetFacet] | None = None) -> InputDataset:
    read: dict[str, InputDatasetFacet] = {}
    if rows is not None:
        read["inputStatistics"] = input_statistics_input_dataset.InputStatisticsInputDatasetFacet(rows)
    return InputDataset(*name, inputFacets=read, facets=columns or {})


def _written(rows: int | None, size: int | None = None, files: int | None = None) -> dict[str, OutputDatasetFacet]:
    if rows is None:
        return {}
    facet = output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet(rows, size, files)
    return {"outputStatistics": facet}


def _columns(manifest: Manifest | None) -> dict[str, DatasetFacet]:
    if manifest is None:
        return {}
    fields = [
        schema_dataset.SchemaDatasetFacetFields(column.name, column.type, ordinal_position=place)
        for place, column in enumerate(manifest.columns, 1)
    ]
    return {"schema": schema_dataset.SchemaDatasetFacet(fields)}


def _proof(record: Record) -> dict[str, InputDatasetFacet]:
    """Say of everything that was compared whether rows and money add up over all of it."""
    balanced = record.figures.get("balanced")
    if balanced is None:
        return {}
    name = f"reconciled through {record.through}"
    return _asserted([_Assertion("reconciliation", success=balanced, name=name, severity="error")])


def _judged(record: Record) -> dict[str, InputDatasetFacet]:
    """Say of each KPI that was compared whether it stayed within its bound; of a range, of those that did not."""
    return _asserted(
        [
            _Assertion(
                "weekday_median",
                success=not move["held"],
                column=move["kpi"],
                severity="warn",
                expected=move["expected"],
                actual=move["value"],
                params={name: move[name] for name in ("date", "bound")},
            )
            for move in record.figures.get("kpis") or ()
        ]
    )


def _asserted(assertions: list[_Assertion]) -> dict[str, InputDatasetFacet]:
    if not assertions:
        return {}
    return {"dataQualityAssertions": data_quality_assertions_dataset.DataQualityAssertionsDatasetFacet(assertions)}
