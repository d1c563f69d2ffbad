"""Statements: each runs in a thread of its own, can be waited for, and can really be cancelled."""

from __future__ import annotations

import base64
import datetime as dt
import decimal
import json
import re
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from ecomm_sandbox.databricks import deltalog, sqltext
from ecomm_sandbox.databricks.spark import cancel_jobs, cancellable, new_session
from ecomm_sandbox.databricks.sqlrewrite import SESSION_SETTINGS, Answer, Dialect

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from pyspark.sql import DataFrame, SparkSession

    from ecomm_sandbox.databricks.catalog import Catalog
    from ecomm_sandbox.databricks.faults import Faults

MAXIMUM_PARALLEL = 16


class State(Enum):
    """A statement's life; the names are the Statement Execution API's."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELED = "CANCELED"
    CLOSED = "CLOSED"


FINAL = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELED, State.CLOSED})


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a statement failed: Spark's text, which begins with the error class, and its SQLSTATE."""

    message: str
    sql_state: str | None


@dataclass(frozen=True, slots=True)
class Result:
    """Rows as Arrow, and each column's name and Spark type (`decimal(18,4)`)."""

    columns: tuple[tuple[str, str], ...]
    table: pa.Table
    modified: int | None = None


@dataclass(slots=True)
class Statement:
    """One statement, from its submission until the client closes it."""

    sql: str
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    state: State = State.PENDING
    result: Result | None = None
    problem: Problem | None = None
    done: threading.Event = field(default_factory=threading.Event)
    guard: threading.Lock = field(default_factory=threading.Lock)
    offset: int = 0  # the next row to fetch, for the Thrift interface

    def wait(self, seconds: float) -> bool:
        """Whether the statement has ended within `seconds`."""
        return self.done.wait(seconds)

    def finish(self, state: State, *, result: Result | None = None, problem: Problem | None = None) -> None:
        """End it, unless it has ended (a cancel wins over the statement's own end)."""
        with self.guard:
            if self.state in FINAL:
                return
            self.result, self.problem, self.state = result, problem, state
        self.done.set()

    def start(self) -> bool:
        """Go from PENDING to RUNNING; False when it was cancelled before."""
        with self.guard:
            if self.state is not State.PENDING:
                return False
            self.state = State.RUNNING
            return True


class Executor:
    """Runs statements on Spark sessions."""

    def __init__(self, spark: SparkSession, catalog: Catalog, faults: Faults, history: Path) -> None:
        """`spark` is the session new ones are made from; `history` gets a JSON line a statement."""
        self.spark, self.catalog, self.faults = spark, catalog, faults
        self.dialect = Dialect(catalog)
        self._pool = ThreadPoolExecutor(MAXIMUM_PARALLEL, thread_name_prefix="statement")
        self._history = history

    def session(self, schema: str | None = None, settings: Mapping[str, str] | None = None) -> SparkSession:
        """A new session, in `schema` if that exists, with the client's settings that mean something here."""
        session = new_session(self.spark, self.catalog.name, bulk=self.catalog.is_large())
        for key, value in (settings or {}).items():
            name = SESSION_SETTINGS.get(key.upper(), key if key.startswith("spark.sql.") else None)
            if name is not None:
                session.conf.set(name, value)
        if schema and session.catalog.databaseExists(schema):
            session.catalog.setCurrentDatabase(schema)
        return session

    def submit(
        self,
        session: SparkSession | Callable[[], SparkSession],
        sql: str,
        *,
        named: Mapping[str, str] | None = None,
        positional: Sequence[str] = (),
        row_limit: int | None = None,
        before: Callable[[], None] | None = None,
    ) -> Statement:
        """Start a statement; parameters are SQL literals, `before` waits for the warehouse."""
        statement = Statement(sql)
        began = time.monotonic()

        def work() -> None:
            try:
                if before is not None:
                    before()
                if statement.start():
                    self.faults.statement(sql, statement.done)
                    made = session() if callable(session) else session
                    bound = sqltext.bind(sql, named or {}, positional)
                    statement.finish(State.SUCCEEDED, result=self._run(made, bound, statement.id, row_limit))
            except Exception as error:  # noqa: BLE001 - whatever goes wrong is the statement's failure
                statement.finish(State.FAILED, problem=problem_of(error, self.catalog.name))
            self._remember(statement, time.monotonic() - began)

        self._pool.submit(work)
        return statement

    def cancel(self, statement: Statement) -> None:
        """End the statement as CANCELED and stop its Spark jobs."""
        statement.finish(State.CANCELED)
        cancel_jobs(self.spark, statement.id)

    def _remember(self, statement: Statement, seconds: float) -> None:
        entry = {
            "ended_at": dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds"),
            "seconds": round(seconds, 3),
            "state": statement.state.value,
            "rows": statement.result.table.num_rows if statement.result else None,
            "error": statement.problem.message if statement.problem else None,
            "sql": statement.sql,
        }
        with self._history.open("a", encoding="utf-8") as out:
            out.write(json.dumps(entry, ensure_ascii=False) + "\n")

    def _run(self, session: SparkSession, sql: str, name: str, row_limit: int | None) -> Result:
        todo = self.dialect.translate(sql, session)
        if isinstance(todo, Answer):
            return answer(todo)
        result = Result((), pa.table({}))
        with cancellable(session, name):
            for text in todo.statements:
                result = collect(session.sql(text), row_limit)
        if todo.then is not None:
            todo.then()
        if todo.views_change:
            self.catalog.views_changed()
        return self._counted(result, sql, session)

    def _counted(self, result: Result, sql: str, session: SparkSession) -> Result:
        """An INSERT's row count, which open-source Delta keeps in its log only."""
        parts = sqltext.code(sql)
        if result.columns or not parts or parts[0].upper != "INSERT":
            return result
        names: list[str] = []
        for token in parts[1:]:
            if token.name and token.upper not in ("INTO", "OVERWRITE", "TABLE"):
                names.append(token.name)
            elif names and token.text != ".":
                break
            if names and token.name and parts[parts.index(token) + 1].text != ".":
                break
        schema = names[-2] if len(names) > 1 else session.catalog.currentDatabase()
        rows = deltalog.last_output_rows(self.catalog.folder(schema.lower(), names[-1].lower())) if names else None
        if rows is None:
            return result
        table = pa.table({name: pa.array([rows], pa.int64()) for name in ("num_affected_rows", "num_inserted_rows")})
        return Result((("num_affected_rows", "bigint"), ("num_inserted_rows", "bigint")), table, rows)


def answer(content: Answer) -> Result:
    """Rows that needed no Spark, as a result of strings."""
    cells = {name: pa.array([row[at] for row in content.rows], pa.string()) for at, name in enumerate(content.columns)}
    return Result(tuple((name, "string") for name in content.columns), pa.table(cells))


def collect(frame: DataFrame, row_limit: int | None) -> Result:
    """Run a query; intervals and variants come as text, since Arrow and the clients share no type for them."""
    fields = frame.schema.fields
    columns = tuple((item.name, item.dataType.simpleString()) for item in fields)
    if not fields:
        return Result((), pa.table({}))
    if row_limit is not None:
        frame = frame.limit(row_limit)
    if any(_as_text(kind) for _, kind in columns):
        unique = [f"c{at}" for at in range(len(columns))]
        frame = frame.toDF(*unique)
        frame = frame.selectExpr(
            *(f"CAST({u} AS STRING) {u}" if _as_text(kind) else u for u, (_, kind) in zip(unique, columns, strict=True))
        )
    table = frame.toArrow().rename_columns([name for name, _ in columns])
    modified = None
    if "num_affected_rows" in table.column_names and table.num_rows == 1:
        modified = table.column("num_affected_rows")[0].as_py()
    return Result(columns, table, modified)


def _as_text(kind: str) -> bool:
    return kind.startswith(("interval", "variant"))


_JAVA_PREFIX = re.compile(r"^(?:[\w$]+\.)+[\w$]*(?:Exception|Error): ")


def problem_of(error: BaseException, catalog: str) -> Problem:
    """An exception as the warehouse shows it: names in the client's catalog, no Java stack."""
    from py4j.protocol import Py4JJavaError
    from pyspark.errors import PySparkException

    state: str | None = None
    if isinstance(error, PySparkException):
        text, state = str(error.getMessage() or error), error.getSqlState()
    elif isinstance(error, Py4JJavaError):
        cause = error.java_exception
        while cause.getCause() is not None:
            cause = cause.getCause()
        text = str(cause.getMessage() or cause.toString())
    else:
        text = str(error) or type(error).__name__
    if state is None and (found := re.search(r"SQLSTATE: (\w{5})", text)):
        state = found.group(1)
    text = _JAVA_PREFIX.sub("", text.split("\n\tat ")[0].strip())
    text = text.replace("`spark_catalog`", f"`{catalog}`").replace("spark_catalog.", f"{catalog}.")
    return Problem(text, state)


# -- values as the Statement Execution API writes them (JSON_ARRAY: text, or null)


def json_rows(table: pa.Table) -> list[list[str | None]]:
    """The rows as lists of texts.

    https://docs.databricks.com/api/workspace/statementexecution (`data_array`)
    """
    columns = [[json_value(value) for value in column.to_pylist()] for column in table.columns]
    return [list(row) for row in zip(*columns, strict=True)]


def json_value(value: Any) -> str | None:  # noqa: ANN401, PLR0911 - any of Arrow's Python values
    """One value as text: timestamps ISO 8601 in UTC, decimals with all their places, complex types as JSON."""
    match value:
        case None | str():
            return value
        case bool():
            return "true" if value else "false"
        case dt.datetime():
            micros = value.microsecond
            text = value.strftime("%Y-%m-%dT%H:%M:%S").rjust(19, "0")
            text += f".{micros // 1000:03d}" if micros % 1000 == 0 else f".{micros:06d}"
            return text + ("Z" if value.tzinfo else "")
        case decimal.Decimal():
            return format(value, "f")
        case bytes():
            return base64.b64encode(value).decode()
        case dict() | list() | tuple():
            return json.dumps(_plain(value), ensure_ascii=False)
        case _:
            return str(value)


def _plain(value: Any) -> Any:  # noqa: ANN401 - as json_value
    match value:
        case dict():
            return {str(key): _plain(item) for key, item in value.items()}
        case list() if value and all(isinstance(item, tuple) for item in value):  # a map's pairs
            return {str(_plain(key)): _plain(item) for key, item in value}
        case list() | tuple():
            return [_plain(item) for item in value]
        case None | bool() | int() | float() | str():
            return value
        case _:
            return json_value(value)
