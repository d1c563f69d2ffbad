"""Every way a stage can fail, and what follows from each.

::

    EcommError
    ├── ConfigurationError        a setting or an argument is missing or wrong
    ├── CredentialsError          a service refused who we are or what we may do
    ├── UnavailableError          a service did not answer, or answered "later"
    ├── TimedOutError             a limit of ours ran out
    ├── BadDataError              data or a contract is broken
    │   └── MissingSourceError    a table, bucket or pipeline that should exist does not
    ├── NotReconciledError        rows or money do not add up between two hops
    ├── UpstreamFailedError       Databricks, dbt or Tableau failed at the work, or somebody cancelled it there
    └── CancelledError            somebody asked us to stop

A process that was killed (out of memory, its node gone) raises nothing: `lost` is what others find out about it.

`FAILURE_CLASSES` is the one table that decides the exit code, whether a retry can help, the priority of the alert
and the section of the runbook. Exit codes follow sysexits.h where it has a word for it.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = [
    "FAILURE_CLASSES",
    "BadDataError",
    "CancelledError",
    "ConfigurationError",
    "CredentialsError",
    "EcommError",
    "FailureClass",
    "MissingSourceError",
    "NotReconciledError",
    "Priority",
    "TimedOutError",
    "UnavailableError",
    "UpstreamFailedError",
    "classify",
    "retryable_exit_codes",
    "translated",
]

Priority = Literal["P1", "P2", "P3"]


@dataclass(frozen=True, slots=True)
class FailureClass:
    """What follows from a failure.

    `exit_code` is what the command returns, `retry` whether running it again unchanged can help, `priority` the
    escalation when retries are used up, `runbook` the page under docs/runbooks that says what to do.
    """

    name: str
    exit_code: int
    retry: bool
    priority: Priority
    runbook: str


FAILURE_CLASSES: Final[dict[str, FailureClass]] = {
    row.name: row
    for row in (
        FailureClass("internal", 1, retry=False, priority="P1", runbook="internal-error"),
        FailureClass("bad_data", 65, retry=False, priority="P2", runbook="bad-data"),
        FailureClass("not_reconciled", 65, retry=False, priority="P2", runbook="not-reconciled"),
        FailureClass("upstream_failed", 70, retry=False, priority="P1", runbook="upstream-failed"),
        FailureClass("unavailable", 75, retry=True, priority="P1", runbook="unavailable"),
        FailureClass("timed_out", 75, retry=True, priority="P1", runbook="timed-out"),
        FailureClass("credentials", 77, retry=False, priority="P1", runbook="credentials"),
        FailureClass("configuration", 78, retry=False, priority="P1", runbook="configuration"),
        FailureClass("lost", 137, retry=True, priority="P1", runbook="lost"),
        FailureClass("cancelled", 143, retry=True, priority="P2", runbook="cancelled"),
    )
}


class EcommError(Exception):
    """Base of all errors that a user is meant to read.

    `message` names the thing and the place; `next_step` says what to do about it. One line each.
    """

    failure_class: ClassVar[str] = "internal"

    def __init__(self, message: str, *, next_step: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.next_step = next_step

    @property
    def failure(self) -> FailureClass:
        """The row of `FAILURE_CLASSES` that this error is of."""
        return FAILURE_CLASSES[self.failure_class]


class ConfigurationError(EcommError):
    """Raised when a setting or an argument is missing, unreadable or contradicts another."""

    failure_class = "configuration"


class CredentialsError(EcommError):
    """Raised when a service refuses a password, token or permission."""

    failure_class = "credentials"


class UnavailableError(EcommError):
    """Raised when a service cannot be reached, drops the connection or asks to come back later."""

    failure_class = "unavailable"


class TimedOutError(EcommError):
    """Raised when one of our own limits runs out while we wait."""

    failure_class = "timed_out"


class BadDataError(EcommError):
    """Raised when data, or the contract that it should follow, is broken."""

    failure_class = "bad_data"


class MissingSourceError(BadDataError):
    """Raised when something that the contract names (table, column, bucket, pipeline, model) does not exist."""


class NotReconciledError(EcommError):
    """Raised when rows or money differ between two hops and nothing explains it."""

    failure_class = "not_reconciled"


class UpstreamFailedError(EcommError):
    """Raised when a remote service accepted the work and reports that it failed or was cancelled there."""

    failure_class = "upstream_failed"


class CancelledError(EcommError):
    """Raised when the stage is told to stop (SIGTERM, SIGINT), or a query of its that only reads is cancelled.

    A retry continues it. Where somebody cancelled an update or a refresh on the platform, a retry would start it
    again against their will: that is an `UpstreamFailedError`.
    """

    failure_class = "cancelled"


def classify(error: BaseException) -> FailureClass:
    """Give the class of any exception: its own for an `EcommError`, `cancelled` for ^C, else `internal`."""
    if isinstance(error, EcommError):
        return error.failure
    return FAILURE_CLASSES["cancelled" if isinstance(error, KeyboardInterrupt) else "internal"]


@contextmanager
def translated(translate: Callable[[Exception], EcommError | None]) -> Iterator[None]:
    """Turn a library's errors into ours; those that are ours, or that `translate` gives None for, pass as they are."""
    try:
        yield
    except EcommError:
        raise
    except Exception as error:
        ours = translate(error)
        if ours is None:
            raise
        raise ours from error


def retryable_exit_codes() -> tuple[int, ...]:
    """Exit codes after which the same command may be run again, ascending; workflows' retry expressions use it."""
    return tuple(sorted({row.exit_code for row in FAILURE_CLASSES.values() if row.retry}))
