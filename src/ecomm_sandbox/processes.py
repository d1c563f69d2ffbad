"""Starting and ending processes that outlive the command which started them.

A process is known by its id and start time, so that an id which the system has given to somebody else is never touched;
and what it forked is known by a variable in its environment. Linux only: it reads /proc (proc(5)).
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = ["MARKER", "end", "identity", "is_running", "leftovers", "start"]

MARKER: Final = "ECOMM_SANDBOX_PROCESS"
"""Variable that all processes of a service carry: `{home}:{service}`."""

_started: list[subprocess.Popen[bytes]] = []
"""Kept, because a collected Popen of a living process warns, and is no longer reaped."""
_lock = threading.Lock()
"""Services are started, and waited for, by several threads at once."""


def start(
    argv: Sequence[str], *, log: Path, cwd: Path, env: Mapping[str, str], marker: str, user: int | None = None
) -> subprocess.Popen[bytes]:
    """Start a process in a session of its own, its output appended to `log`."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        process = subprocess.Popen(
            argv,
            cwd=cwd,
            env={**env, MARKER: marker},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            user=user,
        )
    with _lock:
        _started.append(process)
    return process


def identity(pid: int) -> tuple[int, int] | None:
    """Give (process id, start time in clock ticks after boot) of a running process; None when it is dead.

    A process that was killed is not dead before its last thread is: until then its ports are taken.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    state, *rest = stat[stat.rindex(")") + 2 :].split()
    threads, started = int(rest[16]), int(rest[18])
    return None if state in "ZX" and threads <= 1 else (pid, started)


def is_running(process: tuple[int, int] | None) -> bool:
    """Tell whether exactly this process (id and start time) still runs."""
    return process is not None and identity(process[0]) == process


def leftovers(marker: str) -> list[tuple[int, int]]:
    """Find running processes that carry a marker: what a service forked, even when the service itself was killed."""
    wanted = f"{MARKER}={marker}".encode()
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit() or int(folder.name) == os.getpid():
            continue
        with suppress(OSError):
            if wanted in (folder / "environ").read_bytes().split(b"\0"):
                process = identity(int(folder.name))
                found += [process] if process else []
    return found


def end(processes: Iterable[tuple[int, int]], *, how: int = signal.SIGTERM, grace: float = 10) -> None:
    """End processes: ask with signal `how`, wait up to `grace` seconds, then kill what is left."""
    waiting = [process for process in processes if _send(process, how)]
    deadline = time.monotonic() + grace
    while waiting and time.monotonic() < deadline:
        time.sleep(0.02)
        _reap()
        waiting = [process for process in waiting if is_running(process)]
    for process in waiting:
        _send(process, signal.SIGKILL)
    while any(is_running(process) for process in waiting):
        time.sleep(0.01)
        _reap()


def _send(process: tuple[int, int], how: int) -> bool:
    """Send a signal through a handle that cannot be given to another process in between; False if it is dead."""
    try:
        handle = os.pidfd_open(process[0])
    except ProcessLookupError:
        return False
    try:
        if not is_running(process):
            return False
        signal.pidfd_send_signal(handle, how)
    except ProcessLookupError:
        return False
    finally:
        os.close(handle)
    return True


def _reap() -> None:
    with _lock:
        _started[:] = [process for process in list(_started) if process.poll() is None]
