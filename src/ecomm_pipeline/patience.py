"""Asking again, for a while, a service that gives no answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

from ecomm_pipeline.errors import UnavailableError
from ecomm_pipeline.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable

    from ecomm_pipeline.clock import Clock

__all__ = ["PATIENCE", "patiently"]

T = TypeVar("T")

PATIENCE: Final = 300.0
"""Seconds for which a service may give no answer before a wait ends; its own client has tried again for a while too."""
_LONGEST_PAUSE: Final = 30.0


def patiently(clock: Clock, service: str, call: Callable[[], T], *, patience: float = PATIENCE) -> T:
    """Call until it answers; raises its `UnavailableError` when it does not for `patience` seconds.

    `call` must be one that may be made twice. `service` names the log's event: `{service}.unavailable`.
    """
    began, pause = clock.monotonic(), 1.0
    while True:
        try:
            return call()
        except UnavailableError as error:
            if clock.monotonic() - began > patience:
                raise
            get_logger().warning(f"{service}.unavailable", reason=error.message, pause=pause)
            clock.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
