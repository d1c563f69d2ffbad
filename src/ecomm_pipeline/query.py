"""`ecomm query`: one statement to the SQL warehouse, answered as a table, CSV or JSON on standard output.

=========  ============================  ==============  ====================
value      table                         csv             json
=========  ============================  ==============  ====================
NULL       `NULL`                        empty, no quotes  `null`
text       as it is, controls escaped    quoted if needed  string
integers   aligned right                 as it is        number
decimal    aligned right                 as it is        string, all digits kept
float      aligned right                 as it is        number; NaN and ±Infinity string
boolean    as it is                      as it is        `true`, `false`
other      as Databricks writes it       as it is        string
=========  ============================  ==============  ====================

A decimal is a string in JSON because most readers of JSON would read a number as a binary fraction, and money must not
change on the way. In CSV the empty string is `""`, so that it is not NULL.
"""

from __future__ import annotations

import json
import math
import sys
from typing import TYPE_CHECKING, Final

from ecomm_pipeline.errors import ConfigurationError
from ecomm_pipeline.tables import text_table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ecomm_pipeline.databricks import QueryResult
    from ecomm_pipeline.settings import Databricks

__all__ = ["FORMATS", "show_query", "write"]

_INTEGERS: Final = ("TINYINT", "SMALLINT", "INT", "BIGINT", "BYTE", "SHORT", "LONG", "INTEGER")
_FLOATS: Final = ("FLOAT", "DOUBLE")


def show_query(sql: str, settings: Databricks, *, output: str) -> None:
    """Run `sql` and print the answer in one of FORMATS. Raises what `Warehouse.query` raises."""
    from ecomm_pipeline.clock import SystemClock
    from ecomm_pipeline.databricks import Warehouse, connect

    check_format(output)
    warehouse = Warehouse(connect(settings), settings.warehouse_id, settings.catalog, SystemClock())
    for line in write(warehouse.query(sql), output):
        sys.stdout.write(line)


def check_format(output: str) -> None:
    """Raise `ConfigurationError` unless `output` is one of FORMATS."""
    if output not in FORMATS:
        message = f"--format: {output!r} is not a format"
        raise ConfigurationError(message, next_step=f"use one of {', '.join(FORMATS)}")


def write(result: QueryResult, output: str) -> Iterator[str]:
    """Write an answer in one of FORMATS, a piece at a time."""
    check_format(output)
    return FORMATS[output](result)


def _table(result: QueryResult) -> Iterator[str]:
    right = [_is_number(kind) for kind in result.types]
    rows = [["NULL" if value is None else value for value in row] for row in result.rows]
    if result.columns:
        yield text_table(result.columns, rows, right=right) + "\n"
    yield f"({len(rows)} row{'' if len(rows) == 1 else 's'})\n"


def _csv(result: QueryResult) -> Iterator[str]:
    """RFC 4180, with Postgres' difference between NULL and the empty string, which the csv module cannot write."""
    for row in (result.columns, *result.rows):
        yield ",".join(_csv_field(value) for value in row) + "\n"


def _csv_field(value: str | None) -> str:
    if value is None:
        return ""
    needs_quotes = not value or any(character in value for character in ',"\n\r')
    return '"' + value.replace('"', '""') + '"' if needs_quotes else value


def _json(result: QueryResult) -> Iterator[str]:
    """An array of objects, one a line; of columns with the same name the last one stays, as JSON has it."""
    yield "["
    for number, row in enumerate(result.rows):
        values = {
            name: _json_value(value, kind) for name, kind, value in zip(result.columns, result.types, row, strict=True)
        }
        yield ("," if number else "") + "\n " + json.dumps(values, ensure_ascii=False, allow_nan=False)
    yield "\n]\n" if result.rows else "]\n"


def _json_value(value: str | None, kind: str) -> object:
    if value is None:
        return None
    name = kind.upper()
    if name in _INTEGERS:
        return int(value)
    if name in _FLOATS:
        number = float(value)
        return number if math.isfinite(number) else value
    return value.lower() == "true" if name == "BOOLEAN" else value


def _is_number(kind: str) -> bool:
    name = kind.upper()
    return name in _INTEGERS or name in _FLOATS or name.startswith("DECIMAL")


FORMATS: Final[dict[str, Callable[[QueryResult], Iterator[str]]]] = {"table": _table, "csv": _csv, "json": _json}
"""How an answer can be written, by the name of `--format`."""
