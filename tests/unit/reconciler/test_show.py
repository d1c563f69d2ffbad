"""The balance sheet for people."""

from __future__ import annotations

from ecomm_pipeline.reconciler import show


def rows(*dates):
    return [{"table": "orders", "date": date, "hop": "extracted", "rows": 5} for date in dates]


def test_a_sum_over_dates_says_that_the_look_back_is_in_it():
    text = show.sheet(rows("2026-01-01", "2026-01-02"), [], lookback=7200)
    assert "look-back of 2 h, whose rows the date before counts too" in text
    assert text.endswith("✓ everything adds up")


def test_a_single_date_or_none_looking_back_says_nothing_of_it():
    assert "look-back" not in show.sheet(rows("2026-01-01"), [], lookback=7200)
    assert "look-back" not in show.sheet(rows("2026-01-01", "2026-01-02"), [], lookback=0)
