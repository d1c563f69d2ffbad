"""One site of Tableau, in the words of `plan`; its refusals in ours.

Upstream: https://tableau.github.io/server-client-python and
https://help.tableau.com/current/api/rest_api/en-us/REST/rest_api_ref_jobs_tasks_and_schedules.htm
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from ecomm_pipeline.errors import (
    BadDataError,
    ConfigurationError,
    CredentialsError,
    EcommError,
    MissingSourceError,
    UnavailableError,
    translated,
)
from ecomm_pipeline.logs import get_logger
from ecomm_pipeline.patience import PATIENCE, patiently
from ecomm_pipeline.tableau_refresher import plan

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from ecomm_pipeline.clock import Clock
    from ecomm_pipeline.settings import Tableau as TableauSettings

__all__ = ["Tableau"]

T = TypeVar("T")

_QUEUED_ALREADY: Final = "409093"
_HISTORY: Final = timedelta(days=1)
"""How far back a job that is still active may have been queued."""
_EXCERPT: Final = 500


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
