"""What the extractor decides: the SQL it sends, the name of the next file, what of a table is not as it should be.

Pure: text and values in, text and values out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from ecomm_pipeline.contract import UPDATED_AT, differences
from ecomm_pipeline.errors import BadDataError
from ecomm_pipeline.ledger import Finding
from ecomm_pipeline.manifest import Column, Manifest
from ecomm_pipeline.postgres import Place, session_settings

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ecomm_pipeline.dates import BusinessDate, Window
    from ecomm_pipeline.ledger import FindingKind

__all__ = [
    "COLUMNS_STATEMENT",
    "SNAPSHOT_STATEMENT",
    "Catalog",
    "Source",
    "application_name",
    "catalog_findings",
    "check_columns",
    "copy_statement",
    "manifest_findings",
    "newest_statement",
    "next_part",
    "opening_statements",
    "quote",
    "read_catalog",
]

_TIMESTAMPTZ: Final = re.compile(r"timestamp(\(\d\))? with time zone")
_PART: Final = re.compile(r"part-(\d{5,})\.csv(\.gz)?")


@dataclass(frozen=True, slots=True)
class Source(Place):
    """The table that is read, and where; what error messages name."""

    @property
    def relation(self) -> str:
        """The table as SQL writes it, quoted."""
        return f"{quote(self.schema)}.{quote(self.table)}"


@dataclass(frozen=True, slots=True)
class Catalog:
    """What `pg_catalog` says of the table.

    `columns` in the table's order; `updated_at_not_null` and `updated_at_indexed` are None where it is not a table
    that could have a constraint or an index (a view).
    """

    columns: tuple[Column, ...]
    updated_at_not_null: bool | None
    updated_at_indexed: bool | None


def quote(name: str) -> str:
    """Write a name as an SQL identifier: reserved words, capitals, blanks and quotes are kept as they are.

    Raises `BadDataError` for a name that Postgres itself could not hold.
    """
    if not name or "\0" in name:
        message = f"{name!r} cannot be the name of a table or column"
        raise BadDataError(message, next_step="check ECOMM_TABLES and ECOMM_POSTGRES_SCHEMA")
    return '"' + name.replace('"', '""') + '"'


# --- SQL --------------------------------------------------------------------------------------------------------------

COLUMNS_STATEMENT: Final = """
SELECT a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod), a.attnotnull, c.relkind IN ('r', 'p'),
       EXISTS (SELECT FROM pg_catalog.pg_index i
               WHERE i.indrelid = c.oid AND i.indkey[0] = a.attnum AND i.indisvalid AND i.indpred IS NULL)
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid
WHERE n.nspname = %s AND c.relname = %s AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attnum
"""
"""Columns, generated ones too: name, type, NOT NULL; whether it is of a table; whether an index begins with it."""

SNAPSHOT_STATEMENT: Final = "SELECT pg_catalog.pg_current_snapshot()::pg_catalog.text, pg_catalog.now()"
"""The transaction's snapshot and start."""


def application_name(table: str, date: BusinessDate, run_id: str) -> str:
    """Name the session for whoever looks at `pg_stat_activity`; Postgres cuts it at 63 bytes."""
    return f"ecomm-extractor/{table}/{date}/{run_id}"


def opening_statements(source: Source, *, statement_timeout: int, lock_timeout: int) -> str:
    """Write the statements that begin the transaction, in one round trip; limits are in seconds.

    They end with a lock that keeps readers and writers free but schema changes out. It is taken before the snapshot
    is: TRUNCATE and table rewrites ignore snapshots, so one that came in between would leave an empty table to read.
    """
    settings = session_settings(
        statement_timeout=statement_timeout, lock_timeout=lock_timeout, idle_timeout=statement_timeout
    )
    return f"{settings}; LOCK TABLE {source.relation} IN ACCESS SHARE MODE"


def newest_statement(source: Source, window: Window) -> str:
    """Ask for the largest `updated_at` of the window, NULL when it is empty: one look into the index."""
    return f"SELECT pg_catalog.max({quote(UPDATED_AT)}) FROM {source.relation} WHERE {_within(window)}"  # noqa: S608


def copy_statement(source: Source, columns: Iterable[Column], window: Window) -> str:
    """Copy the window's rows, as CSV in UTF-8 with a header. Upstream: https://www.postgresql.org/docs/current/sql-copy.html."""
    names = ", ".join(quote(column.name) for column in columns)
    query = f"SELECT {names} FROM {source.relation} WHERE {_within(window)}"  # noqa: S608
    return f"COPY ({query}) TO STDOUT (FORMAT csv, HEADER, ENCODING 'UTF8')"


def _within(window: Window) -> str:
    name = quote(UPDATED_AT)
    return f"{name} >= {_instant(window.since)} AND {name} < {_instant(window.until)}"


def _instant(moment: datetime) -> str:
    return f"'{moment.astimezone(UTC).isoformat(sep=' ')}'::pg_catalog.timestamptz"


def read_catalog(rows: Iterable[tuple[str, str, bool, bool, bool]]) -> Catalog:
    """Read the rows of `COLUMNS_STATEMENT`."""
    columns = []
    not_null: bool | None = None
    indexed: bool | None = None
    for name, kind, is_not_null, is_table, is_indexed in rows:
        columns.append(Column(name=name, type=kind))
        if name == UPDATED_AT and is_table:
            not_null, indexed = is_not_null, is_indexed
    return Catalog(tuple(columns), not_null, indexed)


# --- files ------------------------------------------------------------------------------------------------------------


def next_part(keys: Iterable[str], compression: str) -> str:
    """Name the next file of a folder that holds `keys`: a number above all that were used, whatever their ending."""
    used = [int(match[1]) for key in keys if (match := _PART.fullmatch(key.rpartition("/")[2]))]
    return f"part-{max(used, default=-1) + 1:05d}.csv{'.gz' if compression == 'gzip' else ''}"


# --- the contract -----------------------------------------------------------------------------------------------------


def check_columns(source: Source, columns: Iterable[Column]) -> None:
    """Raise `BadDataError` unless the table has an `updated_at` with a time zone: without it a row has no date."""
    types = {column.name: column.type for column in columns}
    found = types.get(UPDATED_AT)
    if found is not None and _TIMESTAMPTZ.fullmatch(found):
        return
    wrong = f"has no column {UPDATED_AT}" if found is None else f"has {UPDATED_AT} as {found}"
    message = f"{source} {wrong}; the contract wants a timestamp with time zone"
    raise BadDataError(message, next_step=f"add it to the table, or leave {source.table} out of ECOMM_TABLES")


def catalog_findings(source: Source, catalog: Catalog) -> list[Finding]:
    """Tell what of the table makes its windows slow or incomplete."""
    findings = []
    if catalog.updated_at_not_null is False:
        findings.append(_drift(f"{source.table}.{UPDATED_AT} may be null, and a row where it is belongs to no date"))
    if catalog.updated_at_indexed is False:
        findings.append(_drift(f"{source.table} has no index that begins with {UPDATED_AT}: each date reads it all"))
    return findings


def manifest_findings(manifest: Manifest) -> list[Finding]:
    """Tell how the extract differs from the contract, and whether its date had ended when it was read."""
    columns = {column.name: column.type for column in manifest.columns}
    findings = [_drift(difference) for difference in differences(manifest.table, columns)]
    if manifest.snapshot_at < manifest.window.until:
        findings.append(_finding("unfinished_date", f"{manifest.date} had not ended when {manifest.table} was read"))
    return findings


def _drift(message: str) -> Finding:
    return _finding("schema_drift", message)


def _finding(kind: FindingKind, message: str) -> Finding:
    return Finding(priority="P3", kind=kind, message=message)
