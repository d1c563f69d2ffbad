"""The Pipelines API: `/api/2.0/pipelines`.

https://docs.databricks.com/api/workspace/pipelines
"""

from __future__ import annotations

import re
import uuid
from typing import TYPE_CHECKING, Any

from ecomm_sandbox.databricks.errors import ApiError, bad_request, not_found
from ecomm_sandbox.databricks.pipelines.landing import Landing
from ecomm_sandbox.databricks.pipelines.store import FINAL_STATES, PipelineStore
from ecomm_sandbox.databricks.pipelines.updates import Updates

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from ecomm_sandbox.databricks.catalog import Catalog
    from ecomm_sandbox.databricks.config import Config
    from ecomm_sandbox.databricks.faults import Faults
    from ecomm_sandbox.databricks.server import Request, Routes

LATEST_UPDATES = 5
DEFAULT_PAGE = 25
_CONDITION = re.compile(
    r"\s*(level|id|timestamp|update_id|event_type)\s*(=|<=|>=|<|>|in)\s*(\([^)]*\)|'[^']*')\s*", re.IGNORECASE
)


class PipelineApi:
    """All pipelines of the sandbox."""

    def __init__(self, spark: SparkSession, catalog: Catalog, config: Config, faults: Faults) -> None:
        """Pipelines are kept under `config.home/pipelines`; those of the settings are created or brought up to date."""
        self._folder = config.home / "pipelines"
        self._updates = Updates(spark, catalog, Landing(config), faults)
        self._folder.mkdir(parents=True, exist_ok=True)
        found = (PipelineStore(path) for path in sorted(self._folder.iterdir()) if (path / "spec.json").exists())
        self._stores = {store.pipeline_id: store for store in found}
        for spec in config.pipelines:
            self._put(str(spec.get("id") or spec["name"]), spec)

    def add_routes(self, routes: Routes) -> None:
        """Enter the API's routes."""
        base = "/api/2.0/pipelines"
        routes.add("GET", base, self.list)
        routes.add("POST", base, self.create)
        routes.add("GET", base + "/{}", self.get)
        routes.add("PUT", base + "/{}", self.edit)
        routes.add("DELETE", base + "/{}", self.delete)
        routes.add("POST", base + "/{}/updates", self.start_update)
        routes.add("GET", base + "/{}/updates", self.list_updates)
        routes.add("GET", base + "/{}/updates/{}", self.get_update)
        routes.add("GET", base + "/{}/events", self.list_events)
        routes.add("POST", base + "/{}/stop", self.stop)

    def _put(self, pipeline_id: str, spec: dict[str, Any]) -> PipelineStore:
        store = self._stores.get(pipeline_id) or PipelineStore(self._folder / pipeline_id)
        ignored = ("id", "dry_run", "allow_duplicate_names", "expected_last_modified", "pipeline_id")
        store.write_spec({"id": pipeline_id, **{k: v for k, v in spec.items() if k not in ignored}})
        self._stores[pipeline_id] = store
        return store

    def _store(self, request: Request) -> PipelineStore:
        store = self._stores.get(request.parts[0])
        if store is None:
            message = f"The specified pipeline {request.parts[0]} was not found."
            raise not_found(message)
        return store

    # -- pipelines

    def create(self, request: Request) -> dict[str, Any]:
        """`POST /api/2.0/pipelines`; a name that exists is a conflict unless `allow_duplicate_names`."""
        spec = request.json()
        name = spec.get("name")
        taken = [s.pipeline_id for s in self._stores.values() if s.spec.get("name") == name]
        if taken and not spec.get("allow_duplicate_names"):
            raise ApiError(409, "RESOURCE_CONFLICT", f"The pipeline name '{name}' is already used by {taken[0]}.")
        if spec.get("dry_run"):
            return {"effective_settings": spec}
        return {"pipeline_id": self._put(str(uuid.uuid4()), spec).pipeline_id}

    def edit(self, request: Request) -> dict[str, Any]:
        """`PUT /api/2.0/pipelines/{id}`: replace the settings; a running update keeps those it began with."""
        store = self._store(request)
        self._put(store.pipeline_id, request.json())
        return {}

    def delete(self, request: Request) -> dict[str, Any]:
        """`DELETE /api/2.0/pipelines/{id}`; its tables stay."""
        store = self._store(request)
        self._updates.stop(store)
        del self._stores[store.pipeline_id]
        store.delete()
        return {}

    def list(self, request: Request) -> dict[str, Any]:
        """`GET /api/2.0/pipelines`, filtered by `name LIKE '…'`."""
        text = request.option("filter") or "name LIKE '%'"
        wanted = re.fullmatch(r"\s*name\s+like\s+'([^']*)'\s*", text, re.IGNORECASE)
        if wanted is None:
            message = f"filter {text!r} is not of the form name LIKE 'pattern'"
            raise bad_request(message)
        expression = re.escape(wanted.group(1)).replace("%", ".*")
        matching = [s for s in self._stores.values() if re.fullmatch(expression, str(s.spec.get("name", "")))]
        page, token = _page(request, matching)
        return {"statuses": [_status(store) for store in page], **token}

    def get(self, request: Request) -> dict[str, Any]:
        """`GET /api/2.0/pipelines/{id}`."""
        store = self._store(request)
        return {**_status(store), "spec": store.spec, "run_as": {"user_name": "sandbox"}}

    # -- updates

    def start_update(self, request: Request) -> dict[str, Any]:
        """`POST …/updates`."""
        return {"update_id": self._updates.start(self._store(request), request.json())}

    def list_updates(self, request: Request) -> dict[str, Any]:
        """`GET …/updates`, newest first; without settings and parameters, as on Databricks."""
        updates = self._store(request).newest_first()
        until = request.option("until_update_id")
        if until is not None:
            ids = [update["update_id"] for update in updates]
            updates = updates[ids.index(until) :] if until in ids else []
        page, token = _page(request, updates)
        hidden = ("config", "parameters")
        return {"updates": [{k: v for k, v in u.items() if k not in hidden} for u in page], **token}

    def get_update(self, request: Request) -> dict[str, Any]:
        """`GET …/updates/{id}`."""
        update = self._store(request).updates.get(request.parts[1])
        if update is None:
            message = f"The specified update {request.parts[1]} was not found."
            raise not_found(message)
        return {"update": update}

    def stop(self, request: Request) -> dict[str, Any]:
        """`POST …/stop`."""
        self._updates.stop(self._store(request))
        return {}

    # -- events

    def list_events(self, request: Request) -> dict[str, Any]:
        """`GET …/events`, newest first unless `order_by=timestamp asc`."""
        conditions = conditions_of(request.option("filter") or "")
        events = [event for event in self._store(request).events if all(_meets(event, c) for c in conditions)]
        if "asc" not in (request.option("order_by") or "").lower().split():
            events.reverse()
        page, token = _page(request, events)
        return {"events": page, **token}


def conditions_of(text: str) -> list[tuple[str, str, list[str]]]:
    """A filter of events, such as `level in ('ERROR', 'WARN') AND timestamp > '…'`, as field, operator and values."""
    if not text.strip():
        return []
    found = []
    for part in re.split(r"\band\b", text, flags=re.IGNORECASE):
        match = _CONDITION.fullmatch(part)
        if match is None:
            message = f"cannot understand the filter at {part.strip()!r}; filters are on level, id, timestamp"
            raise bad_request(message)
        found.append((match[1].lower(), match[2].lower(), re.findall(r"'([^']*)'", match[3])))
    return found


def _meets(event: dict[str, Any], condition: tuple[str, str, list[str]]) -> bool:
    field, operator, values = condition
    actual = str(event["origin"].get("update_id", "") if field == "update_id" else event[field])
    if operator in ("=", "in"):
        return actual in values
    limit = values[0]
    if field == "timestamp":
        actual, limit = _instant(actual), _instant(limit)
    return {"<": actual < limit, "<=": actual <= limit, ">": actual > limit, ">=": actual >= limit}[operator]


def _instant(text: str) -> str:
    """A timestamp with all its places, so that texts compare as instants."""
    body, _, fraction = text.removesuffix("Z").partition(".")
    return f"{body}.{fraction:0<9}"


def _page(request: Request, items: list[Any]) -> tuple[list[Any], dict[str, str]]:
    """`max_results` items from `page_token` on, and the next token."""
    size = max(1, int(request.option("max_results") or DEFAULT_PAGE))
    start = int(request.option("page_token") or 0)
    token = {"next_page_token": str(start + size)} if start + size < len(items) else {}
    return items[start : start + size], token


def _status(store: PipelineStore) -> dict[str, Any]:
    updates = store.newest_first()
    active = next((update for update in updates if update["state"] not in FINAL_STATES), None)
    ended = next((update for update in updates if update["state"] in FINAL_STATES), None)
    return {
        "pipeline_id": store.pipeline_id,
        "name": store.spec.get("name"),
        "state": _pipeline_state(active),
        "health": "UNHEALTHY" if ended and ended["state"] == "FAILED" else "HEALTHY",
        "creator_user_name": "sandbox",
        "run_as_user_name": "sandbox",
        "latest_updates": [
            {"update_id": u["update_id"], "state": u["state"], "creation_time": _iso(u["creation_time"])}
            for u in updates[:LATEST_UPDATES]
        ],
    }


def _pipeline_state(active: dict[str, Any] | None) -> str:
    if active is None:
        return "IDLE"
    if active["cause"] == "RETRY_ON_FAILURE" and active["state"] != "RUNNING":
        return "RECOVERING"
    return {"RUNNING": "RUNNING", "RESETTING": "RESETTING", "STOPPING": "STOPPING"}.get(active["state"], "STARTING")


def _iso(milliseconds: int) -> str:
    from datetime import UTC, datetime

    moment = datetime.fromtimestamp(milliseconds / 1000, tz=UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
