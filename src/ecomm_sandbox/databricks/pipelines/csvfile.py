"""A CSV file as text columns, NULL kept apart from the empty string, and nothing lost.

The quick reader is pyarrow's; where a file has rows that do not fit (or bytes that are no UTF-8), a slower one reads
the whole file again and rescues them: the row's fields as far as they go, and the row's text in the rescued data.
"""

from __future__ import annotations

import gzip
import io
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.csv as pc

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

CORRUPT = "_corrupt_record"
MINIMUM_BLOCK = 1 << 16


@dataclass(slots=True)
class Row:
    """A record's fields (None is NULL) and its text; `whole` is False when a quote is not closed."""

    fields: list[str | None] = field(default_factory=list)
    text: str = ""
    whole: bool = True


def decompress(name: str, data: bytes) -> bytes:
    """The file's content; by its name's ending, `.gz` is unpacked.

    Raises `OSError` or `EOFError` for a truncated archive.
    """
    return gzip.decompress(data) if name.endswith(".gz") else data


def parse(content: bytes, columns: Sequence[str], *, path: str, rescued: str | None) -> pa.Table:
    """The file's rows: `columns` by header name (missing ones NULL), then `rescued` (JSON or NULL) if that is a name.

    Every column is text. The rescued data hold what the file has beside the columns, and `_file_path`.
    """
    if not content.strip():
        return _select({}, [], [], columns, 0, path, rescued)
    try:
        table = _quick(content)
    except (pa.ArrowInvalid, pa.ArrowKeyError):
        return _slow(content, columns, path, rescued)
    names = table.column_names
    if len(set(names)) < len(names):
        return _slow(content, columns, path, rescued)
    cells = dict(zip(names, table.columns, strict=True))
    return _select(cells, names, [None] * table.num_rows, columns, table.num_rows, path, rescued)


def _quick(content: bytes) -> pa.Table:
    """Read with pyarrow; raises `pa.ArrowInvalid` for any row that does not fit."""
    header = next(records(content.split(b"\n", 1)[0].decode("utf-8") + "\n"), Row()).fields
    convert = pc.ConvertOptions(
        strings_can_be_null=True,
        quoted_strings_can_be_null=False,
        null_values=[""],
        column_types={name: pa.string() for name in header if name is not None},
    )
    parsing = pc.ParseOptions(newlines_in_values=True, double_quote=True, escape_char=False)
    reading = pc.ReadOptions(block_size=max(len(content) + 1, MINIMUM_BLOCK), use_threads=False)
    return pc.read_csv(io.BytesIO(content), read_options=reading, parse_options=parsing, convert_options=convert)


def _select(
    cells: dict[str, pa.ChunkedArray | pa.Array],
    names: Sequence[str],
    corrupt: Sequence[str | None],
    columns: Sequence[str],
    rows: int,
    path: str,
    rescued: str | None,
) -> pa.Table:
    by_name = {name.lower(): name for name in reversed(names)}
    chosen = {}
    for column in columns:
        source = by_name.get(column.lower())
        chosen[column] = pa.nulls(rows, pa.string()) if source is None else cells[source].cast(pa.string())
    if rescued is not None:
        wanted = {column.lower() for column in columns}
        extra = {name: cells[name].to_pylist() for name in names if name.lower() not in wanted}
        chosen[rescued] = pa.array(_rescued(extra, corrupt, rows, path), pa.string())
    return pa.table(chosen)


def _rescued(
    extra: dict[str, list[str | None]], corrupt: Sequence[str | None], rows: int, path: str
) -> list[str | None]:
    """One JSON text a row, or None where there is nothing to rescue."""
    if not extra and not any(corrupt):
        return [None] * rows
    found: list[str | None] = []
    for at in range(rows):
        data = {name: values[at] for name, values in extra.items() if values[at] is not None}
        if corrupt[at] is not None:
            data[CORRUPT] = corrupt[at]
        found.append(json.dumps({**data, "_file_path": path}, ensure_ascii=False) if data else None)
    return found


def _slow(content: bytes, columns: Sequence[str], path: str, rescued: str | None) -> pa.Table:
    rows = records(content.decode("utf-8", errors="replace"))
    header = [name if name is not None else f"_c{at}" for at, name in enumerate(next(rows, Row()).fields)]
    names = [name if header.index(name) == at else f"{name}_{at}" for at, name in enumerate(header)]
    values: list[list[str | None]] = []
    corrupt: list[str | None] = []
    width = len(names)
    for row in rows:
        cut = len(row.fields) != width or not row.whole
        corrupt.append(row.text if cut else None)
        values.append((row.fields + [None] * width)[:width])
    cells = {name: pa.array([row[at] for row in values], pa.string()) for at, name in enumerate(names)}
    return _select(cells, names, corrupt, columns, len(values), path, rescued)


def records(text: str) -> Iterator[Row]:
    """Postgres' CSV, field by field: NULL is an unquoted empty field, quotes are doubled, records end in a newline.

    Empty lines are skipped, as Spark skips them. A quote that is not closed ends with its line, so that one broken row
    does not take those after it along.
    """
    at = 0
    while at < len(text):
        row, end = _record(text, at)
        if not row.whole:
            stop = text.find("\n", at)
            end = len(text) if stop < 0 else stop + 1
            row = Row(_broken(text[at:end]), text[at:end].rstrip("\r\n"), whole=False)
        if row.text:
            yield row
        at = end


def _record(text: str, start: int) -> tuple[Row, int]:
    """The record that begins at `start`, and where the next one begins."""
    fields: list[str | None] = []
    at = start
    while True:
        if text[at : at + 1] == '"':
            value, at, closed = _quoted(text, at + 1)
            if not closed:
                return Row(whole=False), len(text)
            tail = at
            while at < len(text) and text[at] not in ",\n":
                at += 1
            fields.append(value + text[tail:at].rstrip("\r"))
        else:
            begin = at
            while at < len(text) and text[at] not in ",\n":
                at += 1
            value = text[begin:at].removesuffix("\r") if text[at : at + 1] != "," else text[begin:at]
            fields.append(value or None)
        if at >= len(text) or text[at] == "\n":
            return Row(fields, text[start:at].removesuffix("\r")), at + 1
        at += 1


def _quoted(text: str, at: int) -> tuple[str, int, bool]:
    """A quoted field from after its quote: its value, where it ends, whether it was closed."""
    pieces = []
    while True:
        quote = text.find('"', at)
        if quote < 0:
            return "", len(text), False
        pieces.append(text[at:quote])
        if text[quote + 1 : quote + 2] != '"':
            return "".join(pieces), quote + 1, True
        pieces.append('"')
        at = quote + 2


def _broken(line: str) -> list[str | None]:
    return [value or None for value in line.rstrip("\r\n").split(",")]
