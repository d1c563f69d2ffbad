"""A range of dates: each is extracted by itself, the rest is done once for all.

::

    dates ─► (date ─► extractor ×4)… ─► dlt-trigger ─► reconciler ─► dbt-runner ─► tableau-refresher ─► reconciler

`argo cron backfill` does something else and is not to be used: it drops the zone, the mutex and the priority.
"""

from __future__ import annotations

from hera.workflows import DAG, Parameter, Task, WorkflowTemplate

from workflows import stages
from workflows.stages import BACKFILL, one_run_a_date, workflow_template

__all__ = ["backfill"]

DATES_AT_ONCE = 2
"""Each is four extractors, so eight connections to Postgres at most."""


def backfill() -> WorkflowTemplate:
    """Process the business dates `from` to `to`."""
    arguments = [
        Parameter(name="from", description="First business date, 2026-01-02."),
        Parameter(name="to", description="Last business date, 2026-01-31."),
        stages.tables_parameter(),
        stages.trigger_parameter("backfill"),
    ]
    with workflow_template("backfill", entrypoint="main", priority=BACKFILL, arguments=arguments) as workflow:
        dates = stages.dates()
        extractor = stages.extractor()
        dlt_trigger = stages.dlt_trigger()
        reconciler = stages.reconciler()
        dbt_runner = stages.dbt_runner()
        tableau_refresher = stages.tableau_refresher()

        date = {"date": "{{inputs.parameters.date}}"}
        with DAG(name="day", inputs=[Parameter(name="date")], synchronization=one_run_a_date(date["date"])) as day:
            Task(
                name="extractor",
                template=extractor,
                arguments={**date, "table": "{{item}}"},
                with_param="{{workflow.parameters.tables}}",
            )
        with DAG(name="days", inputs=[Parameter(name="dates")], parallelism=DATES_AT_ONCE) as days:
            Task(name="day", template=day, arguments={"date": "{{item}}"}, with_param="{{inputs.parameters.dates}}")

        span = {"date": "{{workflow.parameters.from}}..{{workflow.parameters.to}}"}
        with DAG(name="main"):
            plan = Task(name="dates", template=dates, arguments={**span, "form": "json"})
            extract = Task(name="extract", template=days, arguments={"dates": "{{tasks.dates.outputs.result}}"})
            update = Task(name="dlt-trigger", template=dlt_trigger, arguments=span)
            prove_gold = Task(name="reconciler-gold", template=reconciler, arguments={**span, "through": "gold"})
            build = Task(name="dbt-runner", template=dbt_runner, arguments={**span, "select": ""})
            refresh = Task(name="tableau-refresher", template=tableau_refresher, arguments=span)
            prove_kpi = Task(name="reconciler-kpi", template=reconciler, arguments={**span, "through": "kpi"})

            plan >> extract >> update >> prove_gold >> build >> refresh >> prove_kpi  # type: ignore[operator]  # Hera types a >> b as a task or a list
    return workflow
