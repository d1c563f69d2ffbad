"""Which dates a backfill has to do."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta

import pytest

from ecomm_pipeline.backlog import lanes, needed, plan_backfill
from ecomm_pipeline.dates import BusinessDate, DateRange
from ecomm_pipeline.ledger import Record

WEEK = DateRange(BusinessDate(date(2026, 1, 1)), BusinessDate(date(2026, 1, 7)))
TABLES = ("orders", "products")


def record(stage, day, *, last=None, at=0, outcome="succeeded", **fields):
    return Record(
        stage=stage,
        first_date=date(2026, 1, day),
        last_date=date(2026, 1, last or day),
        run_id="20260108T180000Z-aaaa",
        started_at=datetime(2026, 1, 8, tzinfo=UTC) + timedelta(minutes=at),
        outcome=outcome,
        failure_class="unavailable" if outcome == "failed" else None,
        **fields,
    )


def good(day, *, last=None, without=()):
    """All records of a date, or of a backfill of several, but of some stages."""
    extracted = [record("extractor", each, table=table) for each in range(day, (last or day) + 1) for table in TABLES]
    rest = [record(stage, day, last=last) for stage in ("dlt-trigger", "dbt-runner", "tableau-refresher")]
    proofs = [record("reconciler", day, last=last, through=through) for through in ("gold", "kpi")]
    return [one for one in [*extracted, *rest, *proofs] if (one.stage, one.part) not in without]


def todo(mode, records, dates=WEEK):
    return [date_.day.day for date_ in needed(plan_backfill(dates, mode, records, TABLES))]


def test_after_one_good_day_the_other_six_of_the_week_are_missing():
    assert todo("missing", good(3)) == [1, 2, 4, 5, 6, 7]


def test_a_date_that_nobody_tried_says_so_in_two_words():
    assert [str(need) for need in plan_backfill(WEEK, "missing", good(2, last=7), TABLES) if need] == [
        "2026-01-01: never ran"
    ]


def test_after_a_backfill_of_the_week_nothing_is_missing():
    assert todo("missing", [*good(3), *good(1, last=7)]) == []


def test_everything_is_done_when_all_is_asked_for():
    assert todo("all", good(1, last=7)) == [1, 2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize(
    "without",
    [
        ("extractor", "products"),
        ("dlt-trigger", None),
        ("dbt-runner", None),
        ("tableau-refresher", None),
        ("reconciler", "kpi"),
    ],
)
def test_a_date_that_lacks_any_stage_is_missing_and_says_which(without):
    needs = plan_backfill(WEEK, "missing", [*good(1, last=6), *good(7, without=[without])], TABLES)
    assert [str(need) for need in needs if need] == [
        f"2026-01-07: {' '.join(filter(None, (without[0], without[1] if without[1] != 'kpi' else None)))} never ran"
    ]


def test_a_date_whose_newest_try_did_not_succeed_is_failed_even_if_it_succeeded_before():
    again = record("dlt-trigger", 2, at=10, outcome="failed")
    needs = plan_backfill(WEEK, "failed", [*good(1, last=3), again], TABLES)
    assert [str(need) for need in needs if need] == ["2026-01-02: dlt-trigger failed (unavailable)"]
    assert todo("missing", [*good(1, last=7), again]) == []


def test_a_date_that_nobody_tried_or_that_is_running_has_not_failed():
    assert todo("failed", [record("extractor", 1, table="orders", outcome="running")]) == []
    assert todo("missing", [record("extractor", 1, table="orders", outcome="running")]) == [1, 2, 3, 4, 5, 6, 7]


def test_a_failure_that_was_mended_later_has_not_failed():
    assert todo("failed", [*good(1), record("dbt-runner", 1, at=-5, outcome="failed")]) == []


def test_a_build_of_one_kpi_table_says_nothing_about_the_date():
    one = record("dbt-runner", 1, at=5, figures={"select": "agg_sales_kpi"})
    assert todo("missing", [*good(1, last=7, without=[("dbt-runner", None)]), one]) == [1, 2, 3, 4, 5, 6, 7]
    assert todo("failed", [*good(1), record("dbt-runner", 1, at=3, outcome="failed"), one]) == [1]


def test_a_gold_that_does_not_add_up_has_failed():
    assert todo("failed", [record("reconciler", 1, through="gold", outcome="failed")]) == [1]


def test_a_table_that_is_no_longer_configured_is_not_asked_for():
    assert todo("missing", [record("extractor", 9, table="gone", outcome="failed"), *good(1, last=7)]) == []


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (1, [["2026-01-01", "2026-01-02", "2026-01-03"]]),
        (2, [["2026-01-01", "2026-01-03"], ["2026-01-02"]]),
        (9, [["2026-01-01"], ["2026-01-02"], ["2026-01-03"]]),
    ],
)
def test_dates_are_dealt_to_as_many_lanes_as_may_go_at_once(count, expected):
    assert json.loads(lanes(list(WEEK)[:3], count)) == expected


def test_no_dates_are_no_lanes():
    assert lanes([], 2) == "[]"
