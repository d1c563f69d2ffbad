"""The rendered workflows: what Argo's own lint does not see, and what the rest of the project promises of them."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
import yaml
from workflows.render import RENDERED, main, render
from workflows.stages import DATE, NAME, RANGE, ZONE

from ecomm_pipeline import __version__
from ecomm_pipeline.backlog import MODES, lanes
from ecomm_pipeline.cli import app
from ecomm_pipeline.dates import DateRange, parse_dates
from ecomm_pipeline.errors import FAILURE_CLASSES
from ecomm_pipeline.kpi_gate.plan import HELD, HOLD, PASSED
from ecomm_pipeline.layout import STAGES, check_run_id
from ecomm_pipeline.runner.plan import choose, delay, run_scope
from ecomm_pipeline.runner.workflow import Container, Dag, Suspend, holds, parse, substitute
from ecomm_pipeline.settings import DEFAULT_TABLES

HO_CHI_MINH = ZoneInfo("Asia/Ho_Chi_Minh")
DOCUMENTS = {path.name: yaml.safe_load(path.read_text()) for path in sorted(RENDERED.glob("*.yaml"))}
TEMPLATES = {name: data for name, data in DOCUMENTS.items() if data["kind"] == "WorkflowTemplate"}
CRON = DOCUMENTS["batch-ecomm-pipeline.cron.yaml"]
PARSED = {name: parse(data, name) for name, data in TEMPLATES.items()}
GATED = ["backfill.yaml", "batch-ecomm-pipeline.yaml"]
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
        "reconcile",
    }


def test_names_leave_room_for_what_argo_appends():
    assert all(len(data["metadata"]["name"]) <= 52 for data in DOCUMENTS.values())


def test_everything_that_a_workflow_refers_to_is_there():
    """`parse` refuses a template, a parameter, a result or a dependency that is not there."""
    assert all(workflow.entrypoint in workflow.templates for workflow in PARSED.values())
    for workflow in PARSED.values():
        used = {task.template for t in workflow.templates.values() if isinstance(t.body, Dag) for task in t.body.tasks}
        assert used | {workflow.entrypoint, workflow.exit_handler} == workflow.templates.keys(), (
            "a template that nothing uses"
        )


def test_the_drawing_is_the_drawing_of_the_architecture():
    main = PARSED["batch-ecomm-pipeline.yaml"].templates["main"].body
    assert [(task.name, task.template, sorted(task.needs)) for task in main.tasks] == [
        ("extractor", "extractor", []),
        ("dlt-trigger", "dlt-trigger", ["extractor"]),
        ("reconciler-gold", "reconciler", ["dlt-trigger"]),
        ("gate", "gate", ["dlt-trigger"]),
        ("dbt-runner", "dbt-runner", ["gate", "reconciler-gold"]),
        ("kpi-gate", "kpis", ["dbt-runner"]),
        ("tableau-refresher", "tableau-refresher", ["kpi-gate"]),
        ("reconciler-kpi", "reconciler", ["tableau-refresher"]),
    ]


def test_a_night_is_no_deeper_than_the_stages_need():
    """Every pod that has to wait for another costs seconds, whatever it does; the KPI gate is off by default."""
    assert _levels(PARSED["batch-ecomm-pipeline.yaml"], "main") == 6


@pytest.mark.parametrize("name", GATED)
def test_tableau_waits_for_the_kpi_gate_where_there_are_bounds_and_else_no_pod_is_made(name):
    workflow = PARSED[name]
    tasks = [task for t in workflow.templates.values() if isinstance(t.body, Dag) for task in t.body.tasks]
    (judge,) = (task for task in tasks if task.name == "kpi-gate")
    assert workflow.arguments["bounds"] == ""
    for bounds, gated in (("", False), ("orders=50%", True)):
        assert holds(judge.when, {"workflow.parameters.bounds": bounds}, "test") is gated


@pytest.mark.parametrize("name", GATED)
def test_a_person_is_waited_for_where_a_kpi_moved_and_told_why(name):
    verdict, hold = PARSED[name].templates["kpis"].body.tasks
    assert (verdict.template, verdict.when) == ("kpi-gate", None)
    assert PARSED[name].templates["kpi-gate"].body.env["ECOMM_KPI_GATE_BOUNDS"] == "{{workflow.parameters.bounds}}"
    result = f"tasks.{verdict.name}.outputs.result"
    for said, waits in ((PASSED, False), (f"{HELD}: orders of 2026-01-02 is 1", True)):
        assert holds(hold.when, {result: said}, "test") is waits
    assert hold.arguments == {"reason": f"{{{{{result}}}}}"}
    assert PARSED[name].templates[hold.template].body == Suspend()


def test_a_held_night_is_over_before_the_next_begins():
    """While it goes on the clock begins none. KPIs are judged after the gate at 05:00 and dbt's 20 minutes."""
    (hold,) = (one for one in TEMPLATES["batch-ecomm-pipeline.yaml"]["spec"]["templates"] if one["name"] == "hold")
    assert timedelta(hours=5, minutes=20) + timedelta(seconds=int(hold["suspend"]["duration"])) < timedelta(hours=24)
    assert timedelta(seconds=int(hold["suspend"]["duration"])) == HOLD


def test_a_backfill_does_all_but_extraction_once():
    backfill = PARSED["backfill.yaml"].templates
    tasks = backfill["range"].body.tasks
    assert [(task.name, task.template) for task in tasks] == [
        ("lane", "lane"),
        ("dlt-trigger", "dlt-trigger"),
        ("reconciler-gold", "reconciler"),
        ("dbt-runner", "dbt-runner"),
        ("kpi-gate", "kpis"),
        ("tableau-refresher", "tableau-refresher"),
        ("reconciler-kpi", "reconciler"),
    ]
    assert [task.name for task in tasks if task.items is not None] == ["lane"]
    assert all(task.arguments["date"] == RANGE for task in tasks[1:])
    assert [sorted(task.needs) for task in tasks] == [[], *([task.name] for task in tasks[:-1])]


def test_a_backfill_extracts_as_many_dates_at_once_as_there_are_lanes():
    backfill = PARSED["backfill.yaml"]
    (plan, _) = backfill.templates["main"].body.tasks
    assert plan.arguments["parallelism"] == "{{workflow.parameters.parallelism}}"
    assert backfill.templates["range"].parallelism is None
    assert backfill.templates["lane"].parallelism == 1
    assert backfill.arguments["parallelism"] == "2"


def test_a_backfill_with_nothing_to_do_ends_with_its_plan():
    plan, rest = PARSED["backfill.yaml"].templates["main"].body.tasks
    for result, expected in (("[]", False), ('[["2026-01-01", "2026-01-03"], ["2026-01-02"]]', True)):
        assert holds(rest.when, {f"tasks.{plan.name}.outputs.result": result}, "test") is expected
    assert rest.needs == {plan.name}
    assert lanes([], 2) == "[]"


def test_a_backfill_offers_the_modes_of_its_plan():
    parameters = {p["name"]: p for p in TEMPLATES["backfill.yaml"]["spec"]["arguments"]["parameters"]}
    assert parameters["mode"]["enum"] == list(MODES)
    assert parameters["mode"]["value"] == "missing"
    assert [p for p in parameters if "value" not in parameters[p]] == ["from", "to"]


# --- the end


@pytest.mark.parametrize("name", TEMPLATES)
def test_however_a_workflow_ends_its_ledger_is_closed(name):
    workflow = PARSED[name]
    finish = workflow.templates[workflow.exit_handler].body
    told = dict(option.removeprefix("--").split("=", 1) for option in finish.command[2:])
    assert finish.command[:2] == ("ecomm", "finish")
    assert told == {
        "date": RANGE if name == "backfill.yaml" else "{{workflow.parameters.date}}",
        "workflow": "{{workflow.name}}",
        "status": "{{workflow.status}}",
        "duration": "{{workflow.duration}}",
        "failures": "{{workflow.failures}}",
    }


@pytest.mark.parametrize("name", TEMPLATES)
def test_hooks_are_few_and_refer_to_templates_that_are_there(name):
    """Argo's lint resolves `onExit` only; whoever adds a hook is to check its template here."""
    text = yaml.safe_dump(TEMPLATES[name])
    assert "hooks:" not in text
    assert TEMPLATES[name]["spec"]["onExit"] in PARSED[name].templates
    assert "activeDeadlineSeconds" not in TEMPLATES[name]["spec"], "it would cut the exit handler short"


# --- the schedule


def test_the_nightly_run_is_at_one_in_ho_chi_minh_city_and_never_twice_at_once():
    spec = CRON["spec"]
    assert (spec["schedules"], spec["timezone"]) == (["0 1 * * *"], "Asia/Ho_Chi_Minh")
    assert ZoneInfo(spec["timezone"]).key == spec["timezone"]
    assert spec["concurrencyPolicy"] == "Forbid"
    assert 0 < spec["startingDeadlineSeconds"] <= 4 * 3600


def test_the_nightly_run_is_only_a_reference_with_arguments_that_its_template_declares():
    spec = CRON["spec"]["workflowSpec"]
    assert spec.keys() == {"workflowTemplateRef", "arguments", "priority"}
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


@pytest.mark.parametrize("name", [name for name in TEMPLATES if name != "backfill.yaml"])
def test_all_that_is_done_for_a_date_shares_a_lock(name):
    assert TEMPLATES[name]["spec"]["synchronization"] == {"mutexes": [{"name": f"ecomm-{DATE}"}]}


def test_a_backfill_extracts_a_date_under_its_lock_and_is_the_only_backfill():
    spec = TEMPLATES["backfill.yaml"]["spec"]
    day = next(template for template in spec["templates"] if template["name"] == "day")
    assert day["synchronization"] == {"mutexes": [{"name": "ecomm-{{inputs.parameters.date}}"}]}
    assert spec["synchronization"] == {"mutexes": [{"name": "ecomm-backfill"}]}


def test_there_is_one_update_of_the_pipeline_and_one_session_of_tableau_at_a_time():
    locks = {}
    for _, template in (case.values for case in CONTAINERS):
        locks.setdefault(template["name"], []).append(template.get("synchronization"))
    assert {name: found[0] for name, found in locks.items() if any(found)} == {
        "dlt-trigger": {"mutexes": [{"name": "ecomm-dlt-pipeline"}]},
        "tableau-refresher": {"mutexes": [{"name": "ecomm-tableau-session"}]},
    }
    assert all(len(set(map(str, found))) == 1 for found in locks.values())


@pytest.mark.parametrize("name", TEMPLATES)
def test_nothing_waits_for_a_lock_while_it_holds_one_that_the_other_waits_for(name):
    """Locks are taken in one order: backfill or date of the workflow, date of a backfill's day, then a service's."""
    spec = TEMPLATES[name]["spec"]
    for template in spec["templates"]:
        inside = {task["template"] for task in template.get("dag", {}).get("tasks", [])}
        if "synchronization" in template:
            assert inside <= {"extractor"}, "under a template's lock nothing else may take one"
        assert len(template.get("synchronization", {}).get("mutexes", [])) <= 1


def test_the_nightly_run_goes_before_a_backfill():
    """Argo's queues read the priority of a run, and none where it has only a reference to a template with one."""
    priority = {name: data["spec"]["priority"] for name, data in TEMPLATES.items()}
    assert CRON["spec"]["workflowSpec"]["priority"] == priority["batch-ecomm-pipeline.yaml"] > priority["backfill.yaml"]


@pytest.mark.parametrize("name", TEMPLATES)
def test_workflow_and_pods_say_which_date_they_are_for_and_what_began_them(name):
    spec = TEMPLATES[name]["spec"]
    date = RANGE if name == "backfill.yaml" else DATE
    labels = {"date": date, "trigger": "{{workflow.parameters.trigger}}"}
    assert spec["workflowMetadata"]["labels"] == spec["podMetadata"]["labels"] == labels
    assert date in spec["workflowMetadata"]["annotations"]["workflows.argoproj.io/title"]
    for shown in (spec["workflowMetadata"]["annotations"], TEMPLATES[name]["metadata"]["annotations"]):
        assert shown["workflows.argoproj.io/description"]


@pytest.mark.parametrize("name", TEMPLATES)
def test_who_empties_a_node_waits_for_a_run(name):
    spec = TEMPLATES[name]["spec"]
    assert spec["podMetadata"]["annotations"]["cluster-autoscaler.kubernetes.io/safe-to-evict"] == "false"
    assert spec["podDisruptionBudget"]["minAvailable"] > 1000


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_zone_stands_only_where_the_chart_replaces_it(name):
    text = yaml.safe_dump(DOCUMENTS[name], width=10_000)
    places = (f'timezone("{ZONE}")', f'timezone(\\"{ZONE}\\")', f"timezone: {ZONE}")
    assert text.count(ZONE) == sum(text.count(place) for place in places)


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
def test_an_image_is_one_of_the_five_stages_and_everything_else_is_the_chart_s(spec, template):
    container = template["container"]
    name, _, tag = container["image"].partition(":")
    assert (name.removeprefix(f"{NAME}/") in STAGES, tag) == (True, __version__)
    assert [list(source.values()) for source in container["envFrom"]] == [[{"name": NAME}]] * 2
    assert spec["serviceAccountName"] == NAME


@pytest.mark.parametrize("name", TEMPLATES)
def test_only_argo_s_executor_has_a_token_of_kubernetes(name):
    spec = TEMPLATES[name]["spec"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["executor"] == {"serviceAccountName": f"{NAME}-executor"}


def test_every_stage_runs_in_an_image_of_its_own():
    images = {template["name"]: template["container"]["image"] for _, template in (case.values for case in CONTAINERS)}
    assert {stage: images[stage] for stage in STAGES} == {stage: f"{NAME}/{stage}:{__version__}" for stage in STAGES}


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
    needed = {name for name, default in workflow.arguments.items() if default is None}
    assert needed <= choice.arguments.keys() <= workflow.arguments.keys()


def test_the_tables_of_the_workflow_are_those_of_the_settings():
    for name in ("batch-ecomm-pipeline.yaml", "backfill.yaml"):
        assert yaml.safe_load(PARSED[name].arguments["tables"]) == list(DEFAULT_TABLES)


def test_a_range_of_one_date_is_the_daily_pipeline():
    day = one("2026-01-02").only
    assert choose(DateRange(day, day), DEFAULT_TABLES).workflow == "batch-ecomm-pipeline"


def _levels(workflow, name):
    """Count the pods that wait for each other from the first to the last, as the defaults of the parameters say."""
    body = workflow.templates[name].body
    if isinstance(body, Container):
        return 1
    defaults = {f"workflow.parameters.{key}": value or "" for key, value in workflow.arguments.items()}
    depth: dict[str, int] = {}
    for task in body.tasks:
        own = _levels(workflow, task.template) if holds(task.when, defaults, name) else 0
        depth[task.name] = own + max((depth[need] for need in task.needs), default=0)
    return max(depth.values())


def _parsed(spec, template):
    name = next(name for name, data in TEMPLATES.items() if data["spec"] is spec)
    parsed = PARSED[name].templates[template["name"]]
    assert isinstance(parsed.body, Container)
    return parsed
