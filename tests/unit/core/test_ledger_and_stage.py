"""The ledger and what every stage does around its work."""

from __future__ import annotations

import os
import signal
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from tests.support.virtual import Objects

from ecomm_pipeline.dates import BusinessDate, DateRange
from ecomm_pipeline.errors import BadDataError, CancelledError, NotReconciledError, UnavailableError
from ecomm_pipeline.layout import Layout, check_run_id, new_run_id
from ecomm_pipeline.ledger import Ledger
from ecomm_pipeline.stage import run_stage

TZ = ZoneInfo("Asia/Ho_Chi_Minh")
RUN = "20260102T180000Z-1f3a"
DAY = BusinessDate(date(2026, 1, 2))


class FakeClock:
    """Time that moves a second whenever it is looked at."""

    def __init__(self):
        self.instant = datetime(2026, 1, 2, 18, tzinfo=UTC)

    def now(self):
        self.instant += timedelta(seconds=1)
        return self.instant

    def monotonic(self):
        return self.now().timestamp()

    def sleep(self, seconds):
        self.instant += timedelta(seconds=seconds)


@pytest.fixture
def objects():
    return Objects()


def do(objects, work, *, stage="extractor", dates=None, table=None, through=None, run_id=RUN, later=False):
    clock = FakeClock()
    clock.sleep(86_400 if later else 0)
    return run_stage(
        work,
        stage=stage,
        dates=dates or DateRange(DAY, DAY),
        tz=TZ,
        run_id=run_id,
        trigger="local",
        store=objects,
        layout=Layout("shop"),
        clock=clock,
        table=table,
        through=through,
    )


def on_record(objects):
    return Ledger(objects, Layout("shop")).read("extractor", DAY, RUN)


def test_a_success_is_on_record_under_its_date_with_its_figures(objects):
    def work(context):
        context.record.rows_out = 12
        context.record.find("P3", "schema_drift", "orders: new column note")

    do(objects, work, table="orders")
    (key,) = objects.content
    assert key == f"shop/ledger/date=2026-01-02/extractor-orders/{RUN}.json"
    record = Ledger(objects, Layout("shop")).read("extractor", DAY, RUN, part="orders")
    assert record.outcome == "succeeded"
    assert record.rows_out == 12
    assert record.seconds == 1
    assert record.findings[0].kind == "schema_drift"


def test_a_range_is_on_record_under_each_of_its_dates(objects):
    dates = DateRange(DAY, DAY.plus(2))
    do(objects, lambda _: None, dates=dates)
    assert len(objects.content) == 3
    ledger = Ledger(objects, Layout("shop"))
    assert [ledger.of_date(day)[0].dates for day in dates] == [dates] * 3


def test_a_failure_is_on_record_with_class_cause_and_next_step(objects):
    def work(_):
        message = "orders: 3 rows are missing in Bronze"
        raise NotReconciledError(message, next_step="ecomm dlt-trigger --date 2026-01-02")

    with pytest.raises(NotReconciledError):
        do(objects, work)
    record = on_record(objects)
    assert (record.outcome, record.failure_class) == ("failed", "not_reconciled")
    assert "3 rows" in record.error
    assert record.next_step.startswith("ecomm dlt-trigger")


def test_a_defect_is_on_record_too(objects):
    with pytest.raises(ZeroDivisionError):
        do(objects, lambda _: 1 / 0)
    assert on_record(objects).failure_class == "internal"


def test_sigterm_becomes_a_cancelled_record(objects):
    with pytest.raises(CancelledError, match="SIGTERM"):
        do(objects, lambda _: os.kill(os.getpid(), signal.SIGTERM))
    assert on_record(objects).outcome == "cancelled"
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_second_try_of_a_run_finds_what_the_first_started_remotely(objects):
    def first(context):
        context.record.remote["update_id"] = "u1"
        context.checkpoint()
        message = "the network went away"
        raise UnavailableError(message)

    with pytest.raises(UnavailableError):
        do(objects, first)
    first_began = on_record(objects).started_at
    found = []
    record = do(objects, lambda context: found.append((context.previous.outcome, context.record.remote)), later=True)
    assert found == [("failed", {"update_id": "u1"})]
    assert record.started_at == first_began
    assert record.seconds == 1  # of the second try alone


def test_a_failure_tells_how_to_continue_its_run(objects):
    def work(_):
        message = "no answer"
        raise UnavailableError(message)

    with pytest.raises(UnavailableError) as caught:
        do(objects, work)
    assert any(RUN in note for note in caught.value.__notes__)


def test_the_ledger_shows_a_stage_while_it_runs(objects):
    def work(context):
        assert context.ledger.read("extractor", DAY, RUN).outcome == "running"

    do(objects, work)


def test_when_the_ledger_cannot_be_closed_the_cause_of_the_failure_is_still_what_is_raised(objects):
    def work(_):
        objects.refusal = UnavailableError("the bucket is full")
        message = "the real cause"
        raise BadDataError(message)

    with pytest.raises(BadDataError, match="the real cause"):
        do(objects, work)


def test_a_success_that_cannot_be_recorded_is_no_success(objects):
    def work(_):
        objects.refusal = UnavailableError("the bucket is full")

    with pytest.raises(UnavailableError, match="full"):
        do(objects, work)


def test_a_broken_record_is_named(objects):
    key = Layout("shop").record(DAY, "extractor", None, RUN)
    objects.content[key] = b'{"version": 7}'
    with pytest.raises(BadDataError, match=key):
        Ledger(objects, Layout("shop")).of_date(DAY)


def test_run_ids_sort_by_time_and_are_checked():
    early, late = (new_run_id(datetime(2026, 1, day, tzinfo=UTC)) for day in (2, 3))
    assert early < late
    assert check_run_id(early) == early
    for wrong in ("", "latest", "20260102", "20260102T180000Z-a/b", "../x"):
        with pytest.raises(Exception, match="not a run id"):
            check_run_id(wrong)


def test_the_two_proofs_of_a_run_have_a_record_each(objects):
    for through in ("gold", "kpi"):
        do(objects, lambda context: None, stage="reconciler", through=through)
    assert sorted(objects.content) == [
        f"shop/ledger/date=2026-01-02/reconciler-{through}/{RUN}.json" for through in ("gold", "kpi")
    ]
    records = Ledger(objects, Layout("shop")).of_date(DAY)
    assert [(record.stage, record.part, record.step) for record in records] == [
        ("reconciler", "gold", "reconciler-gold"),
        ("reconciler", "kpi", "reconciler-kpi"),
    ]


@pytest.mark.parametrize("prefix", ["", "a", "/a/b/"])
def test_keys_have_no_empty_part(prefix):
    layout = Layout(prefix)
    keys = [
        layout.manifest("orders", DAY, RUN),
        layout.record(DAY, "reconciler", None, RUN),
        layout.artifacts("dbt-runner", RUN),
    ]
    assert all("//" not in key and not key.startswith("/") for key in keys)
