"""Postgres, asked again: one read-only, repeatable-read transaction for all tables and dates.

Upstream: https://www.psycopg.org/docs/.
"""

from __future__ import annotations

from contextlib import contextmanager
from decimal import Decimal
from typing import TYPE_CHECKING, Final

import psycopg2

from ecomm_pipeline.contract import CONTRACT
from ecomm_pipeline.errors import (
    BadDataError,
    CredentialsError,
    EcommError,
    MissingSourceError,
    TimedOutError,
    UnavailableError,
)
from ecomm_pipeline.reconciler import sql
from ecomm_pipeline.reconciler.plan import Amount, Version

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from psycopg2.extensions import connection as Connection  # noqa: N812 (it is a class)

    from ecomm_pipeline.manifest import Manifest
    from ecomm_pipeline.reconciler.plan import Key
    from ecomm_pipeline.settings import Extractor, Postgres

__all__ = ["Source", "open_source"]

_BATCH: Final = 10_000
"""Rows of a server-side cursor's fetch, and keys of one look-up."""
_COLUMNS: Final = """
SELECT c.relname, array_agg(a.attname::text)
FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace JOIN pg_attribute AS a ON a.attrelid = c.oid
WHERE n.nspname = %s AND c.relname = ANY(%s) AND a.attnum > 0 AND NOT a.attisdropped
GROUP BY c.relname"""


class Source:
    """The source database, in one transaction."""

    def __init__(self, connection: Connection, schema: str) -> None:
        self._connection = connection
        self._schema = schema
        self._columns: dict[str, frozenset[str]] = {}

    def count(self, manifests: Sequence[Manifest]) -> dict[tuple[str, str], Amount]:
        """Count the rows and money that are now in the window of each manifest, by table and date."""
        windows: dict[str, int] = {}
        parameters: list[object] = []
        for manifest in sorted(manifests, key=lambda manifest: manifest.table):
            windows[manifest.table] = windows.get(manifest.table, 0) + 1
            parameters += [manifest.date, manifest.window.since, manifest.window.until]
        if not windows:
            return {}
        self._read_columns(list(windows))
        with self._connection.cursor() as cursor:
            cursor.execute(sql.source_windows(self._schema, self._columns, windows), parameters)
            return {(table, day): Amount(rows, money) for table, day, rows, money in cursor.fetchall()}

    def versions(self, manifest: Manifest) -> Iterator[tuple[Key, Version]]:
        """Read the versions that are now in the window of a manifest, through a server-side cursor."""
        contract = CONTRACT[manifest.table]
        statement = sql.source_window(self._schema, contract, self._columns[manifest.table])
        with self._connection.cursor(name="ecomm_reconciler") as cursor:
            cursor.itersize = _BATCH
            cursor.execute(statement, (manifest.window.since, manifest.window.until))
            for *key, updated_at, money in cursor:
                yield tuple(key), Version(updated_at, (money or Decimal(0)) if contract.money else None)

    def existing(self, table: str, keys: Iterable[Key]) -> set[Key]:
        """Tell which of the keys the table still has."""
        wanted, found = list(keys), set[tuple[str | None, ...]]()
        with self._connection.cursor() as cursor:
            for start in range(0, len(wanted), _BATCH):
                columns = [list(column) for column in zip(*wanted[start : start + _BATCH], strict=True)]
                cursor.execute(sql.source_keys(self._schema, CONTRACT[table]), columns)
                found |= set(cursor.fetchall())
        return found

    def _read_columns(self, tables: list[str]) -> None:
        with self._connection.cursor() as cursor:
            cursor.execute(_COLUMNS, (self._schema, tables))
            self._columns = {table: frozenset(names) for table, names in cursor.fetchall()}
        for table in tables:
            if table not in self._columns:
                message = f"Postgres has no table {self._schema}.{table} any more, and there are extracts of it"
                raise MissingSourceError(message, next_step="restore it, or take it out of ECOMM_TABLES")


@contextmanager
def open_source(settings: Postgres, limits: Extractor) -> Iterator[Source]:
    """Open the transaction; timestamps are read in UTC, ISO, as the extracts hold them."""
    place = f"Postgres at {settings.host}:{settings.port}, database {settings.database}"
    connection: Connection | None = None
    try:
        connection = psycopg2.connect(
            host=settings.host,
            port=settings.port,
            dbname=settings.database,
            user=settings.user,
            password=settings.password.get_secret_value(),
            sslmode=settings.sslmode,
            connect_timeout=settings.connect_timeout,
            application_name="ecomm reconciler",
            client_encoding="UTF8",
            keepalives_idle=30,
            keepalives_interval=10,
            keepalives_count=6,
        )
        connection.set_session(isolation_level="REPEATABLE READ", readonly=True)
        with connection.cursor() as cursor:
            for name, value in (
                ("TimeZone", "UTC"),
                ("DateStyle", "ISO"),
                ("statement_timeout", f"{limits.statement_timeout}s"),
                ("lock_timeout", f"{limits.lock_timeout}s"),
            ):
                cursor.execute("SELECT set_config(%s, %s, false)", (name, value))
        yield Source(connection, settings.db_schema)
    except psycopg2.Error as error:
        raise _explain(error, place) from error
    finally:
        if connection is not None:
            connection.close()


def _explain(error: psycopg2.Error, place: str) -> EcommError:
    """Put an error of Postgres into our words, by its SQLSTATE: https://www.postgresql.org/docs/current/errcodes-appendix.html."""
    text = " ".join(str(error.diag.message_primary or error).split())[:300]
    message, code = f"{place}: {text}", error.pgcode or ""
    if code == "42501" or code.startswith("28") or "authentication failed" in text:
        return CredentialsError(message, next_step="check ECOMM_POSTGRES_USER, its password and its grants")
    if code in {"57014", "55P03"}:
        return TimedOutError(message, next_step="look for what blocks or slows the database, and run it again")
    if code in {"3D000", "3F000", "42P01", "42703"} or "does not exist" in text:
        return MissingSourceError(message, next_step="check ECOMM_POSTGRES_DATABASE and ECOMM_POSTGRES_SCHEMA")
    if isinstance(error, psycopg2.OperationalError | psycopg2.InterfaceError):
        return UnavailableError(message, next_step="check the host and the network; the same command may be run again")
    return BadDataError(message, next_step="see the message")
