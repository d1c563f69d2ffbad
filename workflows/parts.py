"""One part by itself, for the on-call: the entrypoint is a stage, whose inputs are the workflow's arguments."""

from __future__ import annotations

from hera.workflows import Parameter, WorkflowTemplate

from workflows import stages
from workflows.stages import NIGHTLY, workflow_template

__all__ = ["daily_refresh", "dlt_update", "tableau_refresh"]


def dlt_update() -> WorkflowTemplate:
    """Update Bronze, Silver and Gold from the extracts that are there."""
    arguments = [_date(), stages.trigger_parameter()]
    with workflow_template("dlt-update", entrypoint="dlt-trigger", priority=NIGHTLY, arguments=arguments) as workflow:
        stages.dlt_trigger()
    return workflow


def daily_refresh() -> WorkflowTemplate:
    """Build the KPI tables again, or those that `select` names."""
    select = Parameter(name="select", value="", description="dbt's selection, such as agg_sales_kpi; default all.")
    arguments = [_date(), select, stages.trigger_parameter()]
    with workflow_template("daily-refresh", entrypoint="dbt-runner", priority=NIGHTLY, arguments=arguments) as workflow:
        stages.dbt_runner()
    return workflow


def tableau_refresh() -> WorkflowTemplate:
    """Refresh the Tableau extracts again."""
    arguments = [_date(), stages.trigger_parameter()]
    with workflow_template(
        "tableau-refresh", entrypoint="tableau-refresher", priority=NIGHTLY, arguments=arguments
    ) as workflow:
        stages.tableau_refresher()
    return workflow


def _date() -> Parameter:
    return Parameter(name="date", description="Business date 2026-01-02, or FROM..TO.")
