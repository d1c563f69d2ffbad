"""A range of dates: each is extracted by itself, the rest is done once for all.

::

             ┌─► date ─► date ─► … ─┐
    dates ───┼─► date ─► date ─► … ─┼─► dlt-trigger ─► reconciler ─► dbt-runner ─► tableau-refresher ─► reconciler
    (which?) └─► … (lanes)         ─┘

`dates` asks the ledger which dates need it, and deals them to as many lanes as may go at once: Argo's own `parallelism`
cannot be a parameter. Without any date the rest is skipped, and the workflow has succeeded.

`argo cron backfill` does something else and is not to be used: it drops the zone, the mutex and the priority.
"""

from __future__ import annotations

from hera.workflows import DAG, Parameter, Task, WorkflowTemplate

from ecomm_pipeline.backlog import MODES
from workflows import stages
from workflows.stages import BACKFILL, GATED, RANGE, one_at_a_time, workflow_template

__all__ = ["backfill"]


def backfill() -> WorkflowTemplate:
    """Process the business dates `from` to `to`: those that are missing, those that failed, or all.

    One backfill at a time, so that a second one sees what the first has done. A date is extracted under the lock of
    its nightly run; lanes hold one such lock each and wait for none while they do, so nothing can wait in a circle.
    """
    arguments = [
        Parameter(name="from", description="First business date, 2026-01-02."),
        Parameter(name="to", description="Last business date, 2026-01-31."),
        Parameter(name="mode", value="missing", enum=list(MODES), description="Which of them, by the ledger, or all."),
        Parameter(name="parallelism", value="2", description="How many dates are extracted at once."),
        stages.tables_parameter(),
        stages.bounds_parameter(),
        stages.trigger_parameter("backfill"),
    ]
    with workflow_template(
        "backfill",
        entrypoint="main",
        priority=BACKFILL,
        arguments=arguments,
        lock="backfill",
        title=f"Backfill of {RANGE} ({{{{workflow.parameters.mode}}}})",
        description="Extracts the dates of a range that need it, then updates, builds and refreshes once for all.",
        dates=RANGE,
    ) as workflow:
        dates = stages.dates()
        extractor = stages.extractor()
        dlt_trigger = stages.dlt_trigger()
        reconciler = stages.reconciler()
        dbt_runner = stages.dbt_runner()
        kpi_gate = stages.kpi_gate()
        tableau_refresher = stages.tableau_refresher()

        date = {"date": "{{inputs.parameters.date}}"}
        with DAG(name="day", inputs=[Parameter(name="date")], synchronization=one_at_a_time(date["date"])) as day:
            Task(
                name="extractor",
                template=extractor,
                arguments={**date, "table": "{{item}}"},
                with_param="{{workflow.parameters.tables}}",
            )
        with DAG(name="lane", inputs=[Parameter(name="dates")], parallelism=1) as lane:
            Task(name="day", template=day, arguments={"date": "{{item}}"}, with_param="{{inputs.parameters.dates}}")

        span = {"date": RANGE}
        with DAG(name="range", inputs=[Parameter(name="lanes")]) as whole:
            lanes = "{{inputs.parameters.lanes}}"
            extract = Task(name="lane", template=lane, arguments={"dates": "{{item}}"}, with_param=lanes)
            update = Task(name="dlt-trigger", template=dlt_trigger, arguments=span)
            prove_gold = Task(name="reconciler-gold", template=reconciler, arguments={**span, "through": "gold"})
            build = Task(name="dbt-runner", template=dbt_runner, arguments={**span, "select": ""})
            judge = Task(name="kpi-gate", template=kpi_gate, arguments=span, when=GATED)
            refresh = Task(name="tableau-refresher", template=tableau_refresher, arguments=span)
            prove_kpi = Task(name="reconciler-kpi", template=reconciler, arguments={**span, "through": "kpi"})

            extract >> update >> prove_gold >> build >> judge >> refresh >> prove_kpi  # type: ignore[operator]  # Hera types a >> b as a task or a list

        options = {name: f"{{{{workflow.parameters.{name}}}}}" for name in ("mode", "parallelism")}
        with DAG(name="main"):
            plan = Task(name="dates", template=dates, arguments={**span, **options})
            plan >> Task(
                name="range",
                template=whole,
                arguments={"lanes": "{{tasks.dates.outputs.result}}"},
                when='{{=tasks.dates.outputs.result != "[]"}}',
            )
    return workflow
