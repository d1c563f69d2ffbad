"""The SQL warehouse through the official clients: databricks-sdk, databricks-sql-connector and dbt."""

from __future__ import annotations

import datetime as dt
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from databricks import sql
from databricks.sdk import WorkspaceClient
from databricks.sdk.errors import DatabricksError, PermissionDenied, ResourceDoesNotExist
from databricks.sdk.service.sql import ExecuteStatementRequestOnWaitTimeout, StatementParameterListItem, StatementState

if TYPE_CHECKING:
    from conftest import Databricks

HERE = Path(__file__).parent
VALUES = """
    CAST(-1.5 AS DECIMAL(18,4)) d, TIMESTAMP '1969-12-31 23:59:59.123456' t, DATE '0001-01-01' day, CAST(NULL AS INT) n,
    '' e, 'it''s "é" \U0001f600' s, ARRAY(1, NULL) a, MAP('k', 1) m, NAMED_STRUCT('x', 1.50BD) st, true b, 0.1D f,
    X'00ff' bin
"""


def connect(databricks: Databricks, **options: Any) -> Any:
    path = "/sql/1.0/warehouses/sandbox"
    return sql.connect(
        "127.0.0.1", path, "a-token", _connection_uri=databricks.url + path, enable_telemetry=False, **options
    )


def test_values_are_exact_over_rest(databricks: Databricks) -> None:
    answer = databricks.execute(f"SELECT {VALUES}")
    assert answer.result is not None
    assert answer.result.data_array == [
        ["-1.5000", "1969-12-31T23:59:59.123456Z", "0001-01-01", None, "", 'it\'s "é" \U0001f600', "[1, null]",
         '{"k": 1}', '{"x": "1.50"}', "true", "0.1", "AP8="]
    ]  # fmt: skip
    assert answer.manifest is not None
    assert answer.manifest.schema is not None
    columns = answer.manifest.schema.columns or []
    assert [column.type_text for column in columns[:5]] == ["DECIMAL(18,4)", "TIMESTAMP", "DATE", "INT", "STRING"]
    assert (columns[0].type_precision, columns[0].type_scale) == (18, 4)


def test_values_are_exact_over_thrift(databricks: Databricks) -> None:
    with closing(connect(databricks)) as connection, closing(connection.cursor()) as cursor:
        cursor.execute(f"SELECT {VALUES}")
        row = cursor.fetchall()[0]
    assert row.d == Decimal("-1.5000")
    assert row.t == dt.datetime(1969, 12, 31, 23, 59, 59, 123456, tzinfo=dt.UTC)
    assert (row.day, row.n, row.e, row.s) == (dt.date(1, 1, 1), None, "", 'it\'s "é" \U0001f600')
    assert (row.m, row.st, row.b, row.bin) == ([("k", 1)], {"x": Decimal("1.50")}, True, b"\x00\xff")


def test_parameters_keep_their_types_and_null(databricks: Databricks) -> None:
    given = [
        StatementParameterListItem("day", type="DATE", value="2026-01-02"),
        StatementParameterListItem("text", value="o'clock \\ :day ?"),
        StatementParameterListItem("none", type="INT"),
    ]
    answer = databricks.execute("SELECT :day + INTERVAL 1 DAY, :text, :none, ':day'", *given)
    assert answer.result is not None
    assert (answer.result.data_array or [])[0] == ["2026-01-03", "o'clock \\ :day ?", None, ":day"]
    with closing(connect(databricks)) as connection, closing(connection.cursor()) as cursor:
        cursor.execute("SELECT ?, ?, ?, ?", [Decimal("1.25"), None, dt.date(2026, 1, 2), [1, 2]])
        row = cursor.fetchall()[0]
    assert [*row][:3] == [Decimal("1.25"), None, dt.date(2026, 1, 2)]
    assert list(row[3]) == [1, 2]


def test_an_error_names_its_class_and_state_over_both(databricks: Databricks) -> None:
    status = databricks.execute("SELECT * FROM ecomm.gold.nowhere").status
    assert status is not None
    assert status.state is StatementState.FAILED
    assert status.sql_state == "42P01"
    assert status.error is not None
    assert str(status.error.message).startswith("[TABLE_OR_VIEW_NOT_FOUND] The table or view `ecomm`.`gold`.`nowhere`")
    with (
        closing(connect(databricks)) as connection,
        closing(connection.cursor()) as cursor,
        pytest.raises(sql.exc.ServerOperationError, match=r"\[DIVIDE_BY_ZERO\]"),
    ):
        cursor.execute("SELECT 1/0")


def test_large_results_come_in_chunks(databricks: Databricks) -> None:
    client = databricks.workspace.statement_execution
    first = databricks.execute("SELECT id FROM range(45000) ORDER BY id")
    assert first.manifest is not None
    assert first.result is not None
    rows, following = list(first.result.data_array or []), first.result.next_chunk_index
    while following is not None:
        chunk = client.get_statement_result_chunk_n(str(first.statement_id), following)
        rows += chunk.data_array or []
        following = chunk.next_chunk_index
    assert (first.manifest.total_chunk_count, first.manifest.total_row_count) == (3, 45000)
    assert [row[0] for row in rows] == [str(n) for n in range(45000)]
    with closing(connect(databricks)) as connection, closing(connection.cursor(arraysize=1000)) as cursor:
        cursor.execute("SELECT id FROM range(45000) ORDER BY id")
        assert [row.id for row in cursor.fetchall()] == list(range(45000))


ENDLESS = "SELECT count(*) FROM range(1000000000000) WHERE id % 7 = 3"


def test_cancel_stops_the_work_over_rest(databricks: Databricks) -> None:
    client = databricks.workspace.statement_execution
    statement = client.execute_statement(ENDLESS, "sandbox", wait_timeout="0s")
    time.sleep(1)
    client.cancel_execution(str(statement.statement_id))
    ended = client.get_statement(str(statement.statement_id))
    assert ended.status is not None
    assert ended.status.state is StatementState.CANCELED
    began = time.monotonic()
    assert databricks.rows("SELECT count(*) FROM range(1000)") == [["1000"]]
    assert time.monotonic() - began < 30  # the cores are free again


def test_cancel_stops_the_work_over_thrift(databricks: Databricks) -> None:
    with closing(connect(databricks)) as connection, closing(connection.cursor()) as cursor:
        ended = threading.Event()

        def cancel() -> None:
            while not ended.wait(1):  # the connector knows the statement, and can cancel it, after some five seconds
                cursor.cancel()

        canceller = threading.Thread(target=cancel)
        canceller.start()
        with pytest.raises(sql.exc.Error):
            cursor.execute(ENDLESS).fetchall()
        ended.set()
        canceller.join()


def test_a_long_statement_does_not_hold_up_others_and_ends_with_its_session(databricks: Databricks) -> None:
    connection = connect(databricks)
    cursor = connection.cursor()
    cursor.execute_async(ENDLESS)
    assert databricks.rows("SELECT count(*) FROM range(1000)") == [["1000"]]
    assert cursor.is_query_pending()
    connection.close()
    began = time.monotonic()
    assert databricks.rows("SELECT count(*) FROM range(2000000)") == [["2000000"]]
    assert time.monotonic() - began < 30


def test_a_statement_may_be_cancelled_by_its_timeout(databricks: Databricks) -> None:
    answer = databricks.workspace.statement_execution.execute_statement(
        ENDLESS, "sandbox", wait_timeout="5s", on_wait_timeout=ExecuteStatementRequestOnWaitTimeout.CANCEL
    )
    assert answer.status is not None
    assert answer.status.state is StatementState.CANCELED


def test_a_stopped_warehouse_starts_for_a_statement(databricks: Databricks) -> None:
    databricks.faults({"kind": "warehouse_cold_start", "seconds": 2, "times": 1})
    client = databricks.workspace
    assert str(client.warehouses.get("sandbox").state) == "State.STOPPED"
    began = time.monotonic()
    assert databricks.rows("SELECT 1") == [["1"]]
    assert time.monotonic() - began >= 2
    assert str(client.warehouses.get("sandbox").state) == "State.RUNNING"


def test_tokens_and_ids_are_checked(databricks: Databricks) -> None:
    with pytest.raises(PermissionDenied):
        WorkspaceClient(host=databricks.url, token="wrong").current_user.me()
    with pytest.raises(ResourceDoesNotExist):
        databricks.workspace.statement_execution.execute_statement("SELECT 1", "other")
    with pytest.raises(sql.exc.Error):
        connect_wrong(databricks)


def connect_wrong(databricks: Databricks) -> None:
    path = "/sql/1.0/warehouses/sandbox"
    sql.connect("127.0.0.1", path, "wrong", _connection_uri=databricks.url + path, enable_telemetry=False).close()


def test_a_failing_statement_is_a_fault_that_can_be_switched_on(databricks: Databricks) -> None:
    databricks.faults({"kind": "statement_fails", "matches": "unlucky", "message": "[UNLUCKY] no", "times": 1})
    assert databricks.rows("SELECT 1") == [["1"]]
    status = databricks.execute("SELECT 'unlucky'").status
    assert status is not None
    assert status.state is StatementState.FAILED
    assert databricks.rows("SELECT 'unlucky'") == [["unlucky"]]


def test_an_overloaded_service_is_tried_again_by_the_client(databricks: Databricks) -> None:
    databricks.faults({"kind": "http_error", "status": 503, "retry_after": 1, "path": "scim", "times": 1})
    assert databricks.workspace.current_user.me().user_name == "sandbox"


def test_tables_and_views_survive_a_restart(databricks: Databricks) -> None:
    for statement in (
        "CREATE SCHEMA IF NOT EXISTS ecomm.kept",
        "CREATE OR REPLACE TABLE ecomm.kept.t (a INT NOT NULL COMMENT 'one', PRIMARY KEY (a)) COMMENT 'it''s kept'",
        "INSERT INTO ecomm.kept.t VALUES (1)",
        "CREATE OR REPLACE VIEW ecomm.kept.v AS SELECT a + 1 AS b FROM ecomm.kept.t AS ecomm WHERE ecomm.a = 1",
    ):
        databricks.rows(statement)
    databricks.end()
    databricks.start()
    assert databricks.rows("SELECT * FROM `ecomm`.kept.v") == [["2"]]
    columns = (
        "SELECT column_name, is_nullable, comment FROM ecomm.information_schema.columns WHERE table_schema = 'kept'"
    )
    assert databricks.rows(f"{columns} AND table_name = 't'") == [["a", "NO", "one"]]
    keys = "SELECT constraint_type FROM ecomm.information_schema.table_constraints WHERE table_schema = 'kept'"
    assert databricks.rows(keys) == [["PRIMARY KEY"]]
    databricks.rows("DROP TABLE ecomm.kept.t")
    assert databricks.rows("SELECT count(*) FROM ecomm.information_schema.tables WHERE table_name = 't'") == [["0"]]


def test_dbt_builds_documents_and_retries(databricks: Databricks, tmp_path: Path) -> None:
    project = tmp_path / "project"
    shutil.copytree(HERE / "tiny_dbt", project)
    environment = {
        **os.environ,
        "TINY_HOST": f"127.0.0.1:{databricks.port}",
        "TINY_WAREHOUSE": "sandbox",
        "TINY_TOKEN": "a-token",
    }

    def dbt(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(Path(sys.executable).with_name("dbt")), *arguments, "--profiles-dir", "."]
        return subprocess.run(
            command, cwd=project, env=environment, capture_output=True, text=True, timeout=240, check=False
        )

    databricks.faults({"kind": "statement_fails", "matches": r"create or replace view.*items_view", "times": 1})
    failed = dbt("build")
    assert failed.returncode == 1, failed.stdout
    retried = dbt("retry")
    assert retried.returncode == 0, retried.stdout
    again = dbt("build", "--vars", '{"rows": 5}')
    assert again.returncode == 0, again.stdout
    assert databricks.rows("SELECT id, amount, seen FROM ecomm.tiny.merged ORDER BY id")[3:] == [
        ["3", "3.7500", "5"],
        ["4", "5.0000", "5"],
    ]
    status = databricks.execute("INSERT INTO ecomm.tiny.items VALUES (NULL, 1, 'x')").status
    assert status is not None
    assert status.state is StatementState.FAILED
    documented = dbt("docs", "generate")
    assert documented.returncode == 0, documented.stdout
    nodes = json.loads((project / "target" / "catalog.json").read_text())["nodes"]
    assert sorted(nodes) == ["model.tiny.items", "model.tiny.items_view", "model.tiny.merged"]
    items = nodes["model.tiny.items"]
    assert items["metadata"]["comment"] == 'Items; it\'s a "table" with a key. Grain: one row an item.'
    assert items["columns"]["amount"]["type"] == "decimal(18,4)"
    columns = "ecomm.information_schema.columns"
    comments = f"SELECT comment FROM {columns} WHERE table_name = 'items' ORDER BY ordinal_position"
    assert databricks.rows(comments) == [["The item's number"], ["Money; four places"], [None]]


def test_a_dropped_connection_does_not_stop_the_sdk(databricks: Databricks) -> None:
    databricks.faults({"kind": "drop_connection", "path": "warehouses", "times": 1})
    try:
        found = [warehouse.id for warehouse in databricks.workspace.warehouses.list()]
    except DatabricksError as error:  # pragma: no cover - the client's own decision
        pytest.fail(f"the client gave up: {error}")
    assert found == ["sandbox"]
