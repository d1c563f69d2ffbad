"""A container of a workflow as a process of this machine."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from ecomm_pipeline.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

__all__ = ["Log", "Process", "local_command"]

GRACE: Final = 30.0
"""Seconds from SIGTERM to SIGKILL: Kubernetes' own default, within which a stage stops what it started elsewhere."""
_TAIL: Final = 64 * 1024
_TERMINATED: Final = 128 + signal.SIGTERM


def local_command(command: tuple[str, ...]) -> tuple[str, ...]:
    """Give the command as it is run here: `ecomm` is this installation of it, wherever PATH points."""
    if command[:1] == ("ecomm",):
        return (sys.executable, "-m", "ecomm_pipeline.cli", *command[1:])
    return command


@dataclass(frozen=True, slots=True)
class Log:
    """The file that a step's standard error goes to, one try after the other; `begin` is where this try begins."""

    path: Path
    begin: int

    def lines(self) -> list[str]:
        """Read the last lines of this try."""
        try:
            with self.path.open("rb") as file:
                end = file.seek(0, os.SEEK_END)
                file.seek(max(self.begin, end - _TAIL))
                return file.read().decode(errors="replace").splitlines()
        except FileNotFoundError:
            return []

    def events(self) -> Iterator[dict[str, Any]]:
        """Give the structured events among the lines, the last first."""
        for line in reversed(self.lines()):
            if line.startswith("{"):
                try:
                    yield json.loads(line)
                except ValueError:
                    continue

    def find(self, key: str) -> Any:  # noqa: ANN401 (an event's field is whatever the stage logged)
        """Give the last value that was logged under `key`."""
        return next((event[key] for event in self.events() if event.get(key) is not None), None)

    def said(self, label: str) -> str:
        """Give the last line that begins with `label`, as `ecomm` writes `error:` and `next:`, without it."""
        return next((line[len(label) :].strip() for line in reversed(self.lines()) if line.startswith(label)), "")

    def last_line(self) -> str:
        """Give the last line that is not blank."""
        return next((line.strip() for line in reversed(self.lines()) if line.strip()), "")


class Process:
    """Runs a command to its end. Standard output is kept as the step's result, standard error is its log.

    `lock` is a file descriptor that it holds open as long as it lives.
    """

    def __init__(self, command: tuple[str, ...], env: Mapping[str, str], files: Path, lock: int) -> None:
        self._command = command
        self._env = env
        self._lock = lock
        self._result = files.with_name(f"{files.name}.out")
        path = files.with_name(f"{files.name}.log")
        self.log = Log(path, path.stat().st_size if path.exists() else 0)

    async def run(self, deadline: float | None) -> int:
        """Wait for the exit code; 128 + n for signal n, as for SIGTERM when `deadline` seconds are over.

        When this is cancelled, the process is stopped first; when it is cancelled again, killed. Raises
        `ConfigurationError` when the program cannot be started.
        """
        process = await self._start()
        try:
            return _exit_code(await asyncio.wait_for(process.wait(), deadline))
        except TimeoutError:
            await _stop(process)
            return _TERMINATED
        except asyncio.CancelledError:
            await _stop(process)
            raise

    def result(self) -> str:
        """Give what it printed, less one newline at the end, as Argo's `outputs.result` is."""
        return self._result.read_text(encoding="utf-8", errors="replace").removesuffix("\n")

    async def _start(self) -> asyncio.subprocess.Process:
        with self._result.open("wb") as stdout, self.log.path.open("ab") as stderr:
            try:
                return await asyncio.create_subprocess_exec(
                    *local_command(self._command),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=stdout,
                    stderr=stderr,
                    env=dict(self._env),
                    pass_fds=(self._lock,),
                    start_new_session=True,  # ^C on the terminal reaches us only, so that a child is told once
                )
            except OSError as error:
                message = f"cannot start {self._command[0]!r}: {error.strerror}"
                raise ConfigurationError(
                    message, next_step="install it, or correct the command in workflows/"
                ) from error


async def _stop(process: asyncio.subprocess.Process) -> None:
    """End a process: politely, and after a while, or when we are cancelled again, with all that it started."""
    if process.returncode is None:
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), GRACE)
        except (TimeoutError, asyncio.CancelledError):
            os.killpg(process.pid, signal.SIGKILL)  # its own session, so its own group
            await process.wait()


def _exit_code(returned: int) -> int:
    return returned if returned >= 0 else 128 - returned
