"""The command where no service is: it ends soon, says what, and changes nothing."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from contextlib import closing

import pytest

from ecomm_pipeline.check.run import check
from ecomm_pipeline.clock import SystemClock
from ecomm_pipeline.errors import UnavailableError
from ecomm_pipeline.settings import load

POSTGRES = {
    "ECOMM_POSTGRES_HOST": "127.0.0.1",
    "ECOMM_POSTGRES_DATABASE": "shop",
    "ECOMM_POSTGRES_USER": "extractor",
    "ECOMM_POSTGRES_PASSWORD": "hush",
}


def ecomm_check(*args: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ecomm_pipeline.cli", "check", *args]
    return subprocess.run(
        command, env={"PATH": "/usr/bin", **environment}, capture_output=True, text=True, check=False, timeout=60
    )


@pytest.fixture
def silent_port():
    """A port of loopback that takes connections and never says a word."""
    with closing(socket.create_server(("127.0.0.1", 0), backlog=64)) as server:
        yield server.getsockname()[1]


def test_without_any_setting_it_says_what_it_lacks():
    done = ecomm_check()
    assert done.returncode == 78
    assert "there is nothing to check: postgres: ECOMM_POSTGRES_HOST is not set" in done.stderr


def test_a_service_that_is_named_and_not_set_up_fails():
    done = ecomm_check("tableau")
    assert done.returncode == 78
    assert done.stdout.startswith("failed   tableau")
    assert "ECOMM_TABLEAU_TOKEN_NAME is not set" in done.stdout


def test_the_exit_code_is_of_the_failure_and_the_line_names_server_and_class():
    with closing(socket.socket()) as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        done = ecomm_check("--json", **POSTGRES, ECOMM_POSTGRES_PORT=str(port))
    assert done.returncode == 75
    by_name = {one["dependency"]: one for one in json.loads(done.stdout)}
    assert f"cannot reach Postgres at 127.0.0.1:{port}" in by_name["postgres"]["error"]
    assert by_name["postgres"]["failure_class"] == "unavailable"
    assert by_name["s3"]["outcome"] == "skipped"
    assert "hush" not in done.stdout + done.stderr


def test_services_that_never_answer_are_given_up_together(monkeypatch, silent_port):
    environment = {
        **POSTGRES,
        "ECOMM_POSTGRES_PORT": str(silent_port),
        "ECOMM_STORE_BUCKET": "lake",
        "ECOMM_STORE_ENDPOINT": f"http://127.0.0.1:{silent_port}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "hush",
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    began = time.monotonic()
    results = check(["s3", "postgres"], load=load, environment=environment, clock=SystemClock(), limit=2)
    assert time.monotonic() - began < 10
    assert [result.name for result in results] == ["s3", "postgres"]
    assert all(isinstance(result.error, UnavailableError) for result in results)
    assert "did not answer within 2 s" in results[0].error.message
