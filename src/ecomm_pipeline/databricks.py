"""The Databricks workspace: how to sign in, SQL through a warehouse, and its refusals in our own words.

Wraps databricks-sdk (https://databricks-sdk-py.readthedocs.io).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from threading import Thread
from typing import TYPE_CHECKING, Any, Final

from ecomm_pipeline.errors import (
    BadDataError,
    CancelledError,
    ConfigurationError,
    CredentialsError,
    EcommError,
    MissingSourceError,
    TimedOutError,
    UnavailableError,
    translated,
)
from ecomm_pipeline.logs import get_logger

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from databricks.sdk import WorkspaceClient
    from databricks.sdk.service.sql import GetWarehouseResponse, StatementResponse, StatementStatus

    from ecomm_pipeline.clock import Clock
    from ecomm_pipeline.settings import Databricks
    from ecomm_pipeline.stage import Stop

__all__ = [
    "CONDITIONS",
    "QueryResult",
    "Warehouse",
    "connect",
    "databricks_errors",
    "error_condition",
    "look_at_warehouse",
]

_EXCERPT: Final = 500
_FIRST_POLL: Final = 0.05
_LONGEST_POLL: Final = 1.0
"""Seconds between two looks at a statement: they double, so that a quick answer is had at once."""
_CANCEL_SECONDS: Final = 10.0
"""How long cancelling a statement may take: Kubernetes kills 30 s after SIGTERM."""

CONDITIONS: Final[dict[str, type[EcommError]]] = {
    name: kind
    for kind, names in {
        BadDataError: (
            "DELTA_NEW_NOT_NULL_VIOLATION",
            "DELTA_NOT_NULL_CONSTRAINT_VIOLATED",
            "DELTA_VIOLATE_CONSTRAINT_WITH_VALUES",
            "NOT_NULL_ASSERT_VIOLATION",
        ),
        CancelledError: ("CANCELLED",),
        CredentialsError: ("INSUFFICIENT_PERMISSIONS", "PERMISSION_DENIED", "UNAUTHENTICATED", "UNAUTHORIZED_ACCESS"),
        MissingSourceError: (
            "CATALOG_NOT_FOUND",
            "DELTA_TABLE_NOT_FOUND",
            "NOT_FOUND",
            "NO_SUCH_CATALOG_EXCEPTION",
            "SCHEMA_NOT_FOUND",
            "TABLE_OR_VIEW_NOT_FOUND",
            "UNRESOLVED_COLUMN",
        ),
        TimedOutError: ("DEADLINE_EXCEEDED",),
        UnavailableError: (
            "ABORTED",
            "INTERNAL_ERROR",
            "IO_ERROR",
            "RESOURCE_EXHAUSTED",
            "SERVICE_UNDER_MAINTENANCE",
            "TEMPORARILY_UNAVAILABLE",
            "UNKNOWN",
            "WORKSPACE_TEMPORARILY_UNAVAILABLE",
        ),
    }.items()
    for name in names
}
"""What SQL's error conditions and the codes of a failed statement mean; of any other the statement itself is at fault.

https://docs.databricks.com/error-messages/error-classes and databricks-sdk's `ServiceErrorCode`
"""

_NEXT_STEPS: Final[dict[type[EcommError], str]] = {
    BadDataError: "see the message",
    CancelledError: "run the same command again",
    CredentialsError: "check the token or the service principal, and its grants on the catalog's schemas",
    MissingSourceError: "run the stage that builds the table: see `ecomm status`",
    TimedOutError: "look at the warehouse's limit and queue; the same command may be run again",
    UnavailableError: "the same command may be run again",
}


def error_condition(message: str) -> str | None:
    """Give the condition (`[…]`) or code (`…:`) that a message of Databricks' begins with; None without.

    What follows it quotes names, lines and values, which tell nothing of what went wrong.

    >>> error_condition("Error running query: [DIVIDE_BY_ZERO] Division by zero. (line 403, pos 12)")
    'DIVIDE_BY_ZERO'
    >>> error_condition("[UNRESOLVED_COLUMN.WITH_SUGGESTION] A column `refund` cannot be resolved")
    'UNRESOLVED_COLUMN'
    """
    found = re.match(r"""[^\['"`]*\[([A-Z][A-Z0-9_]{3,})(?:\.\w+)*\]|([A-Z]+(?:_[A-Z]+)+): """, message)
    return found and (found[1] or found[2])


def connect(settings: Databricks, *, give_up: int = 60) -> WorkspaceClient:
    """Make a client of the workspace; nothing is asked yet, and no profile or DATABRICKS_… variable is read.

    `give_up` is in seconds: for so long a request is tried again while the workspace cannot be reached or is busy.
    """
    from databricks.sdk import WorkspaceClient
    from databricks.sdk.core import Config

    class Explicit(Config):
        """The SDK asks the host for what was not given, and waits five minutes for one that is down; we give all."""

        @classmethod
        def attributes(cls) -> Any:  # noqa: ANN401 (the SDK's descriptors, which it looks for in the class itself)
            return Config.attributes()

        def _resolve_host_metadata(self) -> None:
            pass

    secret = settings.client_secret.get_secret_value() if settings.client_secret else None
    with databricks_errors(settings.host):
        return WorkspaceClient(
            config=Explicit(
                host=settings.host,
                token=settings.token.get_secret_value() if settings.token else None,
                client_id=None if settings.token else settings.client_id,
                client_secret=None if settings.token else secret,
                auth_type="pat" if settings.token else "oauth-m2m",
                http_timeout_seconds=60,
                retry_timeout_seconds=give_up,
                product="ecomm-data-pipeline",
            )
        )


def look_at_warehouse(client: WorkspaceClient, warehouse_id: str) -> GetWarehouseResponse:
    """Give what the workspace says of a SQL warehouse; it is not started.

    Raises `ConfigurationError` when there is none (any more), and what `databricks_errors` raises.
    """
    from databricks.sdk.errors import NotFound
    from databricks.sdk.service.sql import State

    with databricks_errors(f"SQL warehouse {warehouse_id}"):
        try:
            found = client.warehouses.get(warehouse_id)
        except NotFound as error:
            raise _no_warehouse(warehouse_id) from error
    if found.state in (State.DELETED, State.DELETING):
        raise _no_warehouse(warehouse_id)
    return found


def _no_warehouse(warehouse_id: str) -> ConfigurationError:
    """No data is wrong, and nothing gets on without one: somebody is to be called."""
    message = f"there is no SQL warehouse {warehouse_id}: it was deleted, or never was"
    return ConfigurationError(message, next_step="set ECOMM_DATABRICKS_WAREHOUSE_ID to one that exists")


def databricks_errors(what: str) -> AbstractContextManager[None]:
    """Turn the SDK's errors into ours; `what` names the thing that was asked for or done."""
    return translated(lambda error: _translate(error, what))


def _translate(error: Exception, what: str) -> EcommError | None:  # noqa: PLR0911 (a table, in effect)
    from databricks.sdk import errors
    from databricks.sdk.errors.base import DatabricksError
    from requests import RequestException

    text = " ".join(str(error).split()).partition(" Config: host=")[0][:_EXCERPT]  # the SDK appends its settings
    message = f"Databricks, {what}: {text}"
    if isinstance(error, errors.Unauthenticated | errors.PermissionDenied):
        return CredentialsError(message, next_step="check the token or the service principal, and its grants")
    if isinstance(error, errors.NotFound):
        return MissingSourceError(message, next_step="check the id in the settings, and that it is deployed")
    if isinstance(error, DatabricksError):
        transient = (
            errors.TooManyRequests,
            errors.InternalError,
            errors.TemporarilyUnavailable,
            errors.DeadlineExceeded,
        )
        if isinstance(error, transient):
            return UnavailableError(message, next_step="the same command may be run again")
        return BadDataError(message, next_step="see the message; the request was refused as it is")
    if isinstance(error, TimeoutError | RequestException | ConnectionError | OSError):
        return UnavailableError(message, next_step="check the host and the network; the same command may be run again")
    if isinstance(error, ValueError) and "auth" in text.lower():
        return CredentialsError(message, next_step="check the token or the service principal")
    return None


@dataclass(frozen=True, slots=True)
class QueryResult:
    """A statement's answer.

    `types` are as Databricks writes them; values are text as the service wrote them, None for NULL.
    """

    columns: tuple[str, ...]
    types: tuple[str, ...]
    rows: list[tuple[str | None, ...]]

    def dicts(self) -> list[dict[str, str | None]]:
        """Give the rows by column name."""
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]


class Warehouse:
    """SQL through the Statement Execution API.

    `stop` ends a wait in a thread too, where no signal arrives.
    Upstream: https://docs.databricks.com/api/workspace/statementexecution
    """

    def __init__(
        self, client: WorkspaceClient, warehouse_id: str, catalog: str, clock: Clock, stop: Stop | None = None
    ) -> None:
        self._client = client
        self._id = warehouse_id
        self._catalog = catalog
        self._clock = clock
        self._stop = stop

    def query(self, sql: str, parameters: dict[str, str | None] | None = None, *, timeout: float = 600) -> QueryResult:
        """Run one statement and give all its rows; `:name` in it is a parameter, bound as text.

        `timeout` is in seconds, and includes a cold warehouse's start. However the wait for it is broken off, the
        statement is cancelled. Raises `MissingSourceError` when a table is not there, `ConfigurationError` when the
        warehouse is not, `BadDataError` when the statement is refused, `TimedOutError`, `CancelledError`, and what
        `databricks_errors` raises.
        """
        from databricks.sdk.errors import NotFound
        from databricks.sdk.service import sql as api

        bound = [api.StatementParameterListItem(name=k, value=v, type="STRING") for k, v in (parameters or {}).items()]
        with databricks_errors("SQL statement"):
            try:
                response = self._client.statement_execution.execute_statement(
                    statement=sql,
                    warehouse_id=self._id,
                    catalog=self._catalog,
                    parameters=bound or None,
                    wait_timeout="0s",  # the id at once: without it a statement could not be cancelled
                    format=api.Format.JSON_ARRAY,
                    disposition=api.Disposition.INLINE,
                )
            except NotFound as error:
                raise _no_warehouse(self._id) from error
            try:
                response = self._await(response, timeout)
            except BaseException:
                self._cancel(response.statement_id or "")
                raise
            return self._result(response)

    def _await(self, response: StatementResponse, timeout: float) -> StatementResponse:
        from databricks.sdk.service.sql import StatementState

        deadline = self._clock.monotonic() + timeout
        poll = _FIRST_POLL
        while response.status and response.status.state in (StatementState.PENDING, StatementState.RUNNING):
            if self._stop:
                self._stop.check()
            if self._clock.monotonic() > deadline:
                message = f"the SQL warehouse {self._id} did not answer within {timeout:.0f} s"
                raise TimedOutError(message, next_step="look at the warehouse's state and queue")
            self._clock.sleep(poll)
            poll = min(2 * poll, _LONGEST_POLL)
            response = self._client.statement_execution.get_statement(response.statement_id or "")
        return response

    def _cancel(self, statement_id: str) -> None:
        """Ask for a statement's end; what hinders that must not hide, nor long delay, why we ask."""

        def ask() -> None:
            try:
                self._client.statement_execution.cancel_execution(statement_id)
            except Exception as error:  # noqa: BLE001 (whatever it is)
                get_logger().warning("sql.not_cancelled", statement_id=statement_id, reason=str(error)[:_EXCERPT])

        asking = Thread(target=ask, daemon=True)
        asking.start()
        asking.join(_CANCEL_SECONDS)

    def _result(self, response: StatementResponse) -> QueryResult:
        from databricks.sdk.service.sql import StatementState

        status = response.status
        if status is None or status.state is not StatementState.SUCCEEDED:
            raise _statement_error(status)
        schema = response.manifest.schema if response.manifest else None
        columns = (schema.columns if schema else None) or []
        rows: list[tuple[str | None, ...]] = []
        chunk = response.result
        while chunk is not None:
            rows.extend(tuple(row) for row in chunk.data_array or [])
            if chunk.next_chunk_index is None:
                break
            chunk = self._client.statement_execution.get_statement_result_chunk_n(
                response.statement_id or "", chunk.next_chunk_index
            )
        return QueryResult(
            tuple(column.name or "" for column in columns), tuple(column.type_text or "" for column in columns), rows
        )


def _statement_error(status: StatementStatus | None) -> EcommError:
    from databricks.sdk.service.sql import StatementState

    error = status.error if status else None
    text = " ".join(str((error and error.message) or "no reason given").split())[:_EXCERPT]
    if status and status.state in (StatementState.CANCELED, StatementState.CLOSED):
        return CancelledError(f"the SQL statement was cancelled: {text}", next_step=_NEXT_STEPS[CancelledError])
    code = error.error_code.value if error and error.error_code else ""
    kind = CONDITIONS.get(error_condition(text) or "") or CONDITIONS.get(code, BadDataError)
    return kind(f"SQL: {text}", next_step=_NEXT_STEPS[kind])
