"""A schema and a folder of the bucket for each test, and the extractor to run on them."""

from __future__ import annotations

import gzip
import hashlib
import os
import secrets
import time
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import pytest
from tests.support.command import start_ecomm

from ecomm_pipeline.clock import SystemClock
from ecomm_pipeline.dates import parse_dates
from ecomm_pipeline.extractor.run import extract
from ecomm_pipeline.layout import Layout
from ecomm_pipeline.ledger import Record
from ecomm_pipeline.manifest import Manifest
from ecomm_pipeline.settings import ExtractorSettings, load
from ecomm_pipeline.stage import run_stage
from ecomm_pipeline.store import Store

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator

TZ = ZoneInfo("Asia/Ho_Chi_Minh")
DATE = "2026-01-02"
RUN_ID = "20260102T180000Z-test"


@dataclass
class Extract:
    """What an extract left: its record, its manifest, and the CSV of the files that the manifest lists."""

    record: Record
    manifest: Manifest
    csv: bytes


class Shop:
    """A schema of its own in the sandbox's database, and a folder of its own in its bucket."""

    def __init__(self, sandbox: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sandbox = sandbox
        self.schema = f'Shop "{secrets.token_hex(4)}"'  # an odd name on purpose: every test quotes it
        self.prefix = f"extractor-{secrets.token_hex(4)}"
        self.env = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("ECOMM_", "AWS_", "PG"))},
            **sandbox.env,
            "ECOMM_POSTGRES_SCHEMA": self.schema,
            "ECOMM_STORE_PREFIX": self.prefix,
            "ECOMM_RUN_ID": RUN_ID,
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        for name in set(os.environ) - set(self.env):
            monkeypatch.delenv(name)
        for name, value in self.env.items():
            monkeypatch.setenv(name, value)
        self._monkeypatch = monkeypatch
        quoted = self.schema.replace('"', '""')
        self.sql(f'CREATE SCHEMA "{quoted}"')
        self.sql(f'GRANT USAGE ON SCHEMA "{quoted}" TO extractor')
        self.sql(f'ALTER DEFAULT PRIVILEGES IN SCHEMA "{quoted}" GRANT SELECT ON TABLES TO extractor')
        self._search_path = f"SET search_path = \"{quoted}\"; SET TIME ZONE 'UTC';"

    def sql(self, statement: str, values: Any = None) -> list[tuple[Any, ...]]:
        """Run SQL as a superuser in the schema, and give its rows."""
        with closing(self.connect()) as connection, connection, connection.cursor() as cursor:
            cursor.execute(statement, values)
            return cursor.fetchall() if cursor.description else []

    def connect(self) -> Any:
        """Connect as a superuser, with the schema first in the search path."""
        connection = self.sandbox.connect("postgres")
        connection.autocommit = True
        if hasattr(self, "_search_path"):
            with connection.cursor() as cursor:
                cursor.execute(self._search_path)
        connection.autocommit = False
        return connection

    def set(self, **environment: str) -> None:
        """Change the environment of the extractor."""
        self.env.update(environment)
        for name, value in environment.items():
            self._monkeypatch.setenv(name, value)

    def unset(self, *names: str) -> None:
        """Take variables out of the environment of the extractor."""
        for name in names:
            self.env.pop(name, None)
            self._monkeypatch.delenv(name, raising=False)

    def extract(self, table: str, run_id: str = RUN_ID, date: str = DATE) -> Extract:
        """Extract a table, here in this process, as the command does."""
        settings = load(ExtractorSettings)
        store, layout = Store(settings.store), Layout(settings.store.prefix)
        record = run_stage(
            lambda context: extract(context, settings),
            stage="extractor",
            dates=parse_dates(date, TZ),
            tz=TZ,
            run_id=run_id,
            trigger="local",
            store=store,
            layout=layout,
            clock=SystemClock(),
            table=table,
        )
        return self.result(record)

    def result(self, record: Record) -> Extract:
        """Read what a record's manifest lists, and check each file against it."""
        key = str(record.figures["manifest"])
        manifest = Manifest.from_json(self.sandbox.get(key), key=key)
        csv = b""
        for file in manifest.files:
            stored = self.sandbox.get(f"{key.rpartition('/')[0]}/{file.name}")
            assert (len(stored), hashlib.sha256(stored).hexdigest()) == (file.bytes, file.sha256)
            content = gzip.decompress(stored) if file.name.endswith(".gz") else stored
            assert len(content) == file.uncompressed_bytes
            csv += content
        return Extract(record, manifest, csv)

    def start(self, table: str, date: str = DATE, run_id: str = RUN_ID) -> subprocess.Popen[str]:
        """Start the command in a process of its own."""
        return start_ecomm("extractor", "--table", table, "--date", date, env={**self.env, "ECOMM_RUN_ID": run_id})

    def record(self, table: str, date: str = DATE, run_id: str = RUN_ID) -> Record:
        """Read the ledger's record of an extraction."""
        return Record.model_validate_json(
            self.sandbox.get(Layout(self.prefix).record(parse_dates(date, TZ).only, "extractor", table, run_id))
        )

    def keys(self) -> list[str]:
        """List the names of all objects of extracts, without the ledger."""
        return [key for key in self.sandbox.keys(self.prefix) if "/ledger/" not in key]

    def names(self) -> list[str]:
        """List the names of the files of extracts, without their folders."""
        return sorted(key.rpartition("/")[2] for key in self.keys())

    def open_uploads(self) -> int:
        """Count the multipart uploads under the test's folder that are not ended."""
        bucket = self.env["ECOMM_STORE_BUCKET"]
        listed = self.sandbox.s3.list_multipart_uploads(Bucket=bucket, Prefix=self.prefix)
        return len(listed.get("Uploads", []))

    def backends(self) -> list[int]:
        """Give the ids of the extractor's database processes."""
        pattern = f"ecomm-extractor/%/{RUN_ID}"
        return [
            pid for (pid,) in self.sql("SELECT pid FROM pg_stat_activity WHERE application_name LIKE %s", (pattern,))
        ]

    def drop(self) -> None:
        """Remove the schema and the objects."""
        quoted = self.schema.replace('"', '""')
        self.sql(f'DROP SCHEMA "{quoted}" CASCADE')
        self.sandbox.empty_bucket(self.prefix)


@pytest.fixture
def shop(sandbox: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    """A `Shop` for this test alone."""
    made = Shop(sandbox, monkeypatch)
    yield made
    made.drop()


@pytest.fixture
def wait_until() -> Callable[[Callable[[], Any]], None]:
    """Give a function that waits, 20 s at most, until what it is given is true."""

    def wait(condition: Callable[[], Any]) -> None:
        deadline = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < deadline, "it did not happen within 20 s"
            time.sleep(0.01)

    return wait
