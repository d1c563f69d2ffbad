"""One part of the pipeline by itself, as the on-call runs it again."""

from __future__ import annotations

import pytest
from tests.support.cluster import ROOT

from ecomm_sandbox.services import http

KPI_TABLES = {path.stem for path in (ROOT / "dbt" / "models" / "marts").glob("agg_*.sql")}
STAGES = ("extractor", "dlt-trigger", "dbt-runner", "tableau-refresher", "reconciler")


def stages(run):
    return {node.template for node in run.nodes(kind="Pod")} & set(STAGES)


def refreshed(cluster):
    """Tell when each extract of Tableau was refreshed."""
    extracts = http("GET", f"http://127.0.0.1:{cluster.sandbox.state.ports['tableau']}/sandbox/extracts")
    return {name: extract["refreshed_at"] for name, extract in extracts.items() if extract}


@pytest.mark.timeout(300)
def test_one_kpi_table_is_built_again_and_then_tableau_refreshed_without_anything_else(cluster, good_day):
    before = refreshed(cluster)
    date = good_day.date
    told = cluster.ecomm("rerun", "dbt", date, "--select=agg_sales_kpi", "--on=argo", timeout=120)
    dbt = cluster.submitted(told).ends("Succeeded", within=0)
    assert stages(dbt) == {"dbt-runner"}
    [record] = dbt.records(date)[:1]
    assert KPI_TABLES & set(record.figures["nodes"]) == {"agg_sales_kpi"}
    assert refreshed(cluster) == before

    tableau = cluster.submit("wftmpl/tableau-refresh", date=date).ends("Succeeded", within=120)
    assert stages(tableau) == {"tableau-refresher"}
    after = refreshed(cluster)
    assert after.keys() == before.keys()
    assert all(after[name] > before[name] for name in after)
