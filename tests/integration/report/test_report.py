"""The page and the query on real servers."""

from __future__ import annotations

import json
import os

import pytest
from tests.support.command import run_ecomm


@pytest.fixture
def ecomm(sandbox):
    def run(*args, **env):
        return run_ecomm(*args, env={**os.environ, **sandbox.env, **env}, code=None, timeout=300)

    return run


def test_a_query_is_answered_with_its_types(ecomm):
    sql = "SELECT 1 AS n, CAST(2.50 AS DECIMAL(18,4)) AS money, CAST(NULL AS STRING) AS nothing"
    assert ecomm("query", sql, "--format", "json").stdout == '[\n {"n": 1, "money": "2.5000", "nothing": null}\n]\n'
    assert ecomm("query", sql, "--format", "csv").stdout == "n,money,nothing\n1,2.5000,\n"


def test_a_query_of_a_table_that_is_not_there_is_one_line_and_a_next_step(ecomm):
    done = ecomm("query", "SELECT * FROM gold.nothing")
    assert done.returncode == 65
    assert "gold" in done.stderr
    assert "next:" in done.stderr


def test_without_records_the_page_says_what_to_run(ecomm, tmp_path):
    page = tmp_path / "report.html"
    done = ecomm("report", "-o", str(page), ECOMM_STORE_PREFIX="an-empty-ledger")
    assert done.returncode == 0, done.stderr
    assert "Nothing ran yet" in page.read_text()


def test_when_the_warehouse_refuses_the_page_is_made_and_says_so(ecomm, tmp_path):
    page, prefix = tmp_path / "report.html", "report-test"
    refused = {"ECOMM_STORE_PREFIX": prefix, "ECOMM_DATABRICKS_TOKEN": "not-the-token"}
    ecomm("extractor", "--table", "orders", "--date", "2026-01-02", ECOMM_STORE_PREFIX=prefix)
    done = ecomm("report", "2026-01-02", "-o", str(page), **refused)
    assert done.returncode == 0, done.stderr
    text = page.read_text()
    assert "The charts are not here" in text
    assert "Not proven" in text


def test_the_page_reads_the_sheet_that_a_record_names(sandbox, ecomm, tmp_path):
    prefix, date = "report-sheet-test", "2026-01-02"
    page = tmp_path / "report.html"
    key = f"{prefix}/artifacts/reconciler/run=20260102T180000Z-aaaa/sheet-{date}.json"
    record = {
        "stage": "reconciler",
        "first_date": date,
        "last_date": date,
        "run_id": "20260102T180000Z-aaaa",
        "started_at": "2026-01-02T18:00:00Z",
        "ended_at": "2026-01-02T18:00:09Z",
        "outcome": "succeeded",
        "figures": {"through": "kpi", "sheet_key": key},
    }
    sheet = [{"table": "orders", "date": date, "hop": hop, "rows": 4711} for hop in ("extracted", "bronze", "kept")]
    ledger = f"{prefix}/ledger/date={date}/reconciler/20260102T180000Z-aaaa.json"
    for name, content in ((key, sheet), (ledger, record)):
        sandbox.s3.put_object(Bucket=sandbox.env["ECOMM_STORE_BUCKET"], Key=name, Body=json.dumps(content).encode())
    refused = {"ECOMM_STORE_PREFIX": prefix, "ECOMM_DATABRICKS_TOKEN": "not-the-token"}
    done = ecomm("report", date, "-o", str(page), **refused)
    assert done.returncode == 0, done.stderr
    assert "Everything adds up" in page.read_text()
    assert "4\u202f711" in page.read_text()
