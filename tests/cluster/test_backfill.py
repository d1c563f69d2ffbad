"""A week with a hole in it, on Kubernetes."""

from __future__ import annotations

import pytest

from ecomm_pipeline.contract import CONTRACT


@pytest.mark.timeout(600)
def test_a_backfill_extracts_exactly_the_missing_dates_updates_once_and_is_harmless_twice(
    cluster, week, good_day, equals_the_computation
):
    first, last = week.range
    before = cluster.updates()
    told = cluster.ecomm("backfill", f"{first}..{last}", "--on=argo", timeout=400)
    assert f"{len(week.dates) - 1} dates planned, {len(week.dates) - 1} done" in told
    run = cluster.submitted(told).ends("Succeeded", within=0)
    done = sorted((node.inputs["date"], node.inputs["table"]) for node in run.tries("extractor"))
    assert done == sorted((date, table) for date in week.dates if date != good_day.date for table in CONTRACT)
    assert len(run.tries("dlt-trigger")) == 1
    assert len(cluster.updates() - before) == 1
    equals_the_computation(week)

    again = cluster.submit("wftmpl/backfill", from_=first, to=last, mode="missing").ends("Succeeded", within=120)
    assert again.tries("extractor") == []
    assert "nothing to do" in cluster.ecomm("backfill", f"{first}..{last}", "--on=argo")
    assert len(cluster.updates() - before) == 1
    equals_the_computation(week)
