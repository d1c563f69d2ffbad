"""Argo Workflows: submit a WorkflowTemplate, follow the workflow to its end, and the cluster's refusals in our words.

Wraps the Kubernetes client (https://github.com/kubernetes-client/python), since a workflow is an object like others:
https://argo-workflows.readthedocs.io/en/latest/fields/#workflowspec
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from ecomm_pipeline.errors import (
    BadDataError,
    CancelledError,
    ConfigurationError,
    CredentialsError,
    EcommError,
    MissingSourceError,
    UnavailableError,
    UpstreamFailedError,
    translated,
)
from ecomm_pipeline.patience import patiently

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager

    from ecomm_pipeline.clock import Clock

__all__ = ["Argo", "Seen", "manifest"]

_GROUP: Final = "argoproj.io"
_VERSION: Final = "v1alpha1"
_PLURAL: Final = "workflows"
_EXCERPT: Final = 500
_POLL: Final = 5.0
_ENDED: Final = frozenset({"Succeeded", "Failed", "Error"})
_STOPPED: Final = "Stopped with strategy"
_SHOWN: Final = frozenset({"Pod", "Suspend"})
"""Types of nodes that are told of: the steps and what waits for a person, and none of the DAGs around them."""


@dataclass(frozen=True, slots=True)
class Seen:
    """How far a workflow is: `phase` in Argo's words, `progress` as `3/10`, `steps` the phase of each pod by name."""

    phase: str
    progress: str = ""
    message: str = ""
    steps: tuple[tuple[str, str], ...] = ()

    @property
    def ended(self) -> bool:
        """Whether it will not change any more."""
        return self.phase in _ENDED


def manifest(template: str, arguments: Mapping[str, str], priority: int = 0) -> dict[str, Any]:
    """Write the Workflow that submits a WorkflowTemplate, as `argo submit --from workflowtemplate/…` does.

    Arguments are given, and the priority of the template, as Argo's queues read that of the workflow itself. A
    controller that allows no other change (`templateReferencing: Secure`) takes it, too.
    """
    return {
        "apiVersion": f"{_GROUP}/{_VERSION}",
        "kind": "Workflow",
        "metadata": {
            "generateName": f"{template}-",
            "labels": {"workflows.argoproj.io/workflow-template": template},
        },
        "spec": {
            "workflowTemplateRef": {"name": template},
            "priority": priority,
            "arguments": {"parameters": [{"name": name, "value": value} for name, value in arguments.items()]},
        },
    }


class Argo:
    """The workflows of one namespace. `context` is one of ~/.kube/config; empty: its current one, or the pod's own."""

    def __init__(self, namespace: str, clock: Clock, *, context: str = "") -> None:
        self._namespace = namespace
        self._clock = clock
        self._api = _connect(context)

    def submit(self, template: str, arguments: Mapping[str, str]) -> str:
        """Submit a WorkflowTemplate; gives the workflow's name. Raises `MissingSourceError` where there is none."""
        with _errors(f"submit {template}", self._namespace):
            try:
                found = self._api.get_namespaced_custom_object(
                    _GROUP, _VERSION, self._namespace, "workflowtemplates", template
                )
                wanted = manifest(template, arguments, found["spec"].get("priority", 0))
                made = self._api.create_namespaced_custom_object(_GROUP, _VERSION, self._namespace, _PLURAL, wanted)
            except Exception as error:
                if getattr(error, "status", None) == 404:  # noqa: PLR2004 (HTTP's)
                    message = f"the namespace {self._namespace} has no WorkflowTemplate {template}"
                    raise MissingSourceError(message, next_step="install the chart, or name its namespace") from error
                raise
        return str(made["metadata"]["name"])

    def look(self, name: str) -> Seen:
        """Look how far a workflow is."""
        with _errors(f"workflow {name}", self._namespace):
            found = self._api.get_namespaced_custom_object(_GROUP, _VERSION, self._namespace, _PLURAL, name)
        return _seen(found)

    def follow(self, name: str, say: Callable[[str], None]) -> None:
        """Wait until a workflow has ended, and tell of each step that ends.

        Raises `UpstreamFailedError` when it did not succeed, `CancelledError` when somebody stopped it.
        """
        told: set[tuple[str, str]] = set()
        while True:
            seen = patiently(self._clock, "argo", lambda: self.look(name))
            for step in seen.steps:
                if step not in told and step[1] in {*_ENDED, "Running"}:
                    say(f"  {step[0]:<48} {step[1].lower():<10} {seen.progress}".rstrip())
                    told.add(step)
            if seen.ended:
                break
            self._clock.sleep(_POLL)
        if seen.phase != "Succeeded":
            message = f"the workflow {name} ended as {seen.phase}: {seen.message or 'Argo gives no reason'}"
            kind = CancelledError if seen.message.startswith(_STOPPED) else UpstreamFailedError
            raise kind(message, next_step=f"argo -n {self._namespace} get {name}; and: ecomm doctor")


def _seen(workflow: Mapping[str, Any]) -> Seen:
    status = workflow.get("status") or {}
    nodes = [node for node in (status.get("nodes") or {}).values() if node.get("type") in _SHOWN]
    nodes.sort(key=lambda node: str(node.get("startedAt") or ""))
    reasons = [f"{_label(node)}: {node.get('message')}" for node in nodes if node.get("phase") in {"Failed", "Error"}]
    # The workflow's own message tells only that something below it failed; who stopped it, it alone knows.
    message = str(status.get("message") or "")
    told = message if message.startswith(_STOPPED) or not reasons else reasons[-1]
    return Seen(
        phase=status.get("phase") or "Pending",
        progress=status.get("progress") or "",
        message=" ".join(told.split())[:_EXCERPT],
        steps=tuple((_label(node), str(node.get("phase"))) for node in nodes),
    )


def _label(node: Mapping[str, Any]) -> str:
    """Name a step as `ecomm run` does: its template and what it was given, and which try it is after the first."""
    given = [str(one.get("value") or "") for one in (node.get("inputs") or {}).get("parameters") or []]
    words = " ".join([str(node.get("templateName") or node.get("displayName")), *filter(None, given)])
    number = re.search(r"\((\d+)\)$", str(node.get("displayName")))
    return f"{words} (try {int(number[1]) + 1})" if number and int(number[1]) else words


def _connect(context: str) -> Any:  # noqa: ANN401 (the client has no types)
    try:
        from kubernetes import client, config
    except ModuleNotFoundError as error:
        message = "the Kubernetes client is not installed here"
        raise ConfigurationError(message, next_step="install ecomm-data-pipeline[argo]") from error
    try:
        _load(config, context)
    except Exception as error:
        message = f"no cluster is configured: {' '.join(str(error).split())[:_EXCERPT]}"
        raise ConfigurationError(message, next_step="set KUBECONFIG, or name a --context of it") from error
    return client.CustomObjectsApi()


def _load(config: Any, context: str) -> None:  # noqa: ANN401 (the client has no types)
    """Read ~/.kube/config or what KUBECONFIG names; without one, a pod's own account."""
    try:
        config.load_kube_config(context=context or None)
    except config.ConfigException:
        if context:
            raise
        config.load_incluster_config()


def _errors(what: str, namespace: str) -> AbstractContextManager[None]:
    """Turn the client's errors into ours; `what` names what was asked for or done."""
    return translated(lambda error: _translate(error, f"Kubernetes, namespace {namespace}, {what}"))


_REFUSALS: Final[dict[int, tuple[type[EcommError], str]]] = {
    401: (CredentialsError, "sign in to the cluster again"),
    403: (CredentialsError, "ask for the rights to create and to read workflows there"),
    404: (MissingSourceError, "check the name and the namespace"),
    422: (BadDataError, "see the message; Argo refused the workflow as it is"),
}


def _translate(error: Exception, what: str) -> EcommError | None:
    from kubernetes.client.exceptions import ApiException
    from urllib3.exceptions import HTTPError

    if isinstance(error, ApiException):
        reason = " ".join(str(error.reason or error.body or error).split())[:_EXCERPT]
        kind, next_step = _REFUSALS.get(error.status or 0, (UnavailableError, "the same command may be run again"))
        return kind(f"{what}: {reason}", next_step=next_step)
    if isinstance(error, HTTPError | OSError):
        reason = " ".join(str(error).split())[:_EXCERPT]
        return UnavailableError(f"{what}: {reason}", next_step="check that the cluster is up and reachable")
    return None
