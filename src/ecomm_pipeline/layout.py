"""Where things are on S3: the only module that builds or reads a key.

::

    {prefix}/ecomm_db_extracts/daily_extracts/{table}/date=YYYY-MM-DD/run={run_id}/part-NNNNN.csv[.gz]
    {prefix}/ecomm_db_extracts/daily_extracts/{table}/date=YYYY-MM-DD/run={run_id}/_manifest.json
    {prefix}/ledger/date=YYYY-MM-DD/{stage}[-{table or through}]/{run_id}.json
    {prefix}/runs/date=YYYY-MM-DD/{run_id}.json
    {prefix}/artifacts/{stage}/run={run_id}/…
    {prefix}/artifacts/check/probe.txt
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from ecomm_pipeline.errors import ConfigurationError

if TYPE_CHECKING:
    from ecomm_pipeline.dates import BusinessDate

__all__ = ["KPI_GATE", "MANIFEST_NAME", "STAGES", "Layout", "begun_at", "check_run_id", "new_run_id"]

STAGES = ("extractor", "dlt-trigger", "dbt-runner", "tableau-refresher", "reconciler")
"""The stages, each with a folder in the ledger, in the order in which a date is through with them."""
KPI_GATE = "kpi-gate"
"""A step that has a folder in the ledger too, and that a date need not go through."""
MANIFEST_NAME = "_manifest.json"
_RUN_ID = re.compile(r"\d{8}T\d{6}Z-[A-Za-z0-9._-]{1,80}")


@dataclass(frozen=True, slots=True)
class Layout:
    """Keys under one prefix of the bucket; `prefix` is without slashes at its ends and may be empty."""

    prefix: str = ""

    def _under(self, *parts: str) -> str:
        return "/".join(part for part in (self.prefix.strip("/"), *parts) if part)

    @property
    def landing(self) -> str:
        """The folder that Auto Loader watches."""
        return self._under("ecomm_db_extracts", "daily_extracts")

    def extracts_of(self, table: str) -> str:
        """The folder of all extracts of a table."""
        return f"{self.landing}/{table}"

    def extracts(self, table: str, date: BusinessDate) -> str:
        """The folder of all runs' extracts of a table for a date."""
        return f"{self.extracts_of(table)}/date={date}"

    def extract(self, table: str, date: BusinessDate, run_id: str) -> str:
        """The folder of one run's extract."""
        return f"{self.extracts(table, date)}/run={run_id}"

    def part(self, table: str, date: BusinessDate, run_id: str, name: str) -> str:
        """The key of a file of an extract."""
        return f"{self.extract(table, date, run_id)}/{name}"

    def manifest(self, table: str, date: BusinessDate, run_id: str) -> str:
        """The key of an extract's manifest, which is written last."""
        return self.part(table, date, run_id, MANIFEST_NAME)

    def ledger(self, date: BusinessDate) -> str:
        """The folder of a date's ledger."""
        return self._under("ledger", f"date={date}")

    @property
    def ledgers(self) -> str:
        """The folder of all dates' ledgers."""
        return self._under("ledger")

    def record(self, date: BusinessDate, stage: str, part: str | None, run_id: str) -> str:
        """The key of the ledger's record of one stage run; `part` tells those apart that a run has several of."""
        return f"{self.records(date, stage, part)}/{run_id}.json"

    def records(self, date: BusinessDate, stage: str, part: str | None) -> str:
        """The folder of the ledger's records of one stage, one object a run."""
        return f"{self.ledger(date)}/{stage}{f'-{part}' if part else ''}"

    def run(self, date: BusinessDate, run_id: str) -> str:
        """The key of what the ledger knows of a whole run."""
        return f"{self.runs(date)}/{run_id}.json"

    def runs(self, date: BusinessDate) -> str:
        """The folder of all runs of a date."""
        return self._under("runs", f"date={date}")

    def artifacts(self, stage: str, run_id: str) -> str:
        """The folder of what a stage leaves for people to read (dbt's manifest, run results and logs)."""
        return self._under("artifacts", stage, f"run={run_id}")

    @property
    def probe(self) -> str:
        """The key of the object that `ecomm check --write` puts there, always the same one: we may not delete."""
        return self._under("artifacts", "check", "probe.txt")


def new_run_id(now: datetime) -> str:
    """Make a run id: the UTC second and four random hex digits, so that ids sort by time."""
    return f"{now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}"


def begun_at(run_id: str) -> datetime:
    """Give the second at which a run began, by its id."""
    return datetime.strptime(run_id[:16], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)


def check_run_id(text: str) -> str:
    """Give the run id back. Raises `ConfigurationError` unless it begins with its UTC second and is safe in a key."""
    if _RUN_ID.fullmatch(text):
        return text
    message = f"ECOMM_RUN_ID: {text!r} is not a run id"
    raise ConfigurationError(message, next_step="write it as 20260102T180000Z-name: Silver breaks ties by its order")
