"""What waits, on a clock of the test's own."""

from __future__ import annotations

import io
from datetime import UTC, date, datetime, time
from zoneinfo import ZoneInfo

import pytest
from tests.support.virtual import VirtualClock

from ecomm_pipeline.dates import BusinessDate
from ecomm_pipeline.gate import wait_until
from ecomm_pipeline.progress import Progress

TZ = ZoneInfo("Asia/Ho_Chi_Minh")


@pytest.mark.parametrize(
    ("now", "waits"),
    [
        (datetime(2026, 1, 2, 19, 30, tzinfo=UTC), 2.5 * 3600),  # 02:30 on the 3rd in Ho Chi Minh City
        (datetime(2026, 1, 2, 22, 0, tzinfo=UTC), 0),  # 05:00 there
        (datetime(2026, 3, 1, tzinfo=UTC), 0),  # a backfill
    ],
)
def test_the_gate_opens_at_five_on_the_day_after(now, waits):
    clock = VirtualClock(now)
    wait_until(BusinessDate(date(2026, 1, 2)), time(5), TZ, clock)
    assert clock.seconds == waits


def test_the_gate_can_be_told_to_open_at_once():
    clock = VirtualClock(datetime(2026, 1, 2, 3, tzinfo=UTC))
    wait_until(BusinessDate(date(2026, 1, 2)), None, TZ, clock)
    assert clock.seconds == 0


def test_progress_rewrites_one_line_on_a_terminal_and_clears_it():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    stream, clock = Terminal(), VirtualClock(datetime(2026, 1, 1, tzinfo=UTC))
    with Progress("extractor orders", clock, stream) as progress:
        for step in range(5):
            clock.sleep(1)
            progress(rows=step * 1000)
    assert "\n" not in stream.getvalue()
    assert "rows 4\u202f000" in stream.getvalue()
    assert stream.getvalue().endswith("\r\033[K")


def test_progress_is_silent_between_two_redraws():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    stream, clock = Terminal(), VirtualClock(datetime(2026, 1, 1, tzinfo=UTC))
    progress = Progress("x", clock, stream)
    for _ in range(100):
        clock.sleep(0.01)
        progress(rows=1)
    assert stream.getvalue().count("rows") <= 5
