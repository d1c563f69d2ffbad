"""What every workflow is made of: one template a stage, and how each runs, retries and ends.

Call a stage inside a `WorkflowTemplate`'s context to add its template there, then call the template to draw a task.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hera.workflows import Container, Parameter, Resources, RetryStrategy, WorkflowTemplate
from hera.workflows import models as m

from ecomm_pipeline import __version__
from ecomm_pipeline.errors import retryable_exit_codes
from ecomm_pipeline.settings import DEFAULT_TABLES, DbtRunner, DltTrigger, Extractor, Tableau

if TYPE_CHECKING:
    from pydantic_settings import BaseSettings

__all__ = [
    "BACKFILL",
    "NIGHTLY",
    "date_parameter",
    "dates",
    "dbt_runner",
    "dlt_trigger",
    "extractor",
    "gate",
    "one_run_a_date",
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

_MINUTE: Final = 60


def date_parameter() -> Parameter:
    """Give the parameter `date` of a workflow."""
    return Parameter(name="date", description="Business date 2026-01-02, or the RFC 3339 instant of a schedule.")


def tables_parameter() -> Parameter:
    """Give the parameter `tables` of a workflow, as JSON, so that it can be fanned out over."""
    names = ", ".join(f'"{table}"' for table in DEFAULT_TABLES)
    return Parameter(name="tables", value=f"[{names}]", description="JSON list of the source tables.")


def trigger_parameter(value: str = "manual") -> Parameter:
    """Give the parameter `trigger` of a workflow, which goes into the ledger."""
    return Parameter(name="trigger", value=value, description="What began the run: cron, manual, backfill or local.")


def workflow_template(name: str, *, entrypoint: str, priority: int, arguments: list[Parameter]) -> WorkflowTemplate:
    """Open a WorkflowTemplate as all of ours are: locked down, and cleaned up after a while.

    Upstream: https://argo-workflows.readthedocs.io/en/latest/fields/#workflowspec
    """
    return WorkflowTemplate(
        name=name,
        entrypoint=entrypoint,
        arguments=arguments,
        priority=priority,
        service_account_name=NAME,
        security_context=m.PodSecurityContext(
            run_as_non_root=True, seccomp_profile=m.SeccompProfile(type="RuntimeDefault")
        ),
        volumes=[m.Volume(name="tmp", empty_dir=m.EmptyDirVolumeSource())],
        pod_gc=m.PodGC(strategy="OnWorkflowSuccess", delete_delay_duration="10m"),
        ttl_strategy=m.TTLStrategy(
            seconds_after_success=3 * 24 * 60 * _MINUTE, seconds_after_failure=14 * 24 * 60 * _MINUTE
        ),
    )


def one_run_a_date(date: str) -> m.Synchronization:
    """Let one run at a time work on a business date.

    It is held by a template, not by the workflow: only there is the business date of a scheduled run known, and a
    nightly run must wait for a manual one of the same date. Upstream:
    https://argo-workflows.readthedocs.io/en/latest/synchronization/
    """
    return m.Synchronization(mutexes=[m.Mutex(name=f"ecomm-{date}")])


def dates() -> Container:
    """Tell which business dates the parameter means: as a JSON list, or (`form` is `single`) the only one, bare."""
    return _stage("dates", inputs=["date", "form"], image="extractor", minutes=5, memory="128Mi")


def extractor() -> Container:
    """Copy one table's window of one date from Postgres to S3."""
    return _stage("extractor", inputs=["date", "table"], minutes=_minutes(Extractor, "statement_timeout"), cpu="500m")


def dlt_trigger() -> Container:
    """Update Bronze, Silver and Gold."""
    return _stage("dlt-trigger", inputs=["date"], minutes=_minutes(DltTrigger, "queue_timeout", "run_timeout"))


def gate() -> Container:
    """Wait for the hour at which dbt may begin; a past date passes at once."""
    return _stage("gate", inputs=["date", "not-before"], image="extractor", minutes=8 * 60, memory="128Mi")


def dbt_runner() -> Container:
    """Build and test the KPI tables: all, or those that `select` names."""
    minutes = _minutes(DbtRunner, "warmup_timeout", "timeout")
    return _stage("dbt-runner", inputs=["date", "select"], minutes=minutes, cpu="500m", memory="1Gi")


def tableau_refresher() -> Container:
    """Refresh the Tableau extracts."""
    return _stage("tableau-refresher", inputs=["date"], minutes=_minutes(Tableau, "timeout"))


def reconciler() -> Container:
    """Prove rows and money from Postgres through Gold or the KPI tables."""
    return _stage("reconciler", inputs=["date", "through"], minutes=60, memory="512Mi")


def _stage(
    name: str,
    *,
    inputs: list[str],
    minutes: int,
    image: str | None = None,
    cpu: str = "100m",
    memory: str = "256Mi",
) -> Container:
    """Run `ecomm NAME --INPUT=VALUE…` in the image of that name, for `minutes` at most."""
    return Container(
        name=name,
        labels={"app.kubernetes.io/name": NAME, "app.kubernetes.io/component": name},
        inputs=[Parameter(name=input_) for input_ in inputs],
        image=f"{NAME}/{image or name}:{__version__}",
        command=["ecomm"],
        args=[name, *(f"--{input_}={{{{inputs.parameters.{input_}}}}}" for input_ in inputs)],
        env=[
            m.EnvVar(name="ECOMM_RUN_ID", value=RUN_ID),
            m.EnvVar(name="ECOMM_TRIGGER", value="{{workflow.parameters.trigger}}"),
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
