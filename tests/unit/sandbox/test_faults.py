"""The box of faults: what is on strikes as often and as long as it was told to."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecomm_sandbox.faults import CATALOGUE, Fault, FaultBox

KINDS = CATALOGUE["tableau"]


@given(st.integers(1, 20), st.integers(0, 40))
def test_a_fault_with_times_strikes_so_often_and_no_more(times, tries):
    box = FaultBox()
    box.put(Fault("fail", times=times))
    assert sum(box.take("fail") is not None for _ in range(tries)) == min(times, tries)
    assert bool(box.list()) == (tries < times)


def test_threads_share_the_strikes_of_a_fault():
    box, struck = FaultBox(), []
    box.put(Fault("fail", times=50))

    def strike():
        struck.extend(1 for _ in range(40) if box.take("fail"))

    threads = [threading.Thread(target=strike) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(struck) == 50


def test_a_fault_ends_with_its_seconds():
    box = FaultBox()
    box.put(Fault.parse({"kind": "fail", "seconds": 0}, KINDS))
    assert box.take("fail") is None
    box.put(Fault.parse({"kind": "fail", "seconds": 60}, KINDS))
    assert box.take("fail") is not None


def test_a_fault_takes_the_place_of_one_of_its_kind_and_leaves_the_others():
    box = FaultBox()
    for body in ({"kind": "delay", "delay": 1}, {"kind": "fail"}, {"kind": "delay", "delay": 2}):
        box.put(Fault.parse(body, KINDS))
    assert [(fault.kind, fault.options.get("delay")) for fault in box.list()] == [("fail", None), ("delay", 2.0)]


def test_clearing_disarms():
    box = FaultBox()
    box.put(Fault("fail"))
    assert box.armed
    box.clear()
    assert not box.armed
    assert box.take("fail") is None


def test_options_come_with_their_defaults_and_types():
    assert Fault.parse({"kind": "delay", "delay": "0.5"}, KINDS).options == {"delay": 0.5}
    assert Fault.parse({"kind": "delay"}, KINDS).options == {"delay": 5.0}


@pytest.mark.parametrize(
    ("body", "told"),
    [({"kind": "no"}, "no fault is called 'no'"), ({}, "no fault"), ({"kind": "fail", "x": 1}, "has no option x")],
)
def test_what_is_unknown_is_refused_by_name(body, told):
    with pytest.raises(ValueError, match=told):
        Fault.parse(body, KINDS)
