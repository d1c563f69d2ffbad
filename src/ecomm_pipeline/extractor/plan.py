"""What the extractor decides: the SQL it sends, the name of the next file, what a Postgres error means.

Pure: text and values in, text and values out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from ecomm_pipeline.contract import UPDATED_AT, differences
from ecomm_pipeline.errors import (
    BadDataError,
    CancelledError,
    CredentialsError,
    EcommError,
    MissingSourceError,
    TimedOutError,
    UnavailableError,
)
from ecomm_pipeline.ledger import Finding
from ecomm_pipeline.manifest import Column, Manifest

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ecomm_pipeline.dates import BusinessDate, Window

__all__ = [
    "COLUMNS_STATEMENT",
    "SNAPSHOT_STATEMENT",
    "Catalog",
    "Source",
    "application_name",
    "catalog_findings",
    "check_columns",
    "copy_statement",
    "explain",
    "explain_connection",
    "manifest_findings",
    "newest_statement",
    "next_part",
    "opening_statements",
    "quote",
    "read_catalog",
]

_TIMESTAMPTZ: Final = re.compile(r"timestamp(\(\d\))? with time zone")
_PART: Final = re.compile(r"part-(\d{5,})\.csv(\.gz)?")
_EXCERPT: Final = 300


@dataclass(frozen=True, slots=True)
class Source:
    """The table that is read, and where; what error messages name."""

    host: str
    port: int
    database: str
    user: str
    schema: str
    table: str

    @property
    def server(self) -> str:
        """The server as `host:port`."""
        return f"{self.host}:{self.port}"

    @property
    def relation(self) -> str:
        """The table as SQL writes it, quoted."""
        return f"{quote(self.schema)}.{quote(self.table)}"

    def __str__(self) -> str:
        """Name the table for people."""
        return f"{self.schema}.{self.table} in {self.database} on {self.server}"


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

_FIXED: Final = {
    # What COPY writes must not depend on how the role, the database or the server is configured.
    "TimeZone": "'UTC'",
    "DateStyle": "'ISO, YMD'",
    "IntervalStyle": "'postgres'",
    "bytea_output": "'hex'",
    "extra_float_digits": "3",
    "lc_monetary": "'C'",
    # An empty search path: types are written with their schema, and no function or operator can be put in our way.
    "search_path": "''",
    # A row-level policy that hides rows becomes an error; otherwise the extract would lack them without a word.
    "row_security": "off",
    # Two extracts of the same rows are the same bytes, even while somebody else scans the table.
    "synchronize_seqscans": "off",
}

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
    SET LOCAL, because a pooler in transaction mode gives the session to others afterwards.
    """
    limits = {
        "statement_timeout": f"'{statement_timeout}s'",
        "lock_timeout": f"'{lock_timeout}s'",
        "idle_in_transaction_session_timeout": f"'{statement_timeout}s'",
    }
    settings = [f"SET LOCAL {name} = {value}" for name, value in (_FIXED | limits).items()]
    return "; ".join([*settings, f"LOCK TABLE {source.relation} IN ACCESS SHARE MODE"])


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


def _finding(kind: str, message: str) -> Finding:
    return Finding(priority="P3", kind=kind, message=message)


# --- errors -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Meaning:
    """What an error of Postgres means to us. `what` and `next_step` are formatted with the `Source` as `s`."""

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
_BROKEN = _Meaning(BadDataError, "{s} cannot be copied", "mend the table's data or definition")

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
        "the replica {s.server} ended the read of {s.table}: it conflicts with recovery",
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


def explain_connection(source: Source, text: str) -> EcommError:
    """Put a failed attempt to connect into our words; `text` is what libpq says."""
    meaning = next((meaning for words, meaning in _WHILE_CONNECTING if words in text), _UNREACHABLE)
    return _error(source, meaning, text)


def explain(source: Source, code: str | None, text: str) -> EcommError:
    """Put an error of Postgres into our words: `code` is its SQLSTATE (None from libpq itself), `text` its message."""
    if code is None:
        return _error(source, _DROPPED, text)
    if code == "57014" and "user request" in text:
        return _error(source, _CANCELLED, text)
    meaning = _BY_CODE.get(code) or _BY_CODE.get(code[:2]) or _UNEXPECTED
    return _error(source, meaning, f"{text} ({code})")


def _error(source: Source, meaning: _Meaning, text: str) -> EcommError:
    what, next_step = (words.format(s=source) for words in (meaning.what, meaning.next_step))
    return meaning.error(f"{what}: {' '.join(text.split())[:_EXCERPT]}", next_step=next_step)
