"""Faults inside the database: drifting schemas and changed rights. Each is SQL, with the SQL that takes it back.

What a fault would destroy (the values and constraints of a dropped column) is kept until then: values in the schema
`sandbox_undo`, the SQL that restores the rest in the state.
"""

from __future__ import annotations

import secrets
from contextlib import closing
from typing import TYPE_CHECKING, Any, Final

from ecomm_sandbox.postgres import DATABASE, READER, connect
from ecomm_sandbox.state import Home, SandboxError, State

if TYPE_CHECKING:
    from psycopg2.extensions import cursor as Cursor  # noqa: N812 (a class, by a lower-case name)
    from psycopg2.sql import Composable

__all__ = ["apply", "clear"]

_KEEP: Final = "sandbox_undo"


def apply(home: Home, kind: str, options: dict[str, Any]) -> None:
    """Do a fault to the database, and remember how it is taken back. Raises `SandboxError` when Postgres refuses."""
    import psycopg2

    with home.change() as state:
        try:
            with (
                closing(connect(state, user="postgres", direct=True, database=DATABASE)) as connection,
                connection,
                connection.cursor() as cursor,
            ):
                do, undo = _statements(cursor, state, kind, options)
                texts = [statement.as_string(cursor) for statement in undo]
                for statement in do:
                    cursor.execute(statement)
        except psycopg2.Error as error:
            message = f"the fault {kind} could not be done to Postgres: {str(error).strip()}"
            raise SandboxError(message, next_step="see `ecomm-sandbox fault --list` for the options") from error
        state.undo.append(("postgres", kind, texts))


def clear(home: Home) -> list[str]:
    """Take all faults in the database back, the last one first; give their kinds."""
    taken = []
    with home.change() as state, closing(connect(state, user="postgres", direct=True, database=DATABASE)) as connection:
        while state.undo:
            _, kind, statements = state.undo[-1]
            with connection, connection.cursor() as cursor:
                for statement in statements:
                    cursor.execute(statement)
            state.undo.pop()
            taken.append(kind)
    return taken


def _statements(
    cursor: Cursor, state: State, kind: str, options: dict[str, Any]
) -> tuple[list[Composable], list[Composable]]:
    """Give what does a fault, and what takes it back."""
    from psycopg2.sql import SQL, Identifier, Literal

    names = {name: Identifier(value) for name, value in options.items() if name != "type"}
    names["role"] = Identifier(READER)

    def sql(text: str) -> Composable:
        return SQL(text).format(**names, type=SQL(options.get("type", "")))

    match kind:
        case "password":
            change = SQL("ALTER ROLE {} PASSWORD {}")
            new, old = secrets.token_urlsafe(), state.secrets[f"postgres-{READER}"]
            return (
                [change.format(names["role"], Literal(new))],
                [change.format(names["role"], Literal(old))],
            )
        case "permission":
            return [sql("REVOKE SELECT ON {table} FROM {role}")], [sql("GRANT SELECT ON {table} TO {role}")]
        case "add-column":
            return (
                [sql("ALTER TABLE {table} ADD COLUMN {column} {type}")],
                [sql("ALTER TABLE {table} DROP COLUMN IF EXISTS {column}")],
            )
        case "rename-column":
            return (
                [sql("ALTER TABLE {table} RENAME COLUMN {column} TO {to}")],
                [sql("ALTER TABLE {table} RENAME COLUMN {to} TO {column}")],
            )
        case "widen-column":
            back = SQL("ALTER TABLE {table} ALTER COLUMN {column} TYPE ").format(**names)
            return (
                [sql("ALTER TABLE {table} ALTER COLUMN {column} TYPE {type}")],
                [back + SQL(_column(cursor, options)[0])],
            )
        case "drop-column":
            return _drop_column(cursor, options)
        case _:
            raise AssertionError(kind)


def _column(cursor: Cursor, options: dict[str, Any]) -> tuple[str, bool]:
    """Give a column's type, as SQL, and whether it may not be null."""
    cursor.execute(
        "SELECT format_type(atttypid, atttypmod), attnotnull FROM pg_attribute "
        "WHERE attrelid = %s::regclass AND attname = %s AND NOT attisdropped",
        (f'"{options["table"]}"', options["column"]),
    )
    row = cursor.fetchone()
    if row is None:
        message = f"table {options['table']} has no column {options['column']}"
        raise SandboxError(message, next_step="name another with --set column=NAME")
    return row[0], row[1]


def _drop_column(cursor: Cursor, options: dict[str, Any]) -> tuple[list[Composable], list[Composable]]:
    """Drop a column; taking it back restores values, constraints and indexes, with the column now the last one."""
    from psycopg2.sql import SQL, Identifier

    table, column = Identifier(options["table"]), Identifier(options["column"])
    kept = Identifier(_KEEP, f"{options['table']}_{secrets.token_hex(4)}")
    column_type, not_null = _column(cursor, options)
    cursor.execute(
        "SELECT format('ALTER TABLE %%s ADD CONSTRAINT %%I %%s', conrelid::regclass, conname, "
        "pg_get_constraintdef(c.oid)) "
        "FROM pg_constraint c JOIN pg_attribute ON attrelid = conrelid AND attnum = ANY (conkey) "
        "WHERE conrelid = %s::regclass AND attname = %s AND contype <> 'n' ORDER BY contype <> 'p'",
        (f'"{options["table"]}"', options["column"]),
    )
    restore = [SQL(row[0]) for row in cursor.fetchall()]
    cursor.execute(
        "SELECT pg_get_indexdef(indexrelid) FROM pg_index "
        "JOIN pg_attribute ON attrelid = indrelid AND attnum = ANY (indkey) "
        "WHERE indrelid = %s::regclass AND attname = %s AND NOT indisunique",
        (f'"{options["table"]}"', options["column"]),
    )
    restore += [SQL(row[0]) for row in cursor.fetchall()]
    cursor.execute(
        "SELECT attname FROM pg_index JOIN pg_attribute ON attrelid = indrelid AND attnum = ANY (indkey) "
        "WHERE indrelid = %s::regclass AND indisprimary",
        (f'"{options["table"]}"',),
    )
    keys = [Identifier(row[0]) for row in cursor.fetchall()]
    same = SQL(" AND ").join(SQL("t.{} = k.{}").format(key, key) for key in keys)
    selected = SQL(", ").join({repr(name): name for name in [*keys, column]}.values())
    do: list[Composable] = [
        SQL("CREATE SCHEMA IF NOT EXISTS {}").format(Identifier(_KEEP)),
        SQL("CREATE TABLE {} AS SELECT {} FROM {}").format(kept, selected, table),
        SQL("ALTER TABLE {} DROP COLUMN {} CASCADE").format(table, column),
    ]
    undo: list[Composable] = [
        SQL("ALTER TABLE {} ADD COLUMN {} " + column_type).format(table, column),
        SQL("UPDATE {} AS t SET {} = k.{} FROM {} AS k WHERE ").format(table, column, column, kept) + same,
        *([SQL("ALTER TABLE {} ALTER COLUMN {} SET NOT NULL").format(table, column)] if not_null else []),
        *restore,
        SQL("DROP TABLE {}").format(kept),
    ]
    if options["column"] in {key.string for key in keys}:
        message = f"{options['column']} is part of the key of {options['table']}, which a drop could not take back"
        raise SandboxError(message, next_step="drop another column")
    return do, undo
