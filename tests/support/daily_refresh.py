"""What the tests of dbt-runner share: a Gold of a few rows whose KPIs are known by hand, and runs of the stage."""

from __future__ import annotations

import json
import os
import secrets
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.command import run_ecomm, start_ecomm

if TYPE_CHECKING:
    import subprocess

PROJECT = Path(__file__).parents[2] / "dbt"
DATE = "2026-01-09"
STAGE = ("dbt-runner", "--date", DATE)

LINES = """
    ('1', 1, '2026-01-01', 'completed', 7, 'A', 2, 50.00, 0),
    ('1', 2, '2026-01-01', 'completed', 7, 'B', 1, 50.00, 0),
    ('2', 1, '2026-01-02', 'completed', null, 'A', 3, 60.00, 0),
    ('C3', 1, '2026-01-08', 'cancelled', 8, 'A', -1, 0, 7.5),
    ('4', 1, '2026-01-09', 'completed', 8, 'B', 1, 10.0001, 0),
    ('A5', 1, '2026-01-09', 'adjusted', null, 'B', 1, 0, 0),
    ('6', 1, '2026-01-02', 'completed', null, null, 1, 5.00, 0),
    ('X7', 1, '2026-01-02', 'odd', null, 'A', 1, 0, 0)
"""
GOLD = (
    "CREATE SCHEMA IF NOT EXISTS gold",
    f"""CREATE OR REPLACE TABLE gold.sales_analytics AS
        SELECT order_id, CAST(line_number AS INT) AS line_number, CAST(sales_date AS DATE) AS sales_date,
               CAST(sales_date AS TIMESTAMP) AS ordered_at, status, CAST(customer_id AS BIGINT) AS customer_id,
               'VN' AS country, product_id, 'a thing' AS description, CAST(quantity AS INT) AS quantity,
               CAST(1 AS DECIMAL(12,4)) AS unit_price, CAST(gross AS DECIMAL(18,4)) AS gross_revenue,
               CAST(refund AS DECIMAL(18,4)) AS refund, TIMESTAMP'2026-01-10 00:00:00' AS processed_at
        FROM VALUES {LINES}
          AS t(order_id, line_number, sales_date, status, customer_id, product_id, quantity, gross, refund)
    """,
    """CREATE OR REPLACE TABLE gold.agg_daily_sales AS
        SELECT sales_date,
               COUNT(DISTINCT CASE WHEN status = 'completed' THEN order_id END) AS orders,
               COUNT(DISTINCT CASE WHEN status = 'cancelled' THEN order_id END) AS cancelled_orders,
               COUNT(DISTINCT CASE WHEN status = 'completed' THEN customer_id END) AS customers,
               CAST(SUM(CASE WHEN status = 'completed' THEN quantity ELSE 0 END) AS BIGINT) AS units,
               CAST(SUM(gross_revenue) AS DECIMAL(18,4)) AS gross_revenue,
               CAST(SUM(refund) AS DECIMAL(18,4)) AS refunds,
               CAST(SUM(gross_revenue) - SUM(refund) AS DECIMAL(18,4)) AS net_revenue, MAX(processed_at) AS processed_at
        FROM gold.sales_analytics GROUP BY sales_date
    """,
)


def make_gold(sandbox) -> None:
    """Make Gold of those rows, and no KPI table."""
    for table in ("agg_sales_kpi", "agg_product_kpi", "agg_customer_kpi"):
        sandbox.query(f"DROP TABLE IF EXISTS kpi.{table}")
    for statement in GOLD:
        sandbox.query(statement)


class Stage:
    """The command, the ledger and the artifacts of one run id; `settings` go before those of the sandbox."""

    def __init__(self, sandbox, number: int, **settings: str) -> None:
        self.run_id = f"20260110T00000{number}Z-{secrets.token_hex(4)}"  # a sandbox that stays up remembers the others
        self._sandbox = sandbox
        self._prefix = sandbox.env.get("ECOMM_STORE_PREFIX", "").strip("/")
        self._env = {
            **os.environ,
            **sandbox.env,
            "ECOMM_DBT_PROJECT_DIR": str(PROJECT),
            "ECOMM_RUN_ID": self.run_id,
            "ECOMM_TRIGGER": "local",
            **settings,
        }

    def run(self, *args: str) -> subprocess.CompletedProcess[str]:
        return run_ecomm(*STAGE, *args, env=self._env, code=None, timeout=400)

    def start(self, *args: str) -> subprocess.Popen[str]:
        return start_ecomm(*STAGE, *args, env=self._env)

    def record(self) -> dict:
        return json.loads(self._read(f"ledger/date={DATE}/dbt-runner/{self.run_id}.json"))

    def remote(self) -> dict:
        """What it began elsewhere, so far; empty before it has a record."""
        key = self._key(f"ledger/date={DATE}/dbt-runner/{self.run_id}.json")
        return self.record()["remote"] if key in self._sandbox.keys(key) else {}

    def artifact(self, name: str) -> bytes:
        return self._read(f"artifacts/dbt-runner/run={self.run_id}/{name}")

    def _read(self, key: str) -> bytes:
        return self._sandbox.get(self._key(key))

    def _key(self, key: str) -> str:
        return "/".join(part for part in (self._prefix, key) if part)


def until(what, seconds: float = 200):
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, f"it did not happen within {seconds} s"
        time.sleep(0.2)
    return found
