"""From evidence to a diagnosis: what broke first in the chain, what follows from it, and what mends it. Pure.

The chain is the runbook's, A to F. `findings` goes along it and tells all that is wrong, in the order of the chain;
`diagnose` takes the first that may be a cause by itself for the cause, and what can only be an effect for what follows.

::

    A extraction ─► B Bronze ─► C Silver ─► D Gold ─► E KPI tables ─► F Tableau

A finding of P3 is a note: it needs no repair tonight, and a date that has only notes is all right.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Literal

from ecomm_pipeline.contract import differences
from ecomm_pipeline.errors import FAILURE_CLASSES, EcommError, Priority
from ecomm_pipeline.kpi_gate.plan import TABLE, hold_of
from ecomm_pipeline.layout import KPI_GATE
from ecomm_pipeline.reconciler.plan import problems_of_day
from ecomm_pipeline.reconciler.sales import problems_of_customers, problems_of_sales
from ecomm_pipeline.reconciler.sheet import findings as odd_findings
from ecomm_pipeline.usual import EMPTY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from zoneinfo import ZoneInfo

    from ecomm_pipeline.dates import BusinessDate
    from ecomm_pipeline.ledger import Record
    from ecomm_pipeline.manifest import Manifest
    from ecomm_pipeline.reconciler.plan import Day, Problem
    from ecomm_pipeline.reconciler.sales import Measures, SalesDay

__all__ = [
    "KINDS",
    "SECTIONS",
    "Balance",
    "Diagnosis",
    "Evidence",
    "Extract",
    "Finding",
    "Kind",
    "Section",
    "diagnose",
    "findings",
    "lines",
]

Section = Literal["A", "B", "C", "D", "E", "F"]

SECTIONS: Final[dict[Section, str]] = {
    "A": "extraction",
    "B": "Bronze",
    "C": "Silver",
    "D": "Gold",
    "E": "KPI tables",
    "F": "Tableau",
}
"""The runbook's sections, in the order of the chain."""

STAGES: Final[dict[str, Section]] = {
    "extractor": "A",
    "dlt-trigger": "B",
    "dbt-runner": "E",
    "tableau-refresher": "F",
}
"""The stages that move data, in their order, and where the runbook treats them. The reconciler is asked anew."""

SERVICES: Final[dict[str, Section]] = {
    "s3": "A",
    "postgres": "A",
    "databricks": "B",
    "warehouse": "E",
    "dbt-cloud": "E",
    "tableau": "F",
}
"""What the stages depend on, by the names of `ecomm check`, and the first section that cannot do without it."""

GRACE: Final = timedelta(minutes=15)
"""How long a stage may be late to begin: a node that is made, an image that is pulled."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of finding. `own` is whether it can be a cause by itself; else it may be the effect of one before it.

    `unless_broken`: it can, but where a service or a stage before it broke it is the effect of that.

    `failure_class` decides the exit code, and priority and runbook page where they are not named here; None where the
    evidence brings its own.
    """

    name: str
    failure_class: str | None
    own: bool = True
    unless_broken: bool = False
    priority: Priority | None = None
    runbook: str = ""


KINDS: Final[dict[str, Kind]] = {
    kind.name: kind
    for kind in (
        Kind("unreachable", None),
        Kind("nightly_not_started", "unavailable", runbook="nightly-not-started"),
        Kind("stage_failed", None),
        Kind("stage_lost", "lost"),
        Kind("stage_missing", "lost", own=False),
        Kind("stage_slow", "timed_out", priority="P3", runbook="stage-slow"),
        Kind("extract_missing", "bad_data", unless_broken=True, priority="P1", runbook="extract-missing"),
        Kind("extract_damaged", "bad_data", runbook="not-reconciled"),
        Kind("extract_empty", "bad_data", runbook="extract-empty"),
        Kind("extract_differs", "not_reconciled", unless_broken=True),
        Kind("schema_drift", "bad_data", priority="P3", runbook="schema-drift"),
        Kind("tables_missing", "bad_data", own=False, priority="P1", runbook="gold-missing"),
        Kind("bronze_differs", "not_reconciled", unless_broken=True),
        Kind("silver_differs", "not_reconciled", unless_broken=True, runbook="rows-dropped"),
        Kind("rows_quarantined", "bad_data", runbook="rows-dropped"),
        Kind("gold_missing", "not_reconciled", own=False, priority="P1", runbook="gold-missing"),
        Kind("gold_differs", "not_reconciled", own=False),
        Kind("kpi_missing", "not_reconciled", own=False, runbook="kpi-missing"),
        Kind("kpi_differs", "not_reconciled", own=False),
        Kind("kpi_held", "bad_data", own=False, runbook="kpi-held"),
        Kind("dashboard_stale", "bad_data", own=False, priority="P1", runbook="dashboard-stale"),
        Kind("verdict_stale", "not_reconciled", own=False),
        Kind("remark", "bad_data", priority="P3", runbook="not-reconciled"),
    )
}
"""Every kind of finding."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong. `do_first` is what no command can do, `command` what repairs it then."""

    section: Section
    kind: str
    message: str
    command: str
    failure_class: str
    since: datetime | None = None
    tables: tuple[str, ...] = ()
    do_first: str = ""

    @property
    def priority(self) -> Priority:
        """How bad it is."""
        return KINDS[self.kind].priority or FAILURE_CLASSES[self.failure_class].priority

    @property
    def runbook(self) -> str:
        """The page under docs/runbooks that says what to do."""
        return KINDS[self.kind].runbook or FAILURE_CLASSES[self.failure_class].runbook

    @property
    def own(self) -> bool:
        """Whether it can be a cause by itself."""
        return KINDS[self.kind].own


@dataclass(frozen=True, slots=True)
class Extract:
    """An extract on Tableau: when it was refreshed last, and when the KPI tables that it reads last changed."""

    name: str
    refreshed_at: datetime | None
    committed_at: datetime


@dataclass(frozen=True, slots=True)
class Balance:
    """What the reconciler's questions were answered, just now. `through` is how far they went: gold or kpi."""

    days: Sequence[Day]
    sales: Sequence[SalesDay]
    customers: tuple[Measures, Measures]
    through: Literal["gold", "kpi"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What was found out about a date.

    `starts` and `gate` are when the nightly run and dbt may begin, `limits` how long a stage may run. `down` holds the
    services that cannot be used, `records` the newest record of each stage and table, `usual` the rows that a table
    usually has, `expected` how long a stage should take at most for a date. `lost` names files that a manifest lists
    and the bucket does not have, `absent` tables that the lakehouse lacks. `balance` is None and `extracts` is empty
    where nobody could be asked; `unseen` says why. `update` tells what the platform says of the newest update, while
    dlt-trigger's record says that it runs.
    """

    date: BusinessDate
    now: datetime
    tz: ZoneInfo
    tables: tuple[str, ...]
    starts: datetime
    gate: datetime
    limits: Mapping[str, timedelta] = field(default_factory=dict)
    down: Mapping[str, EcommError] = field(default_factory=dict)
    records: Sequence[Record] = ()
    usual: Mapping[str, float] = field(default_factory=dict)
    expected: Mapping[str, timedelta] = field(default_factory=dict)
    manifests: Mapping[str, Manifest] = field(default_factory=dict)
    lost: Mapping[str, Sequence[str]] = field(default_factory=dict)
    absent: Sequence[str] = ()
    balance: Balance | None = None
    update: str = ""
    extracts: Sequence[Extract] = ()
    unseen: Sequence[str] = ()

    def of_stage(self, stage: str) -> list[Record]:
        """Give the newest records of a stage, one a table."""
        return [record for record in self.records if record.stage == stage]

    @property
    def running(self) -> list[Record]:
        """The stages that run, and are not running for too long."""
        return [r for r in self.records if r.outcome == "running" and not self.is_lost(r)]

    def is_lost(self, record: Record) -> bool:
        """Tell whether a record that says `running` is older than the stage may run: its process is gone, or hangs."""
        return record.outcome == "running" and self.now - record.began_at > self.limits.get(record.stage, timedelta.max)

    @property
    def reached(self) -> Section | None:
        """The section that is being worked on: from there on, nothing is missing yet. None: nothing is worked on."""
        sections: list[Section] = [STAGES[r.stage] for r in self.running if r.stage in STAGES]
        if sections:
            return min(sections)
        waits = self.of_stage("dlt-trigger") and not self.of_stage("dbt-runner") and self.now < self.gate + GRACE
        return "E" if waits else None


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What is wrong with a date. `cause` is None when nothing is."""

    evidence: Evidence
    cause: Finding | None
    follows: Sequence[Finding]
    others: Sequence[Finding]
    notes: Sequence[Finding]

    @property
    def exit_code(self) -> int:
        """0 when all is right, else the code of the cause's class."""
        return FAILURE_CLASSES[self.cause.failure_class].exit_code if self.cause else 0

    @property
    def priority(self) -> Priority | None:
        """The worst of all that is wrong."""
        found = [one.priority for one in (self.cause, *self.follows, *self.others) if one]
        return min(found, default=None)

    def as_dict(self) -> dict[str, Any]:
        """Give it as `--json` writes it."""
        return {
            "date": str(self.evidence.date),
            "ok": self.cause is None,
            "exit_code": self.exit_code,
            "priority": self.priority,
            "cause": _as_dict(self.cause) if self.cause else None,
            "follows": [_as_dict(one) for one in self.follows],
            "others": [_as_dict(one) for one in self.others],
            "notes": [_as_dict(one) for one in self.notes],
            "running": [_running(self.evidence, record) for record in self.evidence.running],
            "unseen": list(self.evidence.unseen),
        }


def _as_dict(finding: Finding) -> dict[str, Any]:
    return {
        "section": finding.section,
        "kind": finding.kind,
        "priority": finding.priority,
        "failure_class": finding.failure_class,
        "runbook": finding.runbook,
        "tables": list(finding.tables),
        "since": finding.since.isoformat() if finding.since else None,
        "message": finding.message,
        "do_first": finding.do_first,
        "command": finding.command,
    }


def diagnose(evidence: Evidence) -> Diagnosis:
    """Tell the cause from its effects.

    The cause is in the section where things begin to be wrong: the first finding there that can be one, or the first
    of all, since nothing before it is wrong. What comes behind it and is no cause of its own follows from it; the rest
    is wrong by itself.
    """
    found = list(findings(evidence))
    notes = [one for one in found if one.priority == "P3"]
    wrong = [one for one in found if one.priority != "P3"]
    begins = [one for one in wrong if one.section == wrong[0].section]
    cause = next((one for one in begins if one.own), begins[0] if begins else None)
    rest = [one for one in wrong if one is not cause]
    follows = [one for one in rest if cause and _follows(one, cause)]
    return Diagnosis(evidence, cause, follows, [one for one in rest if one not in follows], notes)


_BROKEN: Final = frozenset({"unreachable", "stage_failed", "stage_lost", "nightly_not_started"})
"""Kinds after which nothing behind them was done."""


def _follows(finding: Finding, cause: Finding) -> bool:
    """Tell whether a finding is the effect of the cause, or the same thing seen at another place."""
    if not finding.own:
        return True
    if cause.kind == "unreachable" and finding.kind in _BROKEN:
        return finding.failure_class == cause.failure_class
    if finding.kind == "stage_failed" and finding.failure_class == "bad_data":
        return not cause.own and finding.section > cause.section  # it met the broken data, as it should
    return cause.kind in _BROKEN and KINDS[finding.kind].unless_broken and finding.section >= cause.section


# --- what is wrong, along the chain -----------------------------------------------------------------------------------


def findings(evidence: Evidence) -> Iterator[Finding]:
    """Tell everything that is wrong, in the order of the chain; within a section, what hides the others comes first."""
    steps: tuple[Callable[[Evidence], Iterable[Finding]], ...] = (
        _services,
        _stages,
        _extracts,
        _absent_tables,
        _balance,
        _held,
        _dashboards,
        _verdict,
    )
    found = [one for step in steps for one in step(evidence)]
    yield from sorted(found, key=lambda one: one.section)


def _make(evidence: Evidence, section: Section, kind: str, message: str, **more: Any) -> Finding:  # noqa: ANN401
    given = more.pop("failure_class", None) or KINDS[kind].failure_class or "internal"
    command = more.pop("command", None) or repair(section, evidence.date)
    since = more.pop("since", None) or evidence.starts
    return Finding(section, kind, message, command, given, since, **more)


def repair(section: Section, date: object, *, select: str = "") -> str:
    """Give the command that does a section's work again, and that of all behind it, up to the verdict."""
    if section == "A":
        return f"ecomm backfill {date}..{date} --all"
    part = {"E": "dbt", "F": "tableau"}.get(section, "dlt")
    chosen = f" --select {select}" if select else ""
    return f"ecomm rerun {part} {date}{chosen} --onwards"


def _services(evidence: Evidence) -> Iterator[Finding]:
    complete = _is_complete(evidence)
    for name, section in SERVICES.items():
        error = evidence.down.get(name)
        if error is None:
            continue
        command = "ecomm check" if complete else repair(_unfinished(evidence, section), evidence.date)
        yield _make(
            evidence,
            section,
            "unreachable",
            f"{error.message}{'; ' + str(evidence.date) + ' is complete, the next run will fail' if complete else ''}",
            failure_class=error.failure.name,
            since=_first_failure(evidence, section) or evidence.now,
            do_first=error.next_step,
            command=f"ecomm doctor {evidence.date}" if name == "s3" else command,  # without the ledger nobody knows
        )


def _is_complete(evidence: Evidence) -> bool:
    """Tell whether the ledger says that every stage of the date has succeeded."""
    return all(
        records and all(record.outcome == "succeeded" for record in records)
        for records in map(evidence.of_stage, STAGES)
    )


def _unfinished(evidence: Evidence, at_most: Section) -> Section:
    """Give the first section whose stage has not succeeded: what has to be done again begins there."""
    for stage, section in STAGES.items():
        records = evidence.of_stage(stage)
        if not records or any(record.outcome != "succeeded" for record in records):
            return section
    return at_most


def _first_failure(evidence: Evidence, section: Section) -> datetime | None:
    ends = [
        record.ended_at or record.began_at
        for record in evidence.records
        if record.outcome in ("failed", "cancelled") and STAGES.get(record.stage, "F") >= section
    ]
    return min(ends, default=None)


def _stages(evidence: Evidence) -> Iterator[Finding]:
    """What the ledger says of the stages: failed, cancelled, stuck, or not begun though it was time."""
    if not evidence.records:
        if "s3" not in evidence.down and evidence.now > evidence.starts + GRACE:
            text = f"the run of {evidence.date} did not begin: the ledger has no record of it"
            cron = "see whether the CronWorkflow is suspended (argo cron get batch-ecomm-pipeline), and whether the "
            cron += "bucket takes what is written (ecomm check s3 --write)"
            yield _make(evidence, "A", "nightly_not_started", text, do_first=cron)
        return
    for stage, section in STAGES.items():
        records = evidence.of_stage(stage)
        yield from _bad_ends(evidence, records, section)
        for record in records:
            yield from _slow(evidence, record, section)
        if not records and _is_due(evidence, stage):
            yield _make(evidence, section, "stage_missing", f"{stage} has not run", since=_end_before(evidence, stage))
    yield from _bad_ends(evidence, evidence.of_stage(KPI_GATE), "F")


def _bad_ends(evidence: Evidence, records: Sequence[Record], section: Section) -> Iterator[Finding]:
    """The records of a stage that ended badly; tables that did for the same class of reason are told of together."""
    alike: dict[str, list[Record]] = {}
    for record in records:
        if evidence.is_lost(record):
            alike.setdefault("", []).append(record)
        elif record.outcome in ("failed", "cancelled"):
            alike.setdefault(record.failure_class or "internal", []).append(record)
    for failure_class, group in alike.items():
        yield from (_failed(evidence, group, section),) if failure_class else (_lost(evidence, group, section),)


def _of(records: Sequence[Record]) -> str:
    tables = [record.table for record in records if record.table]
    return f"{records[0].stage}{' of ' + ', '.join(tables) if tables else ''}"


def _lost(evidence: Evidence, records: Sequence[Record], section: Section) -> Finding:
    first = min(records, key=lambda record: record.began_at)
    told = f"; {evidence.update}" if first.stage == "dlt-trigger" and evidence.update else ""
    limit = _span(evidence.limits[first.stage])
    text = f"{_of(records)} says that it runs, for longer than it may ({limit}): it was killed, or it hangs{told}"
    tables = tuple(record.table for record in records if record.table)
    return _make(evidence, section, "stage_lost", text, since=first.began_at, tables=tables)


def _failed(evidence: Evidence, records: Sequence[Record], section: Section) -> Finding:
    first = min(records, key=lambda record: record.ended_at or record.began_at)
    return _make(
        evidence,
        section,
        "stage_failed",
        f"{_of(records)} {first.outcome}: {first.error}",
        failure_class=first.failure_class,
        since=first.ended_at,
        tables=tuple(record.table for record in records if record.table),
        do_first=first.next_step or "",
        command=repair(section, evidence.date, select=_failed_models(first)),
    )


def _slow(evidence: Evidence, record: Record, section: Section) -> Iterator[Finding]:
    """A stage that runs, and for longer than it should."""
    runs = evidence.now - record.began_at
    expected = evidence.expected.get(record.stage, timedelta.max)
    if record not in evidence.running or runs / len(record.dates) <= expected:
        return
    text = f"{record.stage} runs for {_span(runs)}; expected are {_span(expected * len(record.dates))} at most"
    told = f"; {evidence.update}" if record.stage == "dlt-trigger" and evidence.update else ""
    tables = (record.table,) if record.table else ()
    command = f"ecomm status {evidence.date}"
    yield _make(evidence, section, "stage_slow", f"{text}{told}", since=record.began_at, tables=tables, command=command)


def _failed_models(record: Record) -> str:
    """Give dbt's selection of the models that failed and what is built from them; empty where that is not all."""
    nodes: dict[str, dict[str, Any]] = record.figures.get("nodes") or {}
    failed = {name: node for name, node in nodes.items() if node.get("status") in ("error", "fail")}
    if record.stage != "dbt-runner" or not failed or any(node.get("kind") != "model" for node in failed.values()):
        return ""
    return f"{next(iter(failed))}+" if len(failed) == 1 else ""


def _is_due(evidence: Evidence, stage: str) -> bool:
    """Tell whether a stage without a record should have one: those before it have long succeeded, or nothing runs."""
    if evidence.running or (STAGES[stage] == "F" and hold_of(evidence.records)):
        return False
    begins = max(_end_before(evidence, stage), evidence.gate if STAGES[stage] >= "E" else evidence.starts)
    return evidence.now > begins + GRACE


def _end_before(evidence: Evidence, stage: str) -> datetime:
    """Give when the last of the stages before it ended."""
    before = list(STAGES)[: list(STAGES).index(stage)]
    ends = [record.ended_at for name in before for record in evidence.of_stage(name) if record.ended_at]
    return max(ends, default=evidence.starts)


# A


def _extracts(evidence: Evidence) -> Iterator[Finding]:
    """Each table's extract: there, whole, and about as large as usual."""
    if evidence.reached == "A" or "s3" in evidence.down or not evidence.records:
        return
    for table in evidence.tables:
        manifest = evidence.manifests.get(table)
        if manifest is None:
            if all(record.outcome == "succeeded" for record in evidence.of_stage("extractor") if record.table == table):
                text = f"{table} has no extract of {evidence.date}: no manifest of any run"
                yield _make(evidence, "A", "extract_missing", text, tables=(table,))
            continue
        for key in evidence.lost.get(table, ()):
            text = f"{key} is gone from the bucket, and the manifest of {table} lists it"
            yield _make(evidence, "A", "extract_damaged", text, tables=(table,), since=manifest.snapshot_at)
        yield from _size(evidence, table, manifest)
        for text in differences(table, {column.name: column.type for column in manifest.columns}):
            meant = (
                f"see what changed: ecomm diff {evidence.date.plus(-1)} {evidence.date}; take it back in the source, "
            )
            more = {"since": manifest.snapshot_at, "do_first": f"{meant}or into the contract if it is meant"}
            yield _make(evidence, "A", "schema_drift", text, tables=(table,), **more)


def _size(evidence: Evidence, table: str, manifest: Manifest) -> Iterator[Finding]:
    """An extract that has far fewer rows than the same weekdays: what the alert on it says too."""
    usual = evidence.usual.get(table)
    if usual is None or manifest.rows >= EMPTY * usual:
        return
    rows = f"{manifest.rows} row{'' if manifest.rows == 1 else 's'}"
    yield _make(
        evidence,
        "A",
        "extract_empty",
        f"{table} has {rows}, usual are {usual:,.0f}: so many have an updated_at in its window {_window(manifest)}",
        tables=(table,),
        since=manifest.snapshot_at,
        do_first=f"see whether the shop writes to {table}, and its updated_at",
    )


def _window(manifest: Manifest) -> str:
    return f"{manifest.window.since:%Y-%m-%d %H:%M}Z to {manifest.window.until:%Y-%m-%d %H:%M}Z"


# B to E


def _absent_tables(evidence: Evidence) -> Iterator[Finding]:
    for section, schemas in (("B", ("bronze",)), ("C", ("silver",)), ("D", ("gold",)), ("E", ("kpi",))):
        names = [name for name in evidence.absent if name.partition(".")[0] in schemas]
        if names and not _not_yet(evidence, section):  # type: ignore[arg-type]  # a Section
            text = f"the lakehouse has no {', '.join(names)}"
            yield _make(evidence, section, "tables_missing", text, tables=tuple(names))  # type: ignore[arg-type]


def _not_yet(evidence: Evidence, section: Section) -> bool:
    return evidence.reached is not None and section >= evidence.reached


def _balance(evidence: Evidence) -> Iterator[Finding]:
    """What the reconciler's arithmetic says of the answers that were got just now, and what it would remark."""
    balance = evidence.balance
    if balance is None:
        return
    problems = [problem for day in balance.days for problem in problems_of_day(day)]
    for sales in balance.sales:
        problems += problems_of_sales(sales, through=balance.through, dates=evidence.date)
    if balance.through == "kpi":
        problems += problems_of_customers(*balance.customers, dates=evidence.date)
    for problem in problems:
        section = _section_of(problem.hop)
        if not problem.missing and not _not_yet(evidence, section):  # a missing extract is told already
            yield _of_problem(evidence, problem, section)
    for remark in odd_findings(balance.days):
        yield from _of_remark(evidence, remark.kind, remark.message)


def _section_of(hop: str) -> Section:
    """Tell where the runbook treats a difference: at the section that makes the second of the two."""
    made = hop.rpartition(" → ")[2]
    sections: dict[str, Section] = {"extracted": "A", "bronze": "B", "silver": "C", "sales_analytics": "D"}
    return sections.get(made, "D" if made == "agg_daily_sales" else "E")


def _of_problem(evidence: Evidence, problem: Problem, section: Section) -> Finding:
    missing = _without_row(evidence, problem)
    kinds = {
        "A": "extract_differs",
        "B": "bronze_differs",
        "C": "silver_differs",
        "D": "gold_missing" if missing else "gold_differs",
    }
    kind = kinds.get(section, "kpi_missing" if missing else "kpi_differs")
    if section == "A" and problem.hop == "extracted":
        kind = "extract_damaged"
    table = problem.table if problem.table != "sales" else problem.hop.rpartition(" → ")[2]
    manifest = evidence.manifests.get(table)
    return _make(
        evidence,
        section,
        kind,
        problem.message,
        tables=(table,),
        since=manifest.snapshot_at if manifest and section in ("A", "B") else _end_of(evidence, section),
    )


def _without_row(evidence: Evidence, problem: Problem) -> bool:
    """Tell whether the later table has no row at all for the sales date that differs."""
    before, _, table = problem.hop.partition(" → ")
    days = evidence.balance.sales if evidence.balance else ()
    return any(day.date == problem.date and before in day.tables and table not in day.tables for day in days)


def _end_of(evidence: Evidence, section: Section) -> datetime | None:
    """Give when the stage that makes a section's tables ended last."""
    stage = next(name for name, first in reversed(STAGES.items()) if first <= section)
    return max((r.ended_at for r in evidence.of_stage(stage) if r.ended_at), default=None)


def _of_remark(evidence: Evidence, kind: str, message: str) -> Iterator[Finding]:
    """What the reconciler finds odd and explained: quarantine needs a person, the rest is to be known."""
    table = message.partition(",")[0]
    if kind != "rows_quarantined":
        yield _make(evidence, "C", "remark", message, tables=(table,), command=f"ecomm report {evidence.date}")
        return
    where = f"_date = DATE'{evidence.date}' AND table_name = '{table}'"
    yield _make(
        evidence,
        "C",
        "rows_quarantined",
        message,
        tables=(table,),
        since=_end_of(evidence, "C"),
        do_first=f'see the rows: ecomm query "SELECT reason, row FROM silver.quarantine WHERE {where}"; mend them in '  # noqa: S608 (text for a person)
        "Postgres, or the contract where it is wrong",
        command=repair("A", evidence.date),
    )


def _held(evidence: Evidence) -> Iterator[Finding]:
    """What the KPI gate holds back, until a person lets it go on; dashboards are old then because they should be."""
    record = hold_of(evidence.records)
    if record is None:
        return
    moved = [str(row["kpi"]) for row in record.figures["kpis"] if row["held"]]
    yield _make(
        evidence,
        "E",
        "kpi_held",
        "; ".join(finding.message for finding in record.findings),
        tables=(TABLE,),
        since=record.ended_at,
        do_first=f"see whether it is right: ecomm explain {evidence.date} {moved[0]}; if it is not, mend it instead, "
        "and do the date again",
        command=record.next_step,
    )


# F, and the verdict


def _dashboards(evidence: Evidence) -> Iterator[Finding]:
    if evidence.reached is not None or hold_of(evidence.records):
        return
    stale = [e for e in evidence.extracts if e.refreshed_at is None or e.refreshed_at < _second(e.committed_at)]
    for extract in stale:
        shown = _local(evidence, extract.refreshed_at) if extract.refreshed_at else "never"
        text = (
            f"Tableau's {extract.name} is stale: refreshed {shown}, and its KPI tables changed "
            f"{_local(evidence, extract.committed_at)}"
        )
        yield _make(evidence, "F", "dashboard_stale", text, since=extract.committed_at, tables=(extract.name,))


def _second(instant: datetime) -> datetime:
    """Tableau tells its times in whole seconds."""
    return instant.replace(microsecond=0)


def _verdict(evidence: Evidence) -> Iterator[Finding]:
    """The reconciler's last verdict, where what was found now does not tell the same."""
    records = evidence.of_stage("reconciler")
    if not records or records[-1].outcome not in ("failed", "cancelled") or evidence.running:
        return
    record = records[-1]
    command = f"ecomm rerun reconcile {evidence.date}"
    more = {"since": record.ended_at, "command": command, "failure_class": record.failure_class}
    if evidence.balance is None:
        yield _make(evidence, "F", "verdict_stale", f"the last proof ended so: {record.error}", **more)
        return
    if not any(True for one in _balance(evidence) if one.priority != "P3"):
        text = f"rows and money add up now, and the last verdict of the ledger still says: {record.error}"
        yield _make(evidence, "F", "verdict_stale", text, **more)


# --- what a person reads ----------------------------------------------------------------------------------------------


def lines(diagnosis: Diagnosis) -> Iterator[str]:
    """Write it for whoever was woken: one line when all is right; else the cause, its command, and what follows."""
    evidence, cause = diagnosis.evidence, diagnosis.cause
    if cause is None:
        yield _all_right(evidence)
    else:
        yield f"{evidence.date}  {diagnosis.priority}  {_names(cause)}: {cause.kind.replace('_', ' ')}"
        yield f"  what     {cause.message}"
        if cause.since:
            yield f"  since    {_local(evidence, cause.since)} ({_span(evidence.now - cause.since)} ago)"
        for number, one in enumerate(diagnosis.follows):
            yield f"  {'follows ' if not number else '        '} {_names(one)}: {one.message}"
        if cause.do_first:
            yield f"  first    {cause.do_first}"
        yield f"  repair   {cause.command}"
    for other in diagnosis.others:
        yield f"also  {other.priority}  {_names(other)}: {other.message}"
        yield f"  repair   {'; then '.join(filter(None, (other.do_first, other.command)))}"
    for note in diagnosis.notes:
        yield f"note  P3  {_names(note)}: {note.message}"
    for record in evidence.running if cause else ():
        yield f"runs  {_running(evidence, record)}"
    for text in evidence.unseen:
        yield f"not looked at: {text}"


def _all_right(evidence: Evidence) -> str:
    if not evidence.records:
        return f"{evidence.date} is not due before {_local(evidence, evidence.starts)}; nothing is wrong"
    if evidence.running:
        going_on = ", ".join(_running(evidence, record) for record in evidence.running)
        return f"{evidence.date} is going on, and all is right so far: {going_on}"
    if evidence.reached == "E":
        until = _local(evidence, evidence.gate)
        return f"{evidence.date} is all right so far: Gold is there, and dbt waits for {until}"
    behind = [stage for stage in STAGES if not evidence.of_stage(stage)]
    if behind:
        return f"{evidence.date} is all right so far, and {behind[0]} has not begun yet"
    rows = sum(manifest.rows for manifest in evidence.manifests.values())
    parts = [f"{rows:,} rows of {len(evidence.manifests)} tables".replace(",", " ")]
    if evidence.balance:
        parts.append("every hop adds up to the cent")
    refreshed = [extract.refreshed_at for extract in evidence.extracts if extract.refreshed_at]
    if refreshed:
        parts.append(f"Tableau refreshed {_local(evidence, min(refreshed))}")
    return f"{evidence.date} is all right: {', '.join(parts)}"


def _names(finding: Finding) -> str:
    tables = f" ({', '.join(finding.tables)})" if finding.tables else ""
    return f"{finding.section} {SECTIONS[finding.section]}{tables}"


def _running(evidence: Evidence, record: Record) -> str:
    told = f" ({evidence.update})" if record.stage == "dlt-trigger" and evidence.update else ""
    return f"{record.stage}{f' {record.table}' if record.table else ''} since {_local(evidence, record.began_at)}{told}"


def _local(evidence: Evidence, instant: datetime) -> str:
    return f"{instant.astimezone(evidence.tz):%Y-%m-%d %H:%M %Z}"


def _span(span: timedelta) -> str:
    """Write a length of time as people say it: `3 min`, `5 h 20 min`, `2 d 3 h`."""
    minutes = max(0, int(span.total_seconds() // 60))
    hours, days = minutes // 60, minutes // (24 * 60)
    if days:
        return f"{days} d {hours % 24} h"
    return f"{hours} h {minutes % 60} min" if hours else f"{minutes} min"
