"""Postgres' window now against the extract, by key: what came late, moved out of the window, or was deleted. Pure."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Final

from ecomm_pipeline.reconciler.amounts import Amount

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from datetime import timedelta

__all__ = [
    "BUCKETS",
    "Bucket",
    "Changes",
    "Key",
    "KeyDifferences",
    "LateRow",
    "Version",
    "bucket_groups",
    "compare_keys",
    "cover",
    "fingerprint",
]

Key = tuple[str | None, ...]

BUCKETS: Final = 1024
HELD: Final = 200_000
"""Versions of an extract that are held at a time: about 100 MB."""


def fingerprint(key: Iterable[str | None], updated_at: str) -> int:
    """Give 60 bits of a version's name, as `sql.fingerprint` does; their sum over a window is its checksum.

    The bits are those of the MD5 of the key's parts and `updated_at` as Postgres writes it in UTC, each part of the key
    (NULL as nothing) followed by the unit separator. A window and its extract have equal sums when they hold the same
    versions, in whatever order; unequal ones meet by chance once in 10^18.
    """
    name = "".join(f"{'' if part is None else part}\x1f" for part in key) + updated_at
    return int.from_bytes(hashlib.md5(name.encode(), usedforsecurity=False).digest()[:8], "big") >> 4


@dataclass(frozen=True, slots=True)
class Bucket:
    """The versions of a window whose fingerprints leave the same rest by BUCKETS, together."""

    amount: Amount
    checksum: int

    def __add__(self, other: Bucket) -> Bucket:
        return Bucket(self.amount + other.amount, self.checksum + other.checksum)


def bucket_groups(
    now: Mapping[int, Bucket], extracted: Mapping[int, Bucket], *, held: int = HELD
) -> Iterator[frozenset[int]]:
    """Choose the buckets that differ, in groups of which the extract holds at most `held` rows, or of one bucket."""
    group: set[int] = set()
    rows = 0
    for number in sorted(now.keys() | extracted.keys()):
        before = extracted.get(number)
        if now.get(number) == before:
            continue
        size = before.amount.rows if before else 0
        if group and rows + size > held:
            yield frozenset(group)
            group, rows = set(), 0
        group.add(number)
        rows += size
    if group:
        yield frozenset(group)


@dataclass(frozen=True, slots=True)
class Version:
    """A row of a window, by what identifies its state; `updated_at` as Postgres writes it in UTC, ISO."""

    updated_at: str
    money: Decimal | None = None


@dataclass(frozen=True, slots=True)
class LateRow:
    """A row that is in the window now and not in the extract. `covered` says what catches it up, if anything."""

    key: Key
    updated_at: str
    money: Decimal | None = None
    covered: str | None = None


@dataclass(slots=True)
class KeyDifferences:
    """How the window differs from the extract, by key.

    `late` rows are in the window only (a new version of an extracted key is one, and its old version is in `gone`),
    `gone` rows in the extract only, `altered` have the same `updated_at` and other money.
    """

    late: list[LateRow] = field(default_factory=list)
    gone: dict[Key, Version] = field(default_factory=dict)
    altered: dict[Key, Amount] = field(default_factory=dict)


def compare_keys(now: Iterable[tuple[Key, Version]], extracted: Mapping[Key, Version]) -> KeyDifferences:
    """Compare versions of a window of Postgres, as a stream, with those that were extracted; of the same buckets."""
    found = KeyDifferences(gone=dict(extracted))
    for key, version in now:
        before = found.gone.pop(key, None)
        if before is None or before.updated_at != version.updated_at:
            found.late.append(LateRow(key, version.updated_at, version.money))
            if before is not None:
                found.gone[key] = before
        elif before.money != version.money:
            found.altered[key] = Amount(0, (version.money or Decimal(0)) - (before.money or Decimal(0)))
    return found


def cover(
    late: Iterable[LateRow],
    *,
    loaded: frozenset[tuple[Key, str]],
    until: datetime,
    lookback: timedelta,
    next_extracted: bool,
) -> list[LateRow]:
    """Say of each late row what catches it up: another extract that holds it, or the look-back of the next window.

    `loaded` are the versions that Bronze holds from whatever extract; `until` is the end of the window.
    """

    def covered(row: LateRow) -> str | None:
        if (row.key, row.updated_at) in loaded:
            return "another extract holds it"
        if not next_extracted and datetime.fromisoformat(row.updated_at) >= until - lookback:
            return "the next window looks back on it"
        return None

    return [replace(row, covered=covered(row)) for row in late]


@dataclass(frozen=True, slots=True)
class Changes:
    """Why the window differs from the extract: committed late, moved out of the window by an update, deleted."""

    late: tuple[LateRow, ...] = ()
    moved: Amount = Amount()
    deleted: Amount = Amount()
    altered: Mapping[Key, Amount] = field(default_factory=dict)

    @property
    def late_amount(self) -> Amount:
        """The late rows together."""
        return Amount.total(Amount(1, row.money) for row in self.late)

    def __add__(self, other: Changes) -> Changes:
        return Changes(
            (*self.late, *other.late),
            self.moved + other.moved,
            self.deleted + other.deleted,
            {**self.altered, **other.altered},
        )
