"""The process that dbt runs in: `python -P -m ecomm_pipeline.dbt_runner.child`.

It imports dbt at once, while its parent warms the warehouse up, then waits for one line on standard input: dbt's
arguments, as a JSON list. When standard input ends, which is also what happens when the parent is killed, it interrupts
dbt, so that no statement goes on that nobody waits for and no second dbt runs beside the next try's.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time

__all__ = ["main"]

LAST_SECONDS = 10
"""How long dbt may take to cancel its statements when it is interrupted."""


def _stop_with_parent() -> None:
    while os.read(0, 1024):  # not sys.stdin: its lock would be held when the interpreter ends
        pass
    os.kill(os.getpid(), signal.SIGINT)  # dbt cancels what runs on the warehouse
    time.sleep(LAST_SECONDS)
    os._exit(1)


def main() -> None:
    """Run dbt's command line once; ends with its exit code."""
    import dbt.adapters.databricks  # noqa: F401 (half of dbt's start-up: to be had before the arguments come)
    from dbt.cli.main import cli

    arguments = sys.stdin.readline()
    if not arguments:
        return
    threading.Thread(target=_stop_with_parent, daemon=True).start()
    cli(json.loads(arguments), prog_name="dbt")


if __name__ == "__main__":
    main()
