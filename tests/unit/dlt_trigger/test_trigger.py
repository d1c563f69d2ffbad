"""dlt-trigger's wait, against a platform in virtual time that does what the real one is known to do."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.virtual import BEGAN, DATES, RUN, Died, VirtualClock, VirtualStage, die

from ecomm_pipeline.dates import BusinessDate, DateRange
from ecomm_pipeline.dlt_trigger.plan import Event, Key, Update
from ecomm_pipeline.dlt_trigger.run import Trigger
from ecomm_pipeline.errors import CancelledError, TimedOutError, UnavailableError, UpstreamFailedError
from ecomm_pipeline.progress import Progress
from ecomm_pipeline.settings import DltTrigger

KEY = Key(RUN, str(DATES))
GOOD = ((2, "CREATED"), (3, "WAITING_FOR_RESOURCES"), (5, "INITIALIZING"), (10, "RUNNING"), (0, "COMPLETED"))
BAD = (*GOOD[:-1], (0, "FAILED"))


@dataclass
class Running:
    """An update with its timeline of states."""

    id: str
    began: float
    timeline: tuple[tuple[float, str], ...]
    cause: str
    parameters: dict | None
    cancelled_at: float | None = None
    stopping: float = 0.0

    def state(self, now):
        return [state for at, state in self.states() if at <= now][-1]

    def states(self):
        """When it came to which state."""
        at = self.began
        for seconds, state in self.timeline:
            if self.cancelled_at is not None and at >= self.cancelled_at:
                break
            yield at, state
            at += seconds
        if self.cancelled_at is not None:
            yield self.cancelled_at, "STOPPING"
            yield self.cancelled_at + self.stopping, "CANCELED"

    def ends(self):
        return self.began + sum(seconds for seconds, _ in self.timeline)


@dataclass
class Platform:
    """A pipeline that runs one update at a time, retries after a while, and answers when it likes."""

    clock: VirtualClock
    timelines: list = field(default_factory=lambda: [GOOD])
    retries: int = 0
    retry_after: float = 5.0
    recovering: bool = True
    tells_parameters_late: bool = False
    lag: float = 0.0
    errors: list = field(default_factory=list)
    loses_answers: int = 0
    log: list = field(default_factory=list)
    log_is_silent: bool = False
    all: list[Running] = field(default_factory=list)
    id: str = "p1"
    stops: int = 0
    stopping: float = 0.0

    def _advance(self):
        """Begin the retry that is due."""
        last = self.all[-1] if self.all else None
        if last and self.retries and last.state(self.clock.seconds) == "FAILED":
            due = last.ends() + self.retry_after
            if self.clock.seconds >= due:
                self.retries -= 1
                self._begin("RETRY_ON_FAILURE", None, due)

    def _begin(self, cause, parameters, at=None):
        timeline = self.timelines.pop(0) if len(self.timelines) > 1 else self.timelines[0]
        self.all.append(
            Running(f"u{len(self.all)}", self.clock.seconds if at is None else at, timeline, cause, parameters)
        )
        return self.all[-1].id

    def _active(self):
        return [u for u in self.all if u.state(self.clock.seconds) not in ("COMPLETED", "FAILED", "CANCELED")]

    def _answer(self):
        self._advance()
        if self.errors:
            error = self.errors.pop(0)
            if error:
                raise error

    def _as_update(self, u):
        return Update(
            u.id, u.state(self.clock.seconds), int((BEGAN.timestamp() + u.began) * 1000), u.cause, u.parameters
        )

    def url(self, update_id=""):
        return f"https://w/pipelines/p1/updates/{update_id}"

    def updates(self, _since):
        self._answer()
        return [self._as_update(u) for u in self.all if self.clock.seconds - u.began >= self.lag]

    def update(self, update_id):
        self._answer()
        found = [u for u in self.all if u.id == update_id and self.clock.seconds - u.began >= self.lag]
        return self._as_update(found[0]) if found else None

    def start(self, parameters):
        self._answer()
        if self._active():
            return None
        update_id = self._begin("API_CALL", dict(parameters))
        if self.loses_answers:
            self.loses_answers -= 1
            message = "the connection was reset"
            raise UnavailableError(message)
        return update_id

    def stop(self):
        self.stops += 1
        for u in self._active():
            u.cancelled_at, u.stopping = self.clock.seconds, self.stopping

    def may_replace(self):
        self._advance()
        return True if self.retries and self.recovering else None

    def events(self, _since):
        if self.log_is_silent:
            message = "503"
            raise UnavailableError(message)
        states = [
            Event(
                {
                    "id": f"{u.id}{state}",
                    "event_type": "update_progress",
                    "timestamp": (BEGAN + timedelta(seconds=at)).isoformat(timespec="milliseconds"),
                    "origin": {"update_id": u.id},
                    "details": {"update_progress": {"state": state}},
                }
            )
            for u in self.all
            for at, state in u.states()
            if at <= self.clock.seconds
        ]
        return iter([*self.log, *states])

    def foreign(self, timeline=GOOD):
        self.timelines.insert(0, timeline)
        return self._begin("USER_ACTION", {})

    def of_ours(self):
        return [u for u in self.all if u.parameters == KEY.parameters]


class Stage(VirtualStage):
    """A run of the stage on its platform."""

    name = "dlt-trigger"

    def __init__(self, **limits):
        super().__init__()
        self.platform = Platform(self.clock)
        self.settings = DltTrigger(ECOMM_DATABRICKS_PIPELINE_ID="p1", poll_interval=1, **{"retry_grace": 10, **limits})
        self.seen_in_ledger: list[list[str]] = []

    def work(self, context):
        Trigger(context, self.settings, self.platform, Progress("t", self.clock)).run()


def interrupt(_=None):
    message = "stopped by SIGTERM"
    raise CancelledError(message)


def test_an_update_is_started_and_waited_for():
    stage = Stage()
    record = stage.run()
    assert record.outcome == "succeeded"
    assert record.remote == {"pipeline_id": "p1", "update_id": "u0", "update_ids": ["u0"]}
    assert stage.clock.seconds >= 20
    assert record.figures["turn_seconds"] == 0


def test_its_id_is_in_the_ledger_before_it_is_waited_for():
    stage = Stage()
    stage.clock.alarms.append((0.5, lambda: stage.seen_in_ledger.append(stage.ledger().remote["update_ids"])))
    stage.run()
    assert stage.seen_in_ledger == [["u0"]]


def test_an_update_that_is_not_to_be_found_at_once_is_waited_for():
    stage = Stage()
    stage.platform.lag = 4
    assert stage.run().remote["update_ids"] == ["u0"]
    assert len(stage.platform.all) == 1


def test_somebody_elses_update_is_waited_for_and_not_touched():
    stage = Stage()
    stage.platform.foreign()
    record = stage.run()
    assert record.remote["update_ids"] == ["u1"]
    assert record.figures["turn_seconds"] == pytest.approx(20, abs=2)
    assert stage.platform.stops == 0


def test_a_turn_lost_in_a_race_is_waited_for_again():
    stage = Stage()
    stage.platform.lag = 3  # so that the list does not have the update that makes the platform refuse ours
    stage.platform.foreign()
    stage.clock.alarms.append((20, stage.platform.foreign))
    assert [u.cause for u in stage.platform.all] == ["USER_ACTION"]
    stage.run()
    assert [u.cause for u in stage.platform.all] == ["USER_ACTION", "USER_ACTION", "API_CALL"]


@pytest.mark.parametrize("recovering", [True, False])
def test_the_platforms_own_retries_are_followed_to_their_end(recovering):
    stage = Stage()
    stage.platform.timelines, stage.platform.retries, stage.platform.recovering = [BAD, BAD, GOOD], 2, recovering
    record = stage.run()
    assert record.outcome == "succeeded"
    assert record.remote["update_ids"] == ["u0", "u1", "u2"]
    assert [u["state"] for u in record.figures["updates"]] == ["FAILED", "FAILED", "COMPLETED"]
    assert len(stage.platform.of_ours()) == 1


def test_a_retry_that_is_announced_may_come_late():
    stage = Stage()
    stage.platform.timelines, stage.platform.retries, stage.platform.retry_after = [BAD, GOOD], 1, 300
    assert stage.run().outcome == "succeeded"


def test_a_failure_that_is_not_retried_is_told_with_its_cause_and_place():
    stage = Stage()
    stage.platform.timelines = [BAD]
    stage.platform.log = [
        Event(
            {
                "id": "1",
                "event_type": "flow_progress",
                "level": "ERROR",
                "timestamp": "2026-01-02T18:00:00.000Z",
                "origin": {"update_id": "u0", "dataset_name": "ecomm.silver.fact_orders"},
                "error": {"exceptions": [{"message": "Flow failed"}, {"message": "[DIVIDE_BY_ZERO] by zero\nat x"}]},
            }
        )
    ]
    with pytest.raises(
        UpstreamFailedError, match=r"(?m)u0 .* failed: silver.fact_orders: \[DIVIDE_BY_ZERO\] by zero$"
    ) as caught:
        stage.run()
    assert "https://w/pipelines/p1/updates/u0" in caught.value.next_step
    assert stage.ledger().figures["updates"] == [{"id": "u0", "cause": "API_CALL", "state": "FAILED"}]


def test_missing_compute_may_be_tried_again():
    stage = Stage()
    stage.platform.timelines = [BAD]
    stage.platform.log = [
        Event(
            {
                "id": "1",
                "event_type": "update_progress",
                "level": "ERROR",
                "timestamp": "2026-01-02T18:00:00.000Z",
                "origin": {"update_id": "u0"},
                "message": "AWS_INSUFFICIENT_INSTANCE_CAPACITY_FAILURE",
            }
        )
    ]
    with pytest.raises(UnavailableError, match="INSUFFICIENT"):
        stage.run()


def test_an_update_cancelled_over_there_is_told_as_such():
    stage = Stage()
    stage.clock.alarms.append((8, stage.platform.stop))
    with pytest.raises(UpstreamFailedError, match="cancelled on the platform") as caught:
        stage.run()
    assert not caught.value.failure.retry  # whoever cancelled it does not want it again


@pytest.mark.parametrize("moment", [0.5, 3, 7, 15, 19.5])
def test_after_a_kill_the_same_command_re_attaches(moment):
    stage = Stage()
    stage.clock.alarms.append((moment, die))
    with pytest.raises(Died):
        stage.run()
    assert stage.run().remote["update_ids"] == ["u0"]
    assert len(stage.platform.all) == 1


def test_an_update_that_completed_while_nobody_looked_is_adopted():
    stage = Stage()
    stage.clock.alarms.append((7, die))
    with pytest.raises(Died):
        stage.run()
    stage.clock.seconds = 1000
    record = stage.run()
    assert (record.outcome, record.remote["update_ids"]) == ("succeeded", ["u0"])
    assert len(stage.platform.all) == 1


def test_a_run_that_succeeded_records_its_figures_again_and_starts_nothing():
    stage = Stage()
    first, second = stage.run(), stage.run()
    assert len(stage.platform.all) == 1
    assert second.figures["updates"] == first.figures["updates"]


def test_an_answer_lost_on_the_way_starts_no_second_update():
    stage = Stage()
    stage.platform.loses_answers = 1
    assert stage.run().remote["update_ids"] == ["u0"]
    assert len(stage.platform.all) == 1


def test_a_failed_run_is_tried_again_with_a_new_update():
    stage = Stage()
    stage.platform.timelines = [BAD, GOOD]
    with pytest.raises(UpstreamFailedError):
        stage.run()
    assert stage.run().remote["update_ids"] == ["u0", "u1"]


def test_the_ids_of_another_range_are_not_ours():
    stage = Stage()
    stage.run()
    week = DateRange(DATES.first, BusinessDate(date(2026, 1, 8)))
    assert stage.run(week).remote["update_ids"] == ["u1"]


def test_sigterm_stops_what_is_ours():
    stage = Stage()
    stage.clock.alarms.append((12, interrupt))
    with pytest.raises(CancelledError):
        stage.run()
    assert stage.platform.all[0].state(stage.clock.seconds) == "CANCELED"
    assert stage.ledger().outcome == "cancelled"


def test_sigterm_leaves_somebody_elses_update_alone():
    stage = Stage()
    stage.platform.foreign()
    stage.clock.alarms.append((12, interrupt))
    with pytest.raises(CancelledError):
        stage.run()
    assert stage.platform.stops == 0


def test_a_sigterm_that_a_library_swallows_stops_it_all_the_same():
    stage = Stage()

    def swallowed():
        with suppress(Exception):
            os.kill(os.getpid(), signal.SIGTERM)
            signal.sigpending()  # a place at which the handler runs, inside the `with`

    stage.clock.alarms.append((12, swallowed))
    with pytest.raises(CancelledError, match="SIGTERM"):
        stage.run()
    assert stage.platform.all[0].state(stage.clock.seconds) == "CANCELED"


def test_queueing_has_a_budget_of_its_own():
    stage = Stage(queue_timeout=15, run_timeout=1000)
    stage.platform.foreign(((500, "RUNNING"), (0, "COMPLETED")))
    with pytest.raises(
        TimedOutError, match="u0, which is not of this run, is still RUNNING; ECOMM_DLT_QUEUE_TIMEOUT is 15 s"
    ):
        stage.run()


def test_running_has_a_budget_of_its_own_and_the_update_goes_on():
    stage = Stage(queue_timeout=1000, run_timeout=12)
    with pytest.raises(TimedOutError, match="ECOMM_DLT_RUN_TIMEOUT is 12 s"):
        stage.run()
    assert stage.platform.stops == 0
    stage.clock.seconds = 20
    assert stage.run().remote["update_ids"] == ["u0"]


@pytest.mark.parametrize("silent", [False, True])
def test_what_earlier_tries_spent_on_an_update_counts(silent):
    stage = Stage(queue_timeout=10, run_timeout=100)
    stage.platform.timelines = [((5, "WAITING_FOR_RESOURCES"), (500, "RUNNING"), (0, "COMPLETED"))]
    stage.platform.log_is_silent = silent
    stage.clock.alarms.append((60, die))
    with pytest.raises(Died):
        stage.run()
    stage.clock.seconds += 10
    with pytest.raises(TimedOutError, match="ECOMM_DLT_RUN_TIMEOUT is 100 s"):
        stage.run()
    assert stage.clock.seconds == pytest.approx(105, abs=6)
    with pytest.raises(TimedOutError):  # the third try, after the time-out
        stage.run()
    assert stage.clock.seconds == pytest.approx(105, abs=8)
    stage.clock.seconds, stage.platform.log_is_silent = 505, False
    assert stage.run().remote["update_ids"] == ["u0"]


def test_the_time_in_which_earlier_tries_waited_for_a_turn_counts():
    stage = Stage(queue_timeout=100)
    stage.clock.seconds = 50  # somebody else's update is older than our run
    stage.platform.foreign(((500, "RUNNING"), (0, "COMPLETED")))
    stage.clock.seconds = 70
    stage.clock.alarms.append((130, die))
    with pytest.raises(Died):
        stage.run()
    with pytest.raises(TimedOutError, match="ECOMM_DLT_QUEUE_TIMEOUT is 100 s"):
        stage.run()
    assert stage.clock.seconds == pytest.approx(170, abs=4)
    stage.clock.seconds = 550
    assert stage.run().remote["update_ids"] == ["u1"]


@pytest.mark.parametrize("stopping", [0, 60])
def test_after_a_sigterm_a_retry_starts_anew_once_what_we_stopped_has_ended(stopping):
    stage = Stage()
    stage.platform.stopping = stopping
    stage.clock.alarms.append((12, interrupt))
    with pytest.raises(CancelledError):
        stage.run()
    assert stage.run().remote["update_ids"] == ["u0", "u1"]
    assert [u.state(stage.clock.seconds) for u in stage.platform.all] == ["CANCELED", "COMPLETED"]


def test_what_we_stopped_takes_nothing_off_the_budget_of_its_successor():
    stage = Stage(run_timeout=28)
    stage.platform.stopping = 25  # longer than a pod that is told to stop can wait
    stage.clock.alarms.append((18, interrupt))
    with pytest.raises(CancelledError):
        stage.run()
    assert stage.run().outcome == "succeeded"


def test_a_platform_that_does_not_answer_for_a_while_is_waited_for():
    stage = Stage()
    stage.platform.errors = [None, None, None, *[UnavailableError("503")] * 5]
    assert stage.run().outcome == "succeeded"


def test_a_platform_that_never_answers_ends_the_wait():
    stage = Stage()
    stage.platform.errors = [None, None, None, *[UnavailableError("503")] * 1000]
    with pytest.raises(UnavailableError):
        stage.run()


@st.composite
def disturbances(draw):
    """When the process is killed, when others use the pipeline, and how the platform misbehaves."""
    return {
        "kills": draw(st.lists(st.integers(1, 60), max_size=3)),
        "others": draw(st.lists(st.integers(0, 40), max_size=2)),
        "lag": draw(st.sampled_from([0, 0.5, 3])),
        "retries": draw(st.integers(0, 2)),
        "lost": draw(st.integers(0, 2)),
        "silences": draw(st.lists(st.booleans(), max_size=12)),
    }


@settings(max_examples=60, deadline=None)
@given(disturbances())
def test_whatever_disturbs_it_one_update_of_ours_completes(disturbance):
    stage = Stage()
    platform = stage.platform
    platform.lag, platform.loses_answers = disturbance["lag"], disturbance["lost"]
    platform.retries = disturbance["retries"]
    platform.timelines = [*[BAD] * platform.retries, GOOD]
    platform.errors = [UnavailableError("503") if silent else None for silent in disturbance["silences"]]
    stage.clock.alarms += [(moment, die) for moment in disturbance["kills"]]
    stage.clock.alarms += [
        (moment, lambda: platform._active() or platform.foreign()) for moment in disturbance["others"]
    ]
    for _ in range(10):
        try:
            record = stage.run()
        except (Died, UpstreamFailedError, UnavailableError):
            continue
        break
    assert record.outcome == "succeeded"
    completed = [
        u for u in platform.all if u.id in record.remote["update_ids"] and u.state(stage.clock.seconds) == "COMPLETED"
    ]
    assert len(completed) == 1
    assert platform.stops == 0
