"""A date on real servers: what the doctor sees when all is right, when something breaks, and after its command."""

from __future__ import annotations

import json
import secrets

import pytest
from tests.support.command import run_ecomm
from tests.support.shop import DATE, SHOP, Shop

RUN = f"20260302T180000Z-{secrets.token_hex(4)}"  # a sandbox that stays up remembers the update of an old one


class Ward(Shop):
    """The shop, with what an on-call engineer asks."""

    def ask(self, *args, code=0):
        """Run a command as a person does, whose shell knows of no run; give what it wrote to standard output."""
        shell = {name: value for name, value in self.env.items() if name != "ECOMM_RUN_ID"}
        return run_ecomm(*args, env=shell, code=code).stdout

    def doctor(self, *, code=0):
        return json.loads(self.ask("doctor", DATE, "--json", code=code))


@pytest.fixture(scope="module")
def ward(sandbox, tmp_path_factory):
    """A date that went through all stages."""
    sandbox.reset()
    ward = Ward(sandbox, RUN)
    ward.env["ECOMM_RUNS_DIR"] = str(tmp_path_factory.mktemp("runs"))
    ward.sql(SHOP)
    ward.ecomm("run", DATE)
    return ward


def test_with_everything_right_it_says_so_in_a_line(ward):
    said = ward.ask("doctor", DATE).splitlines()
    assert len(said) == 1
    assert said[0].startswith(
        f"{DATE} is all right: 7 rows of 4 tables, every hop adds up to the cent, Tableau refreshed"
    )


def test_a_kpi_is_explained_down_to_the_file_of_its_run(ward):
    said = ward.ask("explain", DATE, "net_revenue")
    assert said.startswith(f"net_revenue of {DATE} is 5.3333: proven down to its files\nkpi.agg_sales_kpi  5.3333")
    assert f"order_items/date={DATE}/run={RUN}/part-00000.csv.gz  5.3333  =   3 of its 3 rows" in said


@pytest.mark.parametrize(("metric", "value"), [("average_order_value", "7.8333"), ("net_revenue_7d", "5.3333")])
def test_what_dbt_works_out_is_worked_out_again_and_the_same(ward, metric, value):
    said = ward.ask("explain", DATE, metric)
    assert said.startswith(f"{metric} of {DATE} is {value}: proven out of what is beneath it\n")


def test_a_kpi_of_a_product_is_explained_and_one_that_was_not_sold_is_named(ward):
    said = ward.ask("explain", DATE, "units", "--product", "P1")
    assert said.startswith(f"units of {DATE}, product P1 is 4: proven down to its files\nkpi.agg_product_kpi  4\n")
    assert ward.ask("explain", DATE, "units", "--product", "it's", code=65) == ""


def test_two_runs_of_a_date_are_compared(ward):
    later = "20260303T180000Z-later"
    ward.sql("INSERT INTO orders SELECT 'O3', 1, status, ordered_at, created_at, updated_at FROM orders LIMIT 1")
    try:
        ward.ecomm("extractor", "--table", "orders", "--date", DATE, ECOMM_RUN_ID=later)
    finally:
        ward.sql("DELETE FROM orders WHERE order_id = 'O3'")
    said = json.loads(ward.ask("diff", f"{DATE}@{RUN}", f"{DATE}@{later}", "--format", "json"))
    assert {"group": "rows", "what": "extractor orders", "one": 2, "other": 3, "change": "+1 (+50.0 %)"} in said
    assert not [each for each in said if each["group"] == "columns"]


def test_what_nobody_loaded_yet_is_bronzes_and_one_command_repairs_it(ward):
    """The extract of the test above is newer than the last update."""
    told = ward.doctor(code=65)
    assert (told["cause"]["section"], told["cause"]["kind"]) == ("B", "bronze_differs")
    assert told["cause"]["tables"] == ["orders"]
    ward.ecomm("extractor", "--table", "orders", "--date", DATE, ECOMM_RUN_ID="20260304T180000Z-again")
    ward.ask(*told["cause"]["command"].split()[1:])
    assert ward.doctor()["ok"]


def test_a_database_that_is_down_is_named_and_the_date_is_said_to_be_complete(ward):
    with ward.sandbox.fault("postgres", "refuse"):
        told = ward.doctor(code=75)
    assert (told["cause"]["section"], told["cause"]["kind"], told["priority"]) == ("A", "unreachable", "P1")
    assert "cannot reach Postgres" in told["cause"]["message"]
    assert told["others"] == []


def test_a_file_that_is_gone_is_named_and_the_date_is_to_be_done_again(ward):
    (key, *_) = [key for key in ward.sandbox.keys("ecomm_db_extracts") if "/products/" in key and ".csv" in key]
    content = ward.sandbox.get(key)
    bucket = ward.env["ECOMM_STORE_BUCKET"]
    ward.sandbox.s3.delete_object(Bucket=bucket, Key=key)
    try:
        told = ward.doctor(code=65)
    finally:
        ward.sandbox.s3.put_object(Bucket=bucket, Key=key, Body=content)
    assert told["cause"]["kind"] == "extract_damaged"
    assert key in told["cause"]["message"]
    assert told["cause"]["command"] == f"ecomm backfill {DATE}..{DATE} --all"


def test_the_plan_of_a_backfill_tells_the_dates_that_were_never_done_and_does_nothing(ward):
    before = ward.sandbox.keys()
    plan = json.loads(ward.ask("backfill", "2026-03-01..2026-03-02", "--dry-run", "--json"))
    assert [entry["date"] for entry in plan["dates"]] == ["2026-03-01"]
    assert plan["skipped"] == 1
    assert plan["seconds"] > 0
    assert ward.sandbox.keys() == before
