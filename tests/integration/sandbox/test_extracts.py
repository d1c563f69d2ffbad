"""Tableau's extracts are copies: stale until a refresh reads the KPI table through the warehouse."""

from __future__ import annotations

import json
import urllib.request

import pytest
import tableauserverclient as tsc
from tableauserverclient.server.endpoint.exceptions import JobFailedException


@pytest.fixture
def server(sandbox):
    env = sandbox.env
    server = tsc.Server(env["ECOMM_TABLEAU_SERVER"], use_server_version=True)
    token = tsc.PersonalAccessTokenAuth(env["ECOMM_TABLEAU_TOKEN_NAME"], env["ECOMM_TABLEAU_TOKEN_VALUE"], "")
    with server.auth.sign_in(token):
        yield server
    server.session.close()


def extracts(sandbox):
    with urllib.request.urlopen(f"{sandbox.env['ECOMM_TABLEAU_SERVER']}/sandbox/extracts") as answer:
        return json.load(answer)


def test_an_extract_is_stale_until_it_is_refreshed(sandbox, server):
    sandbox.query("CREATE SCHEMA IF NOT EXISTS kpi")
    sandbox.query(
        "CREATE OR REPLACE TABLE kpi.agg_sales_kpi AS SELECT date'2026-01-01' AS sales_date, 1.5BD AS net_revenue"
    )
    (item,) = server.datasources.filter(name="agg_sales_kpi")
    server.jobs.wait_for_job(server.datasources.refresh(item.id), timeout=60)
    first = extracts(sandbox)["datasource/agg_sales_kpi"]
    assert (first["rows"], first["max_date"]) == (1, "2026-01-01")

    sandbox.query("INSERT INTO kpi.agg_sales_kpi VALUES (date'2026-01-02', 2)")
    assert extracts(sandbox)["datasource/agg_sales_kpi"] == first
    server.jobs.wait_for_job(server.datasources.refresh(item.id), timeout=60)
    second = extracts(sandbox)["datasource/agg_sales_kpi"]
    assert (second["rows"], second["max_date"]) == (2, "2026-01-02")
    assert second["refreshed_at"] > first["refreshed_at"]
    kept = json.loads((sandbox.home / "tableau" / "extracts" / "datasource-agg_sales_kpi.json").read_text())
    assert sorted(kept["data"]) == [["2026-01-01", "1.5"], ["2026-01-02", "2.0"]]
    shown = server.datasources.get_by_id(item.id).updated_at
    assert shown.isoformat()[:19] == second["refreshed_at"][:19]


def test_a_table_that_is_not_there_fails_the_job_and_keeps_the_old_extract(sandbox, server):
    sandbox.query("DROP TABLE IF EXISTS kpi.agg_customer_kpi")
    before = extracts(sandbox)["datasource/agg_customer_kpi"]
    (item,) = server.datasources.filter(name="agg_customer_kpi")
    with pytest.raises(JobFailedException) as caught:
        server.jobs.wait_for_job(server.datasources.refresh(item.id), timeout=60)
    assert caught.value.job.finish_code == tsc.JobItem.FinishCode.Failed
    assert extracts(sandbox)["datasource/agg_customer_kpi"] == before
