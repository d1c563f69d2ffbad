"""What an extract's file holds, counted from its bytes: rows, money, and whether they are the bytes that were written.

Pure: an iterator of chunks in, figures out; memory does not depend on the size of the file.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import re
import sys
import zlib
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Context, Decimal
from typing import TYPE_CHECKING, Final

from ecomm_pipeline.contract import UPDATED_AT
from ecomm_pipeline.reconciler.amounts import Amount
from ecomm_pipeline.reconciler.keys import BUCKETS, Bucket, Version, fingerprint
from ecomm_pipeline.reconciler.sql import NUMBER, Factor

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

    from typing_extensions import Buffer

    from ecomm_pipeline.reconciler.keys import Key

__all__ = ["FileCount", "buckets", "count", "money_reader", "versions"]

_NUMBER: Final = re.compile(NUMBER)
_WIDE: Final = Context(prec=80)
"""Holds the product of the widest factors exactly."""


@dataclass(frozen=True, slots=True)
class FileCount:
    """Rows and money of a file, and the SHA-256 of its stored bytes; `broken` tells why it could not be read.

    `checksum` is the sum of its versions' fingerprints; None where the file lacks a column of the key.
    """

    amount: Amount
    checksum: int | None
    sha256: str
    broken: str | None = None


class _Chunks(io.RawIOBase):
    """A stream over an iterator of chunks that hashes what passes through."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        super().__init__()
        self._chunks = iter(chunks)
        self._rest = memoryview(b"")
        self.sha256 = hashlib.sha256()

    def readable(self) -> bool:
        return True

    def readinto(self, target: Buffer, /) -> int:
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self.sha256.update(chunk)
            self._rest = memoryview(chunk)
        view = memoryview(target).cast("B")
        size = min(len(view), len(self._rest))
        view[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size

    def drain(self) -> None:
        """Read what the CSV's end left unread, so that the hash is of the whole object."""
        while self.read(1 << 20):
            pass


def count(chunks: Iterable[bytes], *, compressed: bool, key: Sequence[str], money: Sequence[Factor]) -> FileCount:
    """Count an object's rows, money and checksum.

    `money` are the factors of a row's money, empty where its rows have none; `key` names the columns of its key, empty
    where none is known. A million order lines take 8 s of a slow core, a third of them for the checksum.
    """
    stream = _Chunks(chunks)
    rows, total, checksum, broken = 0, Decimal(0), 0, None
    has_key = False
    try:
        reader = _rows(stream, compressed=compressed)
        header = next(reader, [])
        has_key = bool(key) and {*key, UPDATED_AT} <= set(header)
        version = _version_reader(header, key) if has_key else None
        of_row = money_reader(header, money) if money else None
        for row in reader:
            rows += 1
            if of_row:
                total = _WIDE.add(total, of_row(row))
            if version:
                checksum += fingerprint(*version(row))
    except (EOFError, OSError, zlib.error, csv.Error, UnicodeDecodeError) as error:
        broken = f"{type(error).__name__}: {error}"
    stream.drain()
    amount = Amount(rows, total if money else None)
    return FileCount(amount, checksum if has_key else None, stream.sha256.hexdigest(), broken)


def versions(
    chunks: Iterable[bytes],
    *,
    compressed: bool,
    key: Sequence[str],
    money: Sequence[Factor],
    wanted: Collection[int] | None = None,
) -> Iterator[tuple[Key, Version]]:
    """Read the key, `updated_at` and money of each row of an object whose count was sound; NULL and "" read alike.

    `wanted` are the buckets whose versions are read; by default all.
    """
    reader = _rows(_Chunks(chunks), compressed=compressed)
    header = next(reader, [])
    version = _version_reader(header, key)
    of_row = money_reader(header, money)
    for row in reader:
        of_key, stamp = version(row)
        if wanted is None or fingerprint(of_key, stamp) % BUCKETS in wanted:
            yield of_key, Version(stamp, of_row(row) if money else None)


def buckets(versions: Iterable[tuple[Key, Version]]) -> dict[int, Bucket]:
    """Put versions together by bucket."""
    found: dict[int, Bucket] = {}
    for key, version in versions:
        checksum = fingerprint(key, version.updated_at)
        number, one = checksum % BUCKETS, Bucket(Amount(1, version.money), checksum)
        found[number] = found[number] + one if number in found else one
    return found


def _version_reader(header: Sequence[str], key: Sequence[str]) -> Callable[[list[str]], tuple[Key, str]]:
    places = [header.index(name) for name in key]
    stamp = header.index(UPDATED_AT)
    return lambda row: (tuple(row[place] for place in places), row[stamp])


def money_reader(header: Sequence[str], money: Sequence[Factor]) -> Callable[[list[str]], Decimal]:
    """Make the function from a row to its money, by the rule of `sql`: what is no plain number counts as nothing."""
    if any(factor.column not in header for factor in money):
        return lambda _: Decimal(0)
    places = [(header.index(factor.column), Decimal(1).scaleb(-factor.scale), factor) for factor in money]

    def of_row(row: list[str]) -> Decimal:
        product = Decimal(1)
        for place, step, factor in places:
            value = _factor(row[place], step, factor)
            if value is None:
                return Decimal(0)
            product = _WIDE.multiply(product, value)
        return product

    return of_row


def _factor(text: str, step: Decimal, factor: Factor) -> Decimal | None:
    if not _NUMBER.fullmatch(text):
        return None
    value = Decimal(text)
    if value.adjusted() >= factor.digits:
        return None
    if value.as_tuple().exponent < -factor.scale:  # type: ignore[operator]  # the text is a finite number
        value = value.quantize(step, rounding=ROUND_HALF_UP, context=_WIDE)
    return value if abs(value) < Decimal(10) ** factor.digits else None


def _rows(stream: _Chunks, *, compressed: bool) -> Iterator[list[str]]:
    """Read the records of a CSV as Postgres writes it; a quoted value may hold any line ending and any length."""
    csv.field_size_limit(sys.maxsize)
    stored = io.BufferedReader(stream, 1 << 16)  # gzip wants its header whole, whatever the chunks
    data = io.BufferedReader(gzip.GzipFile(fileobj=stored), 1 << 20) if compressed else stored
    return csv.reader(io.TextIOWrapper(data, encoding="utf-8", newline="\n"), strict=True)
