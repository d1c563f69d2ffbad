"""The part of Argo's WorkflowTemplate that `ecomm run` understands, read strictly.

What is not understood is refused, by template and field, so that a run here never quietly differs from one on the
cluster. What only matters there is listed in `CLUSTER_ONLY`. Upstream:
https://argo-workflows.readthedocs.io/en/latest/fields/#workflowspec
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar

from ecomm_pipeline.errors import ConfigurationError
from ecomm_pipeline.runner.expression import Expression

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

__all__ = [
    "CLUSTER_ONLY",
    "Container",
    "Dag",
    "Retry",
    "Suspend",
    "Task",
    "Template",
    "Workflow",
    "holds",
    "parse",
    "substitute",
]

CLUSTER_ONLY: Final[dict[str, frozenset[str]]] = {
    "spec": frozenset({
        "archiveLogs", "automountServiceAccountToken", "executor", "imagePullSecrets", "nodeSelector",
        "podDisruptionBudget", "podGC", "podMetadata", "podPriorityClassName", "priority", "securityContext",
        "serviceAccountName", "synchronization", "tolerations", "ttlStrategy", "volumes", "workflowMetadata",
    }),
    "template": frozenset({
        "metadata", "metrics", "nodeSelector", "priorityClassName", "synchronization", "tolerations",
    }),
    "container": frozenset({
        "envFrom", "image", "imagePullPolicy", "resources", "securityContext", "volumeMounts",
    }),
    "suspend": frozenset({"duration"}),
    "parameter": frozenset({"description", "enum"}),
}  # fmt: skip
"""Fields that say where and how pods run, not what they do: here they make no difference."""

_PLACEHOLDER: Final = re.compile(r"\{\{(.*?)\}\}")
_CONDITION: Final = re.compile(r"\{\{=(.*)\}\}")
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)(s|m|h)?")
_CLOCK_LETTERS: Final = "YmdHMS"
_OF_THE_WORKFLOW: Final = (
    "workflow.name",
    "workflow.namespace",
    "workflow.uid",
    *(f"workflow.creationTimestamp.{c}" for c in _CLOCK_LETTERS),
)
_AT_THE_END: Final = ("workflow.status", "workflow.duration", "workflow.failures")
"""What the exit handler is told besides."""
_REQUIRED: Final = object()


@dataclass(frozen=True, slots=True)
class Retry:
    """How often a container is tried again (`limit`), after how many seconds, and for which failures."""

    limit: int
    expression: Expression | None
    first_delay: float
    factor: float


@dataclass(frozen=True, slots=True)
class Container:
    """A command, what is added to its environment, and the seconds it may take."""

    command: tuple[str, ...]
    env: Mapping[str, str]
    deadline: float | None


@dataclass(frozen=True, slots=True)
class Task:
    """A use of a template in a DAG, after the tasks it `needs`; once, or for each of the JSON list `items`.

    It is skipped, and counts as succeeded, when the condition `when` does not hold.
    """

    name: str
    template: str
    arguments: Mapping[str, str]
    needs: frozenset[str]
    items: str | None
    when: str | None = None


@dataclass(frozen=True, slots=True)
class Dag:
    """Tasks and their order. With `fail_fast` nothing new begins after a failure; what runs is left to end."""

    tasks: tuple[Task, ...]
    fail_fast: bool


@dataclass(frozen=True, slots=True)
class Suspend:
    """A wait for a person, whom the template's inputs tell why."""


@dataclass(frozen=True, slots=True)
class Template:
    """A container, a DAG or a wait with its inputs (their defaults; None where a value must be given).

    `parallelism` bounds how many children of a DAG run at once.
    """

    name: str
    inputs: Mapping[str, str | None]
    body: Container | Dag | Suspend
    retry: Retry | None
    parallelism: int | None


@dataclass(frozen=True, slots=True)
class Workflow:
    """A WorkflowTemplate: its templates, the one to begin with and the one to end with, its arguments' defaults."""

    name: str
    entrypoint: str
    exit_handler: str | None
    arguments: Mapping[str, str | None]
    templates: Mapping[str, Template]


def parse(document: object, source: str) -> Workflow:
    """Read a WorkflowTemplate and check that all it refers to is there.

    Raises `ConfigurationError` that names `source`, the template and the field.
    """
    top = _Fields(document, source)
    top.expect("apiVersion", "argoproj.io/v1alpha1")
    top.expect("kind", "WorkflowTemplate")
    metadata = top.child("metadata", ignored=frozenset(("labels", "annotations")))
    name = metadata.take("name", str)
    metadata.close()
    spec = top.child("spec", ignored=CLUSTER_ONLY["spec"])
    top.close()
    templates = [_template(data, name) for data in spec.take("templates", list)]
    workflow = Workflow(
        name=name,
        entrypoint=spec.take("entrypoint", str),
        exit_handler=spec.take("onExit", str, None),
        arguments=_parameters(spec, "arguments"),
        templates={template.name: template for template in templates},
    )
    spec.close()
    _check(workflow)
    return workflow


def substitute(text: str, values: Mapping[str, str], place: str) -> str:
    """Fill in the `{{…}}` of a text, once: what a value holds is not looked at again.

    Raises `ConfigurationError` for one that has no value.
    """

    def fill(match: re.Match[str]) -> str:
        name = match[1].strip()
        if name in values:
            return values[name]
        message = f"{place}: {match[0]} has no value here"
        raise ConfigurationError(message, next_step="declare the parameter, or correct its name in workflows/")

    return _PLACEHOLDER.sub(fill, text)


def holds(when: str | None, values: Mapping[str, str], place: str) -> bool:
    """Tell whether a task's condition, such as `{{=tasks.dates.outputs.result != "[]"}}`, holds; none always does.

    Only this form is understood: Argo's other one, a text that is filled in, breaks at a quote in what fills it.
    """
    if when is None:
        return True
    match = _CONDITION.fullmatch(when)
    if match is None:
        _refuse(f"{place}.when", f"is {when!r}, and only {{{{=EXPRESSION}}}} is understood")
    return Expression(match[1], f"{place}.when")(values)


class _Fields:
    """A mapping that is taken apart field by field; `close` refuses what is left."""

    def __init__(self, data: object, place: str, *, ignored: Collection[str] = ()) -> None:
        if not isinstance(data, dict):
            _refuse(place, "is not a mapping")
        self.place = place
        self._left: dict[str, Any] = {key: value for key, value in data.items() if key not in ignored}

    def take(self, name: str, kind: type[_T], default: object = _REQUIRED) -> _T:
        """Take a field of a kind out."""
        value = self._left.pop(name, default)
        if value is _REQUIRED:
            _refuse(self.place, f"has no {name}")
        if value is not default and (not isinstance(value, kind) or (kind is int and isinstance(value, bool))):
            _refuse(f"{self.place}.{name}", f"is not of type {kind.__name__}")
        return value  # type: ignore[no-any-return]

    def child(self, name: str, *, ignored: Collection[str] = ()) -> _Fields:
        """Take a mapping out; an absent one is empty."""
        return _Fields(self._left.pop(name, {}), f"{self.place}.{name}", ignored=ignored)

    def expect(self, name: str, value: object) -> None:
        """Take a field out that has one value."""
        if (found := self._left.pop(name, None)) != value:
            _refuse(f"{self.place}.{name}", f"is {found!r}, and only {value!r} is understood")

    def has(self, name: str) -> bool:
        """Tell whether a field is still there."""
        return name in self._left

    def close(self) -> None:
        """Refuse the fields that nobody took."""
        if self._left:
            _refuse(self.place, f"uses what `ecomm run` does not understand: {', '.join(sorted(self._left))}")


_T = TypeVar("_T")


def _refuse(place: str, problem: str) -> NoReturn:
    message = f"{place} {problem}"
    raise ConfigurationError(
        message, next_step="change workflows/, or teach ecomm_pipeline/runner/workflow.py the field"
    )


def _template(data: object, workflow: str) -> Template:
    name = _Fields(data, workflow).take("name", str)
    fields = _Fields(data, f"{workflow}: template {name}", ignored=CLUSTER_ONLY["template"])
    fields.take("name", str)
    inputs = _parameters(fields, "inputs")
    retry = _retry(fields.child("retryStrategy")) if fields.has("retryStrategy") else None
    parallelism = fields.take("parallelism", int, None)
    body: Container | Dag | Suspend
    if fields.has("suspend"):
        body = Suspend()
        fields.child("suspend", ignored=CLUSTER_ONLY["suspend"]).close()
    elif fields.has("dag"):
        body = _dag(fields.child("dag"))
        if retry:
            _refuse(fields.place, "retries a whole DAG, which `ecomm run` does not understand")
    else:
        body = _container(fields)
    fields.close()
    return Template(name, inputs, body, retry, parallelism)


def _container(template: _Fields) -> Container:
    deadline = template.take("activeDeadlineSeconds", int, None)
    if not template.has("container"):
        _refuse(template.place, "is neither a container nor a DAG nor a suspend")
    fields = template.child("container", ignored=CLUSTER_ONLY["container"])
    command = (*fields.take("command", list), *fields.take("args", list, []))
    env = dict(_named_values(fields.take("env", list, []), f"{fields.place}.env"))
    fields.close()
    if not all(isinstance(word, str) for word in command):
        _refuse(fields.place, "has a command or argument that is not text")
    return Container(command, {key: value or "" for key, value in env.items()}, deadline)


def _dag(fields: _Fields) -> Dag:
    tasks = tuple(_task(data, fields.place) for data in fields.take("tasks", list))
    dag = Dag(tasks, fail_fast=fields.take("failFast", bool, True))  # noqa: FBT003 (Argo's default)
    fields.close()
    return dag


def _task(data: object, place: str) -> Task:
    name = _Fields(data, place).take("name", str)
    fields = _Fields(data, f"{place}: task {name}")
    fields.take("name", str)
    task = Task(
        name=name,
        template=fields.take("template", str),
        arguments={key: value or "" for key, value in _parameters(fields, "arguments").items()},
        needs=_needs(fields),
        items=fields.take("withParam", str, None),
        when=fields.take("when", str, None),
    )
    fields.close()
    return task


def _needs(fields: _Fields) -> frozenset[str]:
    """Read `depends`, of which only `a && b` is understood: each must have succeeded."""
    depends = fields.take("depends", str, "")
    needs = [need.strip().removesuffix(".Succeeded") for need in depends.split("&&")] if depends else []
    if not all(re.fullmatch(r"[A-Za-z0-9_-]+", need) for need in needs):
        _refuse(f"{fields.place}.depends", f"is {depends!r}, and only names joined by && are understood")
    return frozenset(needs)


def _retry(fields: _Fields) -> Retry:
    limit = fields.take("limit", object)
    if not re.fullmatch(r"\d+", str(limit)):
        _refuse(f"{fields.place}.limit", f"is {limit!r}, not a number")
    fields.expect("retryPolicy", "Always")
    expression = fields.take("expression", str, None)
    backoff = fields.child("backoff")
    retry = Retry(
        limit=int(str(limit)),
        expression=Expression(expression, f"{fields.place}.expression") if expression else None,
        first_delay=_seconds(backoff.take("duration", object, "0"), backoff.place),
        factor=float(str(backoff.take("factor", object, 1))),
    )
    backoff.close()
    fields.close()
    return retry


def _seconds(text: object, place: str) -> float:
    match = _DURATION.fullmatch(str(text))
    if match is None:
        _refuse(f"{place}.duration", f"is {text!r}, and only forms such as 30s, 2m or 1h are understood")
    return float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2] or "s"]


def _parameters(fields: _Fields, name: str) -> dict[str, str | None]:
    """Take `inputs` or `arguments` out; of them only parameters are understood."""
    holder = fields.child(name)
    parameters = dict(_named_values(holder.take("parameters", list, []), holder.place))
    holder.close()
    return parameters


def _named_values(data: list[object], place: str) -> Iterator[tuple[str, str | None]]:
    for entry in data:
        fields = _Fields(entry, place, ignored=CLUSTER_ONLY["parameter"])
        name = fields.take("name", str)
        value = fields.take("value", object, None)
        fields.close()
        yield name, None if value is None else str(value)


def _check(workflow: Workflow) -> None:
    """Refuse what refers to something that is not there."""
    _known(workflow.entrypoint, workflow.templates, f"{workflow.name}: entrypoint")
    if workflow.exit_handler is not None:
        _known(workflow.exit_handler, workflow.templates, f"{workflow.name}: onExit")
    everywhere = {*_OF_THE_WORKFLOW, *(f"workflow.parameters.{name}" for name in workflow.arguments)}
    for template in workflow.templates.values():
        place = f"{workflow.name}: template {template.name}"
        scope = everywhere | {f"inputs.parameters.{name}" for name in template.inputs}
        scope |= set(_AT_THE_END) if template.name == workflow.exit_handler else set()
        if isinstance(template.body, Container):
            for text in (*template.body.command, *template.body.env.values()):
                _resolvable(text, scope, place)
        elif isinstance(template.body, Dag):
            _check_dag(template.body, workflow, scope, place)


def _check_dag(dag: Dag, workflow: Workflow, scope: set[str], place: str) -> None:
    before = _ancestors(dag, place)
    with_result = {task.name for task in dag.tasks if task.items is None and _is_container(workflow, task.template)}
    for task in dag.tasks:
        where = f"{place}: task {task.name}"
        template = workflow.templates[_known(task.template, workflow.templates, where)]
        missing = {name for name, default in template.inputs.items() if default is None} - task.arguments.keys()
        if missing or task.arguments.keys() - template.inputs.keys():
            problem = f"gives {sorted(task.arguments)}, and template {template.name} takes {sorted(template.inputs)}"
            _refuse(where, problem)
        outputs = {f"tasks.{name}.outputs.result" for name in before[task.name] & with_result}
        _resolvable(task.items or "", scope | outputs, where)
        holds(task.when, dict.fromkeys(scope | outputs, ""), where)
        for text in task.arguments.values():
            _resolvable(text, scope | outputs | ({"item"} if task.items is not None else set()), where)


def _is_container(workflow: Workflow, name: str) -> bool:
    """Tell whether a template is a container: of what it printed, unlike of a DAG or a list, there is one result."""
    return name in workflow.templates and isinstance(workflow.templates[name].body, Container)


def _ancestors(dag: Dag, place: str) -> dict[str, set[str]]:
    """Give the tasks that must have succeeded before each. Refuses a circle, and a need of what is not there."""
    found: dict[str, set[str]] = {}
    tasks = {task.name: task for task in dag.tasks}
    for task in dag.tasks:
        for need in task.needs:
            _known(need, tasks, f"{place}: task {task.name}.depends")
    while len(found) < len(tasks):
        ready = [task for task in tasks.values() if task.name not in found and task.needs <= found.keys()]
        if not ready:
            _refuse(place, f"has tasks that wait for each other: {sorted(tasks.keys() - found.keys())}")
        for task in ready:
            found[task.name] = set(task.needs).union(*(found[need] for need in task.needs))
    return found


def _known(name: str, names: Iterable[str], place: str) -> str:
    if name not in names:
        _refuse(place, f"names {name!r}, which is not there")
    return name


def _resolvable(text: str, scope: set[str], place: str) -> None:
    substitute(text, dict.fromkeys(scope, ""), place)
