"""The SQL warehouse of the sandbox: what its faults make of it."""

from __future__ import annotations

import pytest

from ecomm_sandbox.databricks.errors import ApiError
from ecomm_sandbox.databricks.faults import Faults
from ecomm_sandbox.databricks.warehouse.state import Warehouse


def test_a_start_that_a_fault_slows_ends_with_its_seconds_or_at_once_when_hurried() -> None:
    at, faults = [100.0], Faults()
    warehouse = Warehouse("w", "sandbox", faults, lambda: at[0])
    states = []
    for hurried in (False, True):
        faults.set([{"kind": "warehouse_cold_start", "seconds": 30}])
        warehouse.stop()
        states.append(warehouse.state)
        warehouse.start()
        states.append(warehouse.state)
        if hurried:
            warehouse.hurry()
        else:
            at[0] += 30
        states.append(warehouse.state)
    assert states == ["STOPPED", "STARTING", "RUNNING"] * 2


def test_a_deleted_warehouse_says_so_and_takes_no_statement() -> None:
    faults = Faults()
    warehouse = Warehouse("w", "sandbox", faults)
    warehouse.require_usable("w")
    faults.set([{"kind": "warehouse_deleted"}])
    assert warehouse.as_json("localhost:1")["state"] == "DELETED"
    with pytest.raises(ApiError, match="was deleted") as caught:
        warehouse.require_usable("w")
    assert caught.value.status == 404
    faults.set([])
    assert warehouse.state == "RUNNING"
