"""The command line: exit codes, errors in one line, and no heavy import before it is needed."""

from __future__ import annotations

import subprocess
import sys

import pytest
from tests.support.command import run_ecomm

from ecomm_pipeline.cli import app

HEAVY = {
    "boto3",
    "databricks",
    "dbt",
    "jinja2",
    "obstore",
    "openlineage",
    "pandas",
    "psycopg2",
    "pyarrow",
    "pyspark",
    "requests",
    "tableauserverclient",
}
COMMANDS = [command.name or command.callback.__name__ for command in app.registered_commands]


def ecomm(*args, **env):
    return run_ecomm(*args, env={"PATH": "/usr/bin", **env}, code=None, timeout=60)


def test_help_imports_nothing_heavy_for_any_command():
    code = f"""
import sys
from ecomm_pipeline.cli import app
for command in {COMMANDS!r}:
    app([command, "--help"], standalone_mode=False)
print("HEAVY", sorted({HEAVY!r} & set(sys.modules)))
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.endswith("HEAVY []\n")


def test_every_command_says_what_it_does():
    assert all(command.callback.__doc__ for command in app.registered_commands)


@pytest.mark.parametrize(
    "args",
    [
        ["extractor"],
        ["nonsense"],
        ["gate", "--date", "2026-13-01"],
        ["extractor", "--table", "orders", "--date", "2026-01-01"],
    ],
)
def test_wrong_usage_and_missing_settings_end_with_78(args):
    done = ecomm(*args)
    assert done.returncode == 78
    assert "Traceback" not in done.stderr


def test_a_level_that_is_not_one_is_refused_by_name():
    done = ecomm("--log-level", "LOUD", "gate", "--date", "2020-01-01")
    assert done.returncode == 78
    assert "'LOUD'" in done.stderr


def test_an_error_is_one_line_and_the_next_step():
    done = ecomm("gate", "--date", "{{workflow.scheduledTime}}")
    assert [line.split(":")[0] for line in done.stderr.splitlines()] == ["error", "next"]


def test_logs_are_json_off_a_terminal():
    import json

    done = ecomm("gate", "--date", "2020-01-01")
    assert done.returncode == 0
    assert json.loads(done.stderr)["event"] == "gate.open"


def test_a_container_s_unresolved_placeholder_is_refused_before_anything_is_read():
    assert "placeholder" in ecomm("gate", "--date", "{{inputs.parameters.date}}").stderr


def test_the_dates_of_a_range_are_printed_for_workflows_to_walk():
    assert ecomm("dates", "--date", "2026-01-02..2026-01-03").stdout == '["2026-01-02", "2026-01-03"]\n'
    lanes = ecomm("dates", "--date", "2026-01-02..2026-01-04", "--mode", "all", "--parallelism", "2").stdout
    assert lanes == '[["2026-01-02", "2026-01-04"], ["2026-01-03"]]\n'


def test_the_date_of_a_schedule_is_the_day_that_ended_in_the_business_zone():
    """At 01:00 in Ho Chi Minh City it is the day before in UTC; elsewhere the same instant is another day's end."""
    assert ecomm("dates", "--date", "2026-01-02T18:00:00Z").stdout == '["2026-01-02"]\n'
    west = {"ECOMM_BUSINESS_TIMEZONE": "America/New_York"}
    assert ecomm("dates", "--date", "2026-01-02T18:00:00Z", **west).stdout == '["2026-01-01"]\n'
