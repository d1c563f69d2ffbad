"""What adds up and what does not, from Postgres to Silver: pure arithmetic over the figures that `run.py` collects.

A `Day` holds the figures of one table and business date at every hop; `problems_of_day` compares neighbours. Whatever
differs without an explanation becomes a `Problem` that names the place, the size and the command that mends it. What
follows, from Silver to the KPI tables, is in `sales.py`; `sheet.py` writes all of it down.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Final

from ecomm_pipeline.errors import EcommError, MissingSourceError, NotReconciledError
from ecomm_pipeline.reconciler.amounts import Amount, plain
from ecomm_pipeline.reconciler.keys import Changes, Key, LateRow

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from ecomm_pipeline.dates import BusinessDate
    from ecomm_pipeline.manifest import Manifest

__all__ = ["Day", "Problem", "error_of", "newest", "problems_of_day"]

SHOWN: Final = 3
"""Keys that a message names; more are counted."""


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
