"""The sandbox's shop, and the commands of a person who runs the pipeline on it."""

from __future__ import annotations

import json
import os
from contextlib import closing
from typing import Any

from tests.support.command import run_ecomm

from ecomm_pipeline.contract import CONTRACT

DATE = "2026-03-02"
SHOP = """
INSERT INTO customers (customer_id, email, country, created_at, updated_at)
VALUES (1, 'a@example.com', 'Vietnam', '2026-03-02 02:00Z', '2026-03-02 02:00Z');
INSERT INTO products (product_id, description, unit_price, created_at, updated_at)
VALUES ('P1', 'a cup, "red"', 2.5, '2026-03-02 02:00Z', '2026-03-02 02:00Z');
INSERT INTO orders (order_id, customer_id, status, ordered_at, created_at, updated_at)
VALUES ('O1', 1, 'completed', '2026-03-02 03:00Z', '2026-03-02 03:00Z', '2026-03-02 03:00Z'),
  ('O2', NULL, 'cancelled', '2026-03-02 04:00Z', '2026-03-02 04:00Z', '2026-03-02 04:00Z');
INSERT INTO order_items (order_id, line_number, product_id, quantity, unit_price, created_at, updated_at)
VALUES ('O1', 1, 'P1', 3, 2.5, '2026-03-02 03:00Z', '2026-03-02 03:00Z'),
  ('O1', 2, 'P1', 1, 0.3333, '2026-03-02 03:00Z', '2026-03-02 03:00Z'),
  ('O2', 1, 'P1', -1, 2.5, '2026-03-02 04:00Z', '2026-03-02 04:00Z');
"""
"""A day of a small shop: 3 + 1 pieces are sold for 7.8333, and a guest's order of one for 2.50 is cancelled."""


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
