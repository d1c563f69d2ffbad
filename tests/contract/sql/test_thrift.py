"""What dbt relies on of the warehouse over Thrift, by its own client, databricks-sql-connector; no table is made."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from databricks import sql
from databricks.sql.exc import Error, ServerOperationError

from ecomm_pipeline.dbt_runner.plan import classify_message
from ecomm_pipeline.errors import CredentialsError, MissingSourceError, UpstreamFailedError
from ecomm_pipeline.settings import Databricks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from databricks.sql.client import Connection


def opened(databricks: Databricks, token: str) -> Connection:
    """Connect as dbt/profiles.yml does."""
    url = databricks.host if "://" in databricks.host else f"https://{databricks.host}"
    path = f"/sql/1.0/warehouses/{databricks.warehouse_id}"
    return sql.connect(
        server_hostname=url.partition("://")[2].rstrip("/"),
        http_path=path,
        access_token=token,
        catalog=databricks.catalog,
        _connection_uri=f"{url.rstrip('/')}{path}",
        enable_telemetry=False,
        _retry_stop_after_attempts_count=2,
    )


@pytest.fixture(scope="module")
def databricks(settings: Callable[[type[Any]], Any]) -> Databricks:
    read = settings(Databricks)
    if read.token is None:
        pytest.skip("the target is signed in to as a service principal; this suite has a token only")
    return read


@pytest.fixture(scope="module")
def connection(databricks: Databricks) -> Iterator[Connection]:
    with opened(databricks, databricks.token.get_secret_value()) as made:
        yield made


def test_values_have_pythons_types_and_null_is_none(connection):
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT CAST(1 AS INT) AS i, CAST('12345678901234.5600' AS DECIMAL(18,4)) AS d, true AS t,"
            " DATE'2026-01-02' AS day, TIMESTAMP'2026-01-02 03:04:05.000006+00:00' AS at,"
            " '' AS e, CAST(NULL AS STRING) AS n"
        )
        assert [column[0] for column in cursor.description] == ["i", "d", "t", "day", "at", "e", "n"]
        row = tuple(cursor.fetchone())
        assert cursor.fetchone() is None
    at = datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)
    assert row[4].astimezone(UTC) == at
    assert (*row[:4], *row[5:]) == (1, Decimal("12345678901234.5600"), True, date(2026, 1, 2), "", None)


def test_many_rows_come_in_order(connection):
    with connection.cursor() as cursor:
        cursor.execute("SELECT id FROM range(0, 150000, 1, 4) ORDER BY id")
        assert [row[0] for row in cursor.fetchall()] == list(range(150_000))


def test_the_session_is_in_the_catalog_that_was_asked_for(connection, databricks):
    with connection.cursor() as cursor:
        cursor.execute("/* a comment before it */ SELECT current_catalog()")
        assert cursor.fetchone()[0] == databricks.catalog


@pytest.mark.parametrize(
    ("statement", "kind", "told"),
    [
        ("SELECT * FROM gold.contract_no_such_table", MissingSourceError, "TABLE_OR_VIEW_NOT_FOUND"),
        ("SELECT\n\n1 / id FROM range(1)", UpstreamFailedError, "DIVIDE_BY_ZERO"),
        ("SELECT CAST('502' AS DATE)", UpstreamFailedError, "CAST_INVALID_INPUT"),
    ],
)
def test_a_refused_statement_begins_its_reason_with_the_condition(connection, statement, kind, told):
    with connection.cursor() as cursor, pytest.raises(ServerOperationError, match=told) as caught:
        cursor.execute(statement)
    assert classify_message(str(caught.value)) is kind


def test_a_wrong_token_is_told_as_one(databricks):
    with pytest.raises(Error) as caught:
        opened(databricks, "wrong")
    assert classify_message(str(caught.value)) is CredentialsError
