"""Faults are data: each hits what it names, as often as it says."""

from __future__ import annotations

import threading

import pytest

from ecomm_sandbox.databricks.errors import ApiError, SandboxError
from ecomm_sandbox.databricks.faults import Faults, InjectedError


def faults(*items: dict[str, object]) -> Faults:
    made = Faults()
    made.set(items)
    return made


def test_a_fault_hits_as_often_as_it_says() -> None:
    on = faults({"kind": "http_error", "status": 429, "times": 2})
    assert [on.hit("http_error", path="/x") is not None for _ in range(3)] == [True, True, False]
    assert on.as_json() == {"faults": []}


def test_a_fault_without_times_stays() -> None:
    on = faults({"kind": "credentials_refused"})
    assert all(on.hit("credentials_refused") is not None for _ in range(5))


def test_a_fault_at_a_dataset_leaves_others_alone() -> None:
    on = faults({"kind": "update_fails", "dataset": "gold.x", "message": "boom", "retryable": True})
    on.update(None)
    on.update("gold.y")
    with pytest.raises(InjectedError, match="boom") as caught:
        on.update("gold.x")
    assert caught.value.retryable


def test_a_statement_fails_where_its_text_matches() -> None:
    on = faults({"kind": "statement_fails", "matches": "agg_sales", "message": "[X] no", "sql_state": "42000"})
    ended = threading.Event()
    on.statement("select 1", ended)
    with pytest.raises(SandboxError, match=r"\[X\] no SQLSTATE: 42000"):
        on.statement("select * from kpi.AGG_SALES_kpi", ended)


def test_a_slow_statement_ends_when_it_is_cancelled() -> None:
    ended = threading.Event()
    ended.set()
    faults({"kind": "statement_slow", "seconds": 60}).statement("select 1", ended)


@pytest.mark.parametrize("item", [{"kind": "nonsense"}, {"kind": "flow_slow", "second": 1}])
def test_what_is_misspelt_is_refused(item: dict[str, object]) -> None:
    with pytest.raises(ApiError) as caught:
        faults(item)
    assert caught.value.status == 400
