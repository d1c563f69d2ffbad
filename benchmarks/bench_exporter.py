"""Measure `ecomm exporter` over a year's ledger in the S3 of a sandbox.

    python benchmarks/bench_exporter.py [--days 365] [--write]

Prints the figures; `--write` puts them into docs/benchmarks.md. Requests are counted on the wire. Two ledgers: a year
of nights, each written when it was; and the same written this week, as a backfill of the year leaves it.
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

import page

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.support.alerting import free_port, http
from tests.support.nights import Nights

from ecomm_pipeline.clock import SystemClock
from ecomm_pipeline.dates import BusinessDate
from ecomm_pipeline.exporter.run import serve
from ecomm_pipeline.layout import Layout
from ecomm_pipeline.settings import ExporterSettings, load
from ecomm_pipeline.settings import Store as StoreSettings
from ecomm_pipeline.store import Store
from ecomm_sandbox.sandbox import Sandbox

TZ = ZoneInfo("Asia/Ho_Chi_Minh")
AHEAD = 60
"""Days that the exporter's clock is ahead, so that what was just written looks as old as its dates."""
LOOKS = 21
"""Looks that are watched: of these one is at all dates."""


class ClockAhead(SystemClock):
    """The machine's clock, some days ahead."""

    def __init__(self, days: int) -> None:
        self._ahead = timedelta(days=days)

    def now(self) -> datetime:
        """Give the instant that many days from now."""
        return super().now() + self._ahead


class CountingProxy:
    """Passes connections on, and counts the HTTP requests in them."""

    def __init__(self, target: int) -> None:
        self.requests = 0
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            client, _ = self._listener.accept()
            server = socket.create_connection(("127.0.0.1", self._target))
            for source, sink in ((client, server), (server, client)):
                threading.Thread(target=self._pump, args=(source, sink, source is client), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, requests: bool) -> None:  # noqa: FBT001
        while content := source.recv(1 << 16):
            self.requests += requests and content.startswith(b"GET ")
            sink.sendall(content)
        sink.close()


def measure(env: dict[str, str], ahead: int) -> dict[str, str]:
    """Run an exporter, and give its figures by name."""
    proxy = CountingProxy(urlsplit(env["ECOMM_STORE_ENDPOINT"]).port or 0)
    port = free_port()
    ours = {**os.environ, **env, "ECOMM_STORE_ENDPOINT": f"http://127.0.0.1:{proxy.port}"}
    ours |= {"ECOMM_EXPORTER_REFRESH_INTERVAL": "0.5", "ECOMM_BUSINESS_TIMEZONE": str(TZ)}
    began = time.monotonic()
    command = [sys.executable, __file__, "--serve", str(port), "--ahead", str(ahead)]
    with subprocess.Popen(command, env=ours, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            text = wait_for(port, "ecomm_exporter_refreshed_timestamp_seconds", None)
            start, first = time.monotonic() - began, proxy.requests
            looks, counts, scrapes = [], [first], []
            for _ in range(LOOKS):
                seen = value(text, "ecomm_exporter_refreshed_timestamp_seconds")
                text = wait_for(port, "ecomm_exporter_refreshed_timestamp_seconds", seen, scrapes)
                looks.append(value(text, "ecomm_exporter_refresh_seconds") or 0)
                counts.append(proxy.requests)
            memory = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8")
        finally:
            process.terminate()
    later = [after - before for before, after in pairwise(counts)]
    return {
        "records held": f"{value(text, 'ecomm_exporter_objects') or 0:,.0f}",
        "start to first figures, s": f"{start:.1f}",
        "requests, first look": f"{first}",
        "requests a look": f"{statistics.median(later):.0f}",
        "requests, every twentieth look": f"{max(later)}",
        "seconds a look": f"{statistics.median(looks):.2f}",
        "series": f"{sum(line.startswith('ecomm_') for line in text.splitlines()):,}",
        "page, KB": f"{len(text) / 1000:.0f}",
        "seconds a scrape": f"{statistics.median(scrapes):.2f}",
        "peak memory, MiB": f"{int(memory.split('VmHWM:')[1].split()[0]) / 1024:.0f}",
    }


def wait_for(port: int, name: str, not_this: float | None, scrapes: list[float] | None = None) -> str:
    """Scrape until a metric is there with another value; give the page."""
    while True:
        began = time.monotonic()
        try:
            text = str(http("GET", f"http://127.0.0.1:{port}/metrics"))
        except OSError:
            text = ""
        if value(text, name) not in (None, not_this):
            if scrapes is not None:
                scrapes.append(time.monotonic() - began)
            return text
        time.sleep(0.05)


def value(text: str, name: str) -> float | None:
    """Give the value of a metric without labels."""
    return next((float(line.split()[1]) for line in text.splitlines() if line.startswith(f"{name} ")), None)


def write_year(days: int) -> None:
    """Write that many nights, as of the clock ahead and as of now, under a prefix each."""
    for ahead in (0, AHEAD):
        nights = Nights(Store(StoreSettings()), TZ, Layout(prefix(ahead)))
        newest = BusinessDate.of(datetime.now(UTC) + timedelta(days=ahead), TZ).plus(-1)
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(nights.write, [newest.plus(-back) for back in range(days)]))


def prefix(ahead: int) -> str:
    """Give the part of the bucket for a clock."""
    return f"ahead-{ahead}"


def main() -> None:
    """Measure, print and, when asked to, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--days", type=int, default=365)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--ahead", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        settings = load(ExporterSettings)
        layout = Layout(prefix(options.ahead))
        clock = ClockAhead(options.ahead)
        serve(settings, Store(settings.store), layout, clock, address="127.0.0.1", port=options.serve)
        return
    with tempfile.TemporaryDirectory() as folder:
        sandbox = Sandbox(Path(folder))
        try:
            sandbox.up(["s3"])
            os.environ |= sandbox.env()
            write_year(options.days)
            usual, backfilled = (measure(sandbox.env(), ahead) for ahead in (AHEAD, 0))
        finally:
            sandbox.down()
    lines = [f"Measured {datetime.now(UTC):%Y-%m-%d}, {options.days} dates. Command: `make bench-exporter`.", ""]
    lines += ["| | a year of nights | the year backfilled this week |", "| --- | ---: | ---: |"]
    lines += [f"| {name} | {usual[name]} | {backfilled[name]} |" for name in usual]
    print("\n".join(lines))
    if options.write:
        page.write("bench_exporter", "\n".join(lines))


if __name__ == "__main__":
    main()
