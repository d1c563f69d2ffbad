"""Time the pipeline on a sandbox, as a person would see it: one day by stage, 31 days, start-up, and the demo.

    python benchmarks/bench_run.py [--write] [--demo]

Prints the figures; `--write` puts them into docs/benchmarks.md. `--demo` also times `make demo` twice: as things are,
then warm. Times are of this machine and noisy; the ratios are what to look at.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import page

ROOT = Path(__file__).parent.parent
LAST = date(2026, 1, 31)
DAYS = 31
ORDERS_PER_DAY = 100
STARTS = 5
COMMANDS = (
    "extractor",
    "dlt-trigger",
    "dbt-runner",
    "tableau-refresher",
    "reconciler",
    "run",
    "status",
    "query",
    "report",
)


def timed(command: list[str], env: dict[str, str] | None = None) -> float:
    """Run a command and give its seconds; its output is shown when it fails."""
    began = time.monotonic()
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return time.monotonic() - began


def ecomm(*args: str) -> list[str]:
    """Give the command line of `ecomm`."""
    return [sys.executable, "-m", "ecomm_pipeline.cli", *args]


def sandbox(home: Path, *args: str) -> list[str]:
    """Give the command line of `ecomm-sandbox`."""
    return [sys.executable, "-m", "ecomm_sandbox.cli", *args, "--home", str(home)]


def start_up() -> dict[str, float]:
    """Time each command's `--help`, and the import of the extractor: medians, in seconds."""
    commands = {f"ecomm {name} --help": ecomm(name, "--help") for name in COMMANDS}
    bare = [sys.executable, "-c", "pass"]
    commands |= {"import ecomm_pipeline.extractor.run": [sys.executable, "-c", "import ecomm_pipeline.extractor.run"]}
    floor = statistics.median(timed(bare) for _ in range(STARTS))
    figures = {name: statistics.median(timed(command) for _ in range(STARTS)) for name, command in commands.items()}
    figures["import ecomm_pipeline.extractor.run"] -= floor
    return {"python itself": floor, **figures}


def stages(env: dict[str, str], day: date) -> dict[str, float]:
    """Read from the ledger how long each stage of the newest run of a day took: wall seconds from first to last."""
    code = f"""
import json
from ecomm_pipeline.dates import BusinessDate
from ecomm_pipeline.layout import Layout
from ecomm_pipeline.ledger import Ledger
from ecomm_pipeline.settings import Store as Settings, load
from ecomm_pipeline.store import Store
from datetime import date
records = Ledger(Store(load(Settings)), Layout("")).of_date(BusinessDate(date.fromisoformat("{day}")))
newest = max(r.run_id for r in records)
print(json.dumps([[r.stage, r.started_at.isoformat(), r.ended_at.isoformat()] for r in records if r.run_id == newest]))
"""
    out = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True).stdout
    spans: dict[str, list[datetime]] = {}
    for stage, began, ended in json.loads(out):
        spans.setdefault(stage, []).extend((datetime.fromisoformat(began), datetime.fromisoformat(ended)))
    return {stage: (max(times) - min(times)).total_seconds() for stage, times in spans.items()}


def pipeline() -> tuple[dict[str, float], dict[str, float]]:
    """Time one warm day and 31 days; gives the figures and the day's stages."""
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        try:
            figures["sandbox up"] = timed(sandbox(home, "up"))
            shop = ["--generate", str(DAYS), "--orders-per-day", str(ORDERS_PER_DAY), "--until", str(LAST)]
            figures[f"load {DAYS} days"] = timed(sandbox(home, "load", *shop))
            shown = subprocess.run(sandbox(home, "env", "--format", "json"), capture_output=True, text=True, check=True)
            env = {**os.environ, **json.loads(shown.stdout)}
            first = LAST - timedelta(days=DAYS - 1)
            figures["one day, the first on a new sandbox"] = timed(ecomm("run", str(first)), env)
            figures["one day, warm"] = timed(ecomm("run", str(first + timedelta(days=1))), env)
            by_stage = stages(env, first + timedelta(days=1))
            figures[f"{DAYS} days"] = timed(ecomm("run", f"{first}..{LAST}"), env)
        finally:
            timed(sandbox(home, "down", "--purge"))
    return figures, by_stage


def demo() -> dict[str, float]:
    """Time `make demo` as things are, and again warm (another `make demo` on the sandbox that is then up)."""
    figures = {"make demo": timed(["make", "demo"]), "make demo, warm": timed(["make", "demo"])}
    timed(["make", "clean"])
    return figures


def table(head: str, figures: dict[str, float], digits: int = 1) -> list[str]:
    """Write figures as a table."""
    return [
        f"| {head} | seconds |",
        "| --- | ---: |",
        *(f"| {name} | {value:.{digits}f} |" for name, value in figures.items()),
        "",
    ]


def section(*, with_demo: bool) -> str:
    """Measure, and give the section of the page."""
    starts = start_up()
    figures, by_stage = pipeline()
    if with_demo:
        figures |= demo()
    ratio = figures[f"{DAYS} days"] / figures["one day, warm"]
    machine = f"{os.cpu_count()} cores, Python {sys.version.split()[0]}"
    shop = f"a generated shop of about {ORDERS_PER_DAY} orders a day"
    lines = [
        f"Measured {datetime.now(UTC):%Y-%m-%d} on {machine}; {shop}. Command: `make bench-run`.",
        "",
        *table("what", figures),
        f"31 days take {ratio:.1f}× one warm day (goal: 3×).",
        "",
        *table("one warm day, by stage", by_stage),
        "Orchestration and process starts are the difference between the stages' sum and the whole.",
        "",
        *table("start-up", starts, 2),
    ]
    return "\n".join(lines)


def main() -> None:
    """Measure, print, and write when told to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="put the figures into docs/benchmarks.md")
    parser.add_argument("--demo", action="store_true", help="time `make demo` too")
    options = parser.parse_args()
    text = section(with_demo=options.demo)
    print(text)
    if options.write:
        page.write("bench_run", text)


if __name__ == "__main__":
    main()
