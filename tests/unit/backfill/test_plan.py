"""What a backfill says it will do, how long it takes, and when it waits."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest

from ecomm_pipeline.backfill.plan import (
    Estimate,
    as_dict,
    ended,
    estimate,
    in_the_way,
    lines,
    mode_of,
    part_of,
    span,
    unfinished,
)
from ecomm_pipeline.backlog import Need
from ecomm_pipeline.dates import BusinessDate, DateRange
from ecomm_pipeline.errors import ConfigurationError
from ecomm_pipeline.ledger import Record

NOON = datetime(2026, 1, 9, 12, tzinfo=UTC)
DATES = [BusinessDate(date(2026, 1, day)) for day in range(1, 9)]
MINUTE = timedelta(minutes=1)
KNOWN = Estimate(a_date=2 * MINUTE, fixed=10 * MINUTE, runs=5)


def record(stage, day=1, *, seconds=60, outcome="succeeded", run_id="20260108T180000Z-aaaa", begun=NOON, **fields):
    return Record(
        stage=stage,
        first_date=date(2026, 1, day),
        last_date=date(2026, 1, day),
        run_id=run_id,
        started_at=begun,
        ended_at=None if outcome == "running" else begun + timedelta(seconds=seconds),
        outcome=outcome,
        **fields,
    )


def test_one_of_the_modes_may_be_given_and_missing_is_what_is_meant_without():
    assert mode_of(missing=False, failed=False, everything=False) == "missing"
    assert mode_of(missing=False, failed=True, everything=False) == "failed"
    assert mode_of(missing=False, failed=False, everything=True) == "all"
    with pytest.raises(ConfigurationError, match="--failed and --all"):
        mode_of(missing=False, failed=True, everything=True)


def test_an_extraction_is_as_slow_as_its_slowest_table_and_the_rest_counts_once():
    found = estimate(
        [
            record("extractor", table="orders", seconds=30),
            record("extractor", table="order_items", seconds=90),
            record("dlt-trigger", seconds=600),
            record("dlt-trigger", seconds=700),
            record("dlt-trigger", seconds=5000),
            record("reconciler", through="gold", seconds=40),
            record("reconciler", through="kpi", seconds=60),
            record("dbt-runner", outcome="failed", seconds=9999),
        ]
    )
    assert found == Estimate(timedelta(seconds=90), timedelta(seconds=800), 3)
    assert found.of(5, 2) == timedelta(seconds=3 * 90 + 800)


def test_an_empty_ledger_cannot_tell_and_the_plan_says_so():
    assert estimate([]).of(3, 2) is None
    assert list(lines([Need(DATES[0], ("asked for",))], "all", estimate([]), 2, where="here")) == [
        "  2026-01-01: asked for",
        "1 of 1 date, 2 at once, here: the ledger cannot tell how long",
    ]


def test_the_plan_tells_each_date_why_and_about_how_long():
    needs = [
        Need(DATES[0], ("extractor orders failed (unavailable)", "dlt-trigger never ran", "dbt-runner never ran")),
        Need(DATES[1]),
    ]
    assert list(lines(needs, "missing", KNOWN, 2, where="here")) == [
        "  2026-01-01: extractor orders failed (unavailable); dlt-trigger, dbt-runner never ran",
        "1 of 2 dates, 2 at once, here: about 12 min, by 5 runs of the ledger",
    ]
    assert as_dict(needs, "missing", KNOWN, 2)["seconds"] == 720


def test_dates_that_follow_each_other_with_the_same_reasons_share_a_line():
    never, failed = ("never ran",), ("dbt-runner failed (bad_data)",)
    reasons = [never, never, never, failed, (), failed, never, never]
    needs = [Need(date_, why) for date_, why in zip(DATES, reasons, strict=True)]
    assert list(lines(needs, "missing", KNOWN, 2, where="here"))[:-1] == [
        "  2026-01-01..2026-01-03: never ran",
        "  2026-01-04: dbt-runner failed (bad_data)",
        "  2026-01-06: dbt-runner failed (bad_data)",
        "  2026-01-07..2026-01-08: never ran",
    ]


def test_a_long_plan_has_the_lines_at_its_ends():
    needs = [Need(DATES[0].plus(day), (f"reason {day}",)) for day in range(100)]
    shown = list(lines(needs, "all", KNOWN, 2, where="here"))
    assert len(shown) == 42
    assert shown[20] == "  … 60 more lines …"
    assert shown[40] == f"  {DATES[0].plus(99)}: reason 99"


def of_dates(stage, count, seconds):
    return record(stage, seconds=seconds).model_copy(update={"last_date": date(2026, 1, count)})


def test_what_is_done_once_grows_with_its_dates_where_the_ledger_has_ranges():
    extract = record("extractor", table="orders", seconds=0)
    found = estimate([extract, of_dates("dlt-trigger", 1, 110), of_dates("dlt-trigger", 11, 210)])
    assert (found.fixed.total_seconds(), found.each.total_seconds()) == pytest.approx((100, 10))
    assert found.of(30, 2).total_seconds() == pytest.approx(400)
    faster = estimate([extract, of_dates("dlt-trigger", 1, 110), of_dates("dlt-trigger", 11, 90)])
    assert faster.of(30, 2) == timedelta(seconds=100), "a longer range was never faster because of its length"


def test_dates_that_have_not_ended_are_left_out_and_none_is_an_error():
    whole = DateRange(DATES[0], DATES[5])
    assert ended(whole, DATES[5]) == (whole, "")
    assert ended(whole, DATES[3]) == (DateRange(DATES[0], DATES[3]), "2026-01-05..2026-01-06 not ended yet: left out")
    with pytest.raises(ConfigurationError, match=r"2026-01-05\.\.2026-01-06 have not ended"):
        ended(DateRange(DATES[4], DATES[5]), DATES[3])


def test_without_a_date_to_do_it_says_why_there_is_none():
    assert list(lines([Need(DATES[0])], "missing", KNOWN, 2, where="here")) == [
        "nothing to do: every stage has succeeded for the date"
    ]


def test_a_nightly_run_is_in_the_way_while_it_goes_on_and_no_other():
    limit = timedelta(hours=4)
    night = record("dlt-trigger", trigger="cron", outcome="running", begun=NOON - MINUTE)
    assert in_the_way([record("extractor", trigger="cron"), night], NOON, limit=limit) == night
    assert in_the_way([night.model_copy(update={"trigger": "manual"})], NOON, limit=limit) is None
    assert in_the_way([record("dlt-trigger", trigger="cron")], NOON, limit=limit) is None
    assert in_the_way([night], NOON + timedelta(hours=5), limit=limit) is None, "its process is gone"


@pytest.mark.parametrize(
    ("free", "expected"),
    [
        (timedelta(hours=1), 8),
        (18 * MINUTE, 8),
        (17 * MINUTE, 6),
        (13 * MINUTE, 2),
        (MINUTE, 1),
    ],
)
def test_before_the_night_as_many_dates_are_done_as_fit_and_at_least_one(free, expected):
    assert part_of(DATES, KNOWN, 2, free) == expected


def test_where_nobody_knows_how_long_it_takes_all_are_done():
    assert part_of(DATES, Estimate(None, timedelta(0), 0), 2, MINUTE) == 8


def test_what_was_planned_has_to_be_done():
    after = [Need(DATES[0]), Need(DATES[1], ("dbt-runner failed (bad_data)",)), Need(DATES[2], ("never ran",))]
    assert unfinished(DATES[:1], after) is None
    error = unfinished(DATES[:2], after)
    assert error.message == "1 of 2 dates are not done: 2026-01-02: dbt-runner failed (bad_data)"
    assert error.next_step == "ecomm doctor 2026-01-02"


@pytest.mark.parametrize(
    ("seconds", "text"), [(40, "40 s"), (119, "119 s"), (700, "12 min"), (3600, "1 h 0 min"), (12000, "3 h 20 min")]
)
def test_a_length_of_time_is_written_as_people_say_it(seconds, text):
    assert span(timedelta(seconds=seconds)) == text
