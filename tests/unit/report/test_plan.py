"""What the page says, given the ledger's records."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecomm_pipeline.dates import BusinessDate, DateRange
from ecomm_pipeline.ledger import Finding, Record
from ecomm_pipeline.report import plan, svg, words
from ecomm_pipeline.report.page import Kpi

TZ = ZoneInfo("Asia/Ho_Chi_Minh")
BEGAN = datetime(2026, 1, 2, 18, tzinfo=UTC)
DAY = DateRange(BusinessDate(date(2026, 1, 2)), BusinessDate(date(2026, 1, 2)))
TWO_DAYS = DateRange(DAY.first, DAY.first.plus(1))
RUN = "20260102T180000Z-aaaa"


def record(stage, *, table=None, dates=DAY, at=0, seconds=10, run_id=RUN, **more):
    started = BEGAN + timedelta(seconds=at)
    ended = None if seconds is None else started + timedelta(seconds=seconds)
    more.setdefault("outcome", "running" if seconds is None else "succeeded")
    return Record(
        stage=stage,
        table=table,
        first_date=dates.first.day,
        last_date=dates.last.day,
        run_id=run_id,
        started_at=started,
        ended_at=ended,
        **more,
    )


def sheet_row(hop, rows, money=None, *, table="order_items", day=DAY.first, **more):
    return {"table": table, "date": str(day), "hop": hop, "rows": rows, **({"money": money} if money else {}), **more}


def balanced(day=DAY.first, rows=5, money="12.50"):
    return [sheet_row(hop, rows, money, day=day) for hop in ("source", "extracted", "bronze", "kept")]


def reconciled(rows, **more):
    return record("reconciler", at=100, figures={"through": "kpi", "sheet": rows}, **more)


def page(*records, dates=DAY, **more):
    return plan.build(list(records), dates, tz=TZ, now=BEGAN + timedelta(hours=1), **more)


def test_an_empty_ledger_says_what_to_run():
    verdict = page(dates=None).verdict
    assert (verdict.tone, verdict.headline, verdict.next_step) == ("idle", "Nothing ran yet", "ecomm run DATE")


def test_a_balanced_day_is_good():
    built = page(record("extractor", table="orders"), reconciled(balanced()))
    assert (built.verdict.tone, built.verdict.headline) == ("good", "Everything adds up")
    assert built.odd_days == ()
    assert [flow.tone for flow in built.flows] == ["good"]


def test_a_day_that_nobody_reconciled_is_not_proven_and_says_how():
    verdict = page(record("extractor", table="orders"), reconciled(balanced(), dates=TWO_DAYS), dates=TWO_DAYS).verdict
    assert verdict.headline == "Not proven"
    assert "2026-01-03" in verdict.sentence
    assert verdict.next_step == "ecomm reconciler --date 2026-01-02..2026-01-03"


def test_a_failed_stage_is_the_first_line_with_its_own_next_step():
    failed = record(
        "dbt-runner", outcome="failed", failure_class="upstream_failed", error="model x failed", next_step="fix x"
    )
    built = page(record("extractor", table="orders"), failed)
    assert (built.verdict.headline, built.verdict.sentence) == ("dbt-runner failed", "model x failed")
    assert built.remarks[0].label == "upstream_failed"
    assert built.remarks[0].next_step == "fix x"


def test_a_failure_that_a_later_run_mended_is_no_failure_any_more():
    failed = record("dbt-runner", outcome="failed", error="no")
    mended = record("dbt-runner", at=50, run_id="20260102T190000Z-bbbb")
    built = page(failed, mended, reconciled(balanced()))
    assert built.verdict.tone == "good"
    assert {run.outcome for run in built.runs} == {"failed", "succeeded"}


def test_a_stage_that_has_not_ended_is_running():
    assert page(record("dlt-trigger", seconds=None)).verdict.headline == "Still running"


def test_the_newest_sheet_of_a_date_counts():
    old = reconciled([sheet_row("extracted", 9), sheet_row("bronze", 1)], run_id="20260101T180000Z-aaaa")
    new = record("reconciler", at=200, figures={"through": "kpi", "sheet": balanced()})
    assert page(old, new).flows[0].tone == "good"


@pytest.mark.parametrize(
    ("rows", "tone", "words"),
    [
        ([sheet_row("extracted", None, missing=True)], "bad", "no extract"),
        (
            [sheet_row("extracted", 5), sheet_row("bronze", 4), sheet_row("kept", 4)],
            "bad",
            "rows or money differ: 5 extracted, 4 in Bronze",
        ),
        (
            [sheet_row("extracted", 5), sheet_row("bronze", 5), sheet_row("kept", 4), sheet_row("lost", 1)],
            "bad",
            "1 row unexplained",
        ),
        (
            [sheet_row("extracted", 5), sheet_row("bronze", 5), sheet_row("kept", 3), sheet_row("quarantined", 2)],
            "warn",
            "2 rows quarantined",
        ),
        ([*balanced(), sheet_row("late", 1)], "idle", "1 row committed after the extract"),
        (
            [sheet_row("extracted", 5), sheet_row("bronze", 5, rescued=3), sheet_row("kept", 5)],
            "idle",
            "3 rows with rescued values",
        ),
    ],
)
def test_a_day_that_is_odd_is_singled_out(rows, tone, words):
    (odd,) = page(reconciled(rows)).odd_days
    assert odd.tone == tone
    assert words in odd.text


def test_sales_that_differ_are_odd():
    rows = [sheet_row("silver", 5, "10.00", table="sales"), sheet_row("agg_daily_sales", None, "9.50", table="sales")]
    built = page(reconciled([*balanced(), *rows]))
    assert built.sales.tone == "bad"
    assert "agg_daily_sales 9.50" in built.odd_days[0].text


def test_rows_and_money_are_summed_over_the_range():
    rows = [*balanced(rows=5, money="12.50"), *balanced(TWO_DAYS.last, rows=1000, money="1.25")]
    cells = {cell.label: cell for cell in page(reconciled(rows, dates=TWO_DAYS), dates=TWO_DAYS).flows[0].cells}
    assert cells["Bronze"].rows == "1\u202f005"
    assert cells["Bronze"].money == "13.75"
    assert cells["Quarantined"].rows == "0"


def test_expectations_are_added_up_and_failures_come_first():
    figures = {
        "expectations": [
            {"dataset": "silver.dim_orders", "name": "valid_key", "passed": 10, "failed": 0},
            {"dataset": "silver.fact_orders", "name": "valid_key", "passed": 10, "failed": 2},
        ]
    }
    built = page(record("dlt-trigger", figures=figures))
    assert [(check.where, check.failed, check.tone) for check in built.expectations] == [
        ("silver.fact_orders", "2", "warn"),
        ("silver.dim_orders", "0", "good"),
    ]


def test_dbts_nodes_are_counted_and_failing_ones_named():
    nodes = {
        "agg_sales_kpi": {"kind": "model", "status": "success"},
        "not_null": {"kind": "test", "status": "fail", "message": "Got 3 results"},
        "week": {"kind": "unit_test", "status": "pass"},
    }
    built = page(record("dbt-runner", figures={"nodes": nodes}))
    assert built.tests_summary == "1 of 1 model built, 1 of 2 tests passed"
    assert [(check.name, check.failed, check.note) for check in built.tests] == [("not_null", "fail", "Got 3 results")]


def test_a_run_that_was_continued_and_succeeded_is_newer_than_one_that_failed_meanwhile():
    continued = record("tableau-refresher", at=0, seconds=300, tried_at=BEGAN + timedelta(seconds=200))
    meanwhile = record("tableau-refresher", at=100, run_id="20260102T190000Z-bbbb", outcome="failed", error="down")
    for records in ((continued, meanwhile), (meanwhile, continued)):
        assert page(*records, reconciled(balanced())).verdict.headline == "Everything adds up"


def test_sums_over_dates_say_that_they_hold_every_look_back():
    rows = [*balanced(), *balanced(DAY.first.plus(1))]
    figures = {"through": "kpi", "sheet": rows, "lookback_seconds": 7200}
    built = page(record("reconciler", dates=TWO_DAYS, figures=figures), dates=TWO_DAYS)
    assert (
        built.reconciled
        == "2 of 2 dates reconciled, each with its look-back of 2 h, whose rows the date before counts too"
    )
    assert [tile.note for tile in built.tiles if tile.label == "rows extracted"] == ["10 rows, with every look-back"]
    assert page(record("reconciler", figures={**figures, "sheet": balanced()})).reconciled == "1 of 1 date reconciled"


def test_alike_findings_are_one_remark():
    records = [
        record(
            "extractor",
            table=table,
            findings=[Finding(priority="P3", kind="schema_drift", message=f"{table}.x is new")],
        )
        for table in ("orders", "products")
    ]
    (remark,) = page(*records).remarks
    assert (remark.label, remark.count) == ("P3 schema drift", 2)
    assert "and 1 more" in remark.text


def test_a_stage_that_took_twice_as_long_as_usual_is_slow():
    usual = [record("dlt-trigger", at=n, seconds=10, run_id=f"20260101T18000{n}Z-aaaa") for n in range(3)]
    slow = record("dlt-trigger", at=500, seconds=25, run_id="20260102T180000Z-zzzz")
    assert [remark.text for remark in page(*usual, slow).remarks] == ["took 25 s; usual is 10 s"]
    assert page(*usual[:2], slow).remarks == ()


def test_lanes_are_in_percent_of_the_run():
    timeline = page(record("extractor", table="orders", seconds=25), record("dlt-trigger", at=50, seconds=50)).timeline
    assert [(lane.bars[0].left, lane.bars[0].width) for lane in timeline.lanes] == [(0, 25), (50, 50)]
    assert timeline.phases[0].took == "1 min 40 s"
    assert timeline.phases[0].expected == "2 h to 2 h 30 min"


@given(st.floats(0.01, 200_000))
def test_a_time_axis_has_few_marks_within_the_track(seconds):
    ticks = page(record("dlt-trigger", seconds=seconds)).timeline.ticks
    assert len(ticks) <= 5
    assert all(0 <= tick.left <= 100 for tick in ticks)


def test_the_trace_has_the_remote_ids_and_the_manifest():
    built = page(
        record("extractor", table="orders", figures={"manifest": "k/_manifest.json"}, remote={"job_ids": {"a": "1"}})
    )
    assert built.traces[0].ids == (("job ids", "a: 1"), ("manifest", "k/_manifest.json"))


def test_a_short_range_is_shown_among_its_neighbours():
    assert str(plan.kpi_dates(DAY)) == "2025-12-04..2026-01-02"
    assert len(plan.kpi_dates(DateRange(DAY.first, DAY.first.plus(99)))) == 100


def test_figures_are_of_the_range_and_charts_of_more():
    kpis = [Kpi(day, {"net_revenue": Decimal(5), "orders": Decimal(1)}) for day in ("2026-01-01", "2026-01-02")]
    built = page(record("dbt-runner"), kpis=kpis)
    assert {tile.label: tile.value for tile in built.tiles}["orders"] == "1"


def test_a_day_without_orders_has_an_empty_place_in_the_charts():
    days = plan.calendar([Kpi("2026-01-01", {}), Kpi("2026-01-03", {})])
    assert [day.date for day in days] == ["2026-01-01", "2026-01-02", "2026-01-03"]
    assert days[1]["orders"] is None


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.44, "0.4 s"), (42.4, "42 s"), (60, "1 min"), (200, "3 min 20 s"), (7500, "2 h 05 min")]
)
def test_durations_are_written_for_people(seconds, text):
    assert words.span(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (999, "999"), (1500, "1.5\u202fk"), (80000, "80\u202fk"), (2_340_000, "2.3\u202fM"), (-5, "−5")],
)
def test_numbers_are_written_shortly(value, text):
    assert words.short_number(value) == text


@given(st.floats(1e-6, 1e15))
def test_an_axis_ends_at_a_round_number_that_holds_the_largest_value(value):
    assert value <= svg.nice_ceiling(value) * (1 + 1e-9) <= value * 2.01


@given(st.lists(st.none() | st.decimals(-1000, 1000, places=2), min_size=1, max_size=12))
def test_marks_stay_within_the_drawing(values):
    import re

    drawn = svg.chart([svg.Series(values, "bar", "net"), svg.Series(values, "line", "week")], [""] * len(values), "x")
    tops = [float(y) for y in re.findall(r' y="([-\d.]+)"', drawn.svg)]
    points = [float(y) for pair in re.findall(r'points="([^"]*)"', drawn.svg) for y in re.findall(r",(\S+)", pair)]
    assert all(0 <= y <= svg.HEIGHT for y in [*tops, *points])
