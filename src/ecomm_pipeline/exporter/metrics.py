"""Every metric, once: its name, meaning and labels. `docs/metrics.md` is made of it.

All are gauges: the ledger says how things are, and a process that restarts must not lose count.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, get_args

from ecomm_pipeline.errors import FAILURE_CLASSES, Priority
from ecomm_pipeline.layout import KPI_GATE, STAGES
from ecomm_pipeline.ledger import FindingKind, Outcome
from ecomm_pipeline.reconciler.sheet import HOPS
from ecomm_pipeline.settings import Run

__all__ = ["LABELS", "LAYERS", "METRICS", "WORDS", "Metric"]


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric; `name` is without the `ecomm_` that all begin with."""

    name: str
    meaning: str
    labels: tuple[str, ...] = ()

    @property
    def full_name(self) -> str:
        """The name that Prometheus sees."""
        return f"ecomm_{self.name}"


LAYERS: Final = {
    "extractor": "landing",
    "dlt-trigger": "gold",
    "dbt-runner": "kpi",
    "tableau-refresher": "dashboard",
    "reconciler": "proof",
}
"""The layer that a stage makes."""

WORDS: Final[dict[str, tuple[str, ...]]] = {
    "stage": (*STAGES, KPI_GATE),
    "layer": tuple(LAYERS.values()),
    "trigger": get_args(Run.model_fields["trigger"].annotation),
    "outcome": ("missing", *get_args(Outcome)),
    "failure_class": tuple(FAILURE_CLASSES),
    "priority": get_args(Priority),
    "hop": (*HOPS, "rescued"),
    "direction": ("in", "out"),
    "kind": (*get_args(FindingKind), "model", "test", "unit_test"),
    "state": ("done", "running", "failed"),
}
"""All that a label can hold, of those that hold one of few words; a kind may be the name of a dbt test too."""


def _words(label: str) -> str:
    return ", ".join(f"`{word}`" for word in WORDS[label])


LABELS: Final[dict[str, str]] = {
    "date": "a business date, of the last `ECOMM_EXPORTER_DAYS` that have ended; of a failed or held backfill maybe "
    "`FROM..TO`",
    "stage": _words("stage"),
    "table": "a source table, or a table of Gold or the KPIs; empty where a stage has none",
    "layer": _words("layer"),
    "trigger": _words("trigger"),
    "outcome": _words("outcome"),
    "failure_class": "a row of failure-classes.md",
    "priority": _words("priority"),
    "hop": f"a hop of the reconciler's sheet: {_words('hop')}",
    "direction": _words("direction"),
    "kind": f"of a finding or of a node of dbt: {_words('kind')}; of a dbt test that warns its name",
    "status": "dbt's word for what became of a node",
    "expectation": "the name of an expectation of the Databricks pipeline",
    "target": "a Tableau data source or workbook",
    "state": _words("state"),
    "error": "the error's message, cut short; one series a failed stage, for annotations only",
    "kpi": "a column of kpi.agg_sales_kpi that has a bound",
    "reason": "what moved, with value, expectation and bound; one series a date that is held, for annotations only",
    "next_step": "what the error says to do, or the command that lets a held date go on",
}
"""What each label holds; all are bounded by the contract, the DAG and the number of dates."""

METRICS: Final[dict[str, Metric]] = {
    metric.name: metric
    for metric in (
        Metric("date_nightly", "1 for the newest date whose night has begun, 0 for those before it.", ("date",)),
        Metric("date_scheduled_timestamp_seconds", "When the nightly run of the date was to begin.", ("date",)),
        Metric("date_due_timestamp_seconds", "When dashboards should show the date.", ("date",)),
        Metric("date_started_timestamp_seconds", "When the first stage of the date began; absent before.", ("date",)),
        Metric(
            "date_complete_timestamp_seconds",
            "When Tableau first had the date's KPIs; absent before.",
            ("date",),
        ),
        Metric(
            "date_forecast_timestamp_seconds",
            "When the newest date will be complete if what is left takes as long as usual; absent once it is.",
            ("date",),
        ),
        Metric(
            "date_margin_seconds",
            "Time between completion (or its forecast, or now) and when it was due; negative is late.",
            ("date",),
        ),
        Metric(
            "date_reconciled",
            "1 when the newest reconciliation of the date balanced, 0 when it did not; absent before.",
            ("date",),
        ),
        Metric(
            "stage_outcome",
            "1 for what became of the newest run of the stage; of the extractor the worst of its tables.",
            ("date", "stage", "trigger", "outcome"),
        ),
        Metric(
            "stage_failed_timestamp_seconds",
            "When the newest run of the stage failed; absent when it did not.",
            ("date", "stage", "trigger", "failure_class", "priority"),
        ),
        Metric(
            "stage_failure_info",
            "1; what the error of the failed stage says.",
            ("date", "stage", "error", "next_step"),
        ),
        Metric(
            "stage_duration_seconds",
            "Time that the newest try took, or has taken so far; of the extractor its slowest table.",
            ("date", "stage"),
        ),
        Metric(
            "stage_expected_seconds",
            "Time that it should take at most: ECOMM_EXPORTER_…_EXPECTED, times the dates of the run.",
            ("date", "stage"),
        ),
        Metric("stage_rows", "Rows that the newest run read and wrote.", ("date", "stage", "direction")),
        Metric("extract_present", "1 when the table was extracted for the date, else 0.", ("date", "table")),
        Metric("extract_bytes", "Size of the extract as stored.", ("date", "table")),
        Metric("rows", "Rows at a hop, as extracted or as last reconciled.", ("date", "table", "hop")),
        Metric(
            "rows_usual",
            "Median of the hop over the same weekdays of five weeks, or over all days where those are too few.",
            ("date", "table", "hop"),
        ),
        Metric(
            "rows_unexplained",
            "Rows that differ between two hops with no explanation, as last reconciled.",
            ("date", "table"),
        ),
        Metric(
            "watermark_lag_seconds",
            "Time from the newest updated_at extracted so far to the end of the date.",
            ("date", "table"),
        ),
        Metric(
            "sales_present",
            "1 when the table has a row of the sales date, 0 when it has none though Silver has sales.",
            ("date", "table", "layer"),
        ),
        Metric(
            "expectation_failed_rows",
            "Rows that failed an expectation; only those that any row failed.",
            ("date", "table", "expectation"),
        ),
        Metric("dbt_nodes", "dbt's models and tests by what became of them.", ("date", "kind", "status")),
        Metric("kpi_rows", "Rows of a KPI table when dbt last built it.", ("table",)),
        Metric("findings", "What a stage found odd.", ("date", "stage", "table", "kind", "priority")),
        Metric("dashboard_refreshed_timestamp_seconds", "When the Tableau extract was last refreshed.", ("target",)),
        Metric(
            "dashboard_kpi_committed_timestamp_seconds",
            "When the KPI tables that it reads had changed last, at that time.",
            ("target",),
        ),
        Metric("last_success_timestamp_seconds", "When the stage last succeeded, for any date.", ("stage", "table")),
        Metric(
            "newest_date_timestamp_seconds",
            "End of the newest business date that the layer has: now less it is the age of the data, whatever was "
            "backfilled since.",
            ("layer", "table"),
        ),
        Metric(
            "kpi_move_ratio",
            "How far the KPI is from the median of the same weekdays, as a share of that; absent where there is none.",
            ("date", "kpi"),
        ),
        Metric("kpi_bound_ratio", "How far it may be before Tableau waits for a person.", ("date", "kpi")),
        Metric(
            "kpi_held_timestamp_seconds",
            "When the KPI gate held Tableau back; absent once it was refreshed.",
            ("date",),
        ),
        Metric("kpi_held_info", "1; why, and the command that goes on.", ("date", "reason", "next_step")),
        Metric("backfill_dates", "Dates of the newest backfill, by how they are.", ("state",)),
        Metric(
            "backfill_failed_timestamp_seconds",
            "When a backfill of these dates failed; absent once they succeeded.",
            ("date", "stage", "failure_class"),
        ),
        Metric("exporter_refreshed_timestamp_seconds", "When the exporter last read the ledger whole."),
        Metric("exporter_refresh_seconds", "How long that took."),
        Metric("exporter_refreshes_failed", "Looks at the ledger that failed since the exporter began."),
        Metric("exporter_objects", "Records that the exporter holds, each with its sheet."),
        Metric("exporter_objects_unreadable", "Those that cannot be read, or whose sheet cannot; the log names them."),
        Metric("exporter_objects_read", "Objects that it has read from the store since it began."),
    )
}
