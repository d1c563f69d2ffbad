"""Each way to fail has its own line, class and next step, and leaves no file."""

from __future__ import annotations

import socket
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from ecomm_pipeline.errors import (
    BadDataError,
    ConfigurationError,
    CredentialsError,
    EcommError,
    MissingSourceError,
    TimedOutError,
    UnavailableError,
)

if TYPE_CHECKING:
    from pathlib import Path

    from .conftest import Shop

NOON = "2026-01-02 12:00+07"


def fails(shop: Shop, kind: type[EcommError], words: str, table: str = "t") -> EcommError:
    """Extract, and check how that fails."""
    with pytest.raises(EcommError) as caught:
        shop.extract(table)
    error = caught.value
    assert type(error) is kind, error.message
    assert words in error.message
    assert len(error.message.splitlines()) == 1
    assert error.next_step
    return error


@pytest.fixture
def table(shop: Shop) -> Shop:
    """The shop with a table `t` of one row."""
    shop.sql(f"CREATE TABLE t AS SELECT 1 k, timestamptz '{NOON}' updated_at")
    return shop


def test_a_table_that_does_not_exist(shop: Shop) -> None:
    fails(shop, MissingSourceError, "t in shop on 127.0.0.1:")
    record = shop.record("t")
    assert (record.outcome, record.failure_class) == ("failed", "bad_data")
    assert record.next_step
    assert shop.keys() == []


def test_a_schema_that_does_not_exist(shop: Shop) -> None:
    shop.set(ECOMM_POSTGRES_SCHEMA="nowhere")
    fails(shop, MissingSourceError, "nowhere.t")


def test_a_name_that_no_key_of_the_store_can_hold(shop: Shop) -> None:
    error = fails(shop, ConfigurationError, r"extractor-tab\there", table="tab\there")
    assert "ECOMM_TABLES" in error.next_step


def test_no_permission_on_the_table(table: Shop) -> None:
    table.sql("REVOKE ALL ON t FROM extractor")
    fails(table, CredentialsError, "extractor may not read")


def test_no_permission_on_a_column(table: Shop) -> None:
    table.sql("REVOKE ALL ON t FROM extractor; GRANT SELECT (updated_at) ON t TO extractor")
    fails(table, CredentialsError, "extractor may not read")


def test_rows_that_a_policy_hides_are_an_error_and_not_missing(table: Shop) -> None:
    table.sql("ALTER TABLE t ENABLE ROW LEVEL SECURITY; CREATE POLICY large ON t USING (k > 1)")
    fails(table, CredentialsError, "row-level security")
    assert table.keys() == []


def test_a_wrong_password(table: Shop) -> None:
    table.set(ECOMM_POSTGRES_PASSWORD="wrong")
    error = fails(table, CredentialsError, "refused the user extractor")
    assert "ECOMM_POSTGRES_PASSWORD" in error.next_step
    assert "wrong" not in error.message


def test_an_unknown_user(table: Shop) -> None:
    table.set(ECOMM_POSTGRES_USER="nobody")
    fails(table, CredentialsError, "refused the user nobody")


def test_an_unknown_database(table: Shop) -> None:
    table.set(ECOMM_POSTGRES_DATABASE="nothing")
    fails(table, MissingSourceError, "the database nothing does not exist")


def test_a_port_that_nobody_listens_on(table: Shop) -> None:
    with closing(socket.socket()) as unused:
        unused.bind(("127.0.0.1", 0))
        table.set(ECOMM_POSTGRES_PORT=str(unused.getsockname()[1]))
        fails(table, UnavailableError, "cannot reach Postgres at 127.0.0.1:")


def test_a_host_that_does_not_exist(table: Shop) -> None:
    table.set(ECOMM_POSTGRES_HOST="no-such-host.invalid")
    fails(table, UnavailableError, "cannot reach Postgres at no-such-host.invalid:")


def test_a_connection_that_is_dropped_at_once(table: Shop) -> None:
    with table.sandbox.fault("postgres", "drop", after_bytes=600):
        fails(table, UnavailableError, "Postgres at 127.0.0.1:")


def test_a_read_that_takes_too_long(shop: Shop) -> None:
    shop.set(ECOMM_EXTRACTOR_STATEMENT_TIMEOUT="1")
    shop.sql(f"CREATE VIEW t AS SELECT timestamptz '{NOON}' updated_at FROM pg_sleep(600)")
    fails(shop, TimedOutError, "ECOMM_EXTRACTOR_STATEMENT_TIMEOUT")


def test_a_table_that_a_migration_holds(table: Shop) -> None:
    table.set(ECOMM_EXTRACTOR_LOCK_TIMEOUT="1")
    with closing(table.connect()) as migration, migration.cursor() as cursor:
        cursor.execute("LOCK TABLE t IN ACCESS EXCLUSIVE MODE")
        fails(table, TimedOutError, "ECOMM_EXTRACTOR_LOCK_TIMEOUT")


def test_a_table_without_an_updated_at(shop: Shop) -> None:
    shop.sql("CREATE TABLE t (k int)")
    fails(shop, BadDataError, "has no column updated_at")


def test_an_updated_at_without_a_zone(shop: Shop) -> None:
    shop.sql("CREATE TABLE t (updated_at timestamp)")
    fails(shop, BadDataError, "timestamp without time zone")


def test_what_is_no_table(shop: Shop) -> None:
    shop.sql("CREATE SEQUENCE t")
    fails(shop, BadDataError, "cannot be read")


def test_a_value_that_cannot_be_computed(shop: Shop) -> None:
    shop.sql(f"CREATE VIEW t AS SELECT 1 / (i - 500) k, timestamptz '{NOON}' updated_at FROM generate_series(1, 999) i")
    fails(shop, BadDataError, "division by zero")
    assert shop.keys() == []


def test_a_bucket_that_does_not_exist(table: Shop) -> None:
    table.set(ECOMM_STORE_BUCKET="no-such-bucket")
    fails(table, MissingSourceError, "the bucket 'no-such-bucket' does not exist")


def test_a_key_that_s3_does_not_know(table: Shop) -> None:
    table.set(AWS_ACCESS_KEY_ID="AKIAUNKNOWN")
    fails(table, CredentialsError, "s3://")


def test_a_bucket_that_refuses_to_be_written(table: Shop) -> None:
    with table.sandbox.fault("s3", "forbidden"):
        fails(table, CredentialsError, "s3://")


def test_no_aws_credentials_at_all(table: Shop, tmp_path: Path) -> None:
    table.unset("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    table.set(HOME=str(tmp_path))
    fails(table, CredentialsError, "no AWS credentials were found")
