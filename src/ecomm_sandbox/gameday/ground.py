"""Where a scenario is played: a sandbox, a date, the environment of commands, and those who watch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ecomm_sandbox.gameday.scenarios.model import WHOLE
from ecomm_sandbox.gameday.watch import CHART
from ecomm_sandbox.sandbox import LoadOptions, Sandbox
from ecomm_sandbox.state import SandboxError

if TYPE_CHECKING:
    from ecomm_sandbox.gameday.watch import Watch

__all__ = ["HISTORY", "Done", "Ground", "make_ground"]

HISTORY: Final = 6
"""Dates before the newest, without which nothing is usual."""
_ORDERS_A_DAY: Final = 8
_COMMAND_SECONDS: Final = 900
_BEGAN: Final = timedelta(hours=1)
"""How long ago the night of the newest date began."""
_LATER: Final = ("ECOMM_DATABRICKS_", "ECOMM_TABLEAU_")
"""Settings of what is behind the extraction. Without them a stage ends at once; with a wrong host it would wait."""
_DATABRICKS: Final = ("PIPELINE_ID", "WAREHOUSE_ID", "TOKEN")

Done = subprocess.CompletedProcess[str]


@dataclass(slots=True)
class Ground:
    """What a scenario works on. `whole`: the lakehouse and Tableau are there, so that a repair goes all the way."""

    sandbox: Sandbox
    date: str
    environment: dict[str, str]
    folder: Path
    whole: bool
    watch: Watch | None = None
    """Those who watch, while a scenario is played."""

    def before(self, days: int) -> str:
        """Give the date that is so many days before."""
        return str(datetime.fromisoformat(self.date).date() - timedelta(days=days))

    def ecomm(self, *command: str, **environment: str) -> Done:
        """Run a command of `ecomm`, in which `{date}` is the date."""
        words = [part.format(date=self.date) for part in command]
        return self._run([sys.executable, "-m", "ecomm_pipeline.cli", *words], environment)

    def shell(self, line: str) -> Done:
        """Run a line as it was printed."""
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        return self._run(["bash", "-c", line], {"PATH": path})

    def doctor(self) -> dict[str, Any]:
        """Ask the doctor about the date; gives its diagnosis."""
        done = self.ecomm("doctor", "{date}", "--json", **({} if self.whole else self._without_lakehouse()))
        try:
            found: dict[str, Any] = json.loads(done.stdout)
        except ValueError as error:
            message = f"the doctor ended with {done.returncode}: {done.stderr.strip()[-500:]}"
            raise RuntimeError(message) from error
        return found

    def _without_lakehouse(self) -> dict[str, str]:
        """Give the doctor's settings: a Databricks that refuses at once, and the sandbox's Tableau."""
        url = f"http://127.0.0.1:{self.sandbox.state.ports['sinks']}"
        tableau = {name: value for name, value in self.sandbox.env().items() if name.startswith(_LATER)}
        return tableau | {f"ECOMM_DATABRICKS_{name}": "none" for name in _DATABRICKS} | {"ECOMM_DATABRICKS_HOST": url}

    def sql(self, statement: str) -> list[tuple[Any, ...]]:
        """Run a statement in Postgres as the shop does; give its rows."""
        with closing(self.sandbox.connect()) as connection, connection, connection.cursor() as cursor:
            cursor.execute(statement)
            return list(cursor.fetchall()) if cursor.description else []

    def files(self, table: str) -> list[str]:
        """List the keys of the files of a table's extracts of the date, oldest run first."""
        bucket, prefix = self.environment["ECOMM_STORE_BUCKET"], self.environment["ECOMM_STORE_PREFIX"]
        pages = self.sandbox.s3().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        keys = [entry["Key"] for page in pages for entry in page.get("Contents", [])]
        return sorted(key for key in keys if f"/{table}/date={self.date}/" in key and ".csv" in key)

    def get(self, key: str) -> bytes:
        """Read an object of the bucket."""
        bucket = self.environment["ECOMM_STORE_BUCKET"]
        return self.sandbox.s3().get_object(Bucket=bucket, Key=key)["Body"].read()

    def put(self, key: str, content: bytes) -> None:
        """Write an object of the bucket."""
        self.sandbox.s3().put_object(Bucket=self.environment["ECOMM_STORE_BUCKET"], Key=key, Body=content)

    def remove(self, key: str) -> None:
        """Remove an object of the bucket."""
        self.sandbox.s3().delete_object(Bucket=self.environment["ECOMM_STORE_BUCKET"], Key=key)

    def has_run(self, date: str) -> bool:
        """Tell whether the ledger has a record of a date."""
        found = self.sandbox.s3().list_objects_v2(
            Bucket=self.environment["ECOMM_STORE_BUCKET"],
            Prefix=f"{self.environment['ECOMM_STORE_PREFIX']}ledger/date={date}/",
        )
        return bool(found.get("Contents"))

    def _run(self, command: list[str], environment: dict[str, str]) -> Done:
        return subprocess.run(
            command,
            cwd=self.folder,
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=_COMMAND_SECONDS,
        )


def make_ground(sandbox: Sandbox, folder: Path, prefix: str = "") -> Ground:
    """Make the ground of a sandbox that is up, with a small shop where there is none; commands write to the folder.

    With a prefix of the bucket for ledger and extracts, there is no lakehouse: it reads the sandbox's own. The newest
    date's night began an hour ago, whatever time it is. Raises `SandboxError` when the lakehouse is not up.
    """
    environment = {**os.environ, **sandbox.env()}
    environment.pop("ECOMM_RUN_ID", None)
    if prefix:
        environment["ECOMM_STORE_PREFIX"] = prefix
        environment = {name: value for name, value in environment.items() if not name.startswith(_LATER)}
    elif not set(WHOLE) <= {one.name for one in sandbox.status() if one.state == "running"}:
        message = "these scenarios need the lakehouse and Tableau"
        raise SandboxError(message, next_step="run `ecomm-sandbox up`, or play the quick ones")
    environment["ECOMM_DBT_PROJECT_DIR"] = str(CHART.parents[1] / "dbt")
    date, began = _newest_date(environment["ECOMM_BUSINESS_TIMEZONE"])
    environment |= {f"ECOMM_NIGHTLY_{name}": began for name in ("STARTS", "GATE", "DUE")}
    ground = Ground(sandbox, date, environment, folder, whole=not prefix)
    if not ground.sql("SELECT 1 FROM orders LIMIT 1"):
        sandbox.load(LoadOptions(generate=HISTORY + 1, orders_per_day=_ORDERS_A_DAY, until=date))
    return ground


def _newest_date(timezone: str) -> tuple[str, str]:
    """Give the date whose night is the newest, as the exporter takes it, and the time at which nights begin."""
    from ecomm_pipeline.dates import zone
    from ecomm_pipeline.exporter.plan import Calendar
    from ecomm_pipeline.settings import Exporter, Nightly

    tz, now = zone(timezone), datetime.now(UTC)
    began = (now - _BEGAN).astimezone(tz).time().replace(second=0, microsecond=0)
    nightly = Nightly(starts=began, gate=began, due=began)
    return str(Calendar(tz, now, nightly, Exporter()).newest), f"{began:%H:%M}"
