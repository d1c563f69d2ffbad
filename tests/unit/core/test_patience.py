"""Asking again a service that gives no answer, in virtual time."""

from __future__ import annotations

import pytest

from ecomm_pipeline.errors import BadDataError, UnavailableError
from ecomm_pipeline.patience import patiently


class VirtualClock:
    """Time that passes only when somebody sleeps."""

    def __init__(self):
        self.pauses = []

    def monotonic(self):
        return sum(self.pauses)

    def sleep(self, seconds):
        self.pauses.append(seconds)


class Service:
    """Raises its errors, one a call, then answers."""

    def __init__(self, *errors):
        self.errors = list(errors)
        self.calls = 0

    def __call__(self):
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return "answer"


def test_an_answer_is_waited_for_in_longer_and_longer_pauses():
    clock = VirtualClock()
    assert patiently(clock, "s", Service(*[UnavailableError("503")] * 7)) == "answer"
    assert clock.pauses == [1, 2, 4, 8, 16, 30, 30]


def test_a_service_that_stays_silent_ends_the_wait_with_its_own_error():
    clock = VirtualClock()
    with pytest.raises(UnavailableError, match="503"):
        patiently(clock, "s", Service(*[UnavailableError("503")] * 100), patience=60)
    assert 60 < clock.monotonic() <= 60 + 31


@pytest.mark.parametrize("patience", [0, -5])
def test_without_patience_it_is_asked_once_more(patience):
    service = Service(*[UnavailableError("503")] * 100)
    with pytest.raises(UnavailableError):
        patiently(VirtualClock(), "s", service, patience=patience)
    assert service.calls <= 2


def test_a_refusal_is_not_asked_for_again():
    service = Service(BadDataError("no"))
    with pytest.raises(BadDataError):
        patiently(VirtualClock(), "s", service)
    assert service.calls == 1
