"""What all stages that read the source database share, without a database."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecomm_pipeline.errors import (
    BadDataError,
    CancelledError,
    CredentialsError,
    EcommError,
    MissingSourceError,
    TimedOutError,
    UnavailableError,
)
from ecomm_pipeline.postgres import Place, explain, explain_connection, interruptible, session_settings
from ecomm_pipeline.stage import Stop

PLACE = Place("db.example", 5432, "shop", "reader", "public", "orders")


def test_a_place_is_named_by_its_table_or_else_by_its_schema() -> None:
    assert str(PLACE) == "public.orders in shop on db.example:5432"
    many = Place("db.example", 5432, "shop", "reader", "public")
    assert str(many) == "the schema public in shop on db.example:5432"


def test_a_transaction_fixes_what_the_output_depends_on_for_itself_alone() -> None:
    statements = session_settings(statement_timeout=7, lock_timeout=3, idle_timeout=0).split("; ")
    assert all(statement.startswith("SET LOCAL ") for statement in statements)
    for setting in ("TimeZone = 'UTC'", "DateStyle = 'ISO, YMD'", "extra_float_digits = 3", "bytea_output = 'hex'"):
        assert f"SET LOCAL {setting}" in statements
    assert statements[-3:] == [
        "SET LOCAL statement_timeout = '7s'",
        "SET LOCAL lock_timeout = '3s'",
        "SET LOCAL idle_in_transaction_session_timeout = '0s'",
    ]


def test_work_that_can_be_interrupted_gives_its_result_and_its_error() -> None:
    stop = Stop()
    assert interruptible(len, stop) == 0

    def fail(_: object) -> None:
        message = "no"
        raise BadDataError(message, next_step="mend it")

    with pytest.raises(BadDataError, match="no"):
        interruptible(fail, stop)


ERRORS = [
    ("42P01", 'relation "public.orders" does not exist', MissingSourceError, "public.orders in shop on db.example"),
    ("3F000", 'schema "x" does not exist', MissingSourceError, "does not exist"),
    ("3D000", 'database "x" does not exist', MissingSourceError, "the database shop does not exist"),
    ("42501", "permission denied for table orders", CredentialsError, "reader may not read"),
    ("42501", "query would be affected by row-level security policy", CredentialsError, "row-level"),
    ("28P01", "password authentication failed", CredentialsError, "refused the user reader"),
    ("28000", "role is not permitted to log in", CredentialsError, "refused the user reader"),
    ("57014", "canceling statement due to statement timeout", TimedOutError, "STATEMENT_TIMEOUT"),
    ("57014", "canceling statement due to user request", CancelledError, "cancelled"),
    ("55P03", "canceling statement due to lock timeout", TimedOutError, "LOCK_TIMEOUT"),
    ("25P03", "terminating connection due to idle-in-transaction timeout", TimedOutError, "idle"),
    ("40001", "canceling statement due to conflict with recovery", UnavailableError, "replica"),
    ("57P01", "terminating connection due to administrator command", UnavailableError, "ended the connection"),
    ("57P03", "the database system is shutting down", UnavailableError, "ended the connection"),
    ("53300", "too many connections", UnavailableError, "cannot take the work now"),
    ("08006", "connection failure", UnavailableError, "ended the connection"),
    (None, "server closed the connection unexpectedly", UnavailableError, "ended the connection"),
    ("42703", 'column "x" does not exist', BadDataError, "cannot be read"),
    ("42809", '"x" is not a table or view', BadDataError, "cannot be read"),
    ("22P05", "character has no equivalent", BadDataError, "cannot be read"),
    ("XX001", "invalid page in block 3", BadDataError, "cannot be read"),
    ("XX000", "cache lookup failed", EcommError, "Postgres failed"),
]


@pytest.mark.parametrize(("code", "text", "kind", "words"), ERRORS)
def test_an_error_of_postgres_has_its_own_class_and_words(
    code: str | None, text: str, kind: type[EcommError], words: str
) -> None:
    error = explain(PLACE, code, text)
    assert type(error) is kind
    assert words in error.message
    assert text in error.message
    assert error.next_step


CONNECTION_ERRORS = [
    ('FATAL:  password authentication failed for user "reader"', CredentialsError),
    ("fe_sendauth: no password supplied", CredentialsError),
    ('FATAL:  role "reader" does not exist', CredentialsError),
    ('FATAL:  role "reader" is not permitted to log in', CredentialsError),
    ('FATAL:  no pg_hba.conf entry for host "10.0.0.1", user "reader", database "shop"', CredentialsError),
    ('FATAL:  permission denied for database "shop"', CredentialsError),
    ('FATAL:  database "shop" does not exist', MissingSourceError),
    ("FATAL:  sorry, too many clients already", UnavailableError),
    ("FATAL:  remaining connection slots are reserved for roles with SUPERUSER", UnavailableError),
    ("FATAL:  the database system is starting up", UnavailableError),
    ("connection refused\n\tIs the server running on that host?", UnavailableError),
    ('could not translate host name "db.example" to address: Name or service not known', UnavailableError),
    ("timeout expired", UnavailableError),
    ("server closed the connection unexpectedly", UnavailableError),
    ("", UnavailableError),
]


@pytest.mark.parametrize(("text", "kind"), CONNECTION_ERRORS)
def test_a_failed_connection_has_its_own_class(text: str, kind: type[EcommError]) -> None:
    prefix = 'connection to server at "db.example" (10.0.0.1), port 5432 failed: '
    error = explain_connection(PLACE, prefix + text)
    assert type(error) is kind
    assert "db.example:5432" in error.message or "shop" in error.message
    assert error.next_step


@given(st.text(), st.one_of(st.none(), st.text(string.ascii_uppercase + string.digits, min_size=5, max_size=5)))
def test_every_error_is_one_line_of_bounded_length(text: str, code: str | None) -> None:
    for error in (explain(PLACE, code, text), explain_connection(PLACE, text)):
        assert len(error.message.splitlines()) == 1
        assert len(error.message) < 500
