"""Whatever ends an extraction half-way, nothing half is left, and the same command again completes it."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ecomm_pipeline.errors import CredentialsError, UnavailableError

if TYPE_CHECKING:
    import subprocess
    from .conftest import Shop

WaitUntil = Callable[[Callable[[], Any]], None]
NOON = "2026-01-02 12:00+07"


def made_up(shop: Shop, table: str, megabytes: int) -> None:
    """Make a view of that much CSV, made up as it is read; written plain, so that its upload takes a while."""
    shop.set(ECOMM_EXTRACTOR_COMPRESSION="none")
    shop.sql(
        f"CREATE VIEW {table} AS SELECT i k, repeat(md5(i::text), 31) pad, timestamptz '{NOON}' updated_at "
        f"FROM generate_series(1, {megabytes} * 1000) i"
    )


@pytest.fixture
def big(shop: Shop) -> Shop:
    """The shop with a `big` of 100 MB."""
    made_up(shop, "big", 100)
    return shop


def peak_memory(process: subprocess.Popen[str]) -> float:
    """Wait for a process, and give the most memory it held, in 10⁶ bytes.

    Its own account, as the kernel keeps it: `getrusage` would count what this process held when it forked.
    """
    peak = 0
    while process.poll() is None:
        status = Path(f"/proc/{process.pid}/status").read_text()
        peak = max(peak, *(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")), 0)
        time.sleep(0.01)
    return peak * 1024 / 1e6


def test_memory_does_not_grow_with_the_table(shop: Shop) -> None:
    peaks = []
    for megabytes in (30, 300):
        made_up(shop, f"of_{megabytes}", megabytes)
        process = shop.start(f"of_{megabytes}")
        peaks.append(peak_memory(process))
        _, errors = process.communicate()
        assert process.returncode == 0, errors
        assert shop.record(f"of_{megabytes}").figures["uncompressed_bytes"] > megabytes * 1e6
    print(f"peak {peaks[0]:.0f} MB for 30 MB of CSV, {peaks[1]:.0f} MB for 300 MB")
    assert peaks[1] <= 100
    assert peaks[1] - peaks[0] <= 25


def test_a_database_that_ends_the_copy_leaves_no_file(big: Shop, wait_until: WaitUntil) -> None:
    process = big.start("big")
    wait_until(big.open_uploads)
    big.sql("SELECT pg_terminate_backend(pid) FROM unnest(%s) pid", (big.backends(),))
    _, errors = process.communicate(timeout=60)
    assert process.returncode == UnavailableError("").failure.exit_code
    assert "ended the connection" in errors
    assert (big.keys(), big.open_uploads()) == ([], 0)


def test_a_store_that_refuses_the_rest_gets_no_file(big: Shop, wait_until: WaitUntil) -> None:
    process = big.start("big")
    wait_until(big.open_uploads)
    with big.sandbox.fault("s3", "forbidden"):
        process.communicate(timeout=60)
    assert process.returncode == CredentialsError("").failure.exit_code
    assert big.keys() == []

    assert big.extract("big").manifest.rows == 100000
    assert (big.names(), big.open_uploads()) == (["_manifest.json", "part-00000.csv"], 0)


def test_a_signal_ends_the_copy_in_the_database_too(big: Shop, wait_until: WaitUntil) -> None:
    process = big.start("big")
    wait_until(big.open_uploads)
    process.terminate()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 143, errors
    assert big.record("big").outcome == "cancelled"
    assert (big.keys(), big.open_uploads()) == ([], 0)
    wait_until(lambda: not big.backends())


def test_killed_at_any_moment_and_run_again_it_is_as_if_nothing_had_happened(big: Shop) -> None:
    undisturbed = big.extract("big", run_id="20260101T000000Z-calm")
    moments = random.Random(20260102)
    for _ in range(4):
        process = big.start("big")
        time.sleep(moments.uniform(0.3, 1.5))
        process.send_signal(signal.SIGKILL)
        process.communicate()
    done = big.extract("big")
    assert done.csv == undisturbed.csv
    assert done.manifest.files[0].sha256 == undisturbed.manifest.files[0].sha256
    assert big.open_uploads() == 0


def test_a_file_without_a_manifest_is_neither_counted_nor_written_again(shop: Shop) -> None:
    shop.sql(f"CREATE TABLE t AS SELECT 1 k, timestamptz '{NOON}' updated_at")
    first = shop.extract("t")
    key = str(first.record.figures["manifest"])
    shop.sandbox.empty_bucket(key)
    shop.sql("INSERT INTO t SELECT 2, updated_at FROM t")
    second = shop.extract("t")
    assert [file.name for file in second.manifest.files] == ["part-00001.csv.gz"]
    assert (first.manifest.rows, second.manifest.rows) == (1, 2)
    assert shop.names() == ["_manifest.json", "part-00000.csv.gz", "part-00001.csv.gz"]
