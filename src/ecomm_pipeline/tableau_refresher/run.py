"""tableau-refresher: refresh the extracts of the KPI tables, and prove that they are fresh.

Upstream: https://tableau.github.io/server-client-python and
https://help.tableau.com/current/api/rest_api/en-us/REST/rest_api_ref_jobs_tasks_and_schedules.htm
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from ecomm_pipeline.databricks import Warehouse, connect
from ecomm_pipeline.errors import (
    BadDataError,
    CancelledError,
    ConfigurationError,
    CredentialsError,
    EcommError,
    TimedOutError,
    UnavailableError,
    UpstreamFailedError,
)
from ecomm_pipeline.layout import KPI_GATE
from ecomm_pipeline.logs import get_logger
from ecomm_pipeline.progress import Progress
from ecomm_pipeline.tableau_refresher import plan
from ecomm_pipeline.tableau_refresher.site import Tableau

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ecomm_pipeline.settings import Tableau as TableauSettings
    from ecomm_pipeline.settings import TableauRefresherSettings
    from ecomm_pipeline.stage import StageContext

__all__ = ["Refresher", "find_targets", "last_commits", "refresh", "refuse_what_nobody_let_go_on"]

_EXCERPT: Final = 500


def refresh(context: StageContext, settings: TableauRefresherSettings) -> None:
    """Refresh every target once after the last commit of its KPI tables, and prove it.

    Fills the record: `remote.jobs` by target before they are waited for; `figures.targets` with seconds, `refreshed_at`
    and `kpi_committed_at`. All targets are tried before anything is raised: `UpstreamFailedError` when a job failed or
    was cancelled on Tableau, `BadDataError` when an extract stays older than its tables, `MissingSourceError` when the
    site has no such thing, `CredentialsError`, `UnavailableError`, or `TimedOutError` when `settings.tableau.timeout`,
    which all targets share, has run out. Jobs go on when we are stopped: the same run finds them again.
    """
    refuse_what_nobody_let_go_on(context)
    deadline = context.clock.monotonic() + settings.tableau.timeout
    targets = find_targets(settings)
    warehouse = Warehouse(
        connect(settings.databricks), settings.databricks.warehouse_id, settings.databricks.catalog, context.clock
    )
    commits = last_commits(warehouse, settings.databricks.catalog, targets)
    with (
        Tableau(settings.tableau, context.clock, deadline) as tableau,
        Progress(context.stage, context.clock) as progress,
    ):
        Refresher(context, settings.tableau, tableau, progress, deadline).run(targets, commits)


def refuse_what_nobody_let_go_on(context: StageContext) -> None:
    """Raise `BadDataError` when this run was held at the KPI gate until its time ran out: silence is no consent.

    Argo resumes it then, as a person does, and does not tell which it was.
    """
    gate = context.ledger.read(KPI_GATE, context.dates.first, context.run_id)
    until = gate.figures.get("held_until") if gate else None
    if until and context.clock.now() >= datetime.fromisoformat(until):
        message = f"{context.dates} was held back, and nobody let it go on by {until}"
        raise BadDataError(message, next_step=f"ecomm rerun tableau {context.dates} --onwards, if its KPIs are right")


def find_targets(settings: TableauRefresherSettings) -> list[plan.Target]:
    """Give what is to be refreshed, by the settings or the exposures. Raises `ConfigurationError` when nothing is."""
    names = settings.tableau.datasources
    exposed = plan.targets_of_exposures(_documents(settings.dbt.project_dir))
    targets = plan.targets_of_names(names, exposed) if names else exposed
    if not targets:
        message = f"no exposure in {settings.dbt.project_dir}/models names a Tableau data source or workbook"
        raise ConfigurationError(
            message, next_step="give one `meta: {tableau: {datasource: NAME}}`, or set ECOMM_TABLEAU_DATASOURCES"
        )
    return targets


def _documents(project: Path) -> dict[str, Any]:
    """Read the YAML files of a dbt project's models."""
    import yaml

    documents: dict[str, Any] = {}
    for path in sorted([*project.glob("models/**/*.yml"), *project.glob("models/**/*.yaml")]):
        try:
            documents[str(path)] = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            message = f"{path} is not readable YAML: {' '.join(str(error).split())[:_EXCERPT]}"
            raise ConfigurationError(message, next_step="mend the file: dbt would refuse it too") from error
    return documents


def last_commits(warehouse: Warehouse, catalog: str, targets: list[plan.Target]) -> dict[str, datetime]:
    """Give when each KPI table's rows last changed."""
    names = sorted({table for target in targets for table in target.tables})
    histories = {name: warehouse.query(f"DESCRIBE HISTORY `{catalog}`.kpi.`{name}` LIMIT 50") for name in names}
    return {name: plan.last_commit(history.dicts(), f"kpi.{name}") for name, history in histories.items()}


@dataclass(slots=True)
class _Flight:
    """A target on its way: `job_id` is waited for, unless it is empty; `stale` is whether it is not to be trusted.

    `uncertain` is whether a refresh may have been asked for of which we have no job.
    """

    target: plan.Target
    item_id: str
    committed: datetime
    began: float
    job_id: str = ""
    stale: bool = False
    adopted: bool = False
    uncertain: bool = False
    proving_since: float | None = None
    percent: int = 0


class Refresher:
    """Brings targets through their jobs, some at a time, in one thread: the session is one.

    `deadline` (of the context's monotonic clock) is that of all jobs; what is proven fresh after it counts too.
    """

    def __init__(
        self,
        context: StageContext,
        settings: TableauSettings,
        tableau: Tableau,
        progress: Progress,
        deadline: float,
    ) -> None:
        self._context = context
        self._clock = context.clock
        self._settings = settings
        self._tableau = tableau
        self._progress = progress
        self._deadline = deadline
        self._rerun = context.previous is not None and context.previous.dates == context.dates
        remote = context.record.remote
        if not self._rerun:
            remote.clear()
        self._jobs: dict[str, dict[str, str]] = remote.setdefault("jobs", {})
        self._figures: dict[str, dict[str, Any]] = {}
        self._failures: list[EcommError] = []

    def run(self, targets: list[plan.Target], commits: dict[str, datetime]) -> None:
        """Refresh all, at most `settings.parallel` at a time; in the end, raise what went wrong."""
        self._context.record.figures = {"targets": self._figures}
        waiting, flights = list(targets), list[_Flight]()
        while waiting or flights:
            self._context.stop.check()
            while waiting and len(flights) < self._settings.parallel:
                flights += self._depart(waiting.pop(0), commits)
            flights = [flight for flight in flights if not self._attempt(flight, self._advance)]
            self._show(len(targets), flights)
            if flights:
                self._clock.sleep(self._settings.poll_interval)
        if self._failures:
            raise _together(self._failures)

    def _attempt(self, flight: _Flight, step: Callable[[_Flight], bool]) -> bool:
        """Do a step of one target; give whether it is at its end. What is wrong with one does not stop the others."""
        try:
            return step(flight)
        except CancelledError:  # it is we who are to stop
            raise
        except EcommError as error:
            self._failures.append(error)
        return True

    def _depart(self, target: plan.Target, commits: dict[str, datetime]) -> list[_Flight]:
        """Find the target and the job that an earlier try left, if there is one."""
        committed = max(commits[table] for table in target.tables)
        try:
            item_id = self._tableau.find(target)
        except EcommError as error:
            self._failures.append(error)
            return []
        flight = _Flight(target, item_id, committed, self._clock.monotonic(), uncertain=self._rerun)
        return [] if self._attempt(flight, self._re_attach) else [flight]

    def _re_attach(self, flight: _Flight) -> bool:
        left = self._jobs.get(flight.target.key)
        if left is not None and left.get("kpi_committed_at") == _write(flight.committed):
            job = self._tableau.job(left["job_id"])
            if job is not None and (job.active or job.state == "succeeded"):
                self._wait_for(flight, job, adopted=True)
        return False

    def _advance(self, flight: _Flight) -> bool:
        """Take a target one step on; give whether it is at its end."""
        if flight.proving_since is not None:
            return self._prove(flight)
        if self._clock.monotonic() > self._deadline:
            raise self._timed_out(flight)
        return self._look(flight) if flight.job_id else self._request(flight)

    def _request(self, flight: _Flight) -> bool:
        """Ask for a refresh, or take the one that is there. Where no job is to be seen, the next look tries again."""
        if flight.uncertain and self._choose(flight):
            return False
        try:
            job = self._tableau.request(flight.target, flight.item_id)
        except (CredentialsError, UnavailableError) as error:
            # Tableau is known to queue a refresh and to answer 403, or nothing: the jobs tell.
            flight.uncertain = True
            if not self._choose(flight) and isinstance(error, CredentialsError):
                raise
            return False
        if job is not None:
            self._wait_for(flight, job, adopted=False)
        else:
            self._choose(flight)
        return False

    def _choose(self, flight: _Flight) -> bool:
        """Take a job that is there; give whether there was one."""
        jobs = self._tableau.jobs(flight.target, flight.item_id)
        choice = plan.choose(jobs, flight.committed, asked_before=flight.uncertain)
        if isinstance(choice, plan.Adopt):
            self._wait_for(flight, choice.job, adopted=True)
        elif isinstance(choice, plan.AwaitStale):
            get_logger().info("tableau-refresher.stale_job", target=flight.target.key, job_id=choice.job.id)
            flight.job_id, flight.stale = choice.job.id, True
        return not isinstance(choice, plan.Request)

    def _wait_for(self, flight: _Flight, job: plan.Job, *, adopted: bool) -> None:
        """Write down, before waiting, what a new process must find again."""
        flight.job_id, flight.stale, flight.adopted = job.id, False, adopted
        self._jobs[flight.target.key] = {"job_id": job.id, "kpi_committed_at": _write(flight.committed)}
        self._context.checkpoint()
        event = "job_adopted" if adopted else "job_queued"
        get_logger().info(f"tableau-refresher.{event}", target=flight.target.key, job_id=job.id)

    def _look(self, flight: _Flight) -> bool:
        job = self._tableau.job(flight.job_id)
        if job is not None and job.active:
            flight.percent = job.progress
            return False
        if flight.stale or job is None:
            flight.job_id, flight.stale = "", False
            return False
        if job.state != "succeeded":
            self._failures.append(_failed(flight.target, job))
            return True
        flight.proving_since = self._clock.monotonic()
        return self._prove(flight)

    def _prove(self, flight: _Flight) -> bool:
        """Compare the extract's own time with the commit; Tableau may take a while to tell it."""
        refreshed = self._tableau.refreshed_at(flight.target, flight.item_id)
        now = self._clock.monotonic()
        if plan.is_fresh(refreshed, flight.committed):
            self._note(flight, refreshed, now - flight.began)
            return True
        if now - (flight.proving_since or now) < self._settings.proof_timeout:
            return False
        self._note(flight, refreshed, now - flight.began)
        shown = _write(refreshed) if refreshed else "no time at all"
        message = (
            f"the extract of {flight.target} is stale: job {flight.job_id} succeeded, but it shows {shown}, "
            f"and kpi.{'/'.join(flight.target.tables)} was committed at {_write(flight.committed)}"
        )
        raise BadDataError(message, next_step="look at the data source's connection and its refresh history in Tableau")

    def _note(self, flight: _Flight, refreshed: datetime | None, seconds: float) -> None:
        self._figures[flight.target.key] = {
            "kind": flight.target.kind,
            "tables": list(flight.target.tables),
            "job_id": flight.job_id,
            "adopted": flight.adopted,
            "seconds": round(seconds, 3),
            "refreshed_at": _write(refreshed) if refreshed else None,
            "kpi_committed_at": _write(flight.committed),
        }

    def _timed_out(self, flight: _Flight) -> TimedOutError:
        job = f"job {flight.job_id}" if flight.job_id else "no job of its own yet"
        limit = f"ECOMM_TABLEAU_TIMEOUT is {self._settings.timeout} s for all"
        message = f"the refresh of {flight.target} ({job}) is not done; {limit}"
        return TimedOutError(message, next_step="look at Tableau's background jobs; this run, continued, waits on")

    def _show(self, total: int, flights: list[_Flight]) -> None:
        running = "  ".join(f"{flight.target.name} {flight.percent} %" for flight in flights)
        self._progress(done=f"{len(self._figures)}/{total}", failed=len(self._failures), running=running or "-")


def _failed(target: plan.Target, job: plan.Job) -> EcommError:
    notes = plan.explain(job.notes)
    if job.state == "cancelled":
        message = f"the refresh of {target} (job {job.id}) was cancelled on Tableau: {notes}"
        return UpstreamFailedError(message, next_step="see on Tableau who cancelled it and why; then run it again")
    if plan.is_quota(job.notes):
        message = (
            f"Tableau refreshes no more extracts today: the site's quota is used up ({target}, job {job.id}: {notes})"
        )
        return UpstreamFailedError(
            message, next_step="it begins anew at 24:00 UTC; ask the site's administrator for capacity"
        )
    message = f"the refresh of {target} (job {job.id}) failed: {notes}"
    return UpstreamFailedError(message, next_step="mend the cause that Tableau tells, then run it again")


def _together(failures: list[EcommError]) -> EcommError:
    """Make one error of several: of the class of the first that no retry can help, with all messages."""
    worst = next((failure for failure in failures if not failure.failure.retry), failures[0])
    others = [failure.message for failure in failures if failure is not worst]
    if not others:
        return worst
    return type(worst)("; ".join([worst.message, *others]), next_step=worst.next_step)


def _write(instant: datetime) -> str:
    return instant.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
