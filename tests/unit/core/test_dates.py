"""The business date, and the traps around it."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecomm_pipeline.dates import BusinessDate, DateRange, parse_dates, zone
from ecomm_pipeline.errors import ConfigurationError

HO_CHI_MINH = ZoneInfo("Asia/Ho_Chi_Minh")
LONDON = ZoneInfo("Europe/London")
NEW_YORK = ZoneInfo("America/New_York")

days = st.dates(date(1990, 1, 1), date(2100, 1, 1)).map(BusinessDate)
zones = st.sampled_from([HO_CHI_MINH, LONDON, NEW_YORK, ZoneInfo("Pacific/Apia"), ZoneInfo("UTC")])


@pytest.mark.parametrize(
    ("scheduled", "expected"),
    [
        ("2026-01-02T18:00:00Z", "2026-01-02"),  # 01:00 on the 3rd in Ho Chi Minh City
        ("2026-01-03T01:00:00+07:00", "2026-01-02"),
        ("2026-01-03T00:30:00Z", "2026-01-02"),  # 07:30 there: cutting the string would still give the 3rd
        ("2026-01-02T16:59:59Z", "2026-01-01"),  # one second before midnight there
        ("2026-01-02T17:00:00Z", "2026-01-02"),  # midnight there
    ],
)
def test_a_scheduled_instant_means_the_business_day_before_it(scheduled, expected):
    assert str(parse_dates(scheduled, HO_CHI_MINH).only) == expected


def test_the_same_instant_is_another_business_date_in_another_zone():
    instant = "2026-01-03T01:00:00+07:00"
    assert str(parse_dates(instant, HO_CHI_MINH)) == "2026-01-02"
    assert str(parse_dates(instant, NEW_YORK)) == "2026-01-01"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{{workflow.scheduledTime}}", "placeholder"),
        ("2026-02-30", "2026-02-30"),
        ("2026-2-3", "2026-2-3"),
        ("yesterday", "yesterday"),
        ("2026-01-03T01:00:00", "no time zone"),
        ("2026-01-03Tnoon", "not an instant"),
        ("2026-01-03..2026-01-01", "ends before it begins"),
        ("2026-01-03..", "not a date"),
        ("", "not a date"),
    ],
)
def test_what_is_no_date_is_refused_by_name(text, told):
    with pytest.raises(ConfigurationError, match=told) as caught:
        parse_dates(text, HO_CHI_MINH)
    assert caught.value.next_step


def test_an_unknown_zone_is_refused_by_name():
    with pytest.raises(ConfigurationError, match="Asia/Saigonn"):
        zone("Asia/Saigonn")


@given(days, st.integers(0, 400))
def test_a_range_has_each_of_its_days_once_in_order_and_reads_back(first, length):
    dates = DateRange(first, first.plus(length))
    listed = list(dates)
    assert len(listed) == len(dates) == length + 1
    assert listed == sorted(set(listed))
    assert parse_dates(str(dates), LONDON) == dates
    assert all(day in dates for day in listed)
    assert first.plus(-1) not in dates


@given(days, zones)
def test_windows_of_consecutive_days_meet_without_gap_or_overlap(day, tz):
    assert day.window(tz).until == day.plus(1).window(tz).since


@given(days, zones, st.integers(0, 86_399))
def test_every_instant_of_a_window_is_of_its_date(day, tz, seconds):
    window = day.window(tz)
    instant = window.since + timedelta(seconds=seconds)
    if instant < window.until:
        assert BusinessDate.of(instant, tz) == day


def test_the_look_back_widens_the_window_backwards_only():
    plain, wide = (BusinessDate(date(2026, 1, 2)).window(HO_CHI_MINH, timedelta(hours=hours)) for hours in (0, 2))
    assert wide.until == plain.until == datetime(2026, 1, 2, 17, tzinfo=UTC)
    assert plain.since - wide.since == timedelta(hours=2)


def test_a_day_of_daylight_saving_is_as_long_as_it_was():
    spring = BusinessDate(date(2011, 3, 27)).window(LONDON)
    assert spring.until - spring.since == timedelta(hours=23)


def test_one_date_is_asked_of_a_longer_range_in_vain():
    with pytest.raises(ConfigurationError, match="one date is wanted"):
        _ = parse_dates("2026-01-01..2026-01-02", LONDON).only
