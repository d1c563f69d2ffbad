"""The demo: a sandbox with a shop in it, the pipeline run over it, and a report to look at."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from ecomm_sandbox.databricks_service import DEFAULT_TIMEZONE
from ecomm_sandbox.sandbox import LoadOptions, Sandbox, parse_dates
from ecomm_sandbox.state import SandboxError

__all__ = ["DemoOptions", "demo"]

Say = Callable[[str, str], None]

FILES_TIMEZONE = "Europe/London"
"""Zone of the shop of Online Retail."""


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """What to show: made-up days, or day files of a `folder` for the range `dates`."""

    folder: Path | None = None
    dates: str = ""
    """`FROM..TO`; empty for all days of the folder, or all made-up ones."""
    days: int = 7
    orders_per_day: float = 120
    report: Path = Path("report.html")


def demo(sandbox: Sandbox, options: DemoOptions, say: Say) -> None:
    """Bring a sandbox up, load, run, and write the report. Raises `SandboxError` when a step fails."""
    timezone = FILES_TIMEZONE if options.folder else os.environ.get("ECOMM_BUSINESS_TIMEZONE") or DEFAULT_TIMEZONE
    first, last = _span(options, timezone)
    load = (
        LoadOptions(folder=options.folder, dates=f"{first}..{last}", timezone=timezone)
        if options.folder
        else LoadOptions(
            generate=(last - first).days + 1, orders_per_day=options.orders_per_day, until=str(last), timezone=timezone
        )
    )
    dates = f"{first}..{last}"
    began = time.monotonic()
    sandbox.up(timezone=timezone, progress=say)
    _begin_anew(
        sandbox, f"{options.folder.resolve()}" if options.folder else f"made up until {last} in {timezone}", say
    )
    loaded = sandbox.load(load)
    say("load", f"{loaded.lines:,} order lines of {loaded.days} days")
    _ecomm(sandbox, "run", dates)
    _ecomm(sandbox, "report", dates, "-o", str(options.report))
    say("demo", f"{dates} done after {time.monotonic() - began:.0f} s; open {options.report.absolute()}")


def _begin_anew(sandbox: Sandbox, shop: str, say: Say) -> None:
    """Empty a sandbox that holds another demo's shop: two shops in one database would be no shop at all."""
    before = sandbox.state.values.get("demo", shop)
    if before != shop:
        say("demo", f"removing the shop that was there ({before})")
        sandbox.reset()
    with sandbox.home.change() as state:
        state.values["demo"] = shop


def _span(options: DemoOptions, timezone: str) -> tuple[date, date]:
    """Give the first and last day to show."""
    from ecomm_pipeline.dates import zone
    from ecomm_sandbox.loader import day_files

    first, last = parse_dates(options.dates)
    if options.folder is not None:
        files = day_files(options.folder, first, last)
        return first or files[0][0], last or files[-1][0]
    yesterday = datetime.now(UTC).astimezone(zone(timezone)).date() - timedelta(days=1)
    return first or yesterday - timedelta(days=options.days - 1), last or yesterday


def _ecomm(sandbox: Sandbox, *args: str) -> None:
    """Run the `ecomm` command of this Python, its output shown as it comes."""
    env = {**os.environ, **sandbox.env()}
    code = subprocess.run([sys.executable, "-m", "ecomm_pipeline.cli", *args], env=env, check=False).returncode
    if code:
        message = f"`ecomm {' '.join(args)}` ended with code {code}"
        raise SandboxError(
            message, next_step='see its messages above; the sandbox is still up: eval "$(ecomm-sandbox env)"'
        )
