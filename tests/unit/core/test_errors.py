"""The tree of errors and the one table of failure classes."""

from __future__ import annotations

import inspect

import pytest

from ecomm_pipeline import errors
from ecomm_pipeline.errors import (
    FAILURE_CLASSES,
    CancelledError,
    EcommError,
    UnavailableError,
    classify,
    translated,
)


def error_types():
    return [
        kind
        for _, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, EcommError) and kind is not EcommError
    ]


def test_every_error_is_of_a_class_of_the_table_and_every_class_has_an_error():
    not_raised = {"internal", "lost"}
    assert {kind.failure_class for kind in error_types()} | not_raised == set(FAILURE_CLASSES)


@pytest.mark.parametrize("kind", error_types())
def test_every_error_is_drawn_exported_and_says_when_it_is_raised(kind):
    assert kind.__name__ in (errors.__doc__ or "")
    assert kind.__name__ in errors.__all__
    assert (kind.__doc__ or "").startswith("Raised when")


def test_all_is_exact():
    public = {
        name
        for name, value in vars(errors).items()
        if not name.startswith("_") and getattr(value, "__module__", errors.__name__) == errors.__name__
    } - {"annotations"}
    defined = {
        name
        for name in public
        if name in errors.__all__ or inspect.isclass(getattr(errors, name)) or inspect.isfunction(getattr(errors, name))
    }
    assert defined <= set(errors.__all__)
    assert all(hasattr(errors, name) for name in errors.__all__)


def test_classes_that_share_an_exit_code_agree_on_retrying():
    by_code: dict[int, set[bool]] = {}
    for row in FAILURE_CLASSES.values():
        by_code.setdefault(row.exit_code, set()).add(row.retry)
    assert all(len(answers) == 1 for answers in by_code.values())


def test_what_may_be_retried_is_what_time_can_heal():
    assert errors.retryable_exit_codes() == (75, 137, 143)


def test_any_exception_has_a_class():
    assert classify(UnavailableError("x")).name == "unavailable"
    assert classify(CancelledError("x")).exit_code == 143
    assert classify(KeyboardInterrupt()).name == "cancelled"
    assert classify(ZeroDivisionError()).name == "internal"


def known(error):
    return UnavailableError("the line is busy") if isinstance(error, ConnectionError) else None


def test_an_error_that_is_known_becomes_ours_with_its_cause():
    with pytest.raises(UnavailableError, match="busy") as caught, translated(known):
        raise ConnectionResetError
    assert isinstance(caught.value.__cause__, ConnectionResetError)


@pytest.mark.parametrize("error", [ZeroDivisionError(), CancelledError("stop")])
def test_an_error_that_is_unknown_or_ours_passes_as_it_is(error):
    with pytest.raises(type(error)) as caught, translated(known):
        raise error
    assert caught.value is error
