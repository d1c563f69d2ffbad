"""The account of dbt Cloud, asked over HTTP, with commands that leave nothing but what a test wants of them."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest

from ecomm_sandbox.dbt_cloud.account import COMMANDS, Account
from ecomm_sandbox.dbt_cloud.server import make_server
from ecomm_sandbox.faults import CATALOGUE, Fault
from ecomm_sandbox.services import http
from ecomm_sandbox.state import SandboxError

if TYPE_CHECKING:
    from pathlib import Path

TOKEN = "a token"


class Commands:
    """Commands that fail while `failing`, and leave results while `leaving`; they wait for `go`."""

    def __init__(self):
        self.failing, self.leaving = False, True
        self.go = threading.Event()
        self.go.set()
        self.resumed: list[Path | None] = []

    def __call__(self, command, folder, *, resume, stop):
        self.resumed.append(resume)
        while not self.go.is_set():
            if stop.wait(0.01):
                return False, "interrupted"
        folder.mkdir(parents=True)
        if self.leaving:
            (folder / "run_results.json").write_text("{}")
        return not self.failing, f"{command} was run"


@pytest.fixture
def commands():
    made = Commands()
    yield made
    made.go.set()


@pytest.fixture
def account(tmp_path, commands):
    return Account(tmp_path, commands)


@pytest.fixture
def ask(account):
    server = make_server(account, TOKEN, 0)
    threading.Thread(target=server.serve_forever, daemon=True, kwargs={"poll_interval": 0.01}).start()
    base = f"http://127.0.0.1:{server.server_address[1]}/api/v2/accounts/10"

    def send(method, path, body=None, token=TOKEN):
        return http(method, f"{base}/{path}", body, token=token)["data"]

    yield send
    account.faults.clear()
    server.shutdown()
    server.server_close()


def trigger(ask, *steps):
    return ask("POST", "jobs/40/run/", {"cause": "a test", "steps_override": list(steps) or None})


def ended(ask, run):
    deadline = time.monotonic() + 10
    while (found := ask("GET", f"runs/{run['id']}/?include_related=run_steps"))["in_progress"]:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return found


def test_the_account_and_its_job_are_there(ask):
    assert ask("GET", "")["id"] == 10
    assert [job["id"] for job in ask("GET", "jobs/")] == [ask("GET", "jobs/40/")["id"]] == [40]
    assert ask("GET", "jobs/40/")["execute_steps"] == list(COMMANDS)


@pytest.mark.parametrize("path", ["jobs/41/", "runs/1/", "projects/", "runs/x/"])
def test_what_is_not_there_is_not_found(ask, path):
    with pytest.raises(SandboxError, match="404"):
        ask("GET", path)


def test_nothing_is_told_without_the_token(ask):
    with pytest.raises(SandboxError, match=r"401.*Invalid token"):
        ask("GET", "jobs/40/", token="another")


def test_a_run_without_a_cause_is_refused(ask):
    with pytest.raises(SandboxError, match=r"400.*cause"):
        ask("POST", "jobs/40/run/", {"steps_override": ["dbt build"]})


def test_a_run_has_the_steps_of_a_run_and_each_its_artifacts(ask):
    done = ended(ask, trigger(ask, "dbt run", "dbt test"))
    assert [step["name"] for step in done["run_steps"]][2:] == [
        "Invoke dbt with `dbt deps`", "Invoke dbt with `dbt run`", "Invoke dbt with `dbt test`",
    ]  # fmt: skip
    assert (done["status"], done["is_success"], done["run_steps"][3]["logs"]) == (10, True, "dbt run was run")
    assert ask("GET", f"runs/{done['id']}/artifacts/") == ["run_results.json"]
    with pytest.raises(SandboxError, match="404"):
        ask("GET", f"runs/{done['id']}/artifacts/run_results.json?step=3")


def test_runs_of_the_job_wait_for_each_other(ask, commands):
    commands.go.clear()
    first, second = trigger(ask), trigger(ask)
    deadline = time.monotonic() + 10
    while ask("GET", f"runs/{first['id']}/")["status"] != 3:
        assert time.monotonic() < deadline
    assert ask("GET", f"runs/{second['id']}/")["status"] == 1
    commands.go.set()
    assert ended(ask, second)["status"] == 10


def test_runs_are_listed_in_pages_and_by_status(ask, commands):
    done = [ended(ask, trigger(ask))["id"] for _ in range(3)]
    assert [run["id"] for run in ask("GET", "runs/?order_by=-id&limit=2")] == done[:0:-1]
    assert [run["id"] for run in ask("GET", "runs/?limit=2&offset=2")] == done[2:]
    assert ask("GET", "runs/?status__in=[1,20]") == ask("GET", "runs/?job_definition_id=41") == []


def test_a_command_that_fails_ends_the_run_which_can_be_retried_from_there(ask, commands):
    commands.failing = True
    failed = ended(ask, trigger(ask, "dbt run", "dbt test"))
    assert (failed["status"], failed["can_retry"], len(failed["run_steps"])) == (20, True, 4)
    commands.failing = False
    retried = ended(ask, ask("POST", f"runs/{failed['id']}/retry/"))
    assert retried["retrying_run_id"] == failed["id"]
    assert [step["name"] for step in retried["run_steps"]][3:] == [
        "Invoke dbt with `dbt retry`", "Invoke dbt with `dbt test`",
    ]  # fmt: skip
    assert [place and place.parts[-2:] for place in commands.resumed] == [None, (str(failed["id"]), "4"), None]


@pytest.mark.parametrize("reason", ["RETRY_NOT_FAILED_RUN", "RETRY_NOT_LATEST_RUN", "RETRY_NO_RUN_RESULTS"])
def test_what_cannot_be_retried_says_why(ask, commands, reason):
    commands.failing = reason != "RETRY_NOT_FAILED_RUN"
    commands.leaving = reason != "RETRY_NO_RUN_RESULTS"
    first = ended(ask, trigger(ask))
    if reason == "RETRY_NOT_LATEST_RUN":
        ended(ask, trigger(ask))
    assert ask("GET", f"runs/{first['id']}/")["retry_not_supported_reason"] == reason
    with pytest.raises(SandboxError, match=f"400.*{reason}"):
        ask("POST", f"runs/{first['id']}/retry/")


def test_the_job_is_rerun_from_its_failure_or_anew(ask, commands):
    assert ended(ask, ask("POST", "jobs/40/rerun/"))["retrying_run_id"] is None
    commands.failing = True
    failed = ended(ask, trigger(ask))
    assert ask("POST", "jobs/40/rerun/")["retrying_run_id"] == failed["id"]


@pytest.mark.parametrize("running", [True, False])
def test_a_run_is_cancelled_whether_it_runs_or_waits(ask, account, commands, running):
    commands.go.clear()
    if not running:
        account.faults.put(Fault.parse({"kind": "stuck"}, CATALOGUE["dbt-cloud"]))
    run = trigger(ask)
    ask("POST", f"runs/{run['id']}/cancel/")
    assert ended(ask, run)["status_humanized"] == "Cancelled"


def test_runs_outlive_the_process_and_those_under_way_are_lost(ask, commands, tmp_path):
    done = ended(ask, trigger(ask))
    commands.go.clear()
    lost = trigger(ask)
    deadline = time.monotonic() + 10
    while ask("GET", f"runs/{lost['id']}/")["status"] != 3:
        assert time.monotonic() < deadline
    again = Account(tmp_path, commands)
    assert [(run.id, run.status) for run in again.runs()] == [(done["id"], 10), (lost["id"], 20)]
