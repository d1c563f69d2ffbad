"""What the stage makes of dbt's log lines, run results and manifest."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from ecomm_pipeline.databricks import CONDITIONS
from ecomm_pipeline.dbt_runner import plan
from ecomm_pipeline.errors import (
    BadDataError,
    ConfigurationError,
    CredentialsError,
    MissingSourceError,
    UnavailableError,
    UpstreamFailedError,
)
from ecomm_pipeline.ledger import Record

MANIFEST = {
    "nodes": {
        "model.ecomm.agg_sales_kpi": {"name": "agg_sales_kpi", "original_file_path": "models/marts/agg_sales_kpi.sql"},
        "test.ecomm.sums.1": {"name": "sums", "original_file_path": "models/marts/agg_sales_kpi.yml"},
        "test.ecomm.other.2": {"name": "other", "original_file_path": "models/marts/agg_sales_kpi.yml"},
    },
    "unit_tests": {"unit_test.ecomm.agg_sales_kpi.windows": {"name": "windows", "original_file_path": "models/u.yml"}},
}
HEADING = "Database Error in model agg_sales_kpi (models/marts/agg_sales_kpi.sql)\n  "


def result(unique_id="model.ecomm.agg_sales_kpi", status="success", message=None, failures=None, **more):
    return {
        "unique_id": unique_id, "status": status, "message": message, "failures": failures, "execution_time": 1.23456,
        **more,
    }  # fmt: skip


def read(*results):
    return plan.outcomes({"results": list(results)}, MANIFEST)


def error_of(*results):
    return plan.failure(read(*results), how="dbt ended with exit code 1")


def test_a_model_that_was_built_is_told_with_its_seconds_and_table():
    (done,) = read(result(message="OK", relation_name="`ecomm`.`kpi`.`agg_sales_kpi`"))
    assert done.figures() == {
        "kind": "model", "file": "models/marts/agg_sales_kpi.sql", "status": "success", "seconds": 1.235,
    }  # fmt: skip
    assert done.relation == "`ecomm`.`kpi`.`agg_sales_kpi`"
    assert not done.failed


def test_exposures_are_no_outcome():
    assert read(result("exposure.ecomm.daily", "no-op"), result("exposure.ecomm.daily", "skipped")) == []


def test_a_node_that_the_manifest_does_not_know_is_still_named():
    (done,) = read(result("model.ecomm.gone", "error", "x"))
    assert str(done) == "model gone (?): x"


def test_a_unit_test_is_found_in_its_own_part_of_the_manifest():
    (done,) = read(result("unit_test.ecomm.agg_sales_kpi.windows", "fail", "got differs", 1))
    assert (done.kind, done.name, done.file) == ("unit_test", "windows", "models/u.yml")


@pytest.mark.parametrize(
    ("failures", "told"),
    [
        (1, "test sums (models/marts/agg_sales_kpi.yml): 1 row fails it"),
        (12, "test sums (models/marts/agg_sales_kpi.yml): 12 rows fail it"),
    ],
)  # fmt: skip
def test_a_failing_test_is_told_in_one_line_with_its_file_and_rows(failures, told):
    error = error_of(result("test.ecomm.sums.1", "fail", "Got 12 results, configured to fail if != 0", failures))
    assert type(error) is BadDataError
    assert error.message == f"dbt: {told}"


def test_a_message_loses_its_heading_its_line_ends_and_the_place_of_the_sql():
    text = f"{HEADING}[DIVIDE_BY_ZERO] Division by zero.\n\n  Use try_divide.\n  compiled code at target/run/x.sql"
    (done,) = read(result(status="error", message=text))
    assert done.message == "[DIVIDE_BY_ZERO] Division by zero. Use try_divide."


def test_a_long_message_is_cut():
    (done,) = read(result(status="error", message="x" * 5000))
    assert len(done.message) == 400


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ("This model has an enforced contract that failed.", BadDataError),
        ("[DELTA_NOT_NULL_CONSTRAINT_VIOLATED] NOT NULL constraint violated for column: sales_date.", BadDataError),
        ("[DELTA_VIOLATE_CONSTRAINT_WITH_VALUES] CHECK constraint ok violated by row", BadDataError),
        ("Error during request to server: 401 Unauthorized", CredentialsError),
        ("Invalid access token.", CredentialsError),
        ("[INSUFFICIENT_PERMISSIONS] User does not have USE SCHEMA on kpi", CredentialsError),
        ("Max retries exceeded with url: /sql/1.0 (Caused by NewConnectionError)", UnavailableError),
        ("Invalid SessionHandle: SessionHandle [1]", UnavailableError),
        ("('Connection aborted.', RemoteDisconnected('Remote end closed connection'))", UnavailableError),
        ("HTTP 503: TEMPORARILY_UNAVAILABLE", UnavailableError),
        ("Error during request to server: HTTP Response code: 403, Error message: Forbidden", CredentialsError),
        ("Request failed with status code 502", UnavailableError),
        ("401 Client Error: for url: https://example.test/oidc/v1/token", CredentialsError),
        ("TEMPORARILY_UNAVAILABLE: the warehouse is starting", UnavailableError),
        ("PERMISSION_DENIED: User does not have USE SCHEMA on Schema 'ecomm.kpi'", CredentialsError),
        ("HTTPSConnectionPool(host='h', port=443): Read timed out. (read timeout=900)", UnavailableError),
        ("[DIVIDE_BY_ZERO] Division by zero. Use `try_divide`. (line 403, pos 12)", UpstreamFailedError),
        ('The value 502 of the type "STRING" cannot be cast to "DATE"', UpstreamFailedError),
        ("[CAST_INVALID_INPUT] The value 'HTTP 503 timed out' cannot be cast to \"BIGINT\"", UpstreamFailedError),
        ("[CAST_INVALID_INPUT] The value 'access token, 401' cannot be cast to \"BIGINT\"", UpstreamFailedError),
        ("[PARSE_SYNTAX_ERROR] Syntax error at or near 'x' (line 401, pos 3)", UpstreamFailedError),
        ("The read operation timed out", UnavailableError),
        ("[TABLE_OR_VIEW_NOT_FOUND] `ecomm`.`gold`.`x` cannot be found", MissingSourceError),
        ("[UNRESOLVED_COLUMN.WITH_SUGGESTION] A column `refund` cannot be resolved", MissingSourceError),
        ("Env var required but not provided: 'ECOMM_DATABRICKS_HOST'", ConfigurationError),
        ("[PARSE_SYNTAX_ERROR] Syntax error at or near 'selct'", UpstreamFailedError),
        ("[NUMERIC_VALUE_OUT_OF_RANGE] 4010 cannot be represented as Decimal(18, 4)", UpstreamFailedError),
    ],
)  # fmt: skip
def test_the_class_follows_from_the_message(message, kind):
    assert plan.classify_message(message) is kind
    assert type(error_of(result(status="error", message=HEADING + message))) is kind


@pytest.mark.parametrize(
    ("messages", "kind"),
    [
        (["Max retries exceeded", "[TABLE_OR_VIEW_NOT_FOUND] x"], UnavailableError),
        (["Max retries exceeded", "Invalid access token"], CredentialsError),
        (["[DIVIDE_BY_ZERO] x", "[TABLE_OR_VIEW_NOT_FOUND] x"], MissingSourceError),
        (["[DIVIDE_BY_ZERO] x", "enforced contract that failed"], UpstreamFailedError),
    ],
)
def test_of_several_failures_the_one_that_hides_the_others_gives_the_class(messages, kind):
    assert type(error_of(*(result(status="error", message=text) for text in messages))) is kind
    assert type(error_of(*(result(status="error", message=text) for text in reversed(messages)))) is kind


def test_skipped_nodes_are_counted_and_many_failures_cut():
    error = error_of(
        *(result(f"model.ecomm.m{n}", "error", "boom") for n in range(7)),
        result("test.ecomm.sums.1", "skipped"),
        result("test.ecomm.other.2", "skipped"),
    )
    assert error.message.count("boom") == 5
    assert error.message.endswith("; and 2 more; 2 that depend on them were skipped")


@pytest.mark.parametrize(
    ("log", "kind"),
    [
        (["Encountered an error:", "Env var required but not provided: 'ECOMM_DATABRICKS_HOST'"], ConfigurationError),
        (["Compilation Error", "Model 'm' depends on a node named 'x' which was not found"], ConfigurationError),
        (["Database Error", "Max retries exceeded with url"], UnavailableError),
        ([], UpstreamFailedError),
    ],
)
def test_a_run_that_failed_before_its_first_node_is_explained_by_the_log(log, kind):
    error = plan.failure([], how="dbt ended with exit code 2", log=log)
    assert type(error) is kind
    assert (log[-1] if log else "no reason") in error.message


@pytest.mark.parametrize(
    "message", [*(f"[{name}] x" for name in CONDITIONS), "HTTP 401", "HTTP 503", "env var required", "[X_Y] x", "x"]
)
def test_every_error_has_a_next_step(message):
    assert error_of(result(status="error", message=message)).next_step


def test_warnings_and_passes_are_no_failure():
    assert plan.failure(read(result(), result("test.ecomm.sums.1", "warn", "x", 3))) is None


def test_what_tests_warn_of_is_a_finding_of_the_tests_name_and_survives_a_resumed_run():
    before = {"unknown_status": {"kind": "test", "file": "models/s.yml", "status": "warn", "failures": 2}}
    (found,) = plan.findings(plan.merged(before, read(result(), result("test.ecomm.sums.1", "fail", "x", 3))))
    assert (found.priority, found.kind) == ("P3", "unknown_status")
    assert found.message.startswith("2 rows fail the test unknown_status (models/s.yml)")


# Log lines


def test_a_log_line_tells_the_node_and_how_far_the_run_is():
    line = json.dumps(
        {
            "info": {"name": "LogModelResult", "level": "info", "msg": "3 of 17 OK", "invocation_id": "i"},
            "data": {"index": 3, "total": 17, "node_info": {"node_name": "agg_sales_kpi"}},
        }
    )
    assert plan.parse_event(line) == plan.Event("LogModelResult", "info", "3 of 17 OK", "i", "agg_sales_kpi", 3, 17)


@pytest.mark.parametrize(
    "line", ["", "Traceback (most recent call last):", "[]", "3", '{"info": {}}', '{"info": 1, "data": {}}']
)
def test_anything_else_that_is_printed_is_no_event(line):
    assert plan.parse_event(line) is None


# Arguments


def given(**more):
    return plan.arguments(project=Path("/p"), target=Path("/t"), logs=Path("/l"), threads=3, **more)


def test_a_build_leaves_unit_tests_out_and_writes_only_where_it_is_told():
    words = given()
    assert words[words.index("build") :] == [
        "build", "--exclude-resource-type", "unit_test", "--project-dir", "/p", "--profiles-dir", "/p",
        "--target-path", "/t", "--log-path", "/l", "--threads", "3",
    ]  # fmt: skip


@pytest.mark.parametrize("select", ["agg_sales_kpi", "agg_sales_kpi+ tag:daily", " agg_sales_kpi "])
def test_a_selection_is_passed_word_by_word(select):
    words = given(select=select)
    assert words[words.index("--select") + 1 :] == select.split()


def test_a_resumed_run_takes_its_selection_from_the_saved_results():
    words = given(select="agg_sales_kpi", resume_from=Path("/s"))
    assert "build" not in words
    assert "--select" not in words
    assert words[words.index("retry") : words.index("retry") + 3] == ["retry", "--state", "/s"]


# Resuming

STATE = {"select": "", "project": "abc", "sources": {"gold.agg_daily_sales": {"rows": 3, "newest": "t"}}}


def earlier(outcome="failed", **figures):
    nodes = {"agg_sales_kpi": {"status": "success"}, "sums": {"status": "fail"}}
    return Record(
        stage="dbt-runner", first_date=date(2026, 1, 2), last_date=date(2026, 1, 2), run_id="r", outcome=outcome,
        started_at=datetime(2026, 1, 2, tzinfo=UTC), figures={**STATE, "nodes": nodes, **figures},
    )  # fmt: skip


@pytest.mark.parametrize("outcome", ["failed", "cancelled"])
def test_a_failed_try_is_resumed(outcome):
    assert plan.may_resume(earlier(outcome), STATE)


@pytest.mark.parametrize(
    "previous",
    [
        None,
        earlier("succeeded"),
        earlier("running"),  # killed: it left no results
        earlier(nodes={}),
        earlier(nodes={"agg_sales_kpi": {"status": "success"}}),
        earlier(select="agg_sales_kpi"),
        earlier(project="another"),
        earlier(sources={"gold.agg_daily_sales": {"rows": 4, "newest": "t"}}),
        earlier(sources={"gold.agg_daily_sales": {"rows": 3, "newest": "u"}}),
    ],
)
def test_all_is_built_again_when_there_is_nothing_to_resume_or_what_it_rests_on_changed(previous):
    assert not plan.may_resume(previous, STATE)


def test_what_an_earlier_try_built_well_stays_in_the_ledger():
    before = {"agg_sales_kpi": {"status": "success", "rows": 3}, "sums": {"status": "fail"}}
    after = plan.merged(before, read(result("test.ecomm.sums.1", "pass", failures=0)))
    assert after["agg_sales_kpi"] == {"status": "success", "rows": 3}
    assert after["sums"]["status"] == "pass"


# Sources


def test_sources_are_found_in_the_yaml_with_their_freshness_column():
    documents = [
        None,
        {"models": [{"name": "m"}]},
        {
            "sources": [
                {
                    "name": "gold",
                    "config": {"loaded_at_field": "processed_at"},
                    "tables": [{"name": "a"}, {"name": "b", "identifier": "c", "config": {"loaded_at_field": "at"}}],
                },
                {"name": "other", "schema": "silver", "tables": [{"name": "d"}]},
            ]
        },
    ]
    found = plan.source_tables(documents)
    assert [(str(table), table.loaded_at) for table in found] == [
        ("gold.a", "processed_at"), ("gold.c", "at"), ("silver.d", None),
    ]  # fmt: skip


def test_the_state_of_all_sources_is_asked_in_one_statement():
    sql = plan.fingerprint_sql("ecomm", [plan.SourceTable("gold", "a", "at"), plan.SourceTable("gold", "b")])
    assert sql == (
        "SELECT 'gold.a' AS name, count(*) AS row_count, CAST(max(at) AS STRING) AS newest FROM `ecomm`.`gold`.`a`"
        " UNION ALL "
        "SELECT 'gold.b' AS name, count(*) AS row_count, CAST(NULL AS STRING) AS newest FROM `ecomm`.`gold`.`b`"
    )
