"""The Databricks workspace: how to sign in, SQL through a warehouse, and its refusals in our own words.

Wraps databricks-sdk (https://databricks-sdk-py.readthedocs.io).
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from ecomm_pipeline.errors import (
    BadDataError,
    CancelledError,
    CredentialsError,
    EcommError,
    MissingSourceError,
    TimedOutError,
    UnavailableError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from databricks.sdk import WorkspaceClient
    from databricks.sdk.service.sql import StatementResponse

    from ecomm_pipeline.clock import Clock
    from ecomm_pipeline.settings import Databricks

__all__ = ["QueryResult", "Warehouse", "connect", "databricks_errors"]

_EXCERPT: Final = 500
_POLL: Final = 0.5


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


@contextmanager
def databricks_errors(what: str) -> Iterator[None]:
    """Turn the SDK's errors into ours; `what` names the thing that was asked for or done."""
    try:
        yield
    except EcommError:
        raise
    except Exception as error:
        translated = _translate(error, what)
        if translated is None:
            raise
        raise translated from error


def _translate(error: Exception, what: str) -> EcommError | None:  # noqa: PLR0911 (a table, in effect)
    from databricks.sdk import errors
    from databricks.sdk.errors.base import DatabricksError
    from requests import RequestException

    text = " ".join(str(error).split())[:_EXCERPT]
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

    Upstream: https://docs.databricks.com/api/workspace/statementexecution
    """

    def __init__(self, client: WorkspaceClient, warehouse_id: str, catalog: str, clock: Clock) -> None:
        self._client = client
        self._id = warehouse_id
        self._catalog = catalog
        self._clock = clock

    def query(self, sql: str, parameters: dict[str, str | None] | None = None, *, timeout: float = 600) -> QueryResult:
        """Run one statement and give all its rows; `:name` in it is a parameter, bound as text.

        `timeout` is in seconds, and includes a cold warehouse's start. Raises `MissingSourceError` when a table is not
        there, `BadDataError` when the statement is refused, `TimedOutError`, and what `databricks_errors` raises.
        """
        from databricks.sdk.service import sql as api

        bound = [api.StatementParameterListItem(name=k, value=v, type="STRING") for k, v in (parameters or {}).items()]
        with databricks_errors("SQL statement"):
            response = self._client.statement_execution.execute_statement(
                statement=sql,
                warehouse_id=self._id,
                catalog=self._catalog,
                parameters=bound or None,
                wait_timeout="30s",
                format=api.Format.JSON_ARRAY,
                disposition=api.Disposition.INLINE,
            )
            response = self._await(response, timeout)
            return self._result(response)

    def scalar(self, sql: str, parameters: dict[str, str | None] | None = None) -> str | None:
        """Run a statement that answers one value."""
        rows = self.query(sql, parameters).rows
        return rows[0][0] if rows else None

    def _await(self, response: StatementResponse, timeout: float) -> StatementResponse:
        from databricks.sdk.service.sql import StatementState

        deadline = self._clock.monotonic() + timeout
        while response.status and response.status.state in (StatementState.PENDING, StatementState.RUNNING):
            if self._clock.monotonic() > deadline:
                self._client.statement_execution.cancel_execution(response.statement_id or "")
                message = f"the SQL warehouse {self._id} did not answer within {timeout:.0f} s"
                raise TimedOutError(message, next_step="look at the warehouse's state and queue")
            self._clock.sleep(_POLL)
            response = self._client.statement_execution.get_statement(response.statement_id or "")
        return response

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


def _statement_error(status: Any) -> EcommError:  # noqa: ANN401 (the SDK's StatementStatus, or None)
    from databricks.sdk.service.sql import StatementState

    reason = (status and status.error and status.error.message) or "no reason given"
    text = " ".join(str(reason).split())[:_EXCERPT]
    if status and status.state in (StatementState.CANCELED, StatementState.CLOSED):
        return CancelledError(f"the SQL statement was cancelled: {text}", next_step="run the same command again")
    if "TABLE_OR_VIEW_NOT_FOUND" in text or "SCHEMA_NOT_FOUND" in text:
        return MissingSourceError(f"SQL: {text}", next_step="run the stage that builds the table: see `ecomm status`")
    return BadDataError(f"SQL: {text}", next_step="see the message")
