"""The KPI tables that the sandbox's Tableau reads, for tests that do not run dbt."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

TABLES = ("agg_sales_kpi", "agg_product_kpi", "agg_customer_kpi")


@contextmanager
def tables(sandbox: Any) -> Iterator[None]:
    """Have all KPI tables inside a `with`: those that dbt left, and small ones for those that are missing."""
    sandbox.query("CREATE SCHEMA IF NOT EXISTS ecomm.kpi")
    there = {row[1] for row in sandbox.query("SHOW TABLES IN ecomm.kpi")}
    missing = [table for table in TABLES if table not in there]
    for table in missing:
        sandbox.query(f"CREATE TABLE ecomm.kpi.{table} AS SELECT 1 AS orders")
    yield
    for table in missing:
        sandbox.query(f"DROP TABLE ecomm.kpi.{table}")
