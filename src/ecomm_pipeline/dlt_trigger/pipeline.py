"""One pipeline of Databricks and its event log, in the words of `plan`.

Upstream: https://databricks-sdk-py.readthedocs.io/en/latest/workspace/pipelines/pipelines.html
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from ecomm_pipeline.databricks import databricks_errors
from ecomm_pipeline.dlt_trigger import plan
from ecomm_pipeline.errors import MissingSourceError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from databricks.sdk import WorkspaceClient
    from databricks.sdk.service.pipelines import UpdateInfo

__all__ = ["EventLog", "Pipeline"]

_PAGE: Final = 25
_EVENTS: Final = 250


class Pipeline:
    """One pipeline of the workspace, in the words of `plan`. Raises what `databricks_errors` raises."""

    def __init__(self, client: WorkspaceClient, pipeline_id: str) -> None:
        self._client = client
        self._id = pipeline_id
        self._parameters: dict[str, dict[str, str]] = {}

    @property
    def id(self) -> str:
        """The pipeline's id."""
        return self._id

    def url(self, update_id: str = "") -> str:
        """Where people look at it, or at one of its updates."""
        page = f"{self._client.config.host}/pipelines/{self._id}"
        return f"{page}/updates/{update_id}" if update_id else page

    def updates(self, since: datetime) -> list[plan.Update]:
        """Give the newest updates; those created after `since` with the parameters that they were started with."""
        with databricks_errors(f"updates of pipeline {self._id}"):
            listed = self._client.pipelines.list_updates(self._id, max_results=_PAGE).updates or []
        after = since.timestamp() * 1000
        # The newest comes first; updates of one millisecond keep that order when they are sorted by time.
        return [self._with_parameters(_update(info), after) for info in reversed(listed)]

    def _with_parameters(self, update: plan.Update, after: float) -> plan.Update:
        """Ask for the parameters of an update, once: the list of updates does not tell them."""
        if update.parameters is not None or update.created < after:
            return update
        if update.id not in self._parameters:
            asked = self.update(update.id)
            self._parameters[update.id] = (asked.parameters if asked else None) or {}
        return plan.Update(update.id, update.state, update.created, update.cause, self._parameters[update.id])

    def update(self, update_id: str) -> plan.Update | None:
        """Give one update; None when there is none of that id."""
        try:
            with databricks_errors(f"update {update_id} of pipeline {self._id}"):
                info = self._client.pipelines.get_update(self._id, update_id).update
        except MissingSourceError:
            return None
        return _update(info) if info else None

    def start(self, parameters: dict[str, str]) -> str | None:
        """Start an update and give its id; None when another one is active."""
        with databricks_errors(f"start an update of pipeline {self._id}"):
            try:
                return self._client.pipelines.start_update(self._id, parameters=parameters).update_id
            except Exception as error:
                if _is_conflict(error):
                    return None
                raise

    def stop(self) -> None:
        """Cancel whichever update is active."""
        with databricks_errors(f"stop pipeline {self._id}"):
            self._client.pipelines.stop(self._id)

    def may_replace(self) -> bool | None:
        """Whether the platform is about to replace a failed update; None when it does not tell."""
        with databricks_errors(f"pipeline {self._id}"):
            pipeline = self._client.pipelines.get(self._id)
        if pipeline.spec and pipeline.spec.development:
            return False
        return True if pipeline.state and pipeline.state.value == "RECOVERING" else None

    def events(self, since: str) -> Iterator[plan.Event]:
        """Give the event log from an instant (ISO, UTC) on, oldest first.

        The SDK's own class drops `details`, where the figures are; hence the request by hand. It is paged by time: the
        SDK sends the filter along with a page's token, which the API's documentation forbids.
        """
        seen: set[str] = set()
        while True:
            with databricks_errors(f"event log of pipeline {self._id}"):
                page = self._client.api_client.do(
                    "GET",
                    f"/api/2.0/pipelines/{self._id}/events",
                    query={"filter": f"timestamp >= '{since}'", "order_by": ["timestamp asc"], "max_results": _EVENTS},
                )
            answer = page if isinstance(page, dict) else {}
            new = [event for event in map(plan.Event, answer.get("events", [])) if event.id not in seen]
            yield from new
            if not new or not answer.get("next_page_token"):
                return
            seen |= {event.id for event in new}
            since = new[-1].timestamp


def _update(info: UpdateInfo) -> plan.Update:
    return plan.Update(
        id=info.update_id or "",
        state=info.state.value if info.state else "",
        created=info.creation_time or 0,
        cause=info.cause.value if info.cause else "",
        parameters=info.parameters,
    )


def _is_conflict(error: Exception) -> bool:
    """Whether a start was refused because an update is active; the platform has more than one code for it."""
    from databricks.sdk.errors import ResourceConflict
    from databricks.sdk.errors.base import DatabricksError

    told = isinstance(error, DatabricksError) and "active update" in str(error).lower()
    return told or isinstance(error, ResourceConflict)


class EventLog:
    """The event log since a lineage began; it is read from where it was left."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._events: dict[str, plan.Event] = {}

    @property
    def events(self) -> Iterable[plan.Event]:
        """What was read so far."""
        return self._events.values()

    def read(self, updates: tuple[plan.Update, ...], *, afresh: bool = False) -> None:
        """Read what is new, or all of it: entries may arrive late, with earlier times."""
        newest = max((event.timestamp for event in self.events), default="")
        for event in self._pipeline.events(_iso(updates[0].created) if afresh or not newest else newest):
            self._events[event.id] = event


def _iso(milliseconds: int) -> str:
    instant = datetime.fromtimestamp(milliseconds / 1000, UTC) - timedelta(seconds=1)
    return instant.strftime("%Y-%m-%dT%H:%M:%S.") + f"{instant.microsecond // 1000:03d}Z"
