"""A stage run by dbt Cloud: the sandbox's account answers, with commands that only leave artifacts."""

from __future__ import annotations

import json
import threading
import time
from contextlib import closing
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from tests.support.virtual import Died, VirtualClock, VirtualStage, die

from ecomm_pipeline.dbt_runner.cloud import CloudDbt
from ecomm_pipeline.dbt_runner.cloud_api import CloudApi
from ecomm_pipeline.dbt_runner.run import run as run_dbt
from ecomm_pipeline.errors import (
    CancelledError,
    ConfigurationError,
    CredentialsError,
    TimedOutError,
    UnavailableError,
    UpstreamFailedError,
)
from ecomm_pipeline.settings import DbtCloud
from ecomm_sandbox.dbt_cloud.account import COMMANDS, Account
from ecomm_sandbox.dbt_cloud.ids import ACCOUNT_ID, JOB_ID
from ecomm_sandbox.dbt_cloud.server import make_server
from ecomm_sandbox.faults import CATALOGUE, Fault

TOKEN = "a token"
MODEL, TEST = "model.ecomm.agg_sales_kpi", "test.ecomm.unique_date.1"
MANIFEST = {
    "nodes": {
        MODEL: {"name": "agg_sales_kpi", "original_file_path": "models/marts/agg_sales_kpi.sql"},
        TEST: {"name": "unique_date", "original_file_path": "models/marts/agg_sales_kpi.yml"},
    }
}


class Clock(VirtualClock):
    """Virtual time, which begins now and lets the account's threads have some real time."""

    def __init__(self):
        super().__init__(datetime.now(UTC))

    def sleep(self, seconds):
        time.sleep(0.01)
        super().sleep(seconds)


class Commands:
    """Commands that leave what a test wants of them; `outcomes` holds statuses by node, a call after the other."""

    def __init__(self):
        self.outcomes = [{MODEL: "success", TEST: "pass"}]
        self.calls = []
        self.hold = threading.Event()
        self.hold.set()
        self.after = lambda _folder: None

    def __call__(self, command, folder, *, resume, stop):
        self.calls.append((command, resume.name if resume else None))
        while not self.hold.is_set():
            if stop.wait(0.01):
                return False, "interrupted"
        statuses = self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]
        folder.mkdir(parents=True)
        if statuses:
            found = [
                {"unique_id": name, "status": status, "execution_time": 1, "failures": 2, "message": f"{status}: boom"}
                for name, status in statuses.items()
            ]
            results = {
                "metadata": {"invocation_id": f"i{len(self.calls)}"},
                "args": {"which": "build"},
                "results": found,
            }
            (folder / "run_results.json").write_text(json.dumps(results))
            (folder / "manifest.json").write_text(json.dumps(MANIFEST))
        (folder / "dbt.log").write_text("all that dbt wrote")
        self.after(folder)
        return not {"error", "fail"} & set(statuses.values()), "what dbt printed"


class Stage(VirtualStage):
    """dbt-runner, without a warehouse."""

    name = "dbt-runner"

    def __init__(self, account, commands, url):
        super().__init__()
        self.clock = Clock()
        self.account, self.commands, self.url = account, commands, url
        self.select, self.sources, self.settings = "", {}, {}

    def work(self, context):
        context.record.figures.update(select=self.select, sources=self.sources)
        settings = {"host": self.url, "token": TOKEN, "account_id": ACCOUNT_ID, "job_id": JOB_ID, **self.settings}
        with CloudDbt(context, DbtCloud(**settings)) as dbt:
            dbt.prepare()
            self.stop = context.stop
            run_dbt(context, dbt, None)  # the outcomes name no relation whose rows the warehouse would count

    def fault(self, kind, **options):
        self.account.faults.put(Fault.parse({"kind": kind, **options}, CATALOGUE["dbt-cloud"]))

    def after(self, seconds, action):
        self.clock.alarms.append((self.clock.seconds + seconds, action))

    def artifact(self, name):
        return self.bucket.content[f"artifacts/dbt-runner/run={self.ledger().run_id}/{name}"]


@pytest.fixture
def served(tmp_path):
    commands = Commands()
    account = Account(tmp_path, commands)
    server = make_server(account, TOKEN, 0)
    threading.Thread(target=server.serve_forever, daemon=True, kwargs={"poll_interval": 0.01}).start()
    yield account, commands, f"http://127.0.0.1:{server.server_address[1]}"
    account.faults.clear()
    commands.hold.set()
    server.shutdown()
    server.server_close()


@pytest.fixture
def stage(served):
    return Stage(*served)


def test_the_job_is_run_and_its_artifacts_are_the_record(stage):
    record = stage.run()
    (run,) = stage.account.runs()
    assert record.outcome == "succeeded"
    assert record.remote["cloud_run_id"] == run.id
    assert record.remote["cloud_run_url"].endswith(f"/runs/{run.id}/")
    assert record.remote["invocation_id"] == "i1"
    assert {name: node["status"] for name, node in record.figures["nodes"].items()} == {
        "agg_sales_kpi": "success", "unique_date": "pass",
    }  # fmt: skip
    assert record.figures["nodes"]["agg_sales_kpi"]["file"] == "models/marts/agg_sales_kpi.sql"
    assert json.loads(stage.artifact("manifest.json")) == MANIFEST
    assert b"all that dbt wrote" in stage.artifact("dbt.log")


def test_the_job_is_told_why_it_runs_and_runs_its_own_commands(stage):
    stage.run()
    (run,) = stage.account.runs()
    assert run.cause.startswith(f"ecomm {stage.ledger().run_id} for 2026-01-02 ")
    assert (run.steps_override, [command for command, _ in stage.commands.calls]) == (None, list(COMMANDS))


def test_a_selection_takes_the_place_of_the_commands(stage):
    stage.select = "agg_sales_kpi"
    stage.run()
    assert [command for command, _ in stage.commands.calls] == [
        "dbt build --exclude-resource-type unit_test --select agg_sales_kpi"
    ]


def test_a_killed_try_is_taken_up_by_the_next(stage):
    stage.commands.hold.clear()
    stage.after(30, die)
    with pytest.raises(Died):
        stage.run()
    stage.after(30, stage.commands.hold.set)
    assert stage.run().outcome == "succeeded"
    assert len(stage.account.runs()) == 1


def test_a_run_that_ended_while_nobody_looked_is_not_run_again(stage):
    stage.commands.hold.clear()
    stage.after(30, die)
    with pytest.raises(Died):
        stage.run()
    stage.commands.hold.set()
    ended(stage.account)
    assert stage.run().outcome == "succeeded"
    assert len(stage.account.runs()) == 1


def ended(account):
    deadline = time.monotonic() + 10
    while any(run.active for run in account.runs()):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_same_command_after_a_success_is_a_new_run(stage):
    stage.run()
    stage.run()
    assert len(stage.account.runs()) == 2


def test_a_gold_that_changed_since_is_built_anew(stage):
    stage.commands.outcomes = [{MODEL: "success", TEST: "fail"}]
    with pytest.raises(Exception, match="unique_date"):
        stage.run()
    stage.sources = {"gold.agg_daily_sales": {"rows": 7}}
    with pytest.raises(Exception, match="unique_date"):
        stage.run()
    assert [run.retrying_run_id for run in stage.account.runs()] == [None, None]


def test_a_failing_model_is_named_with_its_file_and_the_page_of_the_run(stage):
    stage.commands.outcomes = [{MODEL: "error", TEST: "skipped"}]
    with pytest.raises(UpstreamFailedError) as caught:
        stage.run()
    assert caught.value.message == (
        "dbt: model agg_sales_kpi (models/marts/agg_sales_kpi.sql): error: boom; 1 that depend on them were skipped"
    )
    (run,) = stage.account.runs()
    assert caught.value.next_step.endswith(f"; {stage.url}/deploy/10/projects/20/runs/{run.id}/")
    assert stage.ledger().figures["nodes"]["agg_sales_kpi"]["status"] == "error"


def test_a_run_that_failed_is_gone_on_with_where_it_failed(stage):
    stage.commands.outcomes = [{MODEL: "success", TEST: "fail"}, {TEST: "pass"}]
    with pytest.raises(Exception, match="unique_date") as caught:
        stage.run()
    assert caught.value.failure.name == "bad_data"
    record = stage.run()
    failed, retried = stage.account.runs()
    assert retried.retrying_run_id == failed.id
    assert stage.commands.calls[1][1] == str(failed.failed_step.index)
    assert record.figures["resumed"] is True
    assert {name: node["status"] for name, node in record.figures["nodes"].items()} == {
        "agg_sales_kpi": "success", "unique_date": "pass",
    }  # fmt: skip
    assert record.remote["invocation_id"] == "i2"


def test_a_run_that_failed_before_dbt_says_so_and_is_run_anew(stage):
    stage.fault("fail", times=1)
    with pytest.raises(UpstreamFailedError) as caught:
        stage.run()
    assert "failed in the step Clone git repository" in caught.value.message
    assert "could not read from remote repository" in caught.value.message
    assert stage.run().outcome == "succeeded"
    assert [run.retrying_run_id for run in stage.account.runs()] == [None, None]


def test_a_run_that_somebody_cancelled_is_told_once_and_then_run_anew(stage):
    stage.commands.hold.clear()
    stage.after(30, lambda: stage.account.cancel(stage.account.runs()[0].id))
    with pytest.raises(UpstreamFailedError, match="was cancelled there"):
        stage.run()
    stage.commands.hold.set()
    assert stage.run().outcome == "succeeded"
    assert len(stage.account.runs()) == 2


def test_when_we_are_stopped_the_run_is_cancelled_and_the_next_try_begins_another(stage):
    stage.commands.hold.clear()
    stage.after(30, lambda: setattr(stage.stop, "reason", "stopped by SIGTERM"))
    with pytest.raises(CancelledError):
        stage.run()
    ended(stage.account)
    (run,) = stage.account.runs()
    assert (run.status, stage.ledger().outcome) == (30, "cancelled")
    stage.commands.hold.set()
    assert stage.run().outcome == "succeeded"


def test_a_run_has_its_time_in_the_queue_once(stage):
    stage.fault("stuck")
    stage.settings = {"queue_timeout": 300, "poll_interval": 60}
    for _ in range(2):
        with pytest.raises(TimedOutError, match="ECOMM_DBT_CLOUD_QUEUE_TIMEOUT is 300 s") as caught:
            stage.run()
        assert "it goes on at" in caught.value.next_step
    (run,) = stage.account.runs()
    assert run.active
    stage.account.faults.clear()
    ended(stage.account)
    assert stage.run().outcome == "succeeded"
    assert len(stage.account.runs()) == 1


def test_a_run_that_runs_for_too_long_is_given_up(stage):
    stage.commands.hold.clear()
    stage.settings = {"queue_timeout": 100_000, "run_timeout": 600, "poll_interval": 60}
    with pytest.raises(TimedOutError, match=r"is running after .*; ECOMM_DBT_CLOUD_RUN_TIMEOUT is 600 s"):
        stage.run()


@pytest.mark.parametrize(
    ("settings", "kind", "words"),
    [
        ({"token": "wrong"}, CredentialsError, "401 Invalid token"),
        ({"job_id": 41}, ConfigurationError, "job 41 of account 10 at .*: 404 The requested resource"),
        ({"account_id": 11}, ConfigurationError, "job 40 of account 11 at .*: 404"),
        ({"host": "http://127.0.0.1:9"}, UnavailableError, "dbt Cloud at http://127.0.0.1:9: .*refused"),
        ({"host": "http://[bad"}, ConfigurationError, r"dbt Cloud at http://\[bad"),
    ],
)
def test_what_is_wrong_with_the_settings_is_told_and_nothing_is_run(stage, settings, kind, words):
    stage.settings = settings
    with pytest.raises(kind, match=words) as caught:
        stage.run()
    assert caught.value.next_step
    assert stage.account.runs() == []


def test_a_busy_service_is_asked_again_when_it_says(stage):
    stage.fault("busy", times=2, retry_after=60)
    assert stage.run().outcome == "succeeded"
    assert stage.clock.seconds >= 120


def test_a_service_that_stays_busy_is_given_up(stage):
    stage.fault("busy", retry_after=120)
    with pytest.raises(UnavailableError, match="429 Too many requests"):
        stage.run()


@pytest.mark.parametrize("kind", ["unavailable", "drop"])
def test_a_service_that_fails_for_a_while_is_waited_for(stage, kind):
    stage.fault(kind, times=3)
    assert stage.run().outcome == "succeeded"


def test_what_is_built_while_nobody_answers_is_taken_by_the_next_try(stage):
    stage.commands.after = lambda _folder: stage.fault("drop")
    with pytest.raises(UnavailableError):
        stage.run()
    stage.account.faults.clear()
    assert stage.run().outcome == "succeeded"
    assert len(stage.account.runs()) == 1


def test_artifacts_that_cannot_be_read_are_no_success(stage):
    stage.commands.after = lambda folder: (folder / "run_results.json").write_text("<html>")
    with pytest.raises(UnavailableError, match="succeeded, but its artifacts cannot be had: they are no JSON"):
        stage.run()


def test_a_run_whose_answer_was_lost_is_not_started_twice(stage):
    stage.fault("lost", times=1)
    assert stage.run().outcome == "succeeded"
    assert len(stage.account.runs()) == 1


def test_a_job_that_builds_nothing_is_a_wrong_job(stage):
    stage.commands.outcomes = [{}]
    with pytest.raises(ConfigurationError, match="built no model and ran no test"):
        stage.run()


class Elsewhere(BaseHTTPRequestHandler):
    """What is no API of dbt Cloud's."""

    def log_message(self, *_):
        pass

    def do_GET(self):
        moved = self.path.startswith("/api/v2/accounts/1/")
        self.send_response(302 if moved else 200)
        self.send_header("Location" if moved else "X-Nothing", "https://ab123.us1.dbt.com/")
        self.end_headers()
        self.wfile.write(b"" if moved else b"<html>sign in</html>")


@pytest.mark.parametrize(
    ("account", "words"), [(1, "it is at https://ab123.us1.dbt.com/"), (2, "<html>sign in</html>")]
)
def test_a_wrong_host_is_named_as_such(account, words):
    with ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere) as server:
        threading.Thread(target=server.serve_forever, daemon=True, kwargs={"poll_interval": 0.01}).start()
        host = f"http://127.0.0.1:{server.server_address[1]}"
        settings = DbtCloud(host=host, token=TOKEN, account_id=account, job_id=1)
        with closing(CloudApi(settings, Clock())) as api, pytest.raises(ConfigurationError, match=words) as caught:
            api.name()
        assert "ECOMM_DBT_CLOUD_HOST" in caught.value.next_step
        server.shutdown()


@pytest.mark.parametrize("host", ["ab123.us1.dbt.com", "https://ab123.us1.dbt.com/", "https://ab123.us1.dbt.com/api"])
def test_a_host_is_known_however_it_is_written(host):
    settings = DbtCloud(host=host, token=TOKEN, account_id=1, job_id=1)
    with closing(CloudApi(settings, Clock())) as api:
        assert api.host == "https://ab123.us1.dbt.com"
