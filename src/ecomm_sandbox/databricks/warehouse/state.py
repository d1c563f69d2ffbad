"""The warehouse itself: running, stopped or starting; a statement starts it."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

from ecomm_sandbox.databricks.errors import not_found

if TYPE_CHECKING:
    from collections.abc import Callable

    from ecomm_sandbox.databricks.faults import Faults


class Warehouse:
    """One SQL warehouse (`/api/2.0/sql/warehouses/{id}`)."""

    def __init__(self, warehouse_id: str, name: str, faults: Faults, now: Callable[[], float] = time.monotonic) -> None:
        """It is running; `now` gives seconds."""
        self.id, self.name, self._faults, self._now = warehouse_id, name, faults, now
        self._lock = threading.Lock()
        self._running, self._ready_at = True, 0.0

    @property
    def state(self) -> str:
        """STOPPED, STARTING or RUNNING; DELETED while the fault `warehouse_deleted` is on."""
        if self._faults.hit("warehouse_deleted") is not None:
            return "DELETED"
        with self._lock:
            if not self._running:
                return "STOPPED"
            return "RUNNING" if self._now() >= self._ready_at else "STARTING"

    def start(self) -> None:
        """Start it, unless it is on; the fault `warehouse_cold_start` says how long that takes."""
        with self._lock:
            if self._running:
                return
            cold = self._faults.hit("warehouse_cold_start")
            self._running = True
            self._ready_at = self._now() + (float(cold.get("seconds", 30)) if cold is not None else 0.0)

    def hurry(self) -> None:
        """End a start that takes its time."""
        with self._lock:
            self._ready_at = 0.0

    def stop(self) -> None:
        """Stop it; statements that run go on."""
        with self._lock:
            self._running = False

    def ensure_running(self) -> None:
        """Start it and wait until it runs."""
        self.start()
        while self.state != "RUNNING":
            time.sleep(0.05)
            self.start()

    def as_json(self, host: str) -> dict[str, Any]:
        """`GetWarehouseResponse`; `host` is `name:port`, as the client wrote it.

        https://docs.databricks.com/api/workspace/warehouses/get
        """
        name, _, port = host.partition(":")
        path = f"/sql/1.0/warehouses/{self.id}"
        return {
            "id": self.id,
            "name": self.name,
            "state": self.state,
            "cluster_size": "2X-Small",
            "size": "2X-Small",
            "min_num_clusters": 1,
            "max_num_clusters": 1,
            "num_clusters": 1 if self.state == "RUNNING" else 0,
            "auto_stop_mins": 0,
            "creator_name": "sandbox",
            "enable_serverless_compute": True,
            "warehouse_type": "PRO",
            "jdbc_url": f"jdbc:databricks://{host}/default;httpPath={path}",
            "odbc_params": {"hostname": name, "path": path, "protocol": "http", "port": int(port or 80)},
            "health": {"status": "HEALTHY"},
        }

    def require_usable(self, warehouse_id: str) -> None:
        """An `ApiError` (404) when the id is another one's, or the warehouse is deleted."""
        self.require(warehouse_id)
        if self._faults.hit("warehouse_deleted") is not None:
            message = f"SQL warehouse {warehouse_id} was deleted"
            raise not_found(message)

    def require(self, warehouse_id: str) -> None:
        """An `ApiError` (404) when the id is another one's."""
        if warehouse_id != self.id:
            message = f"SQL warehouse {warehouse_id} does not exist; this sandbox has {self.id}"
            raise not_found(message)
