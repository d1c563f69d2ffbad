"""What is asked when nothing is named, and what the answers come to."""

from __future__ import annotations

import pytest

from ecomm_pipeline.check.plan import DEPENDENCIES, Result, as_json, as_lines, choose, exit_code
from ecomm_pipeline.errors import (
    BadDataError,
    ConfigurationError,
    CredentialsError,
    EcommError,
    NotReconciledError,
    UnavailableError,
)

EVERYTHING = {name: "x" for dependency in DEPENDENCIES.values() for name in dependency.required}


def nothing_lacks(_library: str) -> bool:
    return True


def test_everything_that_is_set_up_is_asked():
    assert choose([], EVERYTHING, nothing_lacks) == (list(DEPENDENCIES), [])


def test_what_is_not_set_up_is_left_out_and_says_which_variable_it_lacks():
    chosen, left_out = choose([], {"ECOMM_STORE_BUCKET": "lake"}, nothing_lacks)
    assert chosen == ["s3"]
    assert {one.name: one.skipped for one in left_out}["tableau"] == "ECOMM_TABLEAU_SERVER is not set"


def test_dbt_cloud_is_asked_only_where_a_job_of_it_is_named():
    _, left_out = choose([], {"ECOMM_STORE_BUCKET": "lake", "ECOMM_DBT_CLOUD_HOST": "x"}, nothing_lacks)
    assert {one.name: one.skipped for one in left_out}["dbt-cloud"] == "ECOMM_DBT_CLOUD_JOB_ID is not set"


def test_what_is_set_up_by_half_is_asked_so_that_it_fails():
    assert choose([], {"ECOMM_POSTGRES_HOST": "db"}, nothing_lacks)[0] == ["postgres"]


def test_an_image_asks_only_what_its_libraries_can():
    chosen, left_out = choose([], EVERYTHING, {"psycopg2", "obstore"}.__contains__)
    assert chosen == ["postgres", "s3"]
    assert [one.skipped for one in left_out] == [
        "databricks.sdk is not installed here",
        "databricks.sdk is not installed here",
        "requests is not installed here",
        "tableauserverclient is not installed here",
    ]


def test_what_is_named_is_asked_once_even_where_it_cannot_be():
    assert choose(["tableau", "s3", "tableau"], {}, set().__contains__) == (["tableau", "s3"], [])


def test_a_name_that_is_none_is_refused_with_those_that_are():
    with pytest.raises(ConfigurationError, match="'mysql'") as caught:
        choose(["s3", "mysql"], EVERYTHING, nothing_lacks)
    assert all(name in caught.value.next_step for name in DEPENDENCIES)


def test_nothing_to_ask_is_an_error_and_not_a_success():
    with pytest.raises(ConfigurationError, match="ECOMM_POSTGRES_HOST is not set"):
        choose([], {}, nothing_lacks)


@pytest.mark.parametrize(
    ("errors", "code"),
    [
        ([], 0),
        ([UnavailableError], 75),
        ([UnavailableError, CredentialsError], 77),
        ([NotReconciledError, CredentialsError, UnavailableError], 77),
        ([UnavailableError, BadDataError], 65),
        ([EcommError, UnavailableError], 1),
    ],
)
def test_the_exit_code_is_that_of_the_worst_failure(errors, code):
    results = [Result("s3"), *(Result("postgres", error=error("no")) for error in errors)]
    assert exit_code(results) == code
    assert exit_code(reversed(results)) == code


RESULTS = [
    Result("postgres", 0.0123, "PostgreSQL 16.2"),
    Result("s3", 3.5, error=CredentialsError("refused", next_step="check the keys")),
    Result("tableau", skipped="ECOMM_TABLEAU_SERVER is not set"),
]


def test_a_line_each_with_the_class_and_the_next_step_of_a_failure():
    assert as_lines(RESULTS).splitlines() == [
        "ok       postgres     0.01 s  PostgreSQL 16.2",
        "failed   s3           3.50 s  credentials (77): refused",
        "                        next: check the keys",
        "skipped  tableau              ECOMM_TABLEAU_SERVER is not set",
    ]


def test_programs_get_the_same():
    ok, failed, skipped = as_json(RESULTS)
    assert (ok["outcome"], ok["exit_code"], ok["failure_class"]) == ("ok", 0, None)
    assert (failed["failure_class"], failed["exit_code"], failed["next_step"]) == ("credentials", 77, "check the keys")
    assert skipped == {
        "dependency": "tableau",
        "outcome": "skipped",
        "seconds": 0.0,
        "detail": "ECOMM_TABLEAU_SERVER is not set",
        "failure_class": None,
        "exit_code": 0,
        "error": None,
        "next_step": None,
    }
