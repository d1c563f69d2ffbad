"""Loads a shop's rows into Postgres: day files of Online Retail, or days that were generated.

Rows go by COPY into temporary tables and from there, in a few statements a batch, into the shop's own. What is known
already is only written when it differs, so that loading a day twice changes nothing, down to `updated_at`, which comes
from the data.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Final

from ecomm_sandbox.state import SandboxError

if TYPE_CHECKING:
    from pathlib import Path

    from psycopg2.extensions import connection as Connection  # noqa: N812 (a class, by a lower-case name)
    from psycopg2.extensions import cursor as Cursor  # noqa: N812 (a class, by a lower-case name)

    from ecomm_sandbox.generator import Day

__all__ = ["TABLES", "Loaded", "day_files", "empty", "load_days", "load_files"]

TABLES: Final = ("customers", "products", "orders", "order_items")
"""The shop's tables, each after those it refers to."""

_BATCH_BYTES: Final = 4 << 20
_BATCH_ROWS: Final = 50_000

_ESCAPES: Final = str.maketrans({"\\": r"\\", "\t": r"\t", "\n": r"\n", "\r": r"\r"})

Progress = Callable[[date, int], None]
"""Called after each batch with its last day and the lines read so far."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a load did: days and lines read, and rows written (inserted or changed) by table."""

    days: int
    lines: int
    written: dict[str, int]


def day_files(folder: Path, first: date | None = None, last: date | None = None) -> list[tuple[date, Path]]:
    """Find the files `YYYY-MM-DD.csv` of a folder, in order of days, from `first` to `last` (both included).

    Raises `SandboxError` when there are none.
    """
    named = [path for path in folder.glob("*.csv") if re.fullmatch(r"\d{4}-\d{2}-\d{2}", path.stem)]
    found = sorted((date.fromisoformat(path.stem), path) for path in named)
    wanted = [(day, path) for day, path in found if (first or day) <= day <= (last or day)]
    if not wanted:
        span = f" from {first} to {last}" if first or last else ""
        held = f"it holds {found[0][0]} to {found[-1][0]}" if found else "it holds files YYYY-MM-DD.csv of no day"
        message = f"{folder} has no day files{span}: {held}"
        raise SandboxError(message, next_step="name the folder that the day files were unpacked into")
    return wanted


def load_files(
    connection: Connection,
    files: Sequence[tuple[date, Path]],
    timezone: str,
    progress: Progress = lambda _day, _lines: None,
) -> Loaded:
    """Load day files of Online Retail, whose times are local to `timezone`. A batch of days is a transaction."""
    written, lines = dict.fromkeys(TABLES, 0), 0
    for batch in _by_size(files):
        with connection, connection.cursor() as cursor:
            cursor.execute(_RAW)
            for _, path in batch:
                lines += _copy_file(cursor, path)
            cursor.execute(_LATER_LINES, {"zone": timezone})
            later = cursor.fetchone()
            if later is not None:
                message = (
                    f"order {later[0]} has lines in several day files, and a later one was loaded before {batch[-1][0]}"
                )
                raise SandboxError(message, next_step="load into an empty sandbox, days in order")
            for statement in _STAGE_RAW:
                cursor.execute(statement, {"zone": timezone})
            _add(written, _merge(cursor))
        progress(batch[-1][0], lines)
    return Loaded(len(files), lines, written)


def load_days(connection: Connection, days: Iterable[Day], progress: Progress = lambda _day, _lines: None) -> Loaded:
    """Load generated days, each with the rows that were new or changed on it. A batch of days is a transaction."""
    written, lines, count = dict.fromkeys(TABLES, 0), 0, 0
    for batch in _by_rows(days):
        with connection, connection.cursor() as cursor:
            for table in TABLES:
                columns = _COLUMNS[table]
                cursor.execute(f"CREATE TEMPORARY TABLE stage_{table} (LIKE {table}, seq bigserial) ON COMMIT DROP")
                rows = (row for day in batch for row in getattr(day, table))
                cursor.copy_expert(f"COPY stage_{table} ({', '.join(columns)}) FROM STDIN", _copy_text(rows))
                lines += cursor.rowcount if table == "order_items" else 0
            _add(written, _merge(cursor))
        count += len(batch)
        progress(batch[-1].day, lines)
    return Loaded(count, lines, written)


def empty(connection: Connection) -> None:
    """Remove all rows of the shop."""
    with connection, connection.cursor() as cursor:
        cursor.execute(f"TRUNCATE {', '.join(TABLES)}")


def _copy_file(cursor: Cursor, path: Path) -> int:
    from psycopg2 import DataError

    with path.open("rb") as file:
        try:
            cursor.copy_expert(_COPY_RAW, file)
        except DataError as error:
            message = f"{path} is not a day file of Online Retail: {str(error).strip().splitlines()[0]}"
            raise SandboxError(
                message, next_step=f"see that line; the file was not loaded\n{str(error).strip()}"
            ) from error
    return cursor.rowcount


def _copy_text(rows: Iterable[Sequence[object]]) -> io.BytesIO:
    r"""Write rows as COPY's text format: tab, newline, \N for null."""
    text = "".join("\t".join(map(_field, row)) + "\n" for row in rows)
    return io.BytesIO(text.encode())


def _field(value: object) -> str:
    if isinstance(value, str):
        return value.translate(_ESCAPES)
    return r"\N" if value is None else str(value)


def _merge(cursor: Cursor) -> dict[str, int]:
    written = {}
    for table in TABLES:
        cursor.execute(_MERGE[table])
        written[table] = cursor.rowcount
    return written


def _add(total: dict[str, int], more: dict[str, int]) -> None:
    for name, count in more.items():
        total[name] += count


def _by_size(files: Sequence[tuple[date, Path]]) -> Iterator[list[tuple[date, Path]]]:
    batch: list[tuple[date, Path]] = []
    size = 0
    for day, path in files:
        batch.append((day, path))
        size += path.stat().st_size
        if size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _by_rows(days: Iterable[Day]) -> Iterator[list[Day]]:
    batch: list[Day] = []
    for day in days:
        batch.append(day)
        if sum(len(one.order_items) for one in batch) >= _BATCH_ROWS:
            yield batch
            batch = []
    if batch:
        yield batch


_COLUMNS: Final = {
    "customers": ("customer_id", "email", "country", "created_at", "updated_at"),
    "products": ("product_id", "description", "unit_price", "created_at", "updated_at"),
    "orders": ("order_id", "customer_id", "status", "ordered_at", "created_at", "updated_at"),
    "order_items": ("order_id", "line_number", "product_id", "quantity", "unit_price", "created_at", "updated_at"),
}
_KEYS: Final = {
    "customers": ("customer_id",),
    "products": ("product_id",),
    "orders": ("order_id",),
    "order_items": ("order_id", "line_number"),
}

# The columns of a day file; seq keeps the order of its lines. The server itself reads the CSV.
_RAW: Final = """
CREATE TEMPORARY TABLE raw (
    seq bigint GENERATED ALWAYS AS IDENTITY,
    "InvoiceNo" text NOT NULL, "StockCode" text NOT NULL, "Description" text, "Quantity" int NOT NULL,
    "InvoiceDate" timestamp NOT NULL, "UnitPrice" numeric NOT NULL, "CustomerID" numeric, "Country" text
) ON COMMIT DROP
"""
_COPY_RAW: Final = """
COPY raw ("InvoiceNo", "StockCode", "Description", "Quantity", "InvoiceDate", "UnitPrice", "CustomerID", "Country")
FROM STDIN (FORMAT csv, HEADER match, ENCODING 'UTF8')
"""

# Lines are numbered within an order over all its files, which needs them in order of days.
_LATER_LINES: Final = """
SELECT order_id FROM order_items JOIN (SELECT "InvoiceNo", max("InvoiceDate") AS last FROM raw GROUP BY 1) AS new
    ON order_id = "InvoiceNo"
WHERE created_at >= (date_trunc('day', new.last) + interval '1 day') AT TIME ZONE %(zone)s LIMIT 1
"""

_STAGE_RAW: Final = (
    """
CREATE TEMPORARY TABLE stage_customers ON COMMIT DROP AS
SELECT "CustomerID"::bigint AS customer_id, NULL::text AS email,
    (array_agg(nullif("Country", '') ORDER BY "InvoiceDate" DESC, seq DESC))[1] AS country,
    min("InvoiceDate") AT TIME ZONE %(zone)s AS created_at, max("InvoiceDate") AT TIME ZONE %(zone)s AS updated_at,
    0::bigint AS seq
FROM raw WHERE "CustomerID" IS NOT NULL GROUP BY 1
""",
    """
CREATE TEMPORARY TABLE stage_products ON COMMIT DROP AS
SELECT "StockCode" AS product_id,
    (array_agg("Description" ORDER BY "InvoiceDate" DESC, seq DESC) FILTER (WHERE "Description" <> ''))[1]
        AS description,
    (array_agg("UnitPrice" ORDER BY "InvoiceDate" DESC, seq DESC))[1] AS unit_price,
    min("InvoiceDate") AT TIME ZONE %(zone)s AS created_at, max("InvoiceDate") AT TIME ZONE %(zone)s AS updated_at,
    0::bigint AS seq
FROM raw GROUP BY 1
""",
    """
CREATE TEMPORARY TABLE stage_orders ON COMMIT DROP AS
SELECT "InvoiceNo" AS order_id,
    (array_agg("CustomerID" ORDER BY seq) FILTER (WHERE "CustomerID" IS NOT NULL))[1]::bigint AS customer_id,
    CASE left("InvoiceNo", 1) WHEN 'C' THEN 'cancelled' WHEN 'A' THEN 'adjusted' ELSE 'completed' END AS status,
    min("InvoiceDate") AT TIME ZONE %(zone)s AS ordered_at,
    min("InvoiceDate") AT TIME ZONE %(zone)s AS created_at, max("InvoiceDate") AT TIME ZONE %(zone)s AS updated_at,
    0::bigint AS seq
FROM raw GROUP BY 1
""",
    """
CREATE TEMPORARY TABLE stage_order_items ON COMMIT DROP AS
SELECT "InvoiceNo" AS order_id,
    (row_number() OVER (PARTITION BY "InvoiceNo" ORDER BY seq) + coalesce(before.lines, 0))::int AS line_number,
    "StockCode" AS product_id, "Quantity" AS quantity, "UnitPrice" AS unit_price,
    "InvoiceDate" AT TIME ZONE %(zone)s AS created_at, "InvoiceDate" AT TIME ZONE %(zone)s AS updated_at, seq
FROM raw LEFT JOIN (
    SELECT i.order_id, count(*) AS lines
    FROM order_items AS i JOIN (SELECT "InvoiceNo", min("InvoiceDate") AS first FROM raw GROUP BY 1) AS new
        ON i.order_id = new."InvoiceNo"
    WHERE i.created_at < date_trunc('day', new.first) AT TIME ZONE %(zone)s GROUP BY 1
) AS before ON before.order_id = "InvoiceNo"
""",
)


def _merge_statement(table: str, changes: dict[str, str]) -> str:
    """Write the upsert of a staged table; `changes` are the columns whose new value is not simply the staged one.

    Of several staged versions of a key, the newest counts. In `changes`, `t` is the row that is there and `excluded`
    the new one.
    """
    columns, keys = _COLUMNS[table], ", ".join(_KEYS[table])
    values = {name: changes.get(name, f"excluded.{name}") for name in columns if name not in _KEYS[table]}
    old = ", ".join(f"t.{name}" for name in values)
    return f"""
INSERT INTO {table} AS t ({", ".join(columns)})
SELECT DISTINCT ON ({keys}) {", ".join(columns)} FROM stage_{table} ORDER BY {keys}, updated_at DESC, seq DESC
ON CONFLICT ({keys}) DO UPDATE SET {", ".join(f"{name} = {value}" for name, value in values.items())}
WHERE ({old}) IS DISTINCT FROM ({", ".join(values.values())})
"""


def _newest(column: str) -> str:
    return f"CASE WHEN excluded.updated_at >= t.updated_at THEN excluded.{column} ELSE t.{column} END"


def _newest_known(column: str) -> str:
    new, old = f"excluded.{column}", f"t.{column}"
    return f"CASE WHEN excluded.updated_at >= t.updated_at THEN coalesce({new}, {old}) ELSE coalesce({old}, {new}) END"


_SPAN: Final = {
    "created_at": "least(t.created_at, excluded.created_at)",
    "updated_at": "greatest(t.updated_at, excluded.updated_at)",
}
_MERGE: Final = {
    "customers": _merge_statement(
        "customers", {"email": _newest_known("email"), "country": _newest_known("country"), **_SPAN}
    ),
    "products": _merge_statement(
        "products", {"description": _newest_known("description"), "unit_price": _newest("unit_price"), **_SPAN}
    ),
    "orders": _merge_statement(
        "orders",
        {
            "customer_id": _newest_known("customer_id"),
            "status": _newest("status"),
            "ordered_at": "least(t.ordered_at, excluded.ordered_at)",
            **_SPAN,
        },
    ),
    "order_items": _merge_statement(
        "order_items", {name: _newest(name) for name in ("product_id", "quantity", "unit_price")} | _SPAN
    ),
}
