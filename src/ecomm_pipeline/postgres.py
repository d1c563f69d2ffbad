"""The source database for the stages that read it: one way to connect, to fix a session, to tell of errors and to stop.

Wraps psycopg2 (https://www.psycopg.org/docs/), which is imported only where it is used, so that plans may use the rest.
"""

from __future__ import annotations

from concurrent.futures import Future, wait
from contextlib import suppress
from dataclasses import dataclass
from threading import Thread
from typing import TYPE_CHECKING, Final, TypeVar

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
    from collections.abc import Callable

    from psycopg2.extensions import connection as Connection  # noqa: N812 (it is a class)

    from ecomm_pipeline.settings import Postgres
    from ecomm_pipeline.stage import Stop

__all__ = ["Place", "connect", "explain", "explain_connection", "interruptible", "session_settings"]

CANCEL_TIMEOUT: Final = 10.0
"""Seconds that a signal waits for Postgres and the store to let go: well below a pod's 30 until it is killed."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Place:
    """What is read, and where; what error messages name. `table` is empty where it is many."""

    host: str
    port: int
    database: str
    user: str
    schema: str
    table: str = ""

    @property
    def server(self) -> str:
        """The server as `host:port`."""
        return f"{self.host}:{self.port}"

    def __str__(self) -> str:
        """Name it for people."""
        what = f"{self.schema}.{self.table}" if self.table else f"the schema {self.schema}"
        return f"{what} in {self.database} on {self.server}"


def connect(settings: Postgres, place: Place, name: str) -> Connection:
    """Connect; `name` is what `pg_stat_activity` shows. A server that went away unheard is noticed within 90 s.

    Raises what `explain_connection` makes of a failure.
    """
    import psycopg2

    try:
        return psycopg2.connect(
            host=settings.host,
            port=settings.port,
            dbname=settings.database,
            user=settings.user,
            password=settings.password.get_secret_value(),
            sslmode=settings.sslmode,
            connect_timeout=settings.connect_timeout,
            application_name=name,
            client_encoding="UTF8",
            keepalives=1,
            keepalives_idle=30,
            keepalives_interval=10,
            keepalives_count=6,
        )
    except psycopg2.Error as error:
        raise explain_connection(place, str(error)) from error


_FIXED: Final = {
    # How values are written must not depend on how the role, the database or the server is configured.
    "TimeZone": "'UTC'",
    "DateStyle": "'ISO, YMD'",
    "IntervalStyle": "'postgres'",
    "bytea_output": "'hex'",
    "extra_float_digits": "3",
    "lc_monetary": "'C'",
    # An empty search path: types are written with their schema, and no function or operator can be put in our way.
    "search_path": "''",
    # A row-level policy that hides rows becomes an error; otherwise they would be missing without a word.
    "row_security": "off",
    # Two reads of the same rows are the same bytes, even while somebody else scans the table.
    "synchronize_seqscans": "off",
}


def session_settings(*, statement_timeout: int, lock_timeout: int, idle_timeout: int) -> str:
    """Write the statements that begin a transaction, in one round trip; limits are in seconds, 0 is none.

    SET LOCAL, because a pooler in transaction mode gives the session to others afterwards.
    """
    limits = {
        "statement_timeout": f"'{statement_timeout}s'",
        "lock_timeout": f"'{lock_timeout}s'",
        "idle_in_transaction_session_timeout": f"'{idle_timeout}s'",
    }
    return "; ".join(f"SET LOCAL {name} = {value}" for name, value in (_FIXED | limits).items())


def interruptible(work: Callable[[list[Connection]], T], stop: Stop) -> T:
    """Do `work` in a thread, since psycopg2 waits in C, where no signal's handler runs.

    What a signal raises here is told to `work` by `stop`, and cancels what Postgres does on the connections that `work`
    put into the list it is given.
    """
    opened: list[Connection] = []
    done: Future[T] = Future()

    def run() -> None:
        try:
            done.set_result(work(opened))
        except BaseException as error:  # noqa: BLE001 (it is raised in the main thread)
            done.set_exception(error)

    Thread(target=run, name="postgres", daemon=True).start()
    try:
        # Not Thread.join, which takes a thread for ended when a signal raises in it. In steps, because not every
        # platform interrupts the wait for a signal.
        while not done.done():
            wait([done], 1)
    except BaseException:
        stop.reason = stop.reason or "stopped"
        Thread(target=_cancel, args=(opened, done), daemon=True).start()
        wait([done], CANCEL_TIMEOUT)
        raise
    return done.result()


def _cancel(opened: list[Connection], done: Future[T]) -> None:
    """Cancel until the work has ended: a request that comes between two statements does nothing."""
    import psycopg2

    while not done.done():
        for connection in opened:
            with suppress(psycopg2.Error):  # it is being closed
                connection.cancel()
        wait([done], 0.2)


# --- errors -----------------------------------------------------------------------------------------------------------

_EXCERPT: Final = 300


@dataclass(frozen=True, slots=True)
class _Meaning:
    """What an error of Postgres means to us. `what` and `next_step` are formatted with the `Place` as `s`."""

    error: type[EcommError]
    what: str
    next_step: str


_AGAIN: Final = "the same command may be run again"
_UNREACHABLE = _Meaning(UnavailableError, "cannot reach Postgres at {s.server}", f"check that it is up; {_AGAIN}")
_DROPPED = _Meaning(UnavailableError, "Postgres at {s.server} ended the connection", f"check its log; {_AGAIN}")
_BUSY = _Meaning(UnavailableError, "Postgres at {s.server} cannot take the work now", _AGAIN)
_PASSWORD = _Meaning(
    CredentialsError,
    "Postgres at {s.server} refused the user {s.user}",
    "check ECOMM_POSTGRES_USER, ECOMM_POSTGRES_PASSWORD and pg_hba.conf",
)
_NO_DATABASE = _Meaning(
    MissingSourceError, "the database {s.database} does not exist on {s.server}", "check ECOMM_POSTGRES_DATABASE"
)
_NO_TABLE = _Meaning(MissingSourceError, "the table {s} does not exist", "check ECOMM_TABLES and ECOMM_POSTGRES_SCHEMA")
_NO_PERMISSION = _Meaning(
    CredentialsError,
    "{s.user} may not read all of {s}",
    "GRANT USAGE ON SCHEMA and SELECT ON the table; BYPASSRLS where it has row-level policies",
)
_BROKEN = _Meaning(BadDataError, "{s} cannot be read", "mend the table's data or definition")

_BY_CODE: Final[dict[str, _Meaning]] = {
    "08": _DROPPED,
    "0A": _BROKEN,
    "22": _BROKEN,
    "25006": _BROKEN,  # a view that writes
    "25P03": _Meaning(TimedOutError, "the transaction on {s} was idle for too long", _AGAIN),
    "25P04": _Meaning(TimedOutError, "the transaction on {s} reached transaction_timeout", "raise it for {s.user}"),
    "28": _PASSWORD,
    "3D000": _NO_DATABASE,
    "3F000": _NO_TABLE,
    "40001": _Meaning(
        UnavailableError,
        "the replica {s.server} ended the read of {s}: it conflicts with recovery",
        f"set hot_standby_feedback or read from the primary; {_AGAIN}",
    ),
    "40P01": _BUSY,
    "42501": _NO_PERMISSION,
    "42P01": _NO_TABLE,
    "42": _BROKEN,
    "53": _BUSY,
    "55P03": _Meaning(
        TimedOutError,
        "{s} stayed locked for longer than ECOMM_EXTRACTOR_LOCK_TIMEOUT",
        f"end the migration that holds it (pg_locks); {_AGAIN}",
    ),
    "57014": _Meaning(
        TimedOutError,
        "reading {s} took longer than ECOMM_EXTRACTOR_STATEMENT_TIMEOUT",
        "look for a missing index on updated_at, or raise the limit",
    ),
    "57": _DROPPED,
    "58": _BUSY,
    "XX001": _BROKEN,
    "XX002": _BROKEN,
}
"""By SQLSTATE, or by its first two characters, which are its class.

Upstream: https://www.postgresql.org/docs/current/errcodes-appendix.html.
"""

_UNEXPECTED = _Meaning(EcommError, "Postgres failed on {s}", "report it with this line")
_CANCELLED = _Meaning(CancelledError, "somebody cancelled the read of {s} in Postgres", _AGAIN)

_WHILE_CONNECTING: Final[tuple[tuple[str, _Meaning], ...]] = (
    ("authentication failed", _PASSWORD),
    ("no password supplied", _PASSWORD),
    ("pg_hba.conf", _PASSWORD),
    ("not permitted to log in", _PASSWORD),
    ("permission denied for database", _NO_PERMISSION),
    ('role "', _PASSWORD),
    ('database "', _NO_DATABASE),
    ("too many", _BUSY),
    ("remaining connection slots", _BUSY),
    ("the database system is", _BUSY),
)
"""libpq gives no SQLSTATE for a connection that failed, only text: the first line whose words it holds decides."""


def explain_connection(place: Place, text: str) -> EcommError:
    """Put a failed attempt to connect into our words; `text` is what libpq says."""
    meaning = next((meaning for words, meaning in _WHILE_CONNECTING if words in text), _UNREACHABLE)
    return _error(place, meaning, text)


def explain(place: Place, code: str | None, text: str) -> EcommError:
    """Put an error of Postgres into our words: `code` is its SQLSTATE (None from libpq itself), `text` its message."""
    if code is None:
        return _error(place, _DROPPED, text)
    if code == "57014" and "user request" in text:
        return _error(place, _CANCELLED, text)
    meaning = _BY_CODE.get(code) or _BY_CODE.get(code[:2]) or _UNEXPECTED
    return _error(place, meaning, f"{text} ({code})")


def _error(place: Place, meaning: _Meaning, text: str) -> EcommError:
    what, next_step = (words.format(s=place) for words in (meaning.what, meaning.next_step))
    return meaning.error(f"{what}: {' '.join(text.split())[:_EXCERPT]}", next_step=next_step)
