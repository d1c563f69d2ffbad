"""`ecomm` in a process of its own, as a person or a pod runs it."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

ECOMM = (sys.executable, "-m", "ecomm_pipeline.cli")


def run_ecomm(
    *args: str, env: Mapping[str, str], code: int | None = 0, timeout: float = 600, **options: Any
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, which must have this exit code; None: any."""
    command = [*ECOMM, *args]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=timeout, **options)
    assert code in (None, done.returncode), (
        f"ecomm {' '.join(args)}: {done.returncode}\n{done.stdout[-4000:]}\n{done.stderr[-6000:]}"
    )
    return done


def start_ecomm(*args: str, env: Mapping[str, str], **options: Any) -> subprocess.Popen[str]:
    """Start a command; its standard error can be read."""
    return subprocess.Popen([*ECOMM, *args], env=env, stderr=subprocess.PIPE, text=True, **options)
