"""Postgres' CSV: NULL and the empty string stay apart, and no row is lost or changed."""

from __future__ import annotations

import gzip
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecomm_sandbox.databricks.pipelines import csvfile

PATH = "s3://bucket/t/part-00000.csv"
VALUES = st.none() | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))


def as_postgres_writes(value: str | None) -> str:
    """A field of COPY … (FORMAT csv)."""
    if value is None:
        return ""
    if value in {"", r"\."} or any(char in value for char in ',"\r\n') or value[0] == " " or value[-1] == " ":
        return '"' + value.replace('"', '""') + '"'
    return value


def as_file(header: list[str], rows: list[list[str | None]]) -> bytes:
    lines = [header, *([as_postgres_writes(value) for value in row] for row in rows)]
    return "".join(",".join(line) + "\n" for line in lines).encode()


@given(st.lists(st.tuples(VALUES, VALUES), max_size=5))
def test_every_text_and_null_comes_back_as_it_was(rows: list[tuple[str | None, str | None]]) -> None:
    content = as_file(["a", "b"], [list(row) for row in rows])
    table = csvfile.parse(content, ["a", "b"], path=PATH, rescued="r")
    assert list(zip(table["a"].to_pylist(), table["b"].to_pylist(), strict=True)) == rows
    assert table["r"].to_pylist() == [None] * len(rows)


@given(st.lists(st.tuples(VALUES, VALUES), min_size=1, max_size=5))
def test_the_slow_reader_agrees_with_the_quick_one(rows: list[tuple[str | None, str | None]]) -> None:
    content = as_file(["a", "b"], [list(row) for row in rows])
    quick = csvfile.parse(content, ["a", "b"], path=PATH, rescued=None)
    found = list(csvfile.records(content.decode()))[1:]
    expected = list(zip(quick["a"].to_pylist(), quick["b"].to_pylist(), strict=True))
    assert [tuple(row.fields) for row in found] == expected


def test_a_column_that_the_file_lacks_is_null_and_one_beyond_the_schema_is_rescued() -> None:
    table = csvfile.parse(b'a,new\n1,"x ""y"""\n2,\n', ["a", "gone"], path=PATH, rescued="_rescued_data")
    assert table["a"].to_pylist() == ["1", "2"]
    assert table["gone"].to_pylist() == [None, None]
    first, second = table["_rescued_data"].to_pylist()
    assert json.loads(first) == {"new": 'x "y"', "_file_path": PATH}
    assert second is None


def test_columns_match_by_name_whatever_their_order_and_case() -> None:
    table = csvfile.parse(b"B,a\n2,1\n", ["a", "b"], path=PATH, rescued=None)
    assert (table["a"].to_pylist(), table["b"].to_pylist()) == (["1"], ["2"])


@pytest.mark.parametrize(
    ("line", "fields"),
    [
        ("only", ("only", None)),
        ("one,two,three", ("one", "two")),
        ('"never closed,x', ('"never closed', "x")),
    ],
)
def test_a_row_that_does_not_fit_is_rescued_and_its_neighbours_are_whole(
    line: str, fields: tuple[str | None, ...]
) -> None:
    content = f"a,b\n1,2\n{line}\n3,4\n".encode()
    table = csvfile.parse(content, ["a", "b"], path=PATH, rescued="r")
    assert list(zip(table["a"].to_pylist(), table["b"].to_pylist(), strict=True)) == [("1", "2"), fields, ("3", "4")]
    before, rescued, after = table["r"].to_pylist()
    assert json.loads(rescued)[csvfile.CORRUPT] == line
    assert (before, after) == (None, None)


def test_bytes_that_are_no_utf8_do_not_stop_the_file() -> None:
    table = csvfile.parse(b"a,b\n1,\xff\n", ["a", "b"], path=PATH, rescued=None)
    assert table["b"].to_pylist() == ["�"]


@pytest.mark.parametrize("content", [b"", b"\n", b"a,b\n"])
def test_a_file_without_rows_has_none(content: bytes) -> None:
    table = csvfile.parse(content, ["a", "b"], path=PATH, rescued="r")
    assert (table.num_rows, table.column_names) == (0, ["a", "b", "r"])


def test_a_value_of_a_megabyte_fits() -> None:
    value = "x" * (1 << 20)
    table = csvfile.parse(f'a,b\n"{value}",2\n'.encode(), ["a", "b"], path=PATH, rescued=None)
    assert table["a"].to_pylist() == [value]


def test_a_truncated_archive_is_an_error() -> None:
    with pytest.raises(EOFError):
        csvfile.decompress("part-00000.csv.gz", gzip.compress(b"a,b\n" * 1000)[:-20])
