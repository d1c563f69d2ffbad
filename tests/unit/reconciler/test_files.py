"""What is counted from the bytes of an extract."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecomm_pipeline.contract import CONTRACT
from ecomm_pipeline.reconciler import files, sql

ITEMS = sql.factors(CONTRACT["order_items"])
HEADER = ["order_id", "line_number", "product_id", "quantity", "unit_price", "created_at", "updated_at"]


def as_csv(rows, header=HEADER):
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL).writerows([header, *rows])
    return text.getvalue().encode()


def row(order="O1", quantity="1", price="1.0000"):
    return [order, "1", "P", quantity, price, "2026-01-01 00:00:00+00", "2026-01-01 00:00:00+00"]


def chunked(content, size):
    return [content[start : start + size] for start in range(0, len(content), size)]


@given(
    rows=st.lists(
        st.tuples(
            st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
            st.integers(-(2**31), 2**31 - 1),
            st.decimals("0", "99999999.9999", places=4),
        ),
        max_size=8,
    ),
    size=st.integers(1, 300),
    compressed=st.booleans(),
)
def test_rows_and_money_do_not_depend_on_chunks_compression_or_what_text_holds(rows, size, compressed):
    content = as_csv([row(text, str(quantity), str(price)) for text, quantity, price in rows])
    stored = gzip.compress(content) if compressed else content
    found = files.count(chunked(stored, size), compressed=compressed, money=ITEMS)
    assert found.broken is None
    assert found.sha256 == hashlib.sha256(stored).hexdigest()
    assert found.amount.rows == len(rows)
    assert found.amount.money == sum((quantity * price for _, quantity, price in rows), Decimal(0))


def test_a_quoted_newline_is_no_row_and_a_megabyte_is_a_value():
    content = as_csv([row("a\nb\r\nc\r"), row("x" * 2_000_000), row('say ""')])
    assert files.count([content], compressed=False, money=ITEMS).amount.rows == 3


@pytest.mark.parametrize(
    ("quantity", "price", "money"),
    [
        ("2", "1.5", "3.0"),
        ("", "1.5", "0"),
        ("1", "NaN", "0"),
        ("1", "Infinity", "0"),
        ("1", "1e3", "0"),
        ("1", " 1", "0"),
        ("1", "1.123456785", "1.12345679"),
        ("1", "9999999999999999999", "9999999999999999999"),
        ("1", "9999999999999999999.999999999", "0"),
        ("10000000000", "1", "0"),
        ("-3", "0.0001", "-0.0003"),
    ],
)
def test_a_factor_counts_when_it_is_a_plain_number_that_fits(quantity, price, money):
    found = files.count([as_csv([row("O", quantity, price)])], compressed=False, money=ITEMS)
    assert found.amount.money == Decimal(money)


def test_a_money_column_that_is_gone_counts_as_nothing():
    found = files.count([as_csv([["O1", "3"]], ["order_id", "quantity"])], compressed=False, money=ITEMS)
    assert (found.amount.rows, found.amount.money) == (1, 0)


def test_a_table_without_money_has_none():
    assert files.count([as_csv([row()])], compressed=False, money=()).amount.money is None


def test_a_truncated_file_is_broken_and_its_checksum_is_of_what_is_there():
    stored = gzip.compress(as_csv([row(str(number)) for number in range(1000)]))[:-20]
    found = files.count([stored], compressed=True, money=ITEMS)
    assert "EOFError" in found.broken
    assert found.sha256 == hashlib.sha256(stored).hexdigest()


@pytest.mark.parametrize(
    "stored", [b"\x1f\x8bnothing of gzip", b"plain", gzip.compress(b'a,b\n"open'), gzip.compress(b"a\n\xff\n")]
)
def test_what_is_no_csv_is_broken_and_never_a_crash(stored):
    assert files.count([stored], compressed=True, money=()).broken


def test_versions_are_read_by_name_whatever_the_order_of_columns():
    content = as_csv([row("O9", "2", "3.5")[::-1]], HEADER[::-1])
    ((key, version),) = files.versions([content], compressed=False, key=("order_id", "line_number"), money=ITEMS)
    assert key == ("O9", "1")
    assert (version.updated_at, version.money) == ("2026-01-01 00:00:00+00", 7)
