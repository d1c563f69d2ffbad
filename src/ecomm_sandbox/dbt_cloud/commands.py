"""The commands of a run: dbt on the project's own folder `dbt`, against the sandbox's warehouse."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from ecomm_sandbox.environment import environment
from ecomm_sandbox.state import SandboxError

if TYPE_CHECKING:
    import threading

    from ecomm_sandbox.state import Home

__all__ = ["ARTIFACTS", "LOG", "Commands", "Execute"]

ARTIFACTS: Final = ("manifest.json", "run_results.json")
LOG: Final = "dbt.log"
_CACHE: Final = "partial_parse.msgpack"
_LOOK_EVERY: Final = 0.1
_STOP_SECONDS: Final = 10


class Execute(Protocol):
    """Runs one command of a run."""

    def __call__(self, command: str, folder: Path, *, resume: Path | None, stop: threading.Event) -> tuple[bool, str]:
        """Run it with its artifacts in `folder`; gives whether it went well, and what it printed.

        `resume` is the folder of the same command's failed run, which is gone on with. `stop` ends it.
        """


class Commands:
    """Runs dbt as a program of its own."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._parsed: Path | None = None

    def __call__(self, command: str, folder: Path, *, resume: Path | None, stop: threading.Event) -> tuple[bool, str]:
        """Run a command; the same as `Execute` says."""
        words = shlex.split(command)
        if words[:1] != ["dbt"]:
            return False, f"{command}: only dbt's commands are run\n"
        project = _project()
        chosen = ["retry", "--state", str(resume)] if resume else words[1:]
        places = ["--project-dir", str(project), "--profiles-dir", str(project)]
        places += ["--target-path", str(folder), "--log-path", str(folder)]
        folder.mkdir(parents=True, exist_ok=True)
        if self._parsed and self._parsed.exists():
            shutil.copyfile(
                self._parsed, folder / _CACHE
            )  # as a run's cache of the repository spares the next one time
        ended, said = self._run([sys.executable, "-m", "dbt.cli.main", *chosen, *places], folder, stop)
        self._parsed = folder / _CACHE
        return ended == 0, said

    def _run(self, argv: list[str], folder: Path, stop: threading.Event) -> tuple[int, str]:
        ours = {name: value for name, value in environment(self._home.read()).items() if "_DATABRICKS_" in name}
        printed = folder / "printed.txt"
        with printed.open("w") as output:
            process = subprocess.Popen(
                argv,
                cwd=folder,
                env={**os.environ, **ours},
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            while process.poll() is None:
                if stop.wait(_LOOK_EVERY):
                    _interrupt(process)
        return process.returncode, printed.read_text(errors="replace")


def _interrupt(process: subprocess.Popen[bytes]) -> None:
    """Have dbt cancel its statements and end; kill it when that takes too long."""
    process.send_signal(signal.SIGINT)
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _project() -> Path:
    """Find the project's `dbt` folder: where this package was installed from."""
    place = Path(__file__).parents[3] / "dbt"
    if not (place / "dbt_project.yml").exists():
        message = f"the dbt project is not in {place}"
        raise SandboxError(message, next_step="install the package from a checkout of the project: `pip install -e .`")
    return place
