"""Updates: their states, one after the other, and the platform's own retry."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from typing import TYPE_CHECKING, Any

from ecomm_sandbox.databricks.errors import ApiError
from ecomm_sandbox.databricks.faults import InjectedError
from ecomm_sandbox.databricks.pipelines.failures import described
from ecomm_sandbox.databricks.pipelines.runtime import CancelledError, Options, Update, UpdateFailedError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from ecomm_sandbox.databricks.catalog import Catalog
    from ecomm_sandbox.databricks.faults import Faults
    from ecomm_sandbox.databricks.pipelines.landing import Landing
    from ecomm_sandbox.databricks.pipelines.store import PipelineStore

log = logging.getLogger(__name__)


class Updates:
    """Starts and stops the updates of all pipelines; one runs at a time, since the machine is one."""

    def __init__(self, spark: SparkSession, catalog: Catalog, landing: Landing, faults: Faults) -> None:
        """Updates run on sessions of `spark`."""
        self._spark, self._catalog, self._landing, self._faults = spark, catalog, landing, faults
        self._machine = threading.Lock()
        self._guard = threading.Lock()
        self._stopping: dict[str, threading.Event] = {}
        self._running: dict[str, Update] = {}

    def start(self, store: PipelineStore, body: dict[str, Any], cause: str = "API_CALL") -> str:
        """Create an update and run it in a thread; an `ApiError` (409) while another is active."""
        with self._guard:
            active = store.active()
            if active is not None:
                message = f"An active update {active['update_id']} already exists for pipeline {store.pipeline_id}."
                raise ApiError(409, "RESOURCE_CONFLICT", message)
            return self._create(store, body, cause)

    def _create(self, store: PipelineStore, body: dict[str, Any], cause: str) -> str:
        update_id = str(uuid.uuid4())
        store.change(
            update_id,
            pipeline_id=store.pipeline_id,
            state="CREATED",
            cause=cause,
            creation_time=time.time_ns() // 1_000_000,
            full_refresh=bool(body.get("full_refresh")),
            refresh_selection=list(body.get("refresh_selection") or []),
            full_refresh_selection=list(body.get("full_refresh_selection") or []),
            validate_only=bool(body.get("validate_only")),
            parameters=dict(body.get("parameters") or {}),
            config=store.spec,
        )
        store.event(update_id, "create_update", f"Update {update_id[:6]} started by {cause}.",
                    details={"create_update": {"cause": cause}})  # fmt: skip
        self._stopping[update_id] = threading.Event()
        name = f"update-{update_id[:6]}"
        work = threading.Thread(target=self._run, args=(store, update_id, body), name=name, daemon=True)
        work.start()
        return update_id

    def stop(self, store: PipelineStore) -> None:
        """Stop the active update, if there is one, and wait a moment for its end."""
        active = store.active()
        if active is None:
            return
        self._stopping[active["update_id"]].set()
        running = self._running.get(active["update_id"])
        store.event(active["update_id"], "user_action", "User sandbox performed a STOP action.",
                    details={"user_action": {"action": "STOP"}})  # fmt: skip
        if running is not None:
            running.stop()

    def _run(self, store: PipelineStore, update_id: str, body: dict[str, Any]) -> None:
        try:
            self._queue(store, update_id)
            with self._machine:
                self._go(store, update_id, body)
        except CancelledError:
            self._state(store, update_id, "CANCELED")
        except Exception as error:
            if not isinstance(error, (UpdateFailedError, InjectedError)):
                log.exception("update %s of pipeline %s", update_id, store.pipeline_id)
            self._fail(store, update_id, body, error)
        finally:
            self._stopping.pop(update_id, None)
            self._running.pop(update_id, None)

    def _queue(self, store: PipelineStore, update_id: str) -> None:
        self._state(store, update_id, "QUEUED")
        self._state(store, update_id, "WAITING_FOR_RESOURCES")
        if self._faults.hold("update_queued", self._stopping[update_id]):
            raise CancelledError

    def _go(self, store: PipelineStore, update_id: str, body: dict[str, Any]) -> None:
        def report(event_type: str, message: str, **sides: Any) -> None:  # noqa: ANN401 - an event's sides
            store.event(update_id, event_type, message, **sides)

        def state(name: str) -> None:
            if self._stopping[update_id].is_set():
                raise CancelledError
            self._state(store, update_id, name)

        state("INITIALIZING")
        self._faults.update(None)
        spec, folder = store.spec, store.folder
        update = Update(self._spark, self._catalog, self._landing, self._faults, folder, spec, _options(body), report)
        self._running[update_id] = update
        update.load()
        if body.get("full_refresh") or body.get("full_refresh_selection"):
            state("RESETTING")
            update.reset()
        state("SETTING_UP_TABLES")
        if not body.get("validate_only"):
            state("RUNNING")
            update.run()
        state("COMPLETED")

    def _fail(self, store: PipelineStore, update_id: str, body: dict[str, Any], error: Exception) -> None:
        root = error.__cause__ if isinstance(error, UpdateFailedError) and error.__cause__ else error
        again = (
            isinstance(root, InjectedError)
            and root.retryable
            and not store.spec.get("development")
            and store.updates[update_id]["cause"] != "RETRY_ON_FAILURE"
        )
        with self._guard:  # no other update may slip in between the failure and its retry
            self._state(store, update_id, "FAILED", root)
            if again:
                self._create(store, body, "RETRY_ON_FAILURE")

    def _state(self, store: PipelineStore, update_id: str, state: str, error: BaseException | None = None) -> None:
        message = f"Update {update_id[:6]} is {state}."
        detail, level = None, "INFO"
        if error is not None:
            cause, detail = described(error, self._catalog.name)
            message, level = f"{message} {cause}", "ERROR"
        store.event(update_id, "update_progress", message, level=level,
                    details={"update_progress": {"state": state}}, error=detail)  # fmt: skip
        store.change(update_id, state=state)


def _options(body: dict[str, Any]) -> Options:
    return Options(
        full_refresh=bool(body.get("full_refresh")),
        refresh_selection=tuple(body.get("refresh_selection") or ()),
        full_refresh_selection=tuple(body.get("full_refresh_selection") or ()),
        validate_only=bool(body.get("validate_only")),
    )
