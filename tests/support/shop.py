"""The sandbox's shop, and the commands of a person who runs the pipeline on it."""

from __future__ import annotations

import json
import os
from contextlib import closing
from typing import Any

from tests.support.command import run_ecomm

from ecomm_pipeline.contract import CONTRACT


class Shop:
    """One run of the pipeline on what a test put into the shop."""

    def __init__(self, sandbox: Any, run_id: str) -> None:
        self.sandbox = sandbox
        self.run_id = run_id
        self.env = {**os.environ, **sandbox.env, "ECOMM_RUN_ID": run_id}

    def sql(self, statement: str) -> list[tuple[Any, ...]]:
        """Run a statement in Postgres as the owner of the tables; give its rows, if it has any."""
        with closing(self.sandbox.connect()) as connection, connection, connection.cursor() as cursor:
            cursor.execute(statement)
            return list(cursor.fetchall()) if cursor.description else []

    def rows(self, sql: str) -> list[tuple[str | None, ...]]:
        """Ask the warehouse."""
        return [tuple(row) for row in self.sandbox.query(sql)]

    def ecomm(self, *args: str, code: int = 0, **env: str) -> str:
        """Run a command to its end; give what it wrote to standard error."""
        return run_ecomm(*args, env={**self.env, **env}, code=code).stderr

    def extract(self, date: str, **env: str) -> None:
        """Extract all tables of a date."""
        for table in CONTRACT:
            self.ecomm("extractor", "--table", table, "--date", date, **env)

    def record(self, stage: str, date: str, run_id: str | None = None) -> dict[str, Any]:
        """Read a stage's record in the ledger."""
        record: dict[str, Any] = json.loads(
            self.sandbox.get(f"ledger/date={date}/{stage}/{run_id or self.run_id}.json")
        )
        return record
