"""One part by itself, for the on-call: the entrypoint is a stage, whose inputs are the workflow's arguments.

Each waits for a run of the same business date to end, as that waits for it.
"""

from __future__ import annotations

from hera.workflows import Parameter, WorkflowTemplate

from workflows import stages
from workflows.stages import DATE, NIGHTLY, workflow_template

__all__ = ["daily_refresh", "dlt_update", "reconcile", "tableau_refresh"]


def dlt_update() -> WorkflowTemplate:
    """Update Bronze, Silver and Gold from the extracts that are there."""
    description = "Bronze, Silver and Gold from the extracts that are there."
    with _part("dlt-update", "dlt-trigger", description) as workflow:
        stages.dlt_trigger()
    return workflow


def daily_refresh() -> WorkflowTemplate:
    """Build the KPI tables again, or those that `select` names."""
    select = Parameter(name="select", value="", description="dbt's selection, such as agg_sales_kpi; default all.")
    description = "The KPI tables, or those that `select` names."
    with _part("daily-refresh", "dbt-runner", description, select) as workflow:
        stages.dbt_runner()
    return workflow


def tableau_refresh() -> WorkflowTemplate:
    """Refresh the Tableau extracts again."""
    with _part("tableau-refresh", "tableau-refresher", "The Tableau extracts.") as workflow:
        stages.tableau_refresher()
    return workflow


def reconcile() -> WorkflowTemplate:
    """Prove rows and money again: the verdict after a repair."""
    through = Parameter(name="through", value="kpi", enum=["gold", "kpi"], description="How far to prove.")
    with _part("reconcile", "reconciler", "Rows and money, hop by hop.", through) as workflow:
        stages.reconciler()
    return workflow


def _part(name: str, stage: str, description: str, *more: Parameter) -> WorkflowTemplate:
    date = Parameter(name="date", description="Business date 2026-01-02, or FROM..TO.")
    return workflow_template(
        name,
        entrypoint=stage,
        priority=NIGHTLY,
        arguments=[date, *more, stages.trigger_parameter()],
        lock=DATE,
        title=f"{name} of {DATE}",
        description=description,
    )
