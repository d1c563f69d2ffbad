"""What every workflow is made of: one template a stage, and how each runs, retries and ends.

Call a stage inside a `WorkflowTemplate`'s context to add its template there, then call the template to draw a task.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hera.workflows import DAG, Container, Parameter, Resources, RetryStrategy, Suspend, Task, WorkflowTemplate
from hera.workflows import models as m

from ecomm_pipeline import __version__
from ecomm_pipeline.errors import retryable_exit_codes
from ecomm_pipeline.kpi_gate.plan import HOLD, PASSED
from ecomm_pipeline.settings import DEFAULT_TABLES, DbtCloud, DbtRunner, DltTrigger, Extractor, Tableau

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pydantic_settings import BaseSettings

__all__ = [
    "BACKFILL",
    "GATED",
    "NIGHTLY",
    "RANGE",
    "bounds_parameter",
    "date_parameter",
    "dates",
    "dbt_runner",
    "dlt_trigger",
    "extractor",
    "gate",
    "kpi_gate",
    "one_at_a_time",
    "reconciler",
    "tableau_refresher",
    "tables_parameter",
    "trigger_parameter",
    "workflow_template",
]

NAME: Final = "ecomm-data-pipeline"
"""Of the images, the service account, the ConfigMap of settings and the Secret of credentials."""

NIGHTLY: Final = 100
BACKFILL: Final = 0
"""Priorities: where workflows queue, the one that dashboards wait for goes first."""

ZONE: Final = "Asia/Ho_Chi_Minh"
"""Of the business and of the schedule. The chart has a value for it, and finds it in `timezone("…")` of expressions."""

DATE: Final = (
    '{{=let at = workflow.parameters.date contains "scheduledTime" '
    "? workflow.scheduledTime : workflow.parameters.date; "
    f'at contains "T" ? date(at).In(timezone("{ZONE}")).AddDate(0, 0, -1).Format("2006-01-02") : at}}}}'
)
"""The business date of a workflow as Argo has to know it before there is a pod: for its lock, its labels, its title.

The stages get the parameter as it is, and compute the date in our image (`dates.parse_dates`). The nightly run's is the
instant at which it was scheduled, in UTC: still the day before in Ho Chi Minh City's time of 01:00, so that cutting ten
characters off it would be right by luck only. In a spec, Argo knows the parameter only as `{{workflow.scheduledTime}}`.
"""

RANGE: Final = "{{workflow.parameters.from}}..{{workflow.parameters.to}}"
"""The business dates of a backfill."""

GATED: Final = '{{=workflow.parameters.bounds != ""}}'
"""Whether a workflow has a KPI gate: without it no pod is made."""

RUN_ID: Final = (
    "{{workflow.creationTimestamp.Y}}{{workflow.creationTimestamp.m}}{{workflow.creationTimestamp.d}}T"
    "{{workflow.creationTimestamp.H}}{{workflow.creationTimestamp.M}}{{workflow.creationTimestamp.S}}Z-{{workflow.uid}}"
)
"""`20260102T180000Z-<uid>`: the same for all pods of a workflow and for its retries (layout.check_run_id).

Argo writes the time in its controller's zone, UTC in its image. Everything that sorts run ids relies on that.
"""

_RETRY: Final = RetryStrategy(
    limit=2,
    retry_policy="Always",
    expression=f'lastRetry.status == "Error" || asInt(lastRetry.exitCode) in {list(retryable_exit_codes())}',
    backoff=m.Backoff(duration="30s", factor=4),
)
"""Once more after 30 s and after 2 min, where the failure's class says that it can help, or the pod was lost."""

_PROTECTED: Final = {
    "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
    "karpenter.sh/do-not-disrupt": "true",
}
"""Who wants to empty a node waits for a run's pods. A pod that is lost all the same is made up for by its retry."""

_MORE_THAN_ANY_RUN_HAS: Final = 9999

_MINUTE: Final = 60


def date_parameter() -> Parameter:
    """Give the parameter `date` of a workflow."""
    return Parameter(name="date", description="Business date 2026-01-02, or the RFC 3339 instant of a schedule.")


def tables_parameter() -> Parameter:
    """Give the parameter `tables` of a workflow, as JSON, so that it can be fanned out over."""
    names = ", ".join(f'"{table}"' for table in DEFAULT_TABLES)
    return Parameter(name="tables", value=f"[{names}]", description="JSON list of the source tables.")


def bounds_parameter() -> Parameter:
    """Give the parameter `bounds` of a workflow, by which Tableau is held back; empty, nothing is."""
    about = "How far KPIs may move before Tableau waits for a person: net_revenue=50%,orders=50%."
    return Parameter(name="bounds", value="", description=about)


def trigger_parameter(value: str = "manual") -> Parameter:
    """Give the parameter `trigger` of a workflow, which goes into the ledger."""
    return Parameter(name="trigger", value=value, description="What began the run: cron, manual, backfill or local.")


def workflow_template(
    name: str,
    *,
    entrypoint: str,
    priority: int,
    arguments: list[Parameter],
    lock: str,
    title: str,
    description: str,
    dates: str = DATE,
) -> WorkflowTemplate:
    """Open a WorkflowTemplate as all of ours are: one at a time of a lock, locked down, and cleaned up after a while.

    `title` and `description` (Markdown) are for Argo's UI, where `{{…}}` may be used. The lock is held by the workflow
    and not by a template, where Argo has lost some. Stages have no token of Kubernetes; Argo's executor beside them
    mounts that of an account of its own, which may only write `workflowtaskresults`.

    Upstream: https://argo-workflows.readthedocs.io/en/latest/fields/#workflowspec
    """
    labels = {"date": dates, "trigger": "{{workflow.parameters.trigger}}"}
    workflow = WorkflowTemplate(
        name=name,
        annotations=_in_the_ui(name, description),
        entrypoint=entrypoint,
        arguments=arguments,
        priority=priority,
        synchronization=one_at_a_time(lock),
        service_account_name=NAME,
        automount_service_account_token=False,
        executor=m.ExecutorConfig(service_account_name=f"{NAME}-executor"),
        security_context=m.PodSecurityContext(
            run_as_non_root=True, seccomp_profile=m.SeccompProfile(type="RuntimeDefault")
        ),
        volumes=[m.Volume(name="tmp", empty_dir=m.EmptyDirVolumeSource())],
        workflow_metadata=m.WorkflowMetadata(labels=labels, annotations=_in_the_ui(title, description)),
        pod_metadata=m.Metadata(labels=labels, annotations=_PROTECTED),
        pod_disruption_budget=m.PodDisruptionBudgetSpec(min_available=_MORE_THAN_ANY_RUN_HAS),
        pod_gc=m.PodGC(strategy="OnWorkflowSuccess", delete_delay_duration="10m"),
        ttl_strategy=m.TTLStrategy(
            seconds_after_success=3 * 24 * 60 * _MINUTE, seconds_after_failure=14 * 24 * 60 * _MINUTE
        ),
        on_exit="finish",
    )
    with workflow:
        _finish(RANGE if dates == RANGE else "{{workflow.parameters.date}}")
    return workflow


def _in_the_ui(title: str, description: str) -> dict[str, str]:
    return {"workflows.argoproj.io/title": title, "workflows.argoproj.io/description": description}


def one_at_a_time(lock: str) -> m.Synchronization:
    """Let one holder of a lock go on at a time, the one of the highest priority first.

    A mutex, since more than one is never right here: a business date has one run, a Databricks pipeline one update at
    a time, and a Tableau token one session (a second sign-in ends the first). A semaphore would need a ConfigMap, and
    offer a number that must stay 1. Upstream: https://argo-workflows.readthedocs.io/en/latest/synchronization/
    """
    return m.Synchronization(mutexes=[m.Mutex(name=f"ecomm-{lock}")])


def _finish(dates: str) -> Container:
    """Close the ledger, however the workflow ended."""
    told = {
        "date": dates,
        "workflow": "{{workflow.name}}",
        "status": "{{workflow.status}}",
        "duration": "{{workflow.duration}}",
        "failures": "{{workflow.failures}}",
    }
    return _stage("finish", told=told, image="extractor", minutes=10, memory="128Mi")


def dates() -> Container:
    """Tell which business dates of a range a backfill has to do, as a JSON list of as many lists as go at once."""
    inputs = ["date", "mode", "parallelism"]
    return _stage("dates", inputs=inputs, image="extractor", minutes=10, memory="256Mi")


def extractor() -> Container:
    """Copy one table's window of one date from Postgres to S3."""
    return _stage("extractor", inputs=["date", "table"], minutes=_minutes(Extractor, "statement_timeout"), cpu="500m")


def dlt_trigger() -> Container:
    """Update Bronze, Silver and Gold."""
    return _stage(
        "dlt-trigger",
        inputs=["date"],
        minutes=_minutes(DltTrigger, "queue_timeout", "run_timeout"),
        lock="dlt-pipeline",
    )


def gate() -> Container:
    """Wait for the hour at which dbt may begin; a past date passes at once."""
    return _stage("gate", inputs=["date", "not-before"], image="extractor", minutes=8 * 60, memory="128Mi")


def dbt_runner() -> Container:
    """Build and test the KPI tables: all, or those that `select` names."""
    beside, cloud = _minutes(DbtRunner, "warmup_timeout", "timeout"), _minutes(DbtCloud, "queue_timeout", "run_timeout")
    return _stage("dbt-runner", inputs=["date", "select"], minutes=max(beside, cloud), cpu="500m", memory="1Gi")


def tableau_refresher() -> Container:
    """Refresh the Tableau extracts."""
    return _stage("tableau-refresher", inputs=["date"], minutes=_minutes(Tableau, "timeout"), lock="tableau-session")


def kpi_gate() -> DAG:
    """Judge the KPIs of dates; where one moved too far, wait until a person lets the workflow go on.

    Argo cannot let a wait fail: when its time is over it goes on by itself, and tableau-refresher refuses.
    """
    judge = _stage(
        "kpi-gate",
        inputs=["date"],
        told={"workflow": "{{workflow.namespace}}/{{workflow.name}}"},
        env={"ECOMM_KPI_GATE_BOUNDS": "{{workflow.parameters.bounds}}"},
        image="reconciler",
        minutes=20,
    )
    hold = Suspend(name="hold", inputs=[Parameter(name="reason")], duration=f"{int(HOLD.total_seconds())}")
    verdict = "tasks.verdict.outputs.result"
    with DAG(name="kpis", inputs=[Parameter(name="date")]) as both:
        Task(name="verdict", template=judge, arguments={"date": "{{inputs.parameters.date}}"}) >> Task(
            name="hold",
            template=hold,
            arguments={"reason": f"{{{{{verdict}}}}}"},
            when=f'{{{{={verdict} != "{PASSED}"}}}}',
        )
    return both


def reconciler() -> Container:
    """Prove rows and money from Postgres through Gold or the KPI tables."""
    return _stage("reconciler", inputs=["date", "through"], minutes=60, memory="512Mi")


def _stage(  # noqa: PLR0913 (a step is all of these)
    name: str,
    *,
    minutes: int,
    inputs: Sequence[str] = (),
    told: Mapping[str, str] | None = None,
    env: Mapping[str, str] | None = None,
    image: str | None = None,
    cpu: str = "100m",
    memory: str = "256Mi",
    lock: str | None = None,
) -> Container:
    """Run `ecomm NAME --INPUT=VALUE…` in the image of that name, for `minutes` at most, while it holds a lock.

    `told` are options that are no inputs, with their values; `env` are further environment variables.
    """
    options = {input_: f"{{{{inputs.parameters.{input_}}}}}" for input_ in inputs} | dict(told or {})
    return Container(
        name=name,
        labels={"app.kubernetes.io/name": NAME, "app.kubernetes.io/component": name},
        inputs=[Parameter(name=input_) for input_ in inputs],
        synchronization=one_at_a_time(lock) if lock else None,
        image=f"{NAME}/{image or name}:{__version__}",
        command=["ecomm"],
        args=[name, *(f"--{option}={value}" for option, value in options.items())],
        env=[
            m.EnvVar(name="ECOMM_RUN_ID", value=RUN_ID),
            m.EnvVar(name="ECOMM_TRIGGER", value="{{workflow.parameters.trigger}}"),
            *(m.EnvVar(name=name, value=value) for name, value in (env or {}).items()),
        ],
        env_from=[
            m.EnvFromSource(config_map_ref=m.ConfigMapEnvSource(name=NAME)),
            m.EnvFromSource(secret_ref=m.SecretEnvSource(name=NAME)),
        ],
        active_deadline_seconds=minutes * _MINUTE,
        retry_strategy=_RETRY,
        resources=Resources(cpu_request=cpu, memory_request=memory, memory_limit=memory),
        security_context=m.SecurityContext(
            allow_privilege_escalation=False,
            capabilities=m.Capabilities(drop=["ALL"]),
            read_only_root_filesystem=True,
        ),
        volume_mounts=[m.VolumeMount(name="tmp", mount_path="/tmp")],  # noqa: S108 (the pod's own)
    )


def _minutes(group: type[BaseSettings], *limits: str) -> int:
    """Give a stage's own limits and ten minutes: it is to end by itself, with a message, before its pod is ended."""
    return sum(int(group.model_fields[limit].default) for limit in limits) // _MINUTE + 10
