"""The Statement Execution API: `/api/2.0/sql/statements`.

https://docs.databricks.com/api/workspace/statementexecution
"""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from ecomm_sandbox.databricks import sqltext
from ecomm_sandbox.databricks.errors import ApiError, bad_request, not_found
from ecomm_sandbox.databricks.warehouse.executor import Executor, State, Statement, json_rows

if TYPE_CHECKING:
    import pyarrow as pa

    from ecomm_sandbox.databricks.warehouse.executor import Result
    from ecomm_sandbox.databricks.warehouse.state import Warehouse

ROWS_A_CHUNK = 20_000
KEPT_STATEMENTS = 200
DEFAULT_WAIT = 10.0
_TYPE_NAMES = {"bigint": "LONG", "tinyint": "BYTE", "smallint": "SHORT", "void": "NULL", "timestamp_ntz": "TIMESTAMP"}


class StatementApi:
    """Statements by id, kept until there are `KEPT_STATEMENTS` newer ones."""

    def __init__(self, executor: Executor, warehouse: Warehouse) -> None:
        """Run on `executor`, after `warehouse` has started."""
        self.executor, self.warehouse = executor, warehouse
        self._lock = threading.Lock()
        self._statements: OrderedDict[str, Statement] = OrderedDict()

    def execute(self, body: dict[str, Any]) -> dict[str, Any]:
        """`POST /api/2.0/sql/statements`."""
        self.warehouse.require_usable(str(body.get("warehouse_id")))
        wait = _wait_seconds(body.get("wait_timeout"))
        if body.get("disposition", "INLINE") != "INLINE" or body.get("format", "JSON_ARRAY") != "JSON_ARRAY":
            message = "the sandbox answers disposition INLINE in format JSON_ARRAY only"
            raise bad_request(message)
        sql = body.get("statement")
        if not isinstance(sql, str) or not sql.strip():
            message = "statement is empty"
            raise bad_request(message)
        named, positional = _parameters(body.get("parameters") or [])
        schema = body.get("schema")
        statement = self.executor.submit(
            lambda: self.executor.session(schema),
            sql,
            named=named,
            positional=positional,
            row_limit=int(body["row_limit"]) if body.get("row_limit") else None,
            before=self.warehouse.ensure_running,
        )
        self._keep(statement)
        if not statement.wait(wait) and wait and body.get("on_wait_timeout") == "CANCEL":
            self.executor.cancel(statement)
        return self._response(statement)

    def get(self, statement_id: str) -> dict[str, Any]:
        """`GET /api/2.0/sql/statements/{id}`."""
        return self._response(self._find(statement_id))

    def chunk(self, statement_id: str, index: int) -> dict[str, Any]:
        """`GET /api/2.0/sql/statements/{id}/result/chunks/{index}`."""
        statement = self._find(statement_id)
        if statement.result is None:
            message = f"statement {statement_id} is {statement.state.value} and has no result"
            raise bad_request(message)
        return _chunk(statement.id, statement.result.table, index)

    def cancel(self, statement_id: str) -> dict[str, Any]:
        """`POST /api/2.0/sql/statements/{id}/cancel`."""
        self.executor.cancel(self._find(statement_id))
        return {}

    def _keep(self, statement: Statement) -> None:
        with self._lock:
            self._statements[statement.id] = statement
            while len(self._statements) > KEPT_STATEMENTS:
                self._statements.popitem(last=False)

    def _find(self, statement_id: str) -> Statement:
        with self._lock:
            statement = self._statements.get(statement_id)
        if statement is None:
            message = f"The statement {statement_id} was not found."
            raise not_found(message)
        return statement

    def _response(self, statement: Statement) -> dict[str, Any]:
        status: dict[str, Any] = {"state": statement.state.value}
        if statement.problem is not None:
            status["error"] = {"error_code": "BAD_REQUEST", "message": statement.problem.message}
            if statement.problem.sql_state:
                status["sql_state"] = statement.problem.sql_state
        response: dict[str, Any] = {"statement_id": statement.id, "status": status}
        if statement.state is State.SUCCEEDED and statement.result is not None:
            response["manifest"] = _manifest(statement.result)
            response["result"] = _chunk(statement.id, statement.result.table, 0)
        return response


def _wait_seconds(text: str | None) -> float:
    """`0s`, or 5 s to 50 s, as the API has it."""
    if text is None:
        return DEFAULT_WAIT
    found = re.fullmatch(r"(\d+)s", text)
    if not found or not (int(found.group(1)) == 0 or 5 <= int(found.group(1)) <= 50):  # noqa: PLR2004 - the API's limits
        message = f"wait_timeout must be 0s or between 5s and 50s, not {text!r}"
        raise bad_request(message)
    return float(found.group(1))


def _parameters(items: list[dict[str, Any]]) -> tuple[dict[str, str], list[str]]:
    """Named and positional parameters as SQL literals."""
    named: dict[str, str] = {}
    positional: list[tuple[int, str]] = []
    for at, item in enumerate(items):
        try:
            literal = sqltext.literal(item.get("value"), item.get("type"))
        except ValueError as error:
            raise bad_request(str(error)) from error
        if item.get("name"):
            named[item["name"]] = literal
        else:
            positional.append((int(item.get("ordinal", at + 1)), literal))
    return named, [literal for _, literal in sorted(positional)]


def _manifest(result: Result) -> dict[str, Any]:
    rows = result.table.num_rows
    count = max(1, -(-rows // ROWS_A_CHUNK))
    chunks = [
        {
            "chunk_index": at,
            "row_offset": at * ROWS_A_CHUNK,
            "row_count": min(ROWS_A_CHUNK, rows - at * ROWS_A_CHUNK),
        }
        for at in range(count)
    ]
    columns = [_column(at, name, kind) for at, (name, kind) in enumerate(result.columns)]
    return {
        "format": "JSON_ARRAY",
        "schema": {"column_count": len(columns), "columns": columns},
        "total_chunk_count": count,
        "chunks": chunks,
        "total_row_count": rows,
        "total_byte_count": result.table.nbytes,
        "truncated": False,
    }


def _column(position: int, name: str, kind: str) -> dict[str, Any]:
    base = re.split(r"[(<]", kind)[0]
    column: dict[str, Any] = {
        "name": name,
        "position": position,
        "type_name": _TYPE_NAMES.get(base, "INTERVAL" if base.startswith("interval") else base.upper()),
        "type_text": kind.upper(),
    }
    if base == "decimal":
        precision, scale = kind[len("decimal(") : -1].split(",")
        column |= {"type_precision": int(precision), "type_scale": int(scale)}
    return column


def _chunk(statement_id: str, table: pa.Table, index: int) -> dict[str, Any]:
    start = index * ROWS_A_CHUNK
    if index < 0 or (start >= table.num_rows and index):
        raise ApiError(404, "NOT_FOUND", f"statement {statement_id} has no chunk {index}")
    part = table.slice(start, ROWS_A_CHUNK)
    chunk: dict[str, Any] = {"chunk_index": index, "row_offset": start, "row_count": part.num_rows}
    if part.num_rows:
        chunk["data_array"] = json_rows(part)
    if start + ROWS_A_CHUNK < table.num_rows:
        chunk["next_chunk_index"] = index + 1
        chunk["next_chunk_internal_link"] = f"/api/2.0/sql/statements/{statement_id}/result/chunks/{index + 1}"
    return chunk
