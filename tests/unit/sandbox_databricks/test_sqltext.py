"""Statements are read as Spark reads them: nothing inside a string or a comment is a name or a marker."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecomm_sandbox.databricks import sqltext


@given(st.text())
def test_tokens_joined_are_the_statement(sql: str) -> None:
    assert sqltext.text(sqltext.tokens(sql)) == sql


@pytest.mark.parametrize(
    ("sql", "bound"),
    [
        ("select :a", "select 1"),
        ("select :a, ':a', `:a`, -- :a\n :a /* :a */", "select 1, ':a', `:a`, -- :a\n 1 /* :a */"),
        ("select payload:a from t where x=:a", "select payload:a from t where x=1"),
        ("select a::int, :b", "select a::int, :b"),
        ("where :a between :a and :a", "where 1 between 1 and 1"),
    ],
)
def test_named_markers_are_bound_outside_strings_comments_and_paths(sql: str, bound: str) -> None:
    assert sqltext.bind(sql, {"a": "1"}, []) == bound


def test_positional_markers_are_bound_in_order() -> None:
    assert sqltext.bind("select ?, '?', ? -- ?", {}, ["1", "NULL"]) == "select 1, '?', NULL -- ?"


def test_a_marker_without_a_value_is_left_for_spark_to_report() -> None:
    assert sqltext.bind("select :a, :b", {"a": "1"}, []) == "select 1, :b"


@given(st.text())
def test_a_string_parameter_is_one_string_token_whatever_it_holds(value: str) -> None:
    literal = sqltext.literal(value, "STRING")
    assert [token.kind for token in sqltext.tokens(literal)] == ["string"]
    assert sqltext.string_value(literal) == value


@pytest.mark.parametrize(
    ("value", "kind", "literal"),
    [
        ("5", "INT", "CAST('5' AS INT)"),
        ("1.50", "DECIMAL(18,4)", "CAST('1.50' AS DECIMAL(18,4))"),
        (None, "DATE", "CAST(NULL AS DATE)"),
        (None, "VOID", "NULL"),
        (None, None, "CAST(NULL AS STRING)"),
    ],
)
def test_parameters_keep_their_type_and_null(value: str | None, kind: str | None, literal: str) -> None:
    assert sqltext.literal(value, kind) == literal


def test_a_parameter_type_cannot_carry_sql() -> None:
    with pytest.raises(ValueError, match="parameter type"):
        sqltext.literal("1", "INT) OR (1=1")
