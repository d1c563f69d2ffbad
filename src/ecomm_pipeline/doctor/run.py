"""`ecomm doctor`: gather the evidence about a date, all at once and without changing anything, and tell the diagnosis.

First the ledger and the services; then, of those that answer, what the reconciler asks, the extracts on Tableau, and
the platform's word on an update that goes on. What is not there in time is not waited for, and said to be missing.
"""

from __future__ import annotations

import json
from collections import defaultdict
from concurrent.futures import Future, wait
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from importlib import import_module
from threading import Thread
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

from ecomm_pipeline.check.run import check
from ecomm_pipeline.databricks import Warehouse, connect
from ecomm_pipeline.dates import DateRange, zone
from ecomm_pipeline.dlt_trigger import plan as updates
from ecomm_pipeline.doctor import plan
from ecomm_pipeline.errors import CancelledError, EcommError, MissingSourceError
from ecomm_pipeline.layout import MANIFEST_NAME, STAGES, Layout
from ecomm_pipeline.ledger import Ledger, Record
from ecomm_pipeline.manifest import Manifest
from ecomm_pipeline.reconciler.sql import SILVER
from ecomm_pipeline.settings import (
    Business,
    Databricks,
    DbtCloud,
    DbtRunner,
    DltTrigger,
    Exporter,
    Extractor,
    Nightly,
    Postgres,
    Reconciler,
    ReconcilerSettings,
    Run,
    Tableau,
    TableauRefresherSettings,
)
from ecomm_pipeline.settings import Store as StoreSettings
from ecomm_pipeline.stage import StageContext, Stop
from ecomm_pipeline.status.plan import newest
from ecomm_pipeline.store import Store
from ecomm_pipeline.usual import HISTORY_DAYS, usual

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from psycopg2.extensions import connection as Connection  # noqa: N812 (it is a class)

    from ecomm_pipeline.clock import Clock
    from ecomm_pipeline.dates import BusinessDate

__all__ = ["DoctorSettings", "examine", "show_diagnosis"]

T = TypeVar("T")

_SERVICE_LIMIT: Final = 8.0
"""Seconds that a service has to answer at all."""
_POD: Final = timedelta(minutes=10)
"""What a pod has beyond its stage's own limits."""
_TABLES: Final = (
    *(f"bronze.{table}" for table in SILVER),
    *(f"silver.{table}" for table in (*SILVER.values(), "quarantine")),
    "gold.sales_analytics",
    "gold.agg_daily_sales",
    "kpi.agg_sales_kpi",
    "kpi.agg_product_kpi",
    "kpi.agg_customer_kpi",
)
"""What the lakehouse should have."""


@dataclass(frozen=True, slots=True)
class DoctorSettings:
    """What the doctor reads of the environment."""

    business: Business
    nightly: Nightly
    run: Run
    postgres: Postgres
    store: StoreSettings
    databricks: Databricks
    tableau: Tableau
    extractor: Extractor
    dlt: DltTrigger
    dbt: DbtRunner
    dbt_cloud: DbtCloud
    reconciler: Reconciler
    exporter: Exporter


def show_diagnosis(
    date: BusinessDate,
    settings: DoctorSettings,
    *,
    load: Callable[[type[Any]], Any],
    environment: Mapping[str, str],
    clock: Clock,
    within: float,
    output: Literal["text", "json"] = "text",
) -> int:
    """Print the diagnosis of a date; gives the exit code. `within` is in seconds: what takes longer is left out."""
    examiner = _Examiner(date, settings, load, environment, clock, clock.monotonic() + within)
    diagnosis = plan.diagnose(examiner.examine())
    if output == "json":
        print(json.dumps(diagnosis.as_dict(), indent=1, ensure_ascii=False))
    else:
        print("\n".join(plan.lines(diagnosis)))
    return diagnosis.exit_code


def examine(
    date: BusinessDate,
    settings: DoctorSettings,
    *,
    load: Callable[[type[Any]], Any],
    environment: Mapping[str, str],
    clock: Clock,
    within: float,
) -> plan.Evidence:
    """Gather the evidence about a date; no failure of a service is raised, each is evidence."""
    return _Examiner(date, settings, load, environment, clock, clock.monotonic() + within).examine()


@dataclass(slots=True)
class _Examiner:
    """One examination. `deadline` is of the clock's monotonic time."""

    date: BusinessDate
    settings: DoctorSettings
    load: Callable[[type[Any]], Any]
    environment: Mapping[str, str]
    clock: Clock
    deadline: float
    stop: Stop = field(default_factory=Stop)
    unseen: list[str] = field(default_factory=list)

    def examine(self) -> plan.Evidence:
        """Ask in two rounds: who is there; then, those who are."""
        import_module("obstore.store")  # here: two threads that import it at once lock each other out
        services, history = _ask(self._services), _ask(self._history)
        evidence = self._begin()
        down = self._get(services, "the services") or {}
        evidence = replace(evidence, down=down)
        if "s3" in down:
            self.unseen.append(f"everything but the services: the ledger is in {self.settings.store.bucket}")
            return replace(evidence, unseen=self.unseen)
        records, rows = self._get(history, "the ledger") or ([], {})
        evidence = replace(evidence, records=records, usual=rows)
        return self._second_round(evidence) if records else replace(evidence, unseen=self.unseen)

    def _second_round(self, evidence: plan.Evidence) -> plan.Evidence:
        down = evidence.down
        files = _ask(self._extracts)
        update = _ask(lambda: self._update(evidence)) if "databricks" not in down else None
        shown = self._tableau(evidence)
        manifests, lost = self._get(files, "the extracts") or ({}, {})
        evidence = replace(evidence, manifests=manifests, lost=lost)
        balance, absent = self._lakehouse(evidence)
        told, refused = (self._get(shown, "Tableau") or ([], None)) if shown else ([], None)
        if refused:
            evidence = replace(evidence, down={**down, "tableau": refused})
        said = self._get(update, "the update of the pipeline") if update else None
        self.stop.reason = "the diagnosis is made"
        return replace(
            evidence, balance=balance, absent=absent, extracts=told, update=said or "", unseen=tuple(self.unseen)
        )

    def _begin(self) -> plan.Evidence:
        """What is known without asking anybody."""
        settings, tz = self.settings, zone(self.settings.business.business_timezone)
        night = self.date.plus(1)
        return plan.Evidence(
            date=self.date,
            now=self.clock.now(),
            tz=tz,
            tables=settings.business.tables,
            starts=night.at(settings.nightly.starts, tz),
            gate=night.at(settings.nightly.gate, tz),
            limits={
                "extractor": _seconds(settings.extractor.statement_timeout),
                "dlt-trigger": _seconds(settings.dlt.queue_timeout + settings.dlt.run_timeout),
                "dbt-runner": _seconds(self._dbt_limit()),
                "tableau-refresher": _seconds(settings.tableau.timeout),
                "reconciler": _seconds(3600),
            },
            expected={stage: _seconds(settings.exporter.expected(stage)) for stage in STAGES},
        )

    def _dbt_limit(self) -> int:
        """How long dbt may take, beside us or in dbt Cloud, in seconds."""
        beside, cloud = self.settings.dbt, self.settings.dbt_cloud
        in_cloud = cloud.job_id is not None
        return cloud.queue_timeout + cloud.run_timeout if in_cloud else beside.warmup_timeout + beside.timeout

    def _get(self, answer: Future[T], what: str) -> T | None:
        """Wait for an answer as long as there is time; what failed, or did not come, is noted as not looked at."""
        wait([answer], max(0.0, self.deadline - self.clock.monotonic()))
        if not answer.done():
            self.unseen.append(f"{what}: no answer in time")
            return None
        try:
            return answer.result()
        except EcommError as error:
            self.unseen.append(f"{what}: {error.message}")
            return None

    # --- the first round ---

    def _services(self) -> dict[str, EcommError]:
        """Ask each service but Tableau, whose session is needed later, once."""
        in_cloud = ("dbt-cloud",) if self.settings.dbt_cloud.job_id else ()
        names = ("s3", "postgres", "databricks", "warehouse", *in_cloud)
        limit = min(_SERVICE_LIMIT, max(1.0, self.deadline - self.clock.monotonic()))
        results = check(names, load=self.load, environment=self.environment, clock=self.clock, limit=limit)
        return {result.name: result.error for result in results if result.error}

    def _store(self) -> tuple[Store, Layout]:
        store = Store(self.settings.store, give_up=timedelta(seconds=_SERVICE_LIMIT))
        return store, Layout(self.settings.store.prefix)

    def _history(self) -> tuple[list[Record], dict[str, float]]:
        """Read the date's newest records, and what the weeks before tell of a table's rows."""
        ledger = Ledger(*self._store())
        before = ledger.of_range(DateRange(self.date.plus(-HISTORY_DAYS), self.date.plus(-1)))
        rows: dict[str, dict[BusinessDate, int]] = defaultdict(dict)
        for record in before:
            if record.outcome == "succeeded" and record.table and record.rows_out is not None:
                rows[record.table][record.dates.first] = record.rows_out
        of_tables = {table: usual(of_date, self.date) for table, of_date in rows.items()}
        known = {table: figure for table, figure in of_tables.items() if figure is not None}
        return newest(ledger.of_date(self.date)), known

    # --- the second round ---

    def _extracts(self) -> tuple[dict[str, Manifest], dict[str, list[str]]]:
        """Read the newest manifest of each table, and see whether its files are there."""
        store, layout = self._store()
        manifests: dict[str, Manifest] = {}
        lost: dict[str, list[str]] = {}
        for table in self.settings.business.tables:
            keys = store.keys(layout.extracts(table, self.date))
            named = [key for key in keys if key.endswith(f"/{MANIFEST_NAME}")]
            content = store.get(named[-1]) if named else None
            if content is None:
                continue
            manifest = Manifest.from_json(content, key=named[-1])
            files = [layout.part(table, self.date, manifest.run_id, file.name) for file in manifest.files]
            manifests[table] = manifest
            lost[table] = [key for key in files if key not in keys]
        return manifests, lost

    def _lakehouse(self, evidence: plan.Evidence) -> tuple[plan.Balance | None, Sequence[str]]:
        """Ask what the reconciler asks; where a table is not there, which ones are not, and as far as they go."""
        hindered = [name for name in ("databricks", "warehouse") if name in evidence.down]
        if hindered or any(evidence.lost.values()):
            what = f"{' and '.join(hindered)} cannot be used" if hindered else "a file of an extract is gone"
            self.unseen.append(f"rows and money hop by hop: {what}")
            return None, ()
        through = _through(evidence)
        absent: list[str] = []
        try:
            return self._balance(evidence, through), absent
        except MissingSourceError as error:
            absent = self._get(_ask(self._absent), "the tables of the lakehouse") or []
            if not absent:
                self.unseen.append(f"rows and money hop by hop: {error.message}")
        except EcommError as error:
            self.unseen.append(f"rows and money hop by hop: {error.message}")
        if absent and through == "kpi" and all(name.startswith("kpi.") for name in absent):
            try:
                return self._balance(evidence, "gold"), absent
            except EcommError as error:
                self.unseen.append(f"rows and money hop by hop: {error.message}")
        return None, absent

    def _balance(self, evidence: plan.Evidence, through: Literal["gold", "kpi"]) -> plan.Balance:
        """Ask everybody that the reconciler asks. Raises what the first of them that fails raises."""
        from ecomm_pipeline.reconciler.collect import collect

        settings = self.settings
        check_source = settings.reconciler.check_source and "postgres" not in evidence.down
        asked = ReconcilerSettings(
            settings.business,
            settings.run,
            settings.postgres,
            settings.store,
            settings.databricks,
            settings.extractor,
            settings.reconciler.model_copy(update={"check_source": check_source}),
        )
        opened: list[Connection] = []
        stop = Stop()  # of its own: where one question fails, `collect` stops the others, and we go on asking
        answer = _ask(lambda: collect(self._context(stop), asked, through, opened, stop))
        wait([answer], max(0.0, self.deadline - self.clock.monotonic()))
        if not answer.done():
            stop.reason = "it takes too long"
            for connection in opened:
                connection.cancel()
            message = "no answer in time; `--within` gives it more seconds"
            raise CancelledError(message)
        figures = answer.result()
        return plan.Balance(figures.days, figures.sales, figures.customers, through)

    def _context(self, stop: Stop) -> StageContext:
        """What the reconciler's questions need to know; nothing of it is ever written."""
        now, dates = self.clock.now(), DateRange(self.date, self.date)
        store, layout = self._store()
        record = Record(stage="doctor", first_date=self.date.day, last_date=self.date.day, run_id="", started_at=now)
        tz = zone(self.settings.business.business_timezone)
        return StageContext(
            "doctor", dates, tz, "", record, None, store, layout, Ledger(store, layout), self.clock, stop
        )

    def _warehouse(self) -> Warehouse:
        databricks = self.settings.databricks
        client = connect(databricks, give_up=int(_SERVICE_LIMIT))
        return Warehouse(client, databricks.warehouse_id, databricks.catalog, self.clock, self.stop)

    def _absent(self) -> list[str]:
        catalog = self.settings.databricks.catalog
        sql = f"SELECT concat(table_schema, '.', table_name) FROM `{catalog}`.information_schema.tables"  # noqa: S608
        there = {row[0] for row in self._warehouse().query(sql).rows}
        return [name for name in _TABLES if name not in there]

    def _update(self, evidence: plan.Evidence) -> str:
        """Ask for the state of the update that dlt-trigger waits for, if it waits."""
        from ecomm_pipeline.dlt_trigger.pipeline import EventLog, Pipeline

        records = evidence.of_stage("dlt-trigger")
        ids = records[-1].remote.get("update_ids") if records and records[-1].outcome == "running" else None
        if not ids:
            return ""
        pipeline = Pipeline(
            connect(self.settings.databricks, give_up=int(_SERVICE_LIMIT)), self.settings.dlt.pipeline_id
        )
        update = pipeline.update(str(ids[-1]))
        if update is None:
            return f"the platform knows no update {ids[-1]}"
        log = EventLog(pipeline)
        log.read((update,))
        why = updates.summarise(log.events, update.id)
        since = datetime.fromtimestamp(update.created / 1000, UTC)
        return f"update {update.id} of {since:%H:%M}Z is {update.state}{f': {why}' if why else ''}"

    def _tableau(self, evidence: plan.Evidence) -> Future[tuple[list[plan.Extract], EcommError | None]] | None:
        """Ask how fresh the extracts are, unless a refresh is going on: signing in would end its session."""
        if any(record.stage == "tableau-refresher" for record in evidence.running):
            self.unseen.append("Tableau: a refresh is going on, and a token has one session")
            return None
        return _ask(lambda: self._extracts_of_tableau(evidence))

    def _extracts_of_tableau(self, evidence: plan.Evidence) -> tuple[list[plan.Extract], EcommError | None]:
        from ecomm_pipeline.tableau_refresher.run import find_targets, last_commits
        from ecomm_pipeline.tableau_refresher.site import Tableau as Site

        settings = self.settings
        targets = find_targets(
            TableauRefresherSettings(
                settings.business, settings.run, settings.store, settings.databricks, settings.dbt, settings.tableau
            )
        )
        lake_answers = not {"databricks", "warehouse"} & evidence.down.keys()
        commits = (
            _ask(lambda: last_commits(self._warehouse(), settings.databricks.catalog, targets))
            if lake_answers
            else None
        )
        try:
            with Site(settings.tableau, self.clock, self.clock.monotonic() + _SERVICE_LIMIT) as site:
                times = {target: site.refreshed_at(target, site.find(target)) for target in targets}
        except EcommError as error:
            return [], error
        if commits is None:
            return [], None
        committed = commits.result()
        return [
            plan.Extract(target.key, refreshed, max(committed[table] for table in target.tables))
            for target, refreshed in times.items()
        ], None


def _through(evidence: plan.Evidence) -> Literal["gold", "kpi"]:
    """Compare the KPI tables too, unless it is not yet time for dbt."""
    begun = bool(evidence.of_stage("dbt-runner"))
    return "kpi" if begun or (evidence.reached is None and evidence.now > evidence.gate) else "gold"


def _seconds(limit: float) -> timedelta:
    return timedelta(seconds=limit) + _POD


def _ask(question: Callable[[], T]) -> Future[T]:
    """Ask in a thread of its own, for which nobody waits at the end."""
    answer: Future[T] = Future()

    def run() -> None:
        try:
            answer.set_result(question())
        except BaseException as error:  # noqa: BLE001 (it is raised to whoever wants the answer)
            answer.set_exception(error)

    Thread(target=run, name="doctor", daemon=True).start()
    return answer
