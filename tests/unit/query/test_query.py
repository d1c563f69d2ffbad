"""How an answer of the warehouse is written."""

from __future__ import annotations

import csv
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecomm_pipeline import query
from ecomm_pipeline.databricks import QueryResult
from ecomm_pipeline.errors import ConfigurationError

RESULT = QueryResult(
    ("name", "orders", "revenue", "share", "open", "day"),
    ("STRING", "BIGINT", "DECIMAL(18,4)", "DOUBLE", "BOOLEAN", "DATE"),
    [
        ("tea", "12", "1234567.8900", "0.5", "true", "2026-01-02"),
        ("茶\n", None, "-0.1000", "NaN", "false", None),
        ("", "3", None, None, None, None),
    ],
)


def written(result, output):
    return "".join(query.write(result, output))


def test_a_table_aligns_numbers_right_and_shows_null_as_such():
    assert written(RESULT, "table").splitlines() == [
        "name  orders       revenue  share  open   day",
        "────  ──────  ────────────  ─────  ─────  ──────────",
        "tea       12  1234567.8900    0.5  true   2026-01-02",
        "茶\\n    NULL       -0.1000    NaN  false  NULL",
        "           3          NULL   NULL  NULL   NULL",
        "(3 rows)",
    ]


def test_csv_keeps_null_and_the_empty_string_apart():
    assert written(RESULT, "csv").split("\n")[-2] == '"",3,,,,'


def test_json_has_numbers_where_they_are_exact_and_decimals_as_text():
    first, second, _ = json.loads(written(RESULT, "json"))
    assert first == {
        "name": "tea",
        "orders": 12,
        "revenue": "1234567.8900",
        "share": 0.5,
        "open": True,
        "day": "2026-01-02",
    }
    assert second["orders"] is None
    assert second["share"] == "NaN"


def test_an_empty_answer_is_valid_in_every_format():
    empty = QueryResult(("a",), ("INT",), [])
    assert json.loads(written(empty, "json")) == []
    assert written(empty, "csv") == "a\n"
    assert written(empty, "table").endswith("(0 rows)\n")


def test_a_format_that_is_none_is_refused_before_anything_is_asked():
    with pytest.raises(ConfigurationError) as raised:
        query.check_format("xml")
    assert raised.value.next_step == "use one of table, csv, json"


texts = st.none() | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))


@given(st.lists(st.tuples(texts, texts), max_size=5))
def test_any_text_comes_back_from_csv_and_json(rows):
    result = QueryResult(("a", "b"), ("STRING", "STRING"), rows)
    read = list(csv.reader(io.StringIO(written(result, "csv"), newline="")))
    assert [tuple(row) for row in read[1:]] == [tuple(value or "" for value in row) for row in rows]
    assert [tuple(row.values()) for row in json.loads(written(result, "json"))] == rows


@given(st.lists(st.tuples(texts), max_size=5))
def test_a_row_of_a_table_is_a_line(rows):
    result = QueryResult(("a",), ("STRING",), rows)
    assert len(written(result, "table").split("\n")) == len(rows) + 4
