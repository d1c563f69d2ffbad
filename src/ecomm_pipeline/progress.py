"""Progress of long work: one line that rewrites itself on a terminal, an event now and then elsewhere."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final, Self, TextIO

from ecomm_pipeline.logs import get_logger

if TYPE_CHECKING:
    from ecomm_pipeline.clock import Clock

__all__ = ["Progress"]

_REDRAW: Final = 0.2
_REPORT: Final = 30.0


class Progress:
    """Call it with figures as often as you like; it shows them at most five times a second, or logs them every 30 s.

    Use it as a context manager, so that the terminal's line is cleared at the end.
    """

    def __init__(self, what: str, clock: Clock, stream: TextIO = sys.stderr) -> None:
        self._what = what
        self._clock = clock
        self._stream = stream
        self._terminal = stream.isatty()
        self._began = self._shown = clock.monotonic()

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(self, *_: object) -> None:
        """Clear the line."""
        if self._terminal:
            print("\r\033[K", end="", file=self._stream, flush=True)

    def __call__(self, **figures: object) -> None:
        """Show `figures`; thousands are set apart."""
        now = self._clock.monotonic()
        if now - self._shown < (_REDRAW if self._terminal else _REPORT):
            return
        self._shown = now
        if self._terminal:
            text = "  ".join(f"{name} {_write(value)}" for name, value in figures.items())
            print(f"\r\033[K{self._what}  {now - self._began:.0f} s  {text}", end="", file=self._stream, flush=True)
        else:
            get_logger().info(f"{self._what}.progress", seconds=round(now - self._began), **figures)


def _write(value: object) -> str:
    return f"{value:,}".replace(",", "\u202f") if isinstance(value, int) else str(value)
