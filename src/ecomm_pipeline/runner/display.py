"""What `ecomm run` shows: a line for each step as it ends, and on a terminal one more that tells what is running."""

from __future__ import annotations

import asyncio
import shutil
import sys
from typing import TYPE_CHECKING, Final, TextIO

if TYPE_CHECKING:
    from ecomm_pipeline.clock import Clock
    from ecomm_pipeline.runner.process import Log

__all__ = ["Display"]

_REDRAW: Final = 1.0
_QUIET: Final = frozenset({
    "event", "level", "timestamp", "stage", "date", "run_id", "table", "remote", "figures", "findings", "seconds",
})  # fmt: skip
"""Fields of an event that its step's name tells already, or that are for machines."""


class Display:
    """Lines of a step's seconds, name, state and one detail. On a terminal, run `live` beside the work."""

    def __init__(self, clock: Clock, stream: TextIO = sys.stdout) -> None:
        self._clock = clock
        self._stream = stream
        self._terminal = stream.isatty()
        self._began = clock.monotonic()
        self._running: dict[str, tuple[float, Log]] = {}

    @property
    def running(self) -> list[str]:
        """The steps that are running, the oldest first."""
        return list(self._running)

    def say(self, text: str) -> None:
        """Write a line."""
        self._redraw("")
        print(text, file=self._stream, flush=True)

    def begin(self, step: str, log: Log) -> None:
        """Note that a step runs."""
        self._running[step] = (self._clock.monotonic(), log)

    def end(self, step: str, state: str, detail: str = "") -> None:
        """Show how a step ended."""
        began, _ = self._running.pop(step, (self._clock.monotonic(), None))
        self.show(step, state, detail, f"{self._clock.monotonic() - began:.1f} s")

    def show(self, step: str, state: str, detail: str = "", seconds: str = "") -> None:
        """Show a step's state."""
        self.say(_cut(f"{seconds:>9}  {step:<44} {state:<10} {detail}".rstrip(), self._width()))

    async def live(self) -> None:
        """Keep the last line of a terminal up to date until cancelled, and leave none behind."""
        try:
            while self._terminal:
                self._redraw(_cut(self._now(), self._width()))
                await asyncio.sleep(_REDRAW)
        finally:
            self._redraw("")

    def _redraw(self, text: str) -> None:
        if self._terminal:
            print(f"\r\033[K{text}", end="", file=self._stream, flush=True)

    def _width(self) -> int:
        """Columns that a line may take, one less than there are, so that no terminal wraps it."""
        return shutil.get_terminal_size((120, 24)).columns - 1

    def _now(self) -> str:
        now = self._clock.monotonic()
        steps = [f"{step} {now - began:.0f} s{_news(log)}" for step, (began, log) in self._running.items()]
        return f"{now - self._began:7.0f} s  {', '.join(steps)}"


def _news(log: Log) -> str:
    """Tell what a step last logged, such as `  rows 120 000  bytes 4 000 000`."""
    event = next(log.events(), {})
    figures = (f"{key} {value}" for key, value in event.items() if key not in _QUIET and not isinstance(value, list))
    text = "  ".join(figures)
    return f" ({text})" if text else ""


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"
