"""The daily pipeline.

::

    orders ─────┐                              ┌─► reconciler ─┐
    products ───┼─► extractor ×4 ─► dlt-trigger┤               ├─► dbt-runner ─► tableau-refresher ─► reconciler
    customers ──┤                              └─► gate ───────┘
    order_items ┘

With `bounds`, kpi-gate is before tableau-refresher, and waits for a person where a KPI moved too far.
"""

from __future__ import annotations

from hera.workflows import DAG, CronWorkflow, Parameter, Task, WorkflowTemplate
from hera.workflows import models as m

from workflows import stages
from workflows.stages import DATE, GATED, NIGHTLY, ZONE, workflow_template

__all__ = ["daily", "nightly"]

PIPELINE = "batch-ecomm-pipeline"


def daily() -> WorkflowTemplate:
    """Process one business date."""
    arguments = [
        stages.date_parameter(),
        stages.tables_parameter(),
        Parameter(name="not-before", value="05:00", description="When dbt may begin, on the day after the date."),
        stages.bounds_parameter(),
        stages.trigger_parameter(),
    ]
    with workflow_template(
        PIPELINE,
        entrypoint="main",
        priority=NIGHTLY,
        arguments=arguments,
        lock=DATE,
        title=f"Pipeline of {DATE} ({{{{workflow.parameters.trigger}}}})",
        description="One business date from Postgres to Tableau, proven at Gold and at the KPI tables.",
    ) as workflow:
        extractor = stages.extractor()
        dlt_trigger = stages.dlt_trigger()
        reconciler = stages.reconciler()
        gate = stages.gate()
        dbt_runner = stages.dbt_runner()
        kpi_gate = stages.kpi_gate()
        tableau_refresher = stages.tableau_refresher()

        date = {"date": "{{workflow.parameters.date}}"}
        table = {"table": "{{item}}"}
        opens = {"not-before": "{{workflow.parameters.not-before}}"}
        with DAG(name="main"):
            tables = "{{workflow.parameters.tables}}"
            extract = Task(name="extractor", template=extractor, arguments={**date, **table}, with_param=tables)
            update = Task(name="dlt-trigger", template=dlt_trigger, arguments=date)
            prove_gold = Task(name="reconciler-gold", template=reconciler, arguments={**date, "through": "gold"})
            wait = Task(name="gate", template=gate, arguments={**date, **opens})
            build = Task(name="dbt-runner", template=dbt_runner, arguments={**date, "select": ""})
            judge = Task(name="kpi-gate", template=kpi_gate, arguments=date, when=GATED)
            refresh = Task(name="tableau-refresher", template=tableau_refresher, arguments=date)
            prove_kpi = Task(name="reconciler-kpi", template=reconciler, arguments={**date, "through": "kpi"})

            extract >> update >> [prove_gold, wait] >> build >> judge >> refresh >> prove_kpi  # type: ignore[operator]  # Hera types a >> b as a task or a list
    return workflow


def nightly() -> CronWorkflow:
    """Process the day that ended, at 01:00 in Ho Chi Minh City.

    `workflow.scheduledTime` is in UTC, where that is still the day before: each stage makes the business date of it.
    A run missed by less than the four hours until the gate opens is made up for. Argo's queues read the priority of the
    run itself, and not that of its template.
    """
    return CronWorkflow(
        name=PIPELINE,
        schedules=["0 1 * * *"],
        timezone=ZONE,
        concurrency_policy="Forbid",
        starting_deadline_seconds=4 * 60 * 60,
        successful_jobs_history_limit=7,
        failed_jobs_history_limit=14,
        workflow_template_ref=m.WorkflowTemplateRef(name=PIPELINE),
        priority=NIGHTLY,
        arguments={"date": "{{workflow.scheduledTime}}", "trigger": "cron"},
    )
