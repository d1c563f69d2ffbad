"""What `databricks.Warehouse` relies on of the Statement Execution API, by the official client; no table is made."""

from __future__ import annotations

import time
import uuid
from typing import TYPE_CHECKING, Any

import pytest
from databricks.sdk.service.sql import StatementState

from ecomm_pipeline.clock import SystemClock
from ecomm_pipeline.databricks import Warehouse, connect
from ecomm_pipeline.errors import BadDataError, ConfigurationError, CredentialsError, MissingSourceError
from ecomm_pipeline.settings import Databricks

if TYPE_CHECKING:
    from collections.abc import Callable

    from databricks.sdk import WorkspaceClient

ENDLESS = "SELECT count(*) FROM range(1000000000000) WHERE rand() < 0"


@pytest.fixture(scope="module")
def databricks(settings: Callable[[type[Any]], Any]) -> Databricks:
    return settings(Databricks)


@pytest.fixture(scope="module")
def client(databricks: Databricks) -> WorkspaceClient:
    return connect(databricks)


@pytest.fixture(scope="module")
def warehouse(client: WorkspaceClient, databricks: Databricks) -> Warehouse:
    return Warehouse(client, databricks.warehouse_id, databricks.catalog, SystemClock())


def test_values_are_text_with_all_digits_and_null_is_none(warehouse):
    result = warehouse.query(
        "SELECT CAST(1 AS INT) AS i, CAST(9007199254740993 AS BIGINT) AS b,"
        " CAST('12345678901234.5600' AS DECIMAL(18,4)) AS d, true AS t,"
        " DATE'2026-01-02' AS day, '' AS e, 'Ω ''\"\n' AS s, CAST(NULL AS STRING) AS n, 0.1D AS f"
    )
    assert result.columns == ("i", "b", "d", "t", "day", "e", "s", "n", "f")
    assert result.types == (
        "INT", "BIGINT", "DECIMAL(18,4)", "BOOLEAN", "DATE", "STRING", "STRING", "STRING", "DOUBLE",
    )  # fmt: skip
    assert result.rows == [
        ("1", "9007199254740993", "12345678901234.5600", "true", "2026-01-02", "", "Ω '\"\n", None, "0.1")
    ]


def test_a_parameter_is_bound_as_text_whatever_it_holds(warehouse):
    values = {"a": "it's; -- :b", "b": None}
    assert warehouse.query("SELECT :a AS a, :b AS b, typeof(:a) AS t", values).rows == [("it's; -- :b", None, "string")]


def test_all_chunks_of_a_large_answer_come_in_order(warehouse):
    rows = warehouse.query("SELECT id, repeat('x', 50) AS padding FROM range(0, 50000, 1, 4) ORDER BY id").rows
    assert [int(row[0]) for row in rows] == list(range(50_000))


def test_an_answer_without_rows_has_its_columns(warehouse):
    result = warehouse.query("SELECT 1 AS a WHERE false")
    assert (result.columns, result.rows) == (("a",), [])


@pytest.mark.parametrize(
    ("sql", "kind", "told"),
    [
        ("SELECT * FROM gold.contract_no_such_table", MissingSourceError, "TABLE_OR_VIEW_NOT_FOUND"),
        ("SHOW SCHEMAS IN contract_no_such_catalog", MissingSourceError, "NO_SUCH_CATALOG_EXCEPTION"),
        ("SELECT no_such_column FROM range(1)", MissingSourceError, "UNRESOLVED_COLUMN"),
        ("SELECT 1 FRMO range(1)", BadDataError, "PARSE_SYNTAX_ERROR"),
        ("SELECT 1 / id FROM range(1)", BadDataError, "DIVIDE_BY_ZERO"),
        ("SELECT CAST('x' AS INT)", BadDataError, "CAST_INVALID_INPUT"),
    ],
)
def test_a_refused_statement_begins_its_reason_with_the_condition(warehouse, sql, kind, told):
    with pytest.raises(BadDataError, match=rf"SQL: \[{told}") as caught:
        warehouse.query(sql)
    assert type(caught.value) is kind


def test_a_statement_that_is_cancelled_ends(client, databricks):
    api = client.statement_execution
    started = api.execute_statement(ENDLESS, databricks.warehouse_id, wait_timeout="0s")
    assert started.status.state in (StatementState.PENDING, StatementState.RUNNING)
    api.cancel_execution(started.statement_id)
    deadline = time.monotonic() + 60
    while (state := api.get_statement(started.statement_id).status.state) is not StatementState.CANCELED:
        assert state in (StatementState.PENDING, StatementState.RUNNING)
        assert time.monotonic() < deadline, "it runs on"
        time.sleep(0.1)


def test_a_wrong_token_is_refused(databricks):
    wrong = databricks.model_copy(update={"token": type(databricks.token)(f"wrong-{uuid.uuid4()}")})
    if databricks.token is None:
        pytest.skip("the target is signed in to as a service principal")
    with pytest.raises(CredentialsError):
        Warehouse(connect(wrong), databricks.warehouse_id, databricks.catalog, SystemClock()).query("SELECT 1")


def test_a_warehouse_that_is_not_there_is_a_matter_of_the_settings(databricks):
    with pytest.raises(ConfigurationError, match="there is no SQL warehouse 0000000000000000"):
        Warehouse(connect(databricks), "0000000000000000", databricks.catalog, SystemClock()).query("SELECT 1")
