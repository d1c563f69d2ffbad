"""tableau-refresher: refresh the extracts of the KPI tables, and prove that they are fresh.

Upstream: https://tableau.github.io/server-client-python and
https://help.tableau.com/current/api/rest_api/en-us/REST/rest_api_ref_jobs_tasks_and_schedules.htm
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from ecomm_pipeline.databricks import Warehouse, connect
from ecomm_pipeline.errors import (
    BadDataError,
    CancelledError,
    ConfigurationError,
    CredentialsError,
    EcommError,
    MissingSourceError,
    TimedOutError,
    UnavailableError,
    UpstreamFailedError,
    translated,
)
from ecomm_pipeline.logs import get_logger
from ecomm_pipeline.patience import PATIENCE, patiently
from ecomm_pipeline.progress import Progress
from ecomm_pipeline.tableau_refresher import plan

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from pathlib import Path

    from ecomm_pipeline.clock import Clock
    from ecomm_pipeline.settings import Tableau as TableauSettings
    from ecomm_pipeline.settings import TableauRefresherSettings
    from ecomm_pipeline.stage import StageContext

__all__ = ["Refresher", "Tableau", "find_targets", "last_commits", "refresh"]

T = TypeVar("T")

_QUEUED_ALREADY: Final = "409093"
_HISTORY: Final = timedelta(days=1)
"""How far back a job that is still active may have been queued."""
_EXCERPT: Final = 500


def refresh(context: StageContext, settings: TableauRefresherSettings) -> None:
    """Refresh every target once after the last commit of its KPI tables, and prove it.

    Fills the record: `remote.jobs` by target before they are waited for; `figures.targets` with seconds, `refreshed_at`
    and `kpi_committed_at`. All targets are tried before anything is raised: `UpstreamFailedError` when a job failed or
    was cancelled on Tableau, `BadDataError` when an extract stays older than its tables, `MissingSourceError` when the
    site has no such thing, `CredentialsError`, `UnavailableError`, or `TimedOutError` when `settings.tableau.timeout`,
    which all targets share, has run out. Jobs go on when we are stopped: the same run finds them again.
    """
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


class Tableau:
    """One session on one site, in the words of `plan`; a context manager that always signs out.

    A personal access token has one session: a second sign-in ends the first. So it is signed in to once, and once more
    when the session is gone (it expired, or somebody used the token).

    While it gives no answer it is asked again, until `deadline` (of the clock's monotonic time) at most.
    """

    def __init__(self, settings: TableauSettings, clock: Clock, deadline: float) -> None:
        import tableauserverclient as client

        logging.getLogger("TSC").addHandler(logging.NullHandler())  # or its warnings go to standard error, between ours
        self._settings = settings
        self._clock = clock
        self._deadline = deadline
        self._client = client
        with _tableau_errors("the server's address"):
            self._server = client.Server(settings.server, http_options={"timeout": 60})
        self.version = ""
        """The server's release, such as 2025.3; known once signed in."""
        self._renewed = False
        self._metadata = True

    def __enter__(self) -> Self:
        """Sign in."""
        try:
            self._patiently(self._sign_in)
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Sign out; a session that is gone already is no error."""
        try:
            self._server.auth.sign_out()
        except Exception as error:  # noqa: BLE001 (the work is done; a session left open expires by itself)
            get_logger().warning("tableau.not_signed_out", reason=" ".join(str(error).split())[:_EXCERPT])
        finally:
            self._close()

    def _close(self) -> None:
        if hasattr(self._server, "close"):  # since 0.41 of the client
            self._server.close()

    def _sign_in(self) -> None:
        token = self._client.PersonalAccessTokenAuth(
            self._settings.token_name, self._settings.token_value.get_secret_value(), self._settings.site
        )
        with _tableau_errors(f"sign in to {self._settings.server}"):
            # The client's own way to the server's version falls back to an old one, in silence, when it gets no answer.
            info = self._server.server_info.get()
            self._server.version, self.version = info.rest_api_version, str(info.product_version)
            self._server.auth.sign_in(token)

    def find(self, target: plan.Target) -> str:
        """Give the id of a data source or workbook.

        Raises `MissingSourceError` when there is none, `ConfigurationError` when there are more.
        """
        items = [item for item in self._ask(str(target), lambda: self._named(target)) if item.name == target.name]
        if target.project is not None:
            items = [item for item in items if item.project_name == target.project]
        if not items:
            message = f"Tableau has no {target}" + (f" in the project {target.project!r}" if target.project else "")
            raise MissingSourceError(message, next_step="publish it, or mend the name in the exposure or the settings")
        if len(items) > 1:
            places = ", ".join(sorted(str(item.project_name) for item in items))
            message = f"Tableau has more than one {target}, in the projects {places}"
            raise ConfigurationError(message, next_step="name its project in the exposure: meta.tableau.project")
        return str(items[0].id)

    def _named(self, target: plan.Target) -> list[Any]:
        endpoint = self._endpoint(target)
        # Names with a character of the filter's own grammar cannot be asked for.
        plain = not set(target.name) & set(",:&[]*")
        return list(iter(endpoint.filter(name=target.name) if plain else endpoint.all()))

    def _endpoint(self, target: plan.Target) -> Any:  # noqa: ANN401 (the client has no types)
        return self._server.datasources if target.kind == "datasource" else self._server.workbooks

    def request(self, target: plan.Target, item_id: str) -> plan.Job | None:
        """Ask for a refresh, once; None when Tableau says that one is queued already.

        Never repeated by itself: an answer that is lost may have queued a job.
        """

        def once() -> Any:  # noqa: ANN401 (the client has no types)
            with _tableau_errors(f"refresh {target}"):
                try:
                    return self._endpoint(target).refresh(item_id)
                except self._client.ServerResponseError as error:
                    if error.code == _QUEUED_ALREADY:
                        return None
                    raise

        job = self._in_session(once)
        return _job(job) if job is not None else None

    def job(self, job_id: str) -> plan.Job | None:
        """Give a job; None when Tableau does not know it (any more)."""
        try:
            return _job(self._ask(f"job {job_id}", lambda: self._server.jobs.get_by_id(job_id)))
        except (MissingSourceError, BadDataError):
            return None

    def jobs(self, target: plan.Target, item_id: str) -> list[plan.Job]:
        """Give the refresh jobs of a target that are active or of the last day."""
        since = self._clock.now() - _HISTORY
        query = self._server.jobs.filter(created_at__gte=since.replace(microsecond=0))
        rows = self._ask("jobs", lambda: list(iter(query)))  # a list of the query itself would ask for its length first
        refreshes = [row for row in rows if "extract" in str(row.type).lower()]
        return [job for row in refreshes if (job := self._of_target(row, target, item_id)) is not None]

    def _of_target(self, row: Any, target: plan.Target, item_id: str) -> plan.Job | None:  # noqa: ANN401
        """Tell a job of the list, if it is of this target: by its id, or by its title where Tableau hides the rest."""
        if row.title and target.name not in row.title:
            return None
        try:
            job = self._ask(f"job {row.id}", lambda: self._server.jobs.get_by_id(row.id))
        except (MissingSourceError, BadDataError):
            return _listed_job(row) if row.title == target.name else None
        of = job.datasource_id if target.kind == "datasource" else job.workbook_id
        return _job(job) if of == item_id or (of is None and row.title == target.name) else None

    def refreshed_at(self, target: plan.Target, item_id: str) -> datetime | None:
        """Give when the extract of a target was last refreshed.

        By the Metadata API, which tells it exactly; where that is switched off, by the time at which Tableau last
        changed the data source or workbook, which a refresh sets too.
        """
        told = self._by_metadata(target, item_id)
        if told is not None:
            return told
        item = self._ask(str(target), lambda: self._endpoint(target).get_by_id(item_id))
        changed: datetime | None = item.updated_at
        return changed.astimezone(UTC) if changed else None

    def _by_metadata(self, target: plan.Target, item_id: str) -> datetime | None:
        of = "publishedDatasources" if target.kind == "datasource" else "workbooks"
        times = "hasExtracts extractLastUpdateTime"
        inner = times if target.kind == "datasource" else f"embeddedDatasources {{ {times} }}"
        query = f"query extract($luid: String!) {{ {of}(filter: {{luid: $luid}}) {{ {inner} }} }}"
        if not self._metadata:
            return None
        try:
            with _tableau_errors("the Metadata API"):
                answer = self._server.metadata.query(query, {"luid": item_id})
        except EcommError as error:
            get_logger().info("tableau.no_metadata", reason=error.message)
            self._metadata = False
            return None
        found = ((answer or {}).get("data") or {}).get(of) or []
        extracts = (
            found if target.kind == "datasource" else [e for w in found for e in w.get("embeddedDatasources") or []]
        )
        stamps = [
            extract.get("extractLastUpdateTime") for extract in extracts if extract.get("hasExtracts") is not False
        ]
        return min((datetime.fromisoformat(stamp) for stamp in stamps), default=None) if all(stamps) else None

    def _ask(self, what: str, call: Callable[[], T]) -> T:
        """Ask something that may be asked twice: patiently, and again when the session is gone."""

        def once() -> T:
            with _tableau_errors(what):
                return call()

        return self._in_session(lambda: self._patiently(once))

    def _in_session(self, call: Callable[[], T]) -> T:
        """Call, and once more after a new sign-in when the session is gone: then nothing was done."""
        from tableauserverclient.server.endpoint.exceptions import NotSignedInError

        try:
            return call()
        except CredentialsError as error:
            if self._renewed or not isinstance(error.__cause__, NotSignedInError):
                raise
        self._renewed = True
        get_logger().warning("tableau.session_gone")
        self._sign_in()
        return call()

    def _patiently(self, call: Callable[[], T]) -> T:
        left = self._deadline - self._clock.monotonic()
        return patiently(self._clock, "tableau", call, patience=min(PATIENCE, left))


def _job(item: Any) -> plan.Job:  # noqa: ANN401 (a JobItem)
    notes = " ".join([*(item.notes or []), *(str(note.get("text") or "") for note in item.status_notes or [])])
    return plan.Job(str(item.id), _created(item), _job_state(item), notes, int(item.progress or 0))


def _created(item: Any) -> datetime:  # noqa: ANN401 (a JobItem or a BackgroundJobItem)
    """Tell when Tableau was asked for a job; one that does not tell is taken to be too old to count."""
    return item.created_at.astimezone(UTC) if item.created_at else datetime.min.replace(tzinfo=UTC)


def _job_state(item: Any) -> plan.JobState:  # noqa: ANN401 (a JobItem)
    """Tell the state by the finish code: 0 and 3 (by the type of job) are success, 1 failure, 2 cancelled."""
    if item.completed_at is None and item.finish_code < 0:
        return "running" if item.started_at else "pending"
    codes: dict[int, plan.JobState] = {0: "succeeded", 3: "succeeded", 2: "cancelled"}
    return codes.get(item.finish_code, "failed")


def _listed_job(row: Any) -> plan.Job:  # noqa: ANN401 (a BackgroundJobItem)
    states: dict[str, plan.JobState] = {
        "Success": "succeeded",
        "Failed": "failed",
        "Cancelled": "cancelled",
        "InProgress": "running",
    }
    return plan.Job(str(row.id), _created(row), states.get(row.status, "pending"))


def _tableau_errors(what: str) -> AbstractContextManager[None]:
    """Turn the client's errors into ours; `what` names the thing that was asked for or done."""
    return translated(lambda error: _translate(error, what))


def _translate(error: Exception, what: str) -> EcommError | None:
    import tableauserverclient as client
    from requests import RequestException
    from tableauserverclient.server.endpoint import exceptions
    from tableauserverclient.server.exceptions import EndpointUnavailableError

    message = f"Tableau, {what}: {' '.join(str(error).split())[:_EXCERPT]}"
    transient = (exceptions.InternalServerError, exceptions.NonXMLResponseError, RequestException, OSError)
    kind: type[EcommError] | None = None
    if isinstance(error, exceptions.NotSignedInError):
        kind = CredentialsError
    elif isinstance(error, client.ServerResponseError):
        kind = _REFUSALS.get(error.code[:3], BadDataError)
    elif isinstance(error, transient):
        kind = UnavailableError
    elif isinstance(error, ValueError):
        kind = ConfigurationError
    elif isinstance(error, exceptions.TableauError | EndpointUnavailableError):
        kind = BadDataError
    return kind(message, next_step=_NEXT_STEPS[kind]) if kind else None


_REFUSALS: Final[dict[str, type[EcommError]]] = {
    "401": CredentialsError,
    "403": CredentialsError,
    "404": MissingSourceError,
    "429": UnavailableError,
    "503": UnavailableError,
}
"""What the first three digits of Tableau's error codes, which are those of HTTP, mean to us."""

_NEXT_STEPS: Final[dict[type[EcommError], str]] = {
    CredentialsError: "check the personal access token (revoked, expired, in use elsewhere?) and what its user may do",
    MissingSourceError: "check the name, the site and the permissions",
    UnavailableError: "check the server and the network; it may be run again",
    ConfigurationError: "check ECOMM_TABLEAU_SERVER",
    BadDataError: "see the message; the request was refused as it is",
}


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
