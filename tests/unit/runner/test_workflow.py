"""Reading a WorkflowTemplate: what is understood is right, and all else is refused by name."""

from __future__ import annotations

import copy

import pytest
import yaml

from ecomm_pipeline.errors import ConfigurationError
from ecomm_pipeline.runner.workflow import CLUSTER_ONLY, Suspend, parse, substitute

DOCUMENT = yaml.safe_load("""
apiVersion: argoproj.io/v1alpha1
kind: WorkflowTemplate
metadata: {name: small, labels: {a: b}}
spec:
  entrypoint: main
  priority: 1
  arguments:
    parameters:
    - {name: date, description: the date}
    - {name: list, value: '["a", "b"]'}
  templates:
  - name: say
    inputs: {parameters: [{name: what}, {name: how, value: loud}]}
    activeDeadlineSeconds: 5
    retryStrategy: {limit: 2, retryPolicy: Always, expression: asInt(lastRetry.exitCode) == 75,
                    backoff: {duration: 2m, factor: 3}}
    container:
      image: none
      command: [sh, -c]
      args: ['echo {{inputs.parameters.what}}']
      env: [{name: RUN, value: '{{workflow.uid}}'}]
  - name: main
    parallelism: 2
    dag:
      tasks:
      - {name: first, template: say, arguments: {parameters: [{name: what, value: '{{workflow.parameters.date}}'}]}}
      - name: each
        template: say
        depends: first
        withParam: '{{workflow.parameters.list}}'
        arguments: {parameters: [{name: what, value: '{{item}} {{tasks.first.outputs.result}}'}]}
""")


def changed(**changes):
    """The document with values set at dotted places (numbers index lists)."""
    document = copy.deepcopy(DOCUMENT)
    for place, value in changes.items():
        *path, last = [int(part) if part.isdigit() else part for part in place.split("__")]
        target = document
        for part in path:
            target = target[part]
        target[last] = value
    return document


def test_a_small_workflow_is_read_whole():
    workflow = parse(DOCUMENT, "small.yaml")
    say, main = workflow.templates["say"], workflow.templates["main"]
    assert workflow.arguments == {"date": None, "list": '["a", "b"]'}
    assert say.inputs == {"what": None, "how": "loud"}
    assert say.body.command == ("sh", "-c", "echo {{inputs.parameters.what}}")
    assert say.body.env == {"RUN": "{{workflow.uid}}"}
    assert (say.body.deadline, say.retry.limit, say.retry.first_delay, say.retry.factor) == (5, 2, 120, 3)
    assert (main.parallelism, main.body.fail_fast) == (2, True)
    assert main.body.tasks[1].needs == {"first"}
    assert main.body.tasks[1].items == "{{workflow.parameters.list}}"


SAY, MAIN, EACH = "spec__templates__0", "spec__templates__1", "spec__templates__1__dag__tasks__1"


@pytest.mark.parametrize(
    ("place", "value", "told"),
    [
        ("kind", "Workflow", r"small\.yaml\.kind is 'Workflow'"),
        ("spec__onExit", "nobody", r"small: onExit names 'nobody', which is not there"),
        ("spec__hooks", {}, r"spec uses what .* does not understand: hooks"),
        (f"{SAY}__container__args", ["{{workflow.status}}"], r"workflow\.status"),
        (f"{SAY}__daemon", True, "template say uses what .*: daemon"),
        (f"{SAY}__outputs", {}, "template say uses what .*: outputs"),
        (f"{SAY}__container__workingDir", "/", r"template say\.container uses what .*: workingDir"),
        (f"{SAY}__container__env", [{"name": "A", "valueFrom": {}}], r"env uses what .*: valueFrom"),
        (f"{SAY}__container__args", [1], "is not text"),
        (f"{SAY}__container__args", ["{{inputs.parameters.wat}}"], r"template say: \{\{inputs\.parameters\.wat\}\}"),
        (f"{SAY}__container__args", ["{{=1 + 1}}"], r"template say: \{\{=1 \+ 1\}\} has no value"),
        (f"{SAY}__container__args", ["{{workflow.parameters.nope}}"], r"workflow\.parameters\.nope"),
        (f"{SAY}__container__args", ["{{item}}"], r"\{\{item\}\}"),
        (f"{SAY}__retryStrategy__retryPolicy", "OnError", "retryPolicy is 'OnError'"),
        (f"{SAY}__retryStrategy__limit", "{{x}}", "limit is .*, not a number"),
        (f"{SAY}__retryStrategy__expression", "sprig.x()", r"retryStrategy\.expression has"),
        (f"{SAY}__retryStrategy__backoff__maxDuration", "1m", "backoff uses what .*: maxDuration"),
        (f"{SAY}__retryStrategy__backoff__duration", "1d", "duration is '1d'"),
        (f"{SAY}__activeDeadlineSeconds", "5", "activeDeadlineSeconds is not of type int"),
        (f"{SAY}__container", None, "container is not a mapping"),
        (f"{MAIN}__retryStrategy", {"limit": 1, "retryPolicy": "Always"}, "retries a whole DAG"),
        (f"{EACH}__depends", "first || say", r"depends is 'first \|\| say'"),
        (f"{EACH}__depends", "first.Failed", "depends is 'first.Failed'"),
        (f"{EACH}__depends", "nobody", "names 'nobody', which is not there"),
        (f"{EACH}__depends", "each", r"wait for each other: \['each'\]"),
        (f"{EACH}__depends", "", r"tasks\.first\.outputs\.result"),
        (f"{EACH}__when", "'{{item}}' != ''", r"task each\.when is .*only \{\{=EXPRESSION\}\} is understood"),
        (f"{EACH}__when", "{{=a == b}}", r"task each\.when has 'a'"),
        (f"{EACH}__when", "{{=tasks.each.outputs.result == ''}}", r"asks for tasks\.each\.outputs\.result"),
        (f"{EACH}__template", "nobody", "names 'nobody'"),
        (f"{EACH}__arguments", {"parameters": []}, r"gives \[\], and template say takes \['how', 'what'\]"),
        (f"{EACH}__arguments", {"artifacts": []}, "arguments uses what .*: artifacts"),
        (f"{MAIN}__dag__tasks__0__withParam", "[1]", r"task each: \{\{tasks\.first\.outputs\.result\}\} has no value"),
        ("spec__entrypoint", "nobody", "entrypoint names 'nobody'"),
        ("spec__templates", [], "entrypoint names 'main'"),
    ],
)
def test_what_is_not_understood_is_refused_by_its_place(place, value, told):
    with pytest.raises(ConfigurationError, match=told):
        parse(changed(**{place: value}), "small.yaml")


def test_a_wait_for_a_person_is_read_and_may_have_a_duration():
    for suspend in ({}, {"duration": "43200"}):
        document = copy.deepcopy(DOCUMENT)
        document["spec"]["templates"].append({"name": "hold", "suspend": suspend})
        assert parse(document, "small.yaml").templates["hold"].body == Suspend()
    document["spec"]["templates"][-1]["suspend"] = {"until": "noon"}
    with pytest.raises(ConfigurationError, match=r"template hold\.suspend uses what .*: until"):
        parse(document, "small.yaml")


def test_what_only_matters_on_a_cluster_is_left_alone():
    plain = copy.deepcopy(DOCUMENT)
    del plain["spec"]["templates"][0]["retryStrategy"]["expression"]
    document = copy.deepcopy(plain)
    document["spec"] |= dict.fromkeys(CLUSTER_ONLY["spec"], "anything")
    document["spec"]["templates"][0] |= dict.fromkeys(CLUSTER_ONLY["template"], "anything")
    document["spec"]["templates"][0]["container"] |= dict.fromkeys(CLUSTER_ONLY["container"], "anything")
    assert parse(document, "small.yaml") == parse(plain, "small.yaml")


def test_a_value_is_filled_in_once_and_not_looked_at_again():
    assert substitute("a {{x}} {{ y }}", {"x": "{{y}}", "y": "1"}, "test") == "a {{y}} 1"


@pytest.mark.parametrize("document", [None, [], "text", {}, {"apiVersion": "v1"}])
def test_what_is_no_workflow_at_all_is_refused(document):
    with pytest.raises(ConfigurationError):
        parse(document, "small.yaml")
