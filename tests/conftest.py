"""The one warm sandbox that integration and contract tests share; it starts when the first of them asks for it."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ecomm_sandbox.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import Iterator


class WarmSandbox:
    """A running sandbox, with what tests do to it."""

    def __init__(self, home: Path) -> None:
        self._sandbox = Sandbox(home)
        self.home = home

    @property
    def env(self) -> dict[str, str]:
        """What a stage needs to connect: ECOMM_…, AWS_…, PG…, DATABRICKS_…."""
        return self._sandbox.env()

    @property
    def lineage(self) -> dict[str, str]:
        """What makes a stage send OpenLineage events: OPENLINEAGE_…."""
        everything = self._sandbox.env(with_lineage=True)
        return {name: value for name, value in everything.items() if name not in self.env}

    def messages(self) -> list[dict[str, Any]]:
        """Give what the sinks took, oldest first."""
        return list(self._sandbox.messages()["messages"])

    def connect(self, user: str = "shop") -> Any:
        """Connect to Postgres as the owner of the tables (or another role) with psycopg2, through the proxy."""
        return self._sandbox.connect(user)

    @property
    def s3(self) -> Any:
        """A boto3 client of the bucket's server."""
        return self._sandbox.s3()

    def keys(self, prefix: str = "") -> list[str]:
        """List the bucket's keys under a prefix, in order."""
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=self.env["ECOMM_STORE_BUCKET"], Prefix=prefix)
        return sorted(entry["Key"] for page in pages for entry in page.get("Contents", []))

    def get(self, key: str) -> bytes:
        """Read an object."""
        return self.s3.get_object(Bucket=self.env["ECOMM_STORE_BUCKET"], Key=key)["Body"].read()

    def load(self, *args: str) -> None:
        """Run `ecomm-sandbox load` with these arguments."""
        self._run("load", *args)

    def query(self, sql: str) -> list[list[Any]]:
        """Give the rows of a SQL statement on the warehouse; values as the Statement Execution API writes them."""
        return self._sandbox.query(sql)

    @contextmanager
    def fault(self, service: str, kind: str, **options: Any) -> Iterator[None]:
        """Have a fault on inside a `with`; `times`, `seconds` and the kind's options as keywords."""
        self._sandbox.fault(service, kind, **options)
        try:
            yield
        finally:
            self._sandbox.clear_faults(service)

    @contextmanager
    def service(self, name: str) -> Iterator[None]:
        """Have a service that is up on demand only inside a `with`."""
        self._sandbox.up([name])
        try:
            yield
        finally:
            self._sandbox.down([name])

    def reset(self, business_timezone: str = "Asia/Ho_Chi_Minh") -> None:
        """Empty the shop's tables, the bucket and the lakehouse, and set the zone in which a business date begins."""
        if self.env["ECOMM_BUSINESS_TIMEZONE"] != business_timezone:
            self._sandbox.up(timezone=business_timezone)
        self._sandbox.reset()

    def empty_shop(self) -> None:
        """Make the shop's tables in Postgres anew."""
        self._sandbox.empty()

    def empty_bucket(self, prefix: str = "") -> None:
        """Remove the bucket's objects under a prefix."""
        self._sandbox.empty_bucket(prefix)

    def reset_lakehouse(self) -> None:
        """Drop all tables of the lakehouse, and what the pipeline remembers of files it has read."""
        self._sandbox.reset_lakehouse()

    def _run(self, *args: str) -> None:
        command = [sys.executable, "-m", "ecomm_sandbox.cli", *args, "--home", str(self.home)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
        assert done.returncode == 0, f"ecomm-sandbox {' '.join(args)}:\n{done.stderr[-4000:]}"


def _is_up(home: Path) -> bool:
    return (home / "state.json").exists() and all(one.state == "running" for one in Sandbox(home).status())


@pytest.fixture(scope="session")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WarmSandbox]:
    """A sandbox with all services: the one of $ECOMM_SANDBOX_HOME when it is up, else one of its own for this run."""
    given = os.environ.get("ECOMM_SANDBOX_HOME")
    if given and _is_up(Path(given)):
        yield WarmSandbox(Path(given))
        return
    home = tmp_path_factory.mktemp("sandbox")
    own = Sandbox(home)
    try:
        own.up()
        yield WarmSandbox(home)
    finally:
        own.down()
