"""Processes: exactly those that were started are ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from ecomm_sandbox import processes


def start(tmp_path, code, marker="home:test"):
    process = processes.start(
        [sys.executable, "-c", code], log=tmp_path / "log", cwd=tmp_path, env=dict(os.environ), marker=marker
    )
    deadline = time.monotonic() + 20
    while "ready" not in (tmp_path / "log").read_text():
        assert time.monotonic() < deadline, (tmp_path / "log").read_text()
        time.sleep(0.01)
    return processes.identity(process.pid)


def test_a_process_that_listens_is_ended_by_asking(tmp_path):
    identity = start(tmp_path, "import time; print('ready', flush=True); time.sleep(60)")
    assert processes.is_running(identity)
    processes.end([identity], grace=20)
    assert not processes.is_running(identity)


def test_a_process_that_does_not_listen_is_killed(tmp_path):
    code = "import signal, time; signal.signal(15, signal.SIG_IGN); print('ready', flush=True); time.sleep(60)"
    identity = start(tmp_path, code)
    processes.end([identity], grace=0.1)
    assert not processes.is_running(identity)


def test_a_process_that_was_given_the_same_id_is_left_alone(tmp_path):
    pid, started = start(tmp_path, "import time; print('ready', flush=True); time.sleep(60)")
    processes.end([(pid, started - 1)], how=signal.SIGKILL, grace=0)
    assert processes.is_running((pid, started))
    processes.end([(pid, started)])


def test_what_a_killed_service_forked_is_found_by_its_marker(tmp_path):
    child = "import time; print('ready', flush=True); time.sleep(60)"
    code = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {child!r}]); time.sleep(60)"
    marker = f"{tmp_path}:forks"
    parent = start(tmp_path, code, marker)
    assert len(processes.leftovers(marker)) == 2
    processes.end([parent], how=signal.SIGKILL)
    (left,) = processes.leftovers(marker)
    processes.end([left])
    assert processes.leftovers(marker) == []
    assert processes.leftovers(f"{tmp_path}:other") == []


def test_a_zombie_is_not_running():
    process = subprocess.Popen([sys.executable, "-c", ""])  # its end is not waited for, so it stays a zombie
    deadline = time.monotonic() + 20
    while processes.identity(process.pid) is not None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.wait()


def test_a_process_whose_last_thread_still_runs_is_not_dead_yet(tmp_path):
    thread = "import ctypes, threading, time; threading.Thread(target=time.sleep, args=(60,)).start()"
    code = f"{thread}; print('ready', flush=True); ctypes.CDLL(None).pthread_exit(None)"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    try:
        process.stdout.readline()
        state = Path(f"/proc/{process.pid}/stat")
        deadline = time.monotonic() + 10
        while ") Z " not in state.read_text() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert ") Z " in state.read_text()
        assert processes.identity(process.pid) is not None
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    assert processes.identity(process.pid) is None
