"""The warehouse as databricks-sql-connector (and with it dbt-databricks) speaks to it: Thrift in HTTP posts.

The service's definition is the connector's own generated code (`databricks.sql.thrift_api.TCLIService`).
"""

from __future__ import annotations

import re
import threading
import uuid
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from databricks.sql.thrift_api.TCLIService import TCLIService
from databricks.sql.thrift_api.TCLIService import ttypes as t
from thrift.protocol.TBinaryProtocol import TBinaryProtocol
from thrift.transport.TTransport import TMemoryBuffer

from ecomm_sandbox.databricks import infoschema, sqltext
from ecomm_sandbox.databricks.sqlrewrite import Answer
from ecomm_sandbox.databricks.warehouse.executor import FINAL, Executor, Result, State, Statement, answer, json_value

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyspark.sql import SparkSession

    from ecomm_sandbox.databricks.warehouse.state import Warehouse

# How long a call waits for a statement before it answers "still running": Databricks' own five seconds.
LONG_POLL_SECONDS = 5.0
DEFAULT_ROWS = 100_000
_OK = t.TStatus(statusCode=t.TStatusCode.SUCCESS_STATUS)
_STATES = {
    State.PENDING: t.TOperationState.PENDING_STATE,
    State.RUNNING: t.TOperationState.RUNNING_STATE,
    State.SUCCEEDED: t.TOperationState.FINISHED_STATE,
    State.FAILED: t.TOperationState.ERROR_STATE,
    State.CANCELED: t.TOperationState.CANCELED_STATE,
    State.CLOSED: t.TOperationState.CLOSED_STATE,
}
_TYPES = {
    "void": "NULL_TYPE",
    "timestamp_ntz": "TIMESTAMP_TYPE",
    "variant": "STRING_TYPE",
    "interval": "STRING_TYPE",
}
# java.sql.Types and sizes for GetColumns: type -> (code, size, decimal digits, radix)
_JDBC = {
    "boolean": (16, 1, None, None),
    "tinyint": (-6, 3, 0, 10),
    "smallint": (5, 5, 0, 10),
    "int": (4, 10, 0, 10),
    "bigint": (-5, 19, 0, 10),
    "float": (6, 7, 7, 10),
    "double": (8, 15, 15, 10),
    "string": (12, 255, None, None),
    "binary": (-2, 255, None, None),
    "date": (91, 10, None, None),
    "timestamp": (93, 29, 6, None),
    "array": (2003, None, None, None),
    "map": (2000, None, None, None),
    "struct": (2002, None, None, None),
}


class ThriftService:
    """The methods of TCLIService, named as the protocol names them."""

    def __init__(self, executor: Executor, warehouse: Warehouse) -> None:
        """Run on `executor`; statements start the `warehouse`."""
        self.executor, self.warehouse = executor, warehouse
        self._lock = threading.Lock()
        self._sessions: dict[bytes, SparkSession] = {}
        self._statements: dict[bytes, Statement] = {}
        self._of_session: dict[bytes, set[bytes]] = {}
        self._processor = TCLIService.Processor(self)

    def answer(self, body: bytes) -> bytes:
        """One call: the HTTP request's body in, the response's out."""
        out = TMemoryBuffer()
        self._processor.process(TBinaryProtocol(TMemoryBuffer(body)), TBinaryProtocol(out))
        return bytes(out.getvalue())

    # -- sessions

    def OpenSession(self, req: Any) -> Any:  # noqa: N802, ANN401 - the protocol's names and generated types
        """A Spark session of its own."""
        namespace = req.initialNamespace
        session = self.executor.session(namespace and namespace.schemaName, req.configuration or {})
        handle = _handle()
        with self._lock:
            self._sessions[handle.guid] = session
        return t.TOpenSessionResp(
            status=_OK,
            serverProtocolVersion=t.TProtocolVersion.SPARK_CLI_SERVICE_PROTOCOL_V7,
            sessionHandle=t.TSessionHandle(sessionId=handle),
            configuration={},
            initialNamespace=namespace,
            canUseMultipleCatalogs=True,
        )

    def CloseSession(self, req: Any) -> Any:  # noqa: N802, ANN401 - as above
        """Forget the session; its statements that still run are stopped."""
        guid = req.sessionHandle.sessionId.guid
        with self._lock:
            self._sessions.pop(guid, None)
            keys = self._of_session.pop(guid, set()) & self._statements.keys()
            statements = [self._statements.pop(key) for key in keys]
        for statement in statements:
            if statement.state not in FINAL:
                self.executor.cancel(statement)
        return t.TCloseSessionResp(status=_OK)

    def GetInfo(self, _req: Any) -> Any:  # noqa: N802, ANN401 - as above
        """The server's name, whatever was asked."""
        return t.TGetInfoResp(status=_OK, infoValue=t.TGetInfoValue(stringValue="Spark SQL"))

    def _session(self, req: Any) -> SparkSession | None:  # noqa: ANN401 - as above
        with self._lock:
            return self._sessions.get(req.sessionHandle.sessionId.guid)

    # -- statements

    def ExecuteStatement(self, req: Any) -> Any:  # noqa: N802, ANN401 - as above
        """Start a statement; its result comes along when it is ready within five seconds."""
        session = self._session(req)
        if session is None:
            return t.TExecuteStatementResp(status=_invalid("Invalid SessionHandle"))
        try:
            named, positional = _parameters(req.parameters or [])
        except ValueError as error:
            return t.TExecuteStatementResp(
                status=t.TStatus(statusCode=t.TStatusCode.ERROR_STATUS, errorMessage=str(error))
            )
        statement = self.executor.submit(
            session,
            req.statement,
            named=named,
            positional=positional,
            row_limit=req.resultRowLimit,
            before=self.warehouse.ensure_running,
        )
        arrow = req.useArrowNativeTypes
        as_json = arrow is not None and arrow.complexTypesAsArrow is False
        return self._opened(t.TExecuteStatementResp, req, statement, complex_as_json=as_json)

    def _opened(self, response: Any, req: Any, statement: Statement, *, complex_as_json: bool = False) -> Any:  # noqa: ANN401 - as above
        guid = uuid.UUID(statement.id).bytes
        with self._lock:
            self._statements[guid] = statement
            self._of_session.setdefault(req.sessionHandle.sessionId.guid, set()).add(guid)
        handle = t.TOperationHandle(
            operationId=t.THandleIdentifier(guid=guid, secret=guid),
            operationType=t.TOperationType.EXECUTE_STATEMENT,
            hasResultSet=True,
        )
        if req.getDirectResults is None:
            return response(status=_OK, operationHandle=handle)
        statement.wait(LONG_POLL_SECONDS)
        direct = t.TSparkDirectResults(operationStatus=_status(statement))
        if statement.state is State.SUCCEEDED and statement.result is not None:
            if complex_as_json:
                statement.result = _complex_as_json(statement.result)
            direct.resultSetMetadata = _metadata(statement.result)
            direct.resultSet = _next_rows(statement, req.getDirectResults.maxRows)
            if not direct.resultSet.hasMoreRows:
                direct.closeOperation = t.TCloseOperationResp(status=_OK)
        if statement.state is State.FAILED or direct.closeOperation is not None:
            with self._lock:
                self._statements.pop(guid, None)
        return response(status=_OK, operationHandle=handle, directResults=direct)

    def _statement(self, req: Any) -> Statement | None:  # noqa: ANN401 - as above
        with self._lock:
            return self._statements.get(req.operationHandle.operationId.guid)

    def GetOperationStatus(self, req: Any) -> Any:  # noqa: N802, ANN401 - as above
        """The statement's state, after at most five seconds."""
        statement = self._statement(req)
        if statement is None:
            return t.TGetOperationStatusResp(status=_invalid("Invalid OperationHandle"))
        statement.wait(LONG_POLL_SECONDS)
        return _status(statement)

    def GetResultSetMetadata(self, req: Any) -> Any:  # noqa: N802, ANN401 - as above
        """Columns of a finished statement."""
        statement = self._statement(req)
        if statement is None or statement.result is None:
            return t.TGetResultSetMetadataResp(status=_invalid("Invalid OperationHandle"))
        return _metadata(statement.result)

    def FetchResults(self, req: Any) -> Any:  # noqa: N802, ANN401 - as above
        """The next rows of a finished statement."""
        statement = self._statement(req)
        if statement is None or statement.result is None:
            return t.TFetchResultsResp(status=_invalid("Invalid OperationHandle"))
        response = _next_rows(statement, req.maxRows)
        response.resultSetMetadata = _metadata(statement.result)
        return response

    def CloseOperation(self, req: Any) -> Any:  # noqa: N802, ANN401 - as above
        """Forget the statement; one that still runs is stopped."""
        with self._lock:
            statement = self._statements.pop(req.operationHandle.operationId.guid, None)
        if statement is not None and statement.state not in FINAL:
            self.executor.cancel(statement)
        return t.TCloseOperationResp(status=_OK)

    def CancelOperation(self, req: Any) -> Any:  # noqa: N802, ANN401 - as above
        """Stop the statement."""
        statement = self._statement(req)
        if statement is not None:
            self.executor.cancel(statement)
        return t.TCancelOperationResp(status=_OK)

    # -- metadata calls

    def _listed(self, response: Any, req: Any, make: Callable[[SparkSession], Result]) -> Any:  # noqa: ANN401 - as above
        session = self._session(req)
        if session is None:
            return response(status=_invalid("Invalid SessionHandle"))
        statement = Statement("")
        statement.finish(State.SUCCEEDED, result=make(session))
        return self._opened(response, req, statement)

    def GetCatalogs(self, req: Any) -> Any:  # noqa: N802, ANN401 - as above
        """The one catalog."""
        name = self.executor.catalog.name
        return self._listed(t.TGetCatalogsResp, req, lambda _: answer(Answer(("TABLE_CAT",), ((name,),))))

    def GetSchemas(self, req: Any) -> Any:  # noqa: N802, ANN401 - as above
        """Schemas whose name matches the pattern (`%` and `_`)."""
        catalog, matches = self.executor.catalog, like(req.schemaName)
        rows = tuple((schema, catalog.name) for schema in catalog.schemas() if matches(schema))
        return self._listed(t.TGetSchemasResp, req, lambda _: answer(Answer(("TABLE_SCHEM", "TABLE_CATALOG"), rows)))

    def GetTables(self, req: Any) -> Any:  # noqa: N802, ANN401 - as above
        """Tables and views by patterns, in JDBC's ten columns."""
        names = ("TABLE_CAT", "TABLE_SCHEM", "TABLE_NAME", "TABLE_TYPE", "REMARKS", "TYPE_CAT", "TYPE_SCHEM",
                 "TYPE_NAME", "SELF_REFERENCING_COL_NAME", "REF_GENERATION")  # fmt: skip
        wanted = {kind.upper() for kind in req.tableTypes or []}
        rows = []
        for relation in self._relations(req):
            kind = "VIEW" if relation.kind == "VIEW" else "TABLE"
            if not wanted or kind in wanted:
                where = (self.executor.catalog.name, relation.schema, relation.name)
                rows.append((*where, kind, relation.state.comment or "", *[None] * 5))
        return self._listed(t.TGetTablesResp, req, lambda _: answer(Answer(names, tuple(rows))))

    def _relations(self, req: Any) -> list[Any]:  # noqa: ANN401 - as above
        schema, table = like(req.schemaName), like(req.tableName)
        return [r for r in self.executor.catalog.relations() if schema(r.schema) and table(r.name)]

    def GetColumns(self, req: Any) -> Any:  # noqa: N802, ANN401 - as above
        """Columns by patterns, in JDBC's columns."""
        matches = like(req.columnName)
        rows = [
            _column_row(self.executor.catalog.name, relation, at, column)
            for relation in self._relations(req)
            for at, column in enumerate(relation.state.columns)
            if matches(column.name)
        ]
        return self._listed(t.TGetColumnsResp, req, lambda _: _columns_result(rows))


_COLUMN_FIELDS = (
    ("TABLE_CAT", "string"), ("TABLE_SCHEM", "string"), ("TABLE_NAME", "string"), ("COLUMN_NAME", "string"),
    ("DATA_TYPE", "int"), ("TYPE_NAME", "string"), ("COLUMN_SIZE", "int"), ("BUFFER_LENGTH", "tinyint"),
    ("DECIMAL_DIGITS", "int"), ("NUM_PREC_RADIX", "int"), ("NULLABLE", "int"), ("REMARKS", "string"),
    ("COLUMN_DEF", "string"), ("SQL_DATA_TYPE", "int"), ("SQL_DATETIME_SUB", "int"), ("CHAR_OCTET_LENGTH", "int"),
    ("ORDINAL_POSITION", "int"), ("IS_NULLABLE", "string"), ("SCOPE_CATALOG", "string"), ("SCOPE_SCHEMA", "string"),
    ("SCOPE_TABLE", "string"), ("SOURCE_DATA_TYPE", "smallint"), ("IS_AUTO_INCREMENT", "string"),
)  # fmt: skip
_ARROW = {"string": pa.string(), "int": pa.int32(), "tinyint": pa.int8(), "smallint": pa.int16()}


def _column_row(catalog: str, relation: Any, at: int, column: Any) -> tuple[Any, ...]:  # noqa: ANN401 - records
    full = infoschema.type_text(column.json_type)
    base = re.split(r"[(<]", full)[0]
    code, size, digits, radix = _JDBC.get(base, (1111, None, None, None))
    if base == "decimal":
        precision, scale = full[len("decimal(") : -1].split(",")
        code, size, digits, radix = 3, int(precision), int(scale), 10
    nullable = ("YES", 1) if column.nullable else ("NO", 0)
    return (catalog, relation.schema, relation.name, column.name, code, full.upper(), size, None, digits, radix,
            nullable[1], column.comment or "", None, None, None, None, at, nullable[0], None, None, None, None,
            "NO")  # fmt: skip


def _columns_result(rows: list[tuple[Any, ...]]) -> Result:
    cells = {name: pa.array([row[at] for row in rows], _ARROW[kind]) for at, (name, kind) in enumerate(_COLUMN_FIELDS)}
    return Result(_COLUMN_FIELDS, pa.table(cells))


def like(pattern: str | None) -> Callable[[str], bool]:
    """A JDBC name pattern: `%` is anything, `_` one character, a backslash takes the next literally."""
    if not pattern:
        return lambda _name: True
    expression = "".join(
        {"%": ".*", "*": ".*", "_": "."}.get(piece, re.escape(piece[-1])) for piece in re.findall(r"\\.|.", pattern)
    )
    return lambda name: re.fullmatch(expression, name, re.IGNORECASE) is not None


def _handle() -> Any:  # noqa: ANN401 - as above
    return t.THandleIdentifier(guid=uuid.uuid4().bytes, secret=uuid.uuid4().bytes)


def _invalid(message: str) -> Any:  # noqa: ANN401 - as above
    return t.TStatus(statusCode=t.TStatusCode.INVALID_HANDLE_STATUS, errorMessage=message)


def _parameters(items: list[Any]) -> tuple[dict[str, str], list[str]]:
    """The connector's native parameters as SQL literals, arrays, maps and structs included."""
    named = {item.name: _literal(item) for item in items if item.name}
    return named, [_literal(item) for item in items if not item.name]


def _literal(item: Any) -> str:  # noqa: ANN401 - as above
    kind = (item.type or "STRING").upper()
    arguments = [_literal(argument) for argument in item.arguments or []]
    if kind == "ARRAY":
        return f"array({', '.join(arguments)})"
    if kind == "MAP":
        return f"map({', '.join(arguments)})"
    if kind == "STRUCT":
        return f"struct({', '.join(arguments)})"
    value = item.value
    if value is not None and not isinstance(value, str):  # TSparkParameterValue; inside a complex value plain text
        choices = (value.stringValue, value.doubleValue, value.booleanValue)
        value = next((str(choice) for choice in choices if choice is not None), None)
    return sqltext.literal(value, kind)


def _status(statement: Statement) -> Any:  # noqa: ANN401 - as above
    problem = statement.problem
    return t.TGetOperationStatusResp(
        status=_OK,
        operationState=_STATES[statement.state],
        errorMessage=problem and problem.message,
        displayMessage=problem and problem.message,
        diagnosticInfo=problem and problem.message,
        sqlState=problem and problem.sql_state,
        numModifiedRows=statement.result.modified if statement.result else None,
    )


def _metadata(result: Result) -> Any:  # noqa: ANN401 - as above
    columns = [_description(at, name, kind) for at, (name, kind) in enumerate(result.columns)]
    return t.TGetResultSetMetadataResp(
        status=_OK,
        schema=t.TTableSchema(columns),
        resultFormat=t.TSparkRowSetType.ARROW_BASED_SET,
        lz4Compressed=False,
        arrowSchema=result.table.schema.serialize().to_pybytes(),
        isStagingOperation=False,
    )


def _description(position: int, name: str, kind: str) -> Any:  # noqa: ANN401 - as above
    base = re.split(r"[(< ]", kind)[0]
    qualifiers = None
    if base == "decimal":
        precision, scale = kind[len("decimal(") : -1].split(",")
        values = {"precision": int(precision), "scale": int(scale)}
        qualifiers = t.TTypeQualifiers({key: t.TTypeQualifierValue(i32Value=value) for key, value in values.items()})
    type_id = getattr(t.TTypeId, _TYPES.get(base, f"{base.upper()}_TYPE"), t.TTypeId.STRING_TYPE)
    entry = t.TTypeEntry(primitiveEntry=t.TPrimitiveTypeEntry(type=type_id, typeQualifiers=qualifiers))
    return t.TColumnDesc(columnName=name, typeDesc=t.TTypeDesc([entry]), position=position + 1, comment="")


def _next_rows(statement: Statement, limit: int | None) -> Any:  # noqa: ANN401 - as above
    result = statement.result
    if result is None:
        message = "a statement without a result has no rows"
        raise ValueError(message)
    start = statement.offset
    part = result.table.slice(start, limit or DEFAULT_ROWS)
    statement.offset = start + part.num_rows
    batches = [
        t.TSparkArrowBatch(batch=batch.serialize().to_pybytes(), rowCount=batch.num_rows)
        for batch in part.combine_chunks().to_batches()
    ]
    rows = t.TRowSet(startRowOffset=start, rows=[], arrowBatches=batches)
    more = statement.offset < result.table.num_rows
    return t.TFetchResultsResp(status=_OK, hasMoreRows=more, results=rows)


def _complex_as_json(result: Result) -> Result:
    table = result.table
    for at, (name, kind) in enumerate(result.columns):
        if kind.startswith(("array", "map", "struct")):
            cells = pa.array([json_value(value) for value in table.column(at).to_pylist()], pa.string())
            table = table.set_column(at, name, cells)
    columns = tuple((n, "string" if k.startswith(("array", "map", "struct")) else k) for n, k in result.columns)
    return Result(columns, table, result.modified)
