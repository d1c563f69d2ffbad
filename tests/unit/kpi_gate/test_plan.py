"""Whether a KPI moved further than it may: the arithmetic, what is missing, and what keeps a date held."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecomm_pipeline.dates import BusinessDate, DateRange
from ecomm_pipeline.errors import ConfigurationError
from ecomm_pipeline.kpi_gate.plan import (
    HOLD,
    check_names,
    figures,
    first_needed,
    go_on,
    hold_of,
    judge,
    reason,
)
from ecomm_pipeline.ledger import Record

DAY = BusinessDate(date(2026, 1, 2))
ONE = DateRange(DAY, DAY)
NOW = datetime(2026, 1, 2, 22, 30, tzinfo=UTC)


def rows(value, *weeks, kpi="orders"):
    """The KPI table: the value of the date, and those of the weeks before, newest first; None is a row without it."""
    values = {0: value} | {-7 * (back + 1): week for back, week in enumerate(weeks)}
    return {
        DAY.plus(days).day: {kpi: None if one is None else Decimal(str(one))}
        for days, one in values.items()
        if one != "no row"
    }


def move(value, *weeks, bound="0.5", needed=3):
    (one,) = judge(ONE, rows(value, *weeks), {"orders": Decimal(bound)}, weeks=5, needed=needed)
    return one


@pytest.mark.parametrize(
    ("value", "is_held"), [(100, False), (150, False), (150.01, True), (50, False), (49.99, True), (0, True)]
)
def test_a_kpi_may_move_by_its_bound_up_or_down_and_no_further(value, is_held):
    assert move(value, 100, 100, 100).is_held is is_held


def test_what_is_expected_is_the_median_which_one_odd_week_does_not_move():
    assert move(100, 100, 5000, 90, 110, 95).expected == 100
    assert not move(100, 100, 5000, 90, 110, 95).is_held


def test_only_the_same_weekday_counts_and_only_of_as_many_weeks_as_are_wanted():
    table = rows(100, 100, 100, 100, 1, 1, 1, 1)
    table |= {DAY.plus(-days).day: {"orders": Decimal(9000)} for days in range(1, 60) if days % 7}
    (one,) = judge(ONE, table, {"orders": Decimal("0.1")}, weeks=3, needed=3)
    assert (one.history, one.is_held) == ((100, 100, 100), False)


@pytest.mark.parametrize("weeks", [(), (100, 100), (100, "no row", None, 100, "no row")])
def test_with_too_little_history_nothing_is_held(weeks):
    one = move(1, *weeks)
    assert (one.expected, one.is_held) == (None, False)
    assert str(one) == f"orders of 2026-01-02 is 1; {len(one.history)} of 3 weeks tell what is usual"


def test_weeks_without_the_kpi_are_no_zeros():
    assert move(100, 100, "no row", 100, None, 100).expected == 100


@pytest.mark.parametrize(("value", "is_held"), [(0, False), (1, True), (-1, True)])
def test_from_nothing_any_move_is_too_far(value, is_held):
    one = move(value, 0, 0, 0)
    assert (one.ratio, one.is_held) == (None, is_held)


@pytest.mark.parametrize("value", [None, "no row"])
def test_a_kpi_that_is_missing_where_there_usually_is_one_is_held(value):
    one = move(value, 100, 100, 100)
    assert one.is_held
    assert str(one) == "orders of 2026-01-02 is missing, against 100 (median of 3 Fridays; bound 50 %)"


def test_a_negative_kpi_is_measured_by_its_size():
    assert move(-40, -100, -100, -100).ratio == Decimal("0.6")
    assert move(-40, -100, -100, -100).is_held
    assert not move(-140, -100, -100, -100).is_held


def test_a_move_says_value_expectation_and_bound():
    assert str(move("812.5", "6808.45", 6500, 6500)) == (
        "orders of 2026-01-02 is 812.5, −87.5 % against 6 500 (median of 3 Fridays; bound 50 %)"
    )
    assert "+12.5 % against 8 (" in str(move(9, 8, 8, 8, bound="0.075"))
    assert "bound 7.5 %" in str(move(9, 8, 8, 8, bound="0.075"))


@given(
    value=st.decimals(-10_000, 10_000, places=4),
    weeks=st.lists(st.decimals(-10_000, 10_000, places=4), min_size=3, max_size=5),
    bound=st.decimals(0, 3, places=2),
)
def test_a_wider_bound_never_holds_what_a_narrower_one_lets_pass(value, weeks, bound):
    narrow, wide = (move(value, *weeks, bound=one) for one in (bound, bound + 1))
    assert narrow.is_held or not wide.is_held
    assert "\n" not in str(narrow)


def test_every_date_of_a_range_is_judged_and_the_reason_names_the_furthest_first():
    span = DateRange(DAY, DAY.plus(6))
    table = {DAY.plus(-days).day: {"orders": Decimal(100), "units": Decimal(10)} for days in range(1, 36)}
    table |= {DAY.plus(days).day: {"orders": Decimal(100 + 100 * days), "units": Decimal(10)} for days in range(7)}
    moves = judge(span, table, {"orders": Decimal(1), "units": Decimal(1)}, weeks=5, needed=3)
    kept = figures(moves)
    assert (kept["verdict"], kept["compared"], kept["moved"]) == ("held", 14, 5)
    assert [(one["date"], one["move"]) for one in kept["kpis"][:2]] == [
        ("2026-01-08", "6.0000"),
        ("2026-01-07", "5.0000"),
    ]
    assert reason(moves).startswith("orders of 2026-01-08 is 700, +600.0 % against 100")
    assert reason(moves).endswith("; and 2 more")


def test_of_one_date_every_kpi_is_kept_and_of_a_long_range_only_so_many_that_moved():
    one = figures([move(100, 100, 100, 100)])
    assert (one["verdict"], one["moved"], len(one["kpis"])) == ("passed", 0, 1)
    assert one["kpis"][0] == {
        "date": "2026-01-02",
        "kpi": "orders",
        "value": "100",
        "expected": "100",
        "weeks": 3,
        "move": "0.0000",
        "bound": "0.5",
        "held": False,
    }
    year = DateRange(DAY, DAY.plus(364))
    table = {DAY.plus(days).day: {"orders": Decimal(2 ** (days // 7))} for days in range(-35, 365)}
    many = figures(judge(year, table, {"orders": Decimal("0.5")}, weeks=5, needed=3))
    assert (many["compared"], many["moved"], len(many["kpis"])) == (365, 365, 20)
    assert reason([move(100, 100, 100, 100)]) == ""


def test_a_bound_of_a_column_that_is_not_there_is_refused_with_those_that_are():
    check_names({"orders": Decimal(1)}, ["orders", "units"])
    with pytest.raises(ConfigurationError, match=r"kpi\.agg_sales_kpi has no revenue, sales") as error:
        check_names({"sales": Decimal(1), "revenue": Decimal(1)}, ["orders", "units"])
    assert error.value.next_step == "bound one of orders, units"


def test_the_weeks_before_the_first_date_are_needed():
    assert str(first_needed(DateRange(DAY, DAY.plus(3)), 5)) == "2025-11-28"


def test_a_workflow_is_resumed_and_on_one_machine_tableau_is_refreshed_by_itself():
    assert go_on("ecomm/batch-1", ONE) == "argo resume -n ecomm batch-1"
    for workflow in ("/batch-ecomm-pipeline", ""):
        assert go_on(workflow, ONE) == "ecomm rerun tableau 2026-01-02 --onwards"


# --- what keeps a date held


def record(stage, hours, outcome="succeeded", **figures):
    at = NOW + timedelta(hours=hours)
    return Record(
        stage=stage,
        first_date=DAY.day,
        last_date=DAY.day,
        run_id=f"{at:%Y%m%dT%H%M%SZ}-a",
        started_at=at,
        ended_at=at + timedelta(minutes=1),
        outcome=outcome,
        figures=figures,
    )


HELD = record("kpi-gate", 0, verdict="held")


@pytest.mark.parametrize(
    ("records", "is_held"),
    [
        ([], False),
        ([record("tableau-refresher", -5)], False),
        ([HELD], True),
        ([record("tableau-refresher", -5), HELD], True),
        ([HELD, record("tableau-refresher", 1)], False),
        ([HELD, record("tableau-refresher", 1, "running")], True),
        ([HELD, record("tableau-refresher", 1, "failed")], True),
        ([HELD, record("kpi-gate", 1, verdict="passed")], False),
        ([HELD, record("kpi-gate", 1, "failed")], True),
        ([record("kpi-gate", -1, verdict="passed"), HELD], True),
    ],
)
def test_a_date_is_held_from_its_newest_verdict_until_tableau_is_refreshed(records, is_held):
    assert (hold_of(records) is not None) is is_held
    assert hold_of(reversed(records)) == hold_of(records)


def test_a_hold_ends_in_the_same_day():
    assert timedelta(0) < HOLD < timedelta(days=1)
