"""The rendered workflows: what Argo's own lint does not see, and what the rest of the project promises of them."""

from __future__ import annotations

import re
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
import yaml
from workflows.render import RENDERED, main, render

from ecomm_pipeline.cli import app
from ecomm_pipeline.dates import DateRange, parse_dates
from ecomm_pipeline.errors import FAILURE_CLASSES
from ecomm_pipeline.layout import check_run_id
from ecomm_pipeline.runner.plan import choose, delay, run_scope
from ecomm_pipeline.runner.workflow import Container, Dag, parse, substitute
from ecomm_pipeline.settings import DEFAULT_TABLES

HO_CHI_MINH = ZoneInfo("Asia/Ho_Chi_Minh")
DOCUMENTS = {path.name: yaml.safe_load(path.read_text()) for path in sorted(RENDERED.glob("*.yaml"))}
TEMPLATES = {name: data for name, data in DOCUMENTS.items() if data["kind"] == "WorkflowTemplate"}
CRON = DOCUMENTS["batch-ecomm-pipeline.cron.yaml"]
PARSED = {name: parse(data, name) for name, data in TEMPLATES.items()}
CONTAINERS = [
    pytest.param(data["spec"], template, id=f"{data['metadata']['name']}-{template['name']}")
    for data in TEMPLATES.values()
    for template in data["spec"]["templates"]
    if "container" in template
]


def one(date):
    return parse_dates(date, HO_CHI_MINH)


def test_the_committed_files_are_as_the_workflows_are_drawn(capsys):
    assert main(["--check"]) == 0, capsys.readouterr().out


def test_a_file_that_differs_is_named_and_fails_the_check(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("workflows.render.RENDERED", tmp_path)
    (tmp_path / "gone.yaml").write_text("")
    assert main(["--check"]) == 1
    assert f"differs: {tmp_path}/gone.yaml" in capsys.readouterr().out
    assert main([]) == 0
    assert {path.name for path in tmp_path.iterdir()} == set(render())


def test_the_workflows_have_the_names_of_the_runbook():
    assert {data["metadata"]["name"] for data in TEMPLATES.values()} == {
        "batch-ecomm-pipeline",
        "backfill",
        "dlt-update",
        "daily-refresh",
        "tableau-refresh",
    }


def test_names_leave_room_for_what_argo_appends():
    assert all(len(data["metadata"]["name"]) <= 52 for data in DOCUMENTS.values())


def test_everything_that_a_workflow_refers_to_is_there():
    """`parse` refuses a template, a parameter, a result or a dependency that is not there."""
    assert all(workflow.entrypoint in workflow.templates for workflow in PARSED.values())
    for workflow in PARSED.values():
        used = {task.template for t in workflow.templates.values() if isinstance(t.body, Dag) for task in t.body.tasks}
        assert used | {workflow.entrypoint} == workflow.templates.keys(), "a template that nothing uses"


def test_the_drawing_is_the_drawing_of_the_architecture():
    day = PARSED["batch-ecomm-pipeline.yaml"].templates["day"].body
    assert [(task.template, sorted(task.needs)) for task in day.tasks] == [
        ("extractor", []),
        ("dlt-trigger", ["extractor"]),
        ("reconciler", ["dlt-trigger"]),
        ("gate", ["reconciler-gold"]),
        ("dbt-runner", ["gate"]),
        ("tableau-refresher", ["dbt-runner"]),
        ("reconciler", ["tableau-refresher"]),
    ]


def test_a_backfill_does_all_but_extraction_once():
    backfill = PARSED["backfill.yaml"].templates
    assert [task.template for task in backfill["main"].body.tasks] == [
        "dates",
        "days",
        "dlt-trigger",
        "reconciler",
        "dbt-runner",
        "tableau-refresher",
        "reconciler",
    ]
    assert [task.items for task in backfill["main"].body.tasks] == [None] * 7
    assert backfill["days"].parallelism == 2


# --- the schedule


def test_the_nightly_run_is_at_one_in_ho_chi_minh_city_and_never_twice_at_once():
    spec = CRON["spec"]
    assert (spec["schedules"], spec["timezone"]) == (["0 1 * * *"], "Asia/Ho_Chi_Minh")
    assert ZoneInfo(spec["timezone"]).key == spec["timezone"]
    assert spec["concurrencyPolicy"] == "Forbid"
    assert 0 < spec["startingDeadlineSeconds"] <= 4 * 3600


def test_the_nightly_run_is_only_a_reference_with_arguments_that_its_template_declares():
    spec = CRON["spec"]["workflowSpec"]
    assert spec.keys() == {"workflowTemplateRef", "arguments"}
    template = PARSED[f"{spec['workflowTemplateRef']['name']}.yaml"]
    given = {parameter["name"]: parameter["value"] for parameter in spec["arguments"]["parameters"]}
    assert given.keys() <= template.arguments.keys()
    assert {name for name, default in template.arguments.items() if default is None} <= given.keys()
    assert given["date"] == "{{workflow.scheduledTime}}"


def test_at_one_in_ho_chi_minh_city_it_is_the_day_before_in_utc():
    """The trap: Argo writes the scheduled time in UTC, and the ten first characters of it are right by luck only."""
    scheduled = datetime(2026, 1, 3, 1, 0, tzinfo=HO_CHI_MINH).astimezone(ZoneInfo("UTC")).isoformat()
    assert scheduled == "2026-01-02T18:00:00+00:00"
    assert str(parse_dates(scheduled, HO_CHI_MINH)) == "2026-01-02"
    at_eight = datetime(2026, 1, 3, 8, 0, tzinfo=HO_CHI_MINH).astimezone(ZoneInfo("UTC")).isoformat()
    assert at_eight[:10] == "2026-01-03"
    assert str(parse_dates(at_eight, HO_CHI_MINH)) == "2026-01-02"


def test_a_scheduled_and_a_manual_run_of_a_date_share_a_mutex():
    """It hangs on the template that gets the computed business date, not on the workflow's own argument."""
    day = next(t for t in TEMPLATES["batch-ecomm-pipeline.yaml"]["spec"]["templates"] if t["name"] == "day")
    assert day["synchronization"] == {"mutexes": [{"name": "ecomm-{{inputs.parameters.date}}"}]}
    call = PARSED["batch-ecomm-pipeline.yaml"].templates["main"].body.tasks[1]
    assert call.arguments == {"date": "{{tasks.business-date.outputs.result}}"}
    backfill_day = next(t for t in TEMPLATES["backfill.yaml"]["spec"]["templates"] if t["name"] == "day")
    assert backfill_day["synchronization"] == day["synchronization"]


def test_the_nightly_run_goes_before_a_backfill():
    priority = {name: data["spec"]["priority"] for name, data in TEMPLATES.items()}
    assert priority["batch-ecomm-pipeline.yaml"] > priority["backfill.yaml"]


# --- the containers


@pytest.mark.parametrize(("spec", "template"), CONTAINERS)
def test_a_container_retries_exactly_the_classes_for_which_it_can_help(spec, template):
    retry = _parsed(spec, template).retry
    truth = {row.exit_code: row.retry for row in FAILURE_CLASSES.values()}
    assert {code: delay(retry, 1, code) is not None for code in truth} == truth
    assert delay(retry, 1, 2) is None
    assert retry.expression({"lastRetry.status": "Error", "lastRetry.exitCode": "-1"}), "a pod that was lost"
    assert [delay(retry, tries, 75) for tries in (1, 2, 3)] == [30, 120, None]


def test_an_exit_code_stands_for_one_answer_to_whether_a_retry_can_help():
    answers: dict[int, set[bool]] = {}
    for row in FAILURE_CLASSES.values():
        answers.setdefault(row.exit_code, set()).add(row.retry)
    assert all(len(answer) == 1 for answer in answers.values())


@pytest.mark.parametrize(("spec", "template"), CONTAINERS)
def test_a_container_runs_a_command_that_exists_with_options_that_it_has(spec, template):
    container = _parsed(spec, template).body
    program, command, *options = container.command
    assert program == "ecomm"
    commands = {entry.name or entry.callback.__name__: entry.callback for entry in app.registered_commands}
    names = [re.fullmatch(r"--([a-z-]+)=.*", option)[1] for option in options]
    known = {name.replace("_", "-") for name in commands[command].__annotations__}
    assert set(names) <= known


@pytest.mark.parametrize(("spec", "template"), CONTAINERS)
def test_a_run_id_is_one_of_ours(spec, template):
    uid = "5c1b0a2e-6a51-4a9e-9b63-2f9f6f6b7a11"
    run_id = f"20260102T180000Z-{uid}"
    env = _parsed(spec, template).body.env
    assert check_run_id(substitute(env["ECOMM_RUN_ID"], run_scope("w", run_id, {}), "test")) == run_id
    assert env["ECOMM_TRIGGER"] == "{{workflow.parameters.trigger}}"


@pytest.mark.parametrize(("spec", "template"), CONTAINERS)
def test_a_pod_is_restricted_and_bounded(spec, template):
    container = template["container"]
    assert spec["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["resources"]["requests"].keys() == {"cpu", "memory"}
    assert "memory" in container["resources"]["limits"]
    assert template["activeDeadlineSeconds"] > 0


def test_a_stage_may_take_what_the_runbook_expects_and_its_own_limit():
    deadlines = {t["name"]: t["activeDeadlineSeconds"] for _, t in (case.values for case in CONTAINERS)}
    assert deadlines["dlt-trigger"] > 2.5 * 3600
    assert deadlines["dbt-runner"] > 20 * 60
    assert deadlines["tableau-refresher"] > 30 * 60
    assert deadlines["gate"] > 4 * 3600


@pytest.mark.parametrize("dates", ["2026-01-02", "2026-01-02..2026-01-04"])
def test_what_ecomm_run_passes_is_what_the_workflow_takes(dates):
    choice = choose(one(dates), DEFAULT_TABLES)
    workflow = PARSED[f"{choice.workflow}.yaml"]
    assert choice.arguments.keys() == workflow.arguments.keys()


def test_the_tables_of_the_workflow_are_those_of_the_settings():
    for name in ("batch-ecomm-pipeline.yaml", "backfill.yaml"):
        assert yaml.safe_load(PARSED[name].arguments["tables"]) == list(DEFAULT_TABLES)


def test_a_range_of_one_date_is_the_daily_pipeline():
    day = one("2026-01-02").only
    assert choose(DateRange(day, day), DEFAULT_TABLES).workflow == "batch-ecomm-pipeline"


def _parsed(spec, template):
    name = next(name for name, data in TEMPLATES.items() if data["spec"] is spec)
    parsed = PARSED[name].templates[template["name"]]
    assert isinstance(parsed.body, Container)
    return parsed
