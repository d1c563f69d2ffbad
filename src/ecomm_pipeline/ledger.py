"""The ledger: one small JSON object a stage run and date, and one a whole run and date, on S3.

It outlives pods and workflows. Status, report, reconciliation and diagnosis read it, and nothing else, for history.
"""

from __future__ import annotations

import platform
from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ecomm_pipeline import __version__
from ecomm_pipeline.dates import BusinessDate, DateRange
from ecomm_pipeline.errors import BadDataError, Priority
from ecomm_pipeline.store import Store  # noqa: TC001

if TYPE_CHECKING:
    from ecomm_pipeline.layout import Layout

__all__ = ["Finding", "FindingKind", "Ledger", "Outcome", "Record", "RunFailure", "RunRecord"]

_Kind = TypeVar("_Kind", bound=BaseModel)
Outcome = Literal["running", "succeeded", "failed", "cancelled"]
FindingKind = Literal[
    "schema_drift",
    "unfinished_date",
    "upload_left_open",
    "rows_dropped",
    "rows_quarantined",
    "committed_late",
    "deleted_in_source",
    "orphan_files",
    "kpi_held",
]
"""What a stage finds odd. A dbt test that only warns is a kind of its own, by its name."""


class Finding(BaseModel):
    """Something odd that did not stop the stage. `kind` is a `FindingKind` or the name of a dbt test.

    It is read as any text, since the ledger holds what other versions wrote.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    priority: Priority
    kind: str
    message: str


class Record(BaseModel):
    """What one stage run did. Times are UTC; `bytes` are of what was written; `figures` are the stage's own.

    `started_at` is when the run first began the stage, `tried_at` when its newest try did.

    `remote` holds the ids of what was started elsewhere (`update_id`, `invocation_id`, `job_ids`), written before
    it is waited for, so that a new process re-attaches instead of starting a second one.

    A run has several records of a stage only where `table` (extractor) or `through` (reconciler) tells them apart.
    """

    model_config = ConfigDict(extra="forbid")

    version: Literal[1] = 1
    stage: str
    table: str | None = None
    through: str | None = None
    first_date: date
    last_date: date
    run_id: str
    trigger: str = "manual"
    started_at: datetime
    tried_at: datetime | None = None
    ended_at: datetime | None = None
    outcome: Outcome = "running"
    failure_class: str | None = None
    error: str | None = None
    next_step: str | None = None
    rows_in: int | None = None
    rows_out: int | None = None
    bytes: int | None = None
    remote: dict[str, Any] = Field(default_factory=dict)
    figures: dict[str, Any] = Field(default_factory=dict)
    findings: list[Finding] = Field(default_factory=list)
    versions: dict[str, str] = Field(
        default_factory=lambda: {"ecomm": __version__, "python": platform.python_version()}
    )

    @property
    def dates(self) -> DateRange:
        """The business dates that the run was for."""
        return DateRange(BusinessDate(self.first_date), BusinessDate(self.last_date))

    @property
    def part(self) -> str | None:
        """What tells a run's records of one stage apart."""
        return self.table or self.through

    @property
    def step(self) -> str:
        """The stage's place in the drawing: its name, but `reconciler-gold` and `reconciler-kpi`."""
        return f"{self.stage}-{self.through}" if self.through else self.stage

    @property
    def seconds(self) -> float | None:
        """How long the newest try took; None while it runs."""
        return (self.ended_at - self.began_at).total_seconds() if self.ended_at else None

    @property
    def began_at(self) -> datetime:
        """When the newest try began."""
        return self.tried_at or self.started_at

    def find(self, priority: Priority, kind: FindingKind, message: str) -> None:
        """Note something odd."""
        self.findings.append(Finding(priority=priority, kind=kind, message=message))


class RunFailure(BaseModel):
    """A node of a workflow that failed, as Argo tells it; `step` is its name in the UI, `template` mostly a stage."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    step: str
    template: str = ""
    message: str = ""
    ended_at: datetime | None = None


class RunRecord(BaseModel):
    """What became of a whole run: written by its exit handler, again when it was retried. Times are UTC.

    `workflow` is its name in Argo (or of the template, for a run on one machine), `status` Argo's word for how it ended
    (Succeeded, Failed, Error), `seconds` what it took (of a run that was retried: the last time). The class, error and
    next step are those of the first stage that failed; `closed` names the stages that were left open by a process
    that was killed.
    """

    model_config = ConfigDict(extra="forbid")

    version: Literal[1] = 1
    workflow: str
    run_id: str
    trigger: str
    first_date: date
    last_date: date
    started_at: datetime
    ended_at: datetime
    seconds: float
    status: str
    outcome: Outcome
    failure_class: str | None = None
    error: str | None = None
    next_step: str | None = None
    failures: list[RunFailure] = Field(default_factory=list)
    closed: list[str] = Field(default_factory=list)

    @property
    def dates(self) -> DateRange:
        """The business dates that the run was for."""
        return DateRange(BusinessDate(self.first_date), BusinessDate(self.last_date))


class Ledger:
    """Reads and writes records. Raises what `Store` raises."""

    def __init__(self, store: Store, layout: Layout) -> None:
        self._store = store
        self._layout = layout

    def write(self, record: Record) -> None:
        """Write a record under each of its dates; whole, so that a reader never sees half of one."""
        content = record.model_dump_json(indent=1).encode()
        self._store.put_all({self._key(record, date_): content for date_ in record.dates})

    def read(self, stage: str, date_: BusinessDate, run_id: str, *, part: str | None = None) -> Record | None:
        """Read one record (`part` is its table or how far it proved); None when that run has not begun the stage."""
        key = self._layout.record(date_, stage, part, run_id)
        content = self._store.get(key)
        return None if content is None else _parse(content, key)

    def dates(self) -> list[BusinessDate]:
        """List the dates that have records, in order."""
        days = (name.removeprefix("date=") for name in self._store.folders(self._layout.ledgers))
        return [BusinessDate(date.fromisoformat(day)) for day in days]

    def of_date(self, date_: BusinessDate) -> list[Record]:
        """Read all records of a date, in the order in which their newest tries began."""
        keys = [key for key in self._store.keys(self._layout.ledger(date_)) if key.endswith(".json")]
        contents = self._store.get_all(keys)
        records = [_parse(content, key) for key, content in zip(keys, contents, strict=True) if content is not None]
        return sorted(records, key=lambda record: record.began_at)

    def of_range(self, dates: DateRange) -> list[Record]:
        """Read all records of a range, each once, oldest first.

        A record of many dates lies under each of them: one copy is read, not all, so that a year's run costs no more
        than a day's.
        """
        copies: dict[str, list[str]] = {}
        with ThreadPoolExecutor(16) as pool:
            folders = [self._layout.ledger(date_) for date_ in dates]
            for folder, keys in zip(folders, pool.map(self._store.keys, folders), strict=True):
                for key in keys:
                    if key.endswith(".json"):
                        copies.setdefault(key.removeprefix(folder), []).append(key)
        first = self._read_all([keys[0] for keys in copies.values()])
        others = [
            key
            for record, keys in zip(first, copies.values(), strict=True)
            for key in keys[1:]
            if record is None or not any(f"/date={date_}/" in key for date_ in record.dates)
        ]
        records = [record for record in [*first, *self._read_all(others)] if record is not None]
        unique = {(r.stage, r.part, r.run_id, r.first_date, r.last_date): r for r in records}
        return sorted(unique.values(), key=lambda record: record.started_at)

    def _read_all(self, keys: list[str]) -> list[Record | None]:
        contents = self._store.get_all(keys)
        return [None if content is None else _parse(content, key) for content, key in zip(contents, keys, strict=True)]

    def write_run(self, run: RunRecord) -> None:
        """Write what became of a run under each of its dates."""
        content = run.model_dump_json(indent=1).encode()
        self._store.put_all({self._layout.run(date_, run.run_id): content for date_ in run.dates})

    def runs(self, date_: BusinessDate) -> list[RunRecord]:
        """Read all runs of a date, in the order in which they began."""
        keys = [key for key in self._store.keys(self._layout.runs(date_)) if key.endswith(".json")]
        contents = zip(keys, self._store.get_all(keys), strict=True)
        runs = [_read(content, key, RunRecord) for key, content in contents if content is not None]
        return sorted(runs, key=lambda run: run.run_id)

    def run(self, date_: BusinessDate, run_id: str) -> RunRecord | None:
        """Read one run; None when its exit handler has not run yet."""
        key = self._layout.run(date_, run_id)
        content = self._store.get(key)
        return None if content is None else _read(content, key, RunRecord)

    def _key(self, record: Record, date_: BusinessDate) -> str:
        return self._layout.record(date_, record.stage, record.part, record.run_id)


def _parse(content: bytes, key: str) -> Record:
    return _read(content, key, Record)


def _read(content: bytes, key: str, kind: type[_Kind]) -> _Kind:
    try:
        return kind.model_validate_json(content)
    except ValidationError as error:
        message = f"{key} is not a ledger record of this version: {error.errors()[0]['msg']}"
        raise BadDataError(message, next_step="delete that object; the other records are not affected") from error
