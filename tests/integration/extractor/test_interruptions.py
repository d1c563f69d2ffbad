"""Whatever ends an extraction half-way, nothing half is left, and the same command again completes it."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from contextlib import closing
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


def waiting(shop: Shop) -> bool:
    """Tell whether the extractor's backend sleeps or waits for a lock."""
    events = shop.sql("SELECT wait_event FROM pg_stat_activity WHERE pid = ANY(%s)", (shop.backends(),))
    return bool({"PgSleep", "relation"} & {event for (event,) in events})


@pytest.mark.parametrize("silence", ["a query that takes long", "a lock that another holds"])
def test_a_signal_is_heard_while_postgres_is_silent(shop: Shop, wait_until: WaitUntil, silence: str) -> None:
    sleeping = f"SELECT 1 k, timestamptz '{NOON}' updated_at FROM pg_sleep(60)"
    shop.sql(f"CREATE TABLE t (updated_at timestamptz); CREATE VIEW sleeping AS {sleeping}")
    with closing(shop.connect()) as other:
        other.cursor().execute("LOCK TABLE t")
        process = shop.start("sleeping" if silence == "a query that takes long" else "t")
        wait_until(lambda: waiting(shop))
        process.terminate()
        try:
            _, errors = process.communicate(timeout=5)
        finally:
            process.kill()
        assert process.returncode == 143, errors
        wait_until(lambda: not shop.backends())


def test_killed_in_whatever_state_and_run_again_it_is_as_if_nothing_had_happened(
    big: Shop, wait_until: WaitUntil
) -> None:
    undisturbed = big.extract("big", run_id="20260101T000000Z-calm")
    calm = set(big.keys())

    def kill_when(condition: Callable[[], Any]) -> None:
        process = big.start("big")
        wait_until(condition)
        process.send_signal(signal.SIGKILL)
        process.communicate()

    kill_when(big.backends)
    assert set(big.keys()) == calm
    kill_when(big.open_uploads)
    assert (set(big.keys()), big.open_uploads()) == (calm, 1)
    kill_when(lambda: set(big.keys()) - calm)
    for manifest in set(big.keys()) - calm:
        if manifest.endswith("_manifest.json"):  # it was quicker than we: as if we had been
            big.sandbox.empty_bucket(manifest)
    assert [key.rpartition("/")[2] for key in set(big.keys()) - calm] == ["part-00000.csv"]

    done = big.extract("big")
    assert done.csv == undisturbed.csv
    assert [file.name for file in done.manifest.files] == ["part-00001.csv"]
    assert done.manifest.files[0].sha256 == undisturbed.manifest.files[0].sha256
    assert big.open_uploads() == 0


def test_an_upload_that_another_run_left_open_is_ended_when_that_run_cannot_be_alive(shop: Shop) -> None:
    shop.sql(f"CREATE TABLE t AS SELECT 1 k, timestamptz '{NOON}' updated_at")
    dead = shop.extract("t", run_id="20260101T000000Z-dead")
    folder = str(dead.record.figures["manifest"]).rpartition("/")[0]
    bucket = shop.env["ECOMM_STORE_BUCKET"]
    shop.sandbox.s3.create_multipart_upload(Bucket=bucket, Key=f"{folder}/part-00001.csv.gz")
    shop.extract("t", run_id="20260102T000000Z-next")
    assert shop.open_uploads() == 1
    time.sleep(2)
    shop.set(ECOMM_EXTRACTOR_STATEMENT_TIMEOUT="1")
    shop.extract("t", run_id="20260103T000000Z-late")
    assert shop.open_uploads() == 0


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
