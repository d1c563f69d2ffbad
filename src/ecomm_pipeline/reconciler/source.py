"""Postgres, asked again: one read-only, repeatable-read transaction for all tables and dates.

Upstream: https://www.psycopg.org/docs/.
"""

from __future__ import annotations

from contextlib import contextmanager
from decimal import Decimal
from typing import TYPE_CHECKING, Final

import psycopg2

from ecomm_pipeline.contract import CONTRACT
from ecomm_pipeline.errors import MissingSourceError
from ecomm_pipeline.postgres import Place, connect, explain, session_settings
from ecomm_pipeline.reconciler import sql
from ecomm_pipeline.reconciler.amounts import Amount
from ecomm_pipeline.reconciler.keys import Bucket, Version

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from psycopg2.extensions import connection as Connection  # noqa: N812 (it is a class)

    from ecomm_pipeline.manifest import Manifest
    from ecomm_pipeline.reconciler.keys import Key
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

    def count(self, manifests: Sequence[Manifest]) -> dict[tuple[str, str], tuple[Amount, int | None]]:
        """Count the rows and money that are now in the window of each manifest, and their checksum, by table and date.

        The checksum is None where the table lacks a column of its key.
        """
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
            return {
                (table, day): (Amount(rows, money), None if checksum is None else int(checksum))
                for table, day, rows, money, checksum in cursor.fetchall()
            }

    def buckets(self, manifest: Manifest) -> dict[int, Bucket]:
        """Count what is now in the window of a manifest by bucket."""
        statement = sql.source_buckets(self._schema, CONTRACT[manifest.table], self._columns[manifest.table])
        with self._connection.cursor() as cursor:
            cursor.execute(statement, (manifest.window.since, manifest.window.until))
            return {number: Bucket(Amount(rows, money), int(checksum)) for number, rows, money, checksum in cursor}

    def versions(self, manifest: Manifest, buckets: Collection[int]) -> Iterator[tuple[Key, Version]]:
        """Read the versions that are now in buckets of a manifest's window, through a server-side cursor."""
        contract = CONTRACT[manifest.table]
        statement = sql.source_window(self._schema, contract, self._columns[manifest.table])
        with self._connection.cursor(name="ecomm_reconciler") as cursor:
            cursor.itersize = _BATCH
            cursor.execute(statement, (manifest.window.since, manifest.window.until, sorted(buckets)))
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
def open_source(settings: Postgres, limits: Extractor, opened: list[Connection]) -> Iterator[Source]:
    """Open the transaction; adds its connection to `opened`. Timestamps are read in UTC, ISO, as extracts hold them.

    It may be idle for as long as the files are read.
    """
    place = Place(settings.host, settings.port, settings.database, settings.user, settings.db_schema)
    connection = connect(settings, place, "ecomm-reconciler")
    opened.append(connection)
    try:
        connection.set_session(isolation_level="REPEATABLE READ", readonly=True)
        with connection.cursor() as cursor:
            cursor.execute(
                session_settings(
                    statement_timeout=limits.statement_timeout, lock_timeout=limits.lock_timeout, idle_timeout=0
                )
            )
        yield Source(connection, settings.db_schema)
    except psycopg2.Error as error:
        raise explain(place, error.pgcode, error.diag.message_primary or str(error)) from error
    finally:
        connection.close()
