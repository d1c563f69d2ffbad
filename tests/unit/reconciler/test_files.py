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
from ecomm_pipeline.reconciler.amounts import Amount
from ecomm_pipeline.reconciler.keys import fingerprint

ITEMS = sql.factors(CONTRACT["order_items"])
KEY = CONTRACT["order_items"].key
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
    found = files.count(chunked(stored, size), compressed=compressed, key=KEY, money=ITEMS)
    assert found.broken is None
    assert found.sha256 == hashlib.sha256(stored).hexdigest()
    assert found.amount.rows == len(rows)
    assert found.amount.money == sum((quantity * price for _, quantity, price in rows), Decimal(0))


def test_a_quoted_newline_is_no_row_and_a_megabyte_is_a_value():
    content = as_csv([row("a\nb\r\nc\r"), row("x" * 2_000_000), row('say ""')])
    assert files.count([content], compressed=False, key=KEY, money=ITEMS).amount.rows == 3


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
    found = files.count([as_csv([row("O", quantity, price)])], compressed=False, key=KEY, money=ITEMS)
    assert found.amount.money == Decimal(money)


def test_a_money_column_that_is_gone_counts_as_nothing():
    found = files.count([as_csv([["O1", "3"]], ["order_id", "quantity"])], compressed=False, key=KEY, money=ITEMS)
    assert (found.amount.rows, found.amount.money) == (1, 0)


def test_a_table_without_money_has_none():
    assert files.count([as_csv([row()])], compressed=False, key=(), money=()).amount.money is None


def test_a_truncated_file_is_broken_and_its_checksum_is_of_what_is_there():
    stored = gzip.compress(as_csv([row(str(number)) for number in range(1000)]))[:-20]
    found = files.count([stored], compressed=True, key=KEY, money=ITEMS)
    assert "EOFError" in found.broken
    assert found.sha256 == hashlib.sha256(stored).hexdigest()


@pytest.mark.parametrize(
    "stored", [b"\x1f\x8bnothing of gzip", b"plain", gzip.compress(b'a,b\n"open'), gzip.compress(b"a\n\xff\n")]
)
def test_what_is_no_csv_is_broken_and_never_a_crash(stored):
    assert files.count([stored], compressed=True, key=(), money=()).broken


def test_versions_are_read_by_name_whatever_the_order_of_columns():
    content = as_csv([row("O9", "2", "3.5")[::-1]], HEADER[::-1])
    ((key, version),) = files.versions([content], compressed=False, key=KEY, money=ITEMS)
    assert key == ("O9", "1")
    assert (version.updated_at, version.money) == ("2026-01-01 00:00:00+00", 7)


def test_the_checksum_is_of_the_versions_in_whatever_order_and_file():
    rows = [row(str(number)) for number in range(9)]
    checksums = [
        sum(files.count([as_csv(part)], compressed=False, key=KEY, money=ITEMS).checksum for part in parts)
        for parts in ([rows], [rows[::-1]], [rows[:4], rows[4:]])
    ]
    assert len(set(checksums)) == 1
    (one,) = {sum(fingerprint((str(number), "1"), "2026-01-01 00:00:00+00") for number in range(9))}
    assert checksums[0] == one


def test_one_row_in_place_of_another_has_another_checksum_and_equal_rows_and_money():
    one, other = (files.count([as_csv([row(name)])], compressed=False, key=KEY, money=ITEMS) for name in ("O1", "O2"))
    assert one.amount == other.amount
    assert one.checksum != other.checksum


def test_a_file_without_a_column_of_its_key_has_no_checksum():
    content = as_csv([["O1", "3", "1.0"]], ["order_id", "quantity", "unit_price"])
    assert files.count([content], compressed=False, key=KEY, money=ITEMS).checksum is None


def test_buckets_together_are_the_whole_and_each_is_read_alone():
    content = as_csv([row(str(number), "2") for number in range(3000)])
    whole = files.count([content], compressed=False, key=KEY, money=ITEMS)
    found = files.buckets(files.versions([content], compressed=False, key=KEY, money=ITEMS))
    assert sum(bucket.checksum for bucket in found.values()) == whole.checksum
    assert sum((bucket.amount for bucket in found.values()), Amount()) == whole.amount
    number = next(iter(found))
    alone = files.versions([content], compressed=False, key=KEY, money=ITEMS, wanted={number})
    assert files.buckets(alone) == {number: found[number]}
