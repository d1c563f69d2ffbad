"""What adds up and what does not: pure arithmetic over the figures that `run.py` collects.

A `Day` holds the figures of one table and business date at every hop, a `SalesDay` those of one sales date from Silver
to the KPI tables. `problems_of_day` and `problems_of_sales` compare neighbours; whatever differs without an explanation
becomes a `Problem` that names the place, the size and the command that mends it. `sheet` writes all of it down.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from ecomm_pipeline.errors import EcommError, MissingSourceError, NotReconciledError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from datetime import datetime, timedelta

    from ecomm_pipeline.dates import BusinessDate
    from ecomm_pipeline.ledger import Finding as LedgerFinding
    from ecomm_pipeline.manifest import Manifest

__all__ = [
    "Amount",
    "Bucket",
    "Changes",
    "Day",
    "KeyDifferences",
    "LateRow",
    "Problem",
    "SalesDay",
    "Version",
    "bucket_groups",
    "compare_keys",
    "cover",
    "error_of",
    "findings",
    "fingerprint",
    "newest",
    "problems_of_customers",
    "problems_of_day",
    "problems_of_sales",
    "sheet",
]

SHOWN: Final = 3
"""Keys that a message names; more are counted."""


@dataclass(frozen=True, slots=True)
class Amount:
    """Rows and their money, in the shop's currency; `money` is None where the table's rows have none."""

    rows: int = 0
    money: Decimal | None = None

    def __add__(self, other: Amount) -> Amount:
        return Amount(self.rows + other.rows, _plus(self.money, other.money))

    def __sub__(self, other: Amount) -> Amount:
        return Amount(self.rows - other.rows, _plus(self.money, None if other.money is None else -other.money))

    def __neg__(self) -> Amount:
        return Amount(-self.rows, None if self.money is None else -self.money)

    def __bool__(self) -> bool:
        """Tell whether there is anything: rows, or money without rows."""
        return bool(self.rows or self.money)

    def __str__(self) -> str:
        """Write it as people read it: `3 rows, 12.50 of money`; the direction (more, fewer) is the caller's."""
        rows = f"{abs(self.rows)} row{'' if abs(self.rows) == 1 else 's'}"
        return f"{rows}, {plain(abs(self.money))} of money" if self.money else rows

    @classmethod
    def total(cls, amounts: Iterable[Amount]) -> Amount:
        """Add up."""
        result = cls()
        for amount in amounts:
            result += amount
        return result


def _plus(one: Decimal | None, other: Decimal | None) -> Decimal | None:
    if one is None or other is None:
        return one if other is None else other
    return one + other


def plain(value: Decimal) -> str:
    """Write a number without an exponent and without zeros past the cents: `1234.5` → `1234.50`, `0.0125` stays."""
    text = f"{value:f}"
    whole, _, fraction = text.partition(".")
    return f"{whole}.{fraction.rstrip('0'):0<2}"


# --- Postgres against the extract, by key --------------------------------------------------------------------------

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
    from dataclasses import replace
    from datetime import datetime as moment

    def covered(row: LateRow) -> str | None:
        if (row.key, row.updated_at) in loaded:
            return "another extract holds it"
        if not next_extracted and moment.fromisoformat(row.updated_at) >= until - lookback:
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


# --- the figures of a table and date -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Day:
    """The figures of one table and business date. `manifest` None: it was never extracted, and the rest is empty.

    `source` is None where Postgres was not asked; `source_checksum` and `checksum` are the sums of the fingerprints of
    the versions there and in the files, None where a column of the key is gone. `bronze` counts the files that the
    manifest lists, `orphans` files that none lists. `kept`, `superseded` and `lost` are Bronze's rows by what became of
    them in Silver, `quarantined` likewise by reason; `kept_in_silver` is the money of the kept rows as Silver holds it,
    `in_quarantine` counts the rows of silver.quarantine. `in_lakehouse` is False for a table that is only extracted.
    """

    table: str
    date: BusinessDate
    manifest: Manifest | None = None
    source: Amount | None = None
    source_checksum: int | None = None
    checksum: int | None = None
    changes: Changes | None = None
    extracted: Amount = Amount()
    damaged: tuple[str, ...] = ()
    in_lakehouse: bool = True
    bronze: Amount = Amount()
    rescued: int = 0
    orphans: Amount = Amount()
    kept: Amount = Amount()
    kept_in_silver: Decimal | None = None
    superseded: Amount = Amount()
    quarantined: Mapping[str, Amount] = field(default_factory=dict)
    in_quarantine: int = 0
    lost: Amount = Amount()

    @property
    def quarantine(self) -> Amount:
        """The quarantined rows, of whatever reason."""
        return Amount.total(self.quarantined.values())

    @property
    def moved_on(self) -> bool:
        """Tell whether Postgres' window is another one now than was extracted."""
        if self.source is None:
            return False
        return self.source != self.extracted or (self.has_keys and self.source_checksum != self.checksum)

    @property
    def has_keys(self) -> bool:
        """Tell whether both sides have the columns of the key."""
        return self.source_checksum is not None and self.checksum is not None


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that nothing explains: where, how much, what it means and the one command that mends it."""

    table: str
    date: str
    hop: str
    difference: Amount
    message: str
    next_step: str
    missing: bool = False


def newest(manifests: Sequence[Manifest], run_id: str) -> Manifest | None:
    """Choose the extract that counts: the run's own where it has one, else the newest."""
    own = [manifest for manifest in manifests if manifest.run_id == run_id]
    return max(own or manifests, key=lambda manifest: manifest.run_id, default=None)


def problems_of_day(day: Day) -> list[Problem]:
    """Compare the hops of a table and date from Postgres to Silver, in their order."""
    if day.manifest is None:
        message = f"{day.table} of {day.date}: there is no extract: no manifest of any run"
        return [Problem(day.table, str(day.date), "extracted", Amount(), message, _extract(day), missing=True)]
    hops = [_source(day), _files(day)]
    return [problem for hop in [*hops, *([_bronze(day), _silver(day)] if day.in_lakehouse else [])] for problem in hop]


def _problem(day: Day, hop: str, difference: Amount, text: str, next_step: str) -> Problem:
    return Problem(day.table, str(day.date), hop, difference, f"{day.table} of {day.date}, {hop}: {text}", next_step)


def _extract(day: Day) -> str:
    return f"ecomm extractor --table {day.table} --date {day.date}"


def _update(date: object) -> str:
    return f"ecomm dlt-trigger --date {date}"


def _source(day: Day) -> Iterator[Problem]:
    """Postgres' window now = what was extracted, but for what is late, moved or deleted; damaged files tell neither."""
    if day.source is None or day.damaged:
        return
    changes = day.changes or Changes()
    open_rows = [row for row in changes.late if row.covered is None]
    if open_rows:
        size = Amount.total(Amount(1, row.money) for row in open_rows)
        text = f"{size} committed after the extract and no later window looks back on them: {_keys(open_rows)}"
        yield _problem(day, "source → extracted", size, text, _extract(day))
    if changes.altered:
        size = Amount(0, Amount.total(changes.altered.values()).money)
        names = _names(changes.altered)
        text = f"the money of {names} changed without a new updated_at"
        yield _problem(day, "source → extracted", size, text, f"{_extract(day)}, and mend what writes the table")
    altered = Amount(0, Amount.total(changes.altered.values()).money) if changes.altered else Amount()
    expected = day.source - changes.late_amount + changes.moved + changes.deleted - altered
    if difference := day.extracted - expected:
        text = f"the extract holds {_more(difference)} than Postgres' window explains"
        yield _problem(day, "source → extracted", difference, text, _extract(day))


def _files(day: Day) -> Iterator[Problem]:
    """The files on S3 = what their manifest says."""
    for text in day.damaged:
        yield _problem(day, "extracted", Amount(), text, _extract(day))
    listed = day.manifest.rows if day.manifest else 0
    if not day.damaged and day.extracted.rows != listed:
        difference = Amount(day.extracted.rows - listed)
        text = f"the files hold {_more(difference)} than the manifest's {listed}"
        yield _problem(day, "extracted", difference, text, _extract(day))


def _bronze(day: Day) -> Iterator[Problem]:
    """Bronze's rows of those files = the files' rows."""
    difference = day.bronze - day.extracted
    if not difference:
        return
    loaded = "Bronze has not loaded the extract" if not day.bronze.rows else f"Bronze holds {_more(difference)}"
    run_id = day.manifest.run_id if day.manifest else ""
    text = f"{loaded} ({day.extracted} in run={run_id})"
    yield _problem(day, "extracted → bronze", difference, text, _update(day.date))


def _silver(day: Day) -> Iterator[Problem]:
    """Bronze's rows = kept + superseded + quarantined."""
    if day.lost:
        text = f"{day.lost} of Bronze are neither in Silver nor replaced by a newer version nor in quarantine"
        yield _problem(day, "bronze → silver", day.lost, text, _update(day.date))
    difference = day.kept + day.superseded + day.quarantine + day.lost - day.bronze
    if difference:
        text = f"Silver and quarantine account for {_more(difference)} than Bronze holds: a key may be there twice"
        yield _problem(day, "bronze → silver", difference, text, _update(day.date))
    if day.in_quarantine != day.quarantine.rows:
        difference = Amount(day.in_quarantine - day.quarantine.rows)
        text = f"silver.quarantine holds {_more(difference)} than Bronze's rows explain"
        yield _problem(day, "bronze → silver", difference, text, _update(day.date))
    if (day.kept_in_silver or 0) != (day.kept.money or 0):
        difference = Amount(0, (day.kept_in_silver or Decimal(0)) - (day.kept.money or Decimal(0)))
        text = f"the kept rows are worth {_more(difference)} in Silver than in Bronze"
        yield _problem(day, "bronze → silver", difference, text, _update(day.date))


def _more(difference: Amount) -> str:
    """Write a difference in words: `2 rows more`, `1 row fewer, 3.50 of money less`."""
    parts = []
    if difference.rows:
        rows = f"{abs(difference.rows)} row{'' if abs(difference.rows) == 1 else 's'}"
        parts.append(f"{rows} {'more' if difference.rows > 0 else 'fewer'}")
    if difference.money:
        parts.append(f"{plain(abs(difference.money))} of money {'more' if difference.money > 0 else 'less'}")
    return ", ".join(parts) or "nothing more"


def _keys(rows: Sequence[LateRow]) -> str:
    return _names(row.key for row in rows)


def _names(keys: Iterable[Key]) -> str:
    names = ["/".join("NULL" if part is None else part for part in key) for key in keys]
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


# --- Gold and the KPI tables ---------------------------------------------------------------------------------------

MONEY: Final = ("gross_revenue", "refunds", "net_revenue")
DAILY: Final = ("orders", "cancelled_orders", "customers", "units", *MONEY)
STEPS: Final[tuple[tuple[str, str, tuple[str, ...], str], ...]] = (
    ("silver", "sales_analytics", ("lines", *MONEY), "dlt-trigger"),
    ("silver", "agg_daily_sales", DAILY, "dlt-trigger"),
    ("agg_daily_sales", "agg_sales_kpi", DAILY, "dbt-runner"),
    ("agg_daily_sales", "agg_product_kpi", ("units", *MONEY), "dbt-runner"),
)
"""What each table is compared with, in which measures, and the stage that builds it."""


Measures = dict[str, Decimal]
"""Figures by the names of DAILY, and `lines`; a table has those that it can tell."""

ZERO: Final = Decimal(0)
WITHOUT_ORDER: Final = "lines without their order"
"""What stands for the date of order lines whose order has not arrived."""


@dataclass(frozen=True, slots=True)
class SalesDay:
    """The measures of one sales date by table (`silver`, …); `date` is empty for lines without their order.

    A table without a row for the date is not in `tables`.
    """

    date: str
    tables: Mapping[str, Measures]


def problems_of_sales(day: SalesDay, *, through: str, dates: object) -> list[Problem]:
    """Compare a sales date's measures along STEPS, up to Gold or the KPI tables; a missing row counts as zeros.

    `dates` is what the commands that mend it are to be run for.
    """
    problems = []
    for before, after, names, stage in STEPS:
        if through == "gold" and stage == "dbt-runner":
            continue
        wrong = _differing(names, day.tables.get(before, {}), day.tables.get(after, {}))
        if wrong:
            hop = f"{before} → {after}"
            next_step = f"ecomm {stage} --date {dates}"
            problems.append(_sales_problem(day.date or WITHOUT_ORDER, hop, wrong, next_step))
    return problems


def _differing(names: Iterable[str], expected: Measures, found: Measures) -> Measures:
    pairs = {name: found.get(name, ZERO) - expected.get(name, ZERO) for name in names}
    return {name: difference for name, difference in pairs.items() if difference}


def problems_of_customers(expected: Measures, found: Measures, *, dates: object) -> list[Problem]:
    """Compare the totals over all known customers: `gold.sales_analytics` against `kpi.agg_customer_kpi`."""
    wrong = _differing(MONEY, expected, found)
    if not wrong:
        return []
    step = f"ecomm dbt-runner --date {dates}"
    return [_sales_problem("all dates", "sales_analytics → agg_customer_kpi", wrong, step)]


def _sales_problem(date: str, hop: str, wrong: Measures, next_step: str) -> Problem:
    words = [f"{name} {'+' if value > 0 else '−'}{_measure(name, abs(value))}" for name, value in wrong.items()]
    difference = Amount(int(wrong.get("lines", ZERO)), wrong.get("net_revenue", wrong.get("gross_revenue")))
    return Problem("sales", date, hop, difference, f"sales of {date}, {hop}: {', '.join(words)}", next_step)


def _measure(name: str, value: Decimal) -> str:
    return plain(value) if name in MONEY else f"{value:f}"


# --- what is told --------------------------------------------------------------------------------------------------


def error_of(problems: Sequence[Problem], dates: object) -> EcommError | None:
    """Make the error that a stage ends with, of the first problem; None when there is none.

    `MissingSourceError` where nothing worse than missing extracts was found, else `NotReconciledError`.
    """
    if not problems:
        return None
    first = next((problem for problem in problems if not problem.missing), problems[0])
    more = f" (and {len(problems) - 1} more: see its record in the ledger)" if len(problems) > 1 else ""
    kind: type[EcommError] = MissingSourceError if first.missing else NotReconciledError
    message = f"{first.message}{more}" if first.missing else f"{dates} does not add up: {first.message}{more}"
    return kind(message, next_step=first.next_step)


def sheet(days: Iterable[Day], sales: Iterable[SalesDay] = ()) -> list[dict[str, Any]]:
    """Write the balance sheet: a row for each table, date and hop; money as text.

    Hops of a source table: `source`, `extracted`, `bronze`, `kept`, `superseded`, `quarantined`, `lost`, in this order,
    and the explained differences of the source (`late`, `moved`, `deleted`) and `orphans`, which no sum includes. Of
    the last seven only those that have rows are written. The table `sales` has the sales dates: hops are the names of
    the tables, `rows` are order lines (None where a table has none), `money` is net revenue.
    """
    return [row for day in days for row in _day_rows(day)] + [row for day in sales for row in _sales_rows(day)]


def _row(table: str, date: object, hop: str, amount: Amount, **more: object) -> dict[str, Any]:
    money = {} if amount.money is None else {"money": plain(amount.money)}
    return {"table": table, "date": str(date), "hop": hop, "rows": amount.rows, **money, **more}


def _day_rows(day: Day) -> Iterator[dict[str, Any]]:
    if day.manifest is None:
        yield {"table": day.table, "date": str(day.date), "hop": "extracted", "rows": None, "missing": True}
        return
    if day.source is not None:
        yield _row(day.table, day.date, "source", day.source)
    yield _row(day.table, day.date, "extracted", day.extracted, run_id=day.manifest.run_id)
    changes = day.changes or Changes()
    explained = {"late": changes.late_amount, "moved": changes.moved, "deleted": changes.deleted}
    yield from (_row(day.table, day.date, hop, amount) for hop, amount in explained.items() if amount)
    if not day.in_lakehouse:
        return
    rescued = {"rescued": day.rescued} if day.rescued else {}
    yield _row(day.table, day.date, "bronze", day.bronze, **rescued)
    yield _row(day.table, day.date, "kept", day.kept)
    reasons = {"reasons": {reason: amount.rows for reason, amount in sorted(day.quarantined.items())}}
    rest: dict[str, tuple[Amount, dict[str, Any]]] = {
        "superseded": (day.superseded, {}),
        "quarantined": (day.quarantine, reasons),
        "lost": (day.lost, {}),
        "orphans": (day.orphans, {}),
    }
    yield from (_row(day.table, day.date, hop, amount, **more) for hop, (amount, more) in rest.items() if amount)


def _sales_rows(day: SalesDay) -> Iterator[dict[str, Any]]:
    for table, measures in day.tables.items():
        rows = int(measures["lines"]) if "lines" in measures else None
        money = {"money": plain(measures["net_revenue"])} if "net_revenue" in measures else {}
        date = day.date or WITHOUT_ORDER
        yield {"table": "sales", "date": date, "hop": table, "rows": rows, **money}


def findings(days: Sequence[Day]) -> Iterator[LedgerFinding]:
    """Tell what is explained and still worth a look, a finding a table: quarantined, late, deleted, orphan.

    Rescued values are told by dlt-trigger (`schema_drift`) when they arrive; here they are in the sheet.
    """
    from ecomm_pipeline.ledger import Finding

    for table in dict.fromkeys(day.table for day in days):
        of_table = [day for day in days if day.table == table]
        for priority, kind, count, text in _odd(of_table):
            if count:
                rows = f"{count} row{'' if count == 1 else 's'}"
                dates = _dates([day for day in of_table if _has(day, kind)])
                yield Finding(priority=priority, kind=kind, message=f"{table}, {dates}: {rows} {text}")


def _has(day: Day, kind: str) -> bool:
    return any(count for _, k, count, _ in _odd([day]) if k == kind)


def _odd(days: Sequence[Day]) -> Iterator[tuple[str, str, int, str]]:
    reasons: dict[str, int] = {}
    for day in days:
        for reason, amount in day.quarantined.items():
            reasons[reason] = reasons.get(reason, 0) + amount.rows
    why = "; ".join(f"{reason} ({count})" for reason, count in sorted(reasons.items(), key=lambda item: -item[1]))
    changes = [day.changes or Changes() for day in days]
    late = [row for change in changes for row in change.late if row.covered]
    covered = "; ".join(sorted({row.covered for row in late if row.covered}))
    yield "P2", "rows_quarantined", sum(reasons.values()), f"in silver.quarantine: {why}"
    yield "P3", "committed_late", len(late), f"committed after the extract: {covered}"
    deleted = sum(change.deleted.rows for change in changes)
    yield "P3", "deleted_in_source", deleted, "deleted in Postgres since the extract; the lakehouse keeps them"
    orphans = sum(day.orphans.rows for day in days)
    yield "P3", "orphan_files", orphans, "in Bronze from files of a killed run that no manifest lists; harmless"


def _dates(days: Sequence[Day]) -> str:
    names = [str(day.date) for day in days]
    return names[0] if len(names) == 1 else f"{len(names)} dates from {names[0]} to {names[-1]}"
