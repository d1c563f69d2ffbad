"""`ecomm check` on real services: each that answers says what it is, and each way to fail has its class."""

from __future__ import annotations

import json
import os
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from tests.support.command import run_ecomm

from ecomm_pipeline.check.plan import DEPENDENCIES

if TYPE_CHECKING:
    from subprocess import CompletedProcess


class Check:
    """The command, in a folder of the bucket of its own."""

    def __init__(self, sandbox: Any) -> None:
        self.sandbox = sandbox
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("ECOMM_", "AWS_"))}
        self.env = {**clean, **sandbox.env, "ECOMM_STORE_PREFIX": "check"}

    def run(self, *args: str, code: int = 0, **environment: str) -> CompletedProcess[str]:
        """Run it; it must end with this code."""
        return run_ecomm("check", *args, env={**self.env, **environment}, code=code, timeout=60)

    def one(self, name: str, code: int = 0, *args: str, **environment: str) -> dict[str, Any]:
        """Check one service, and give what programs get."""
        (result,) = json.loads(self.run(name, "--json", *args, code=code, **environment).stdout)
        assert (result["dependency"], result["exit_code"]) == (name, code)
        return dict(result)


@pytest.fixture
def check(sandbox: Any) -> Check:
    with closing(sandbox.connect()) as connection, connection, connection.cursor() as cursor:
        cursor.execute("SELECT to_regclass('orders')")
        if cursor.fetchone() == (None,):
            sandbox.empty_shop()
    return Check(sandbox)


def test_every_service_is_asked_at_once_and_says_what_answered(check):
    lines = check.run().stdout.splitlines()
    on_demand = {"dbt-cloud": "skipped"}
    assert [line.split()[:2] for line in lines] == [[on_demand.get(name, "ok"), name] for name in DEPENDENCIES]
    postgres, s3, databricks, warehouse, dbt_cloud, tableau = lines
    assert "ECOMM_DBT_CLOUD_JOB_ID is not set" in dbt_cloud
    assert "PostgreSQL " in postgres
    assert "extractor may read orders, products, customers, order_items" in postgres
    assert "s3://" in s3
    assert "the pipeline " in databricks
    assert "the SQL warehouse " in warehouse
    assert "signed in to" in tableau


def test_nothing_is_changed_unless_it_is_asked_for(check, sandbox):
    before = sandbox.keys("check/")
    check.run()
    assert sandbox.keys("check/") == before
    assert "was written and read back" in check.one("s3", 0, "--write")["detail"]
    check.one("s3", 0, "--write")
    assert set(sandbox.keys("check/")) - set(before) == {"check/artifacts/check/probe.txt"}


def test_the_worst_failure_decides_and_the_others_are_still_asked(check):
    done = check.run(code=77, ECOMM_POSTGRES_PASSWORD="wrong", ECOMM_STORE_BUCKET="no-such-bucket")
    outcomes = {line.split()[1]: line.split()[0] for line in done.stdout.splitlines() if "next: " not in line}
    assert outcomes == {
        "postgres": "failed",
        "s3": "failed",
        "databricks": "ok",
        "warehouse": "ok",
        "dbt-cloud": "skipped",
        "tableau": "ok",
    }
    assert "wrong" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("name", "variable", "value", "code", "words"),
    [
        ("postgres", "ECOMM_POSTGRES_PASSWORD", "wrong", 77, "refused the user"),
        ("postgres", "ECOMM_POSTGRES_DATABASE", "nothing", 65, "the database nothing does not exist"),
        ("postgres", "ECOMM_TABLES", "orders,no_such_table", 65, "public.no_such_table"),
        ("postgres", "ECOMM_POSTGRES_HOST", "no-such-host.invalid", 75, "cannot reach Postgres"),
        ("s3", "ECOMM_STORE_BUCKET", "no-such-bucket", 65, "the bucket 'no-such-bucket' does not exist"),
        ("s3", "AWS_SECRET_ACCESS_KEY", "wrong", 77, "s3://"),
        ("databricks", "ECOMM_DATABRICKS_TOKEN", "wrong", 77, "Databricks, pipeline"),
        ("databricks", "ECOMM_DATABRICKS_PIPELINE_ID", "nothing", 65, "pipeline nothing"),
        ("warehouse", "ECOMM_DATABRICKS_WAREHOUSE_ID", "nothing", 78, "SQL warehouse nothing"),
        ("warehouse", "ECOMM_DATABRICKS_CATALOG", "nothing", 78, "shows no catalog nothing"),
        ("tableau", "ECOMM_TABLEAU_TOKEN_VALUE", "wrong", 77, "Tableau, sign in to"),
        ("tableau", "ECOMM_TABLEAU_SITE", "nowhere", 77, "Tableau, sign in to"),
    ],
)
def test_what_is_wrong_is_named_with_its_class_and_next_step(check, name, variable, value, code, words):
    result = check.one(name, code, **{variable: value})
    assert words in result["error"]
    assert len(result["error"].splitlines()) == 1
    assert result["next_step"]


@pytest.mark.parametrize(
    ("name", "service", "kind", "code"),
    [
        ("postgres", "postgres", "refuse", 75),
        ("s3", "s3", "unavailable", 75),
        ("s3", "s3", "forbidden", 77),
        ("databricks", "databricks", "credentials_refused", 77),
        ("tableau", "tableau", "unavailable", 75),
        ("tableau", "tableau", "credentials", 77),
    ],
)
def test_what_goes_wrong_at_a_service_is_told_within_half_a_minute(check, sandbox, name, service, kind, code):
    with sandbox.fault(service, kind):
        result = check.one(name, code)
    assert result["seconds"] < 25
    assert check.one(name)["outcome"] == "ok"


def test_a_table_that_may_not_be_read_is_no_connection_problem(check, sandbox):
    with sandbox.fault("postgres", "permission", table="products"):
        result = check.one("postgres", 77)
    assert "public.products" in result["error"]


def test_a_table_that_a_migration_holds_is_waited_for_and_told_as_a_lock(check, sandbox):
    with sandbox.fault("postgres", "lock", table="orders"):
        result = check.one("postgres", 75)
    assert "public.orders" in result["error"]
    assert "stayed locked" in result["error"]
