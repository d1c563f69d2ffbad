"""The statements of reconciliation, as texts; what they answer: tests/spark/reconciler."""

from __future__ import annotations

import re
from datetime import date

import pytest

from ecomm_pipeline.contract import CONTRACT
from ecomm_pipeline.dates import BusinessDate, DateRange
from ecomm_pipeline.reconciler import sql

DATES = DateRange(BusinessDate(date(2026, 1, 2)), BusinessDate(date(2026, 1, 2)))


@pytest.mark.parametrize("through", ["gold", "kpi"])
def test_what_is_compared_is_what_the_statements_read(through):
    tables = [*CONTRACT, "suppliers"]
    statements = [
        sql.bronze(list(CONTRACT), DATES),
        sql.silver({table: [("2026-01-02", "run", "file")] for table in CONTRACT}, list(CONTRACT), DATES),
        sql.sales(DATES, "Asia/Ho_Chi_Minh"),
        *([sql.kpis(["2026-01-02"])] if through == "kpi" else ()),
    ]
    read = {name for text in statements for name in re.findall(r"\b(?:bronze|silver|gold|kpi)\.\w+", text)}
    assert set(sql.compared(tables, through)) == read
