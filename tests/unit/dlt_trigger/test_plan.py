"""dlt-trigger's decisions: whose update it is, what to do next, and what the event log says."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecomm_pipeline.dlt_trigger.plan import (
    AwaitTurn,
    Budgets,
    Event,
    Finish,
    Follow,
    GiveUp,
    Key,
    Settle,
    Start,
    Update,
    collect,
    decide,
    durations,
    ended,
    is_capacity,
    lineage,
    progress,
    spent,
    summarise,
)

KEY = Key("20260102T180000Z-1f3a", "2026-01-02")
OTHER = Key("20260102T190000Z-beef", "2026-01-02")
ACTIVE = (
    "CREATED",
    "QUEUED",
    "WAITING_FOR_RESOURCES",
    "INITIALIZING",
    "SETTING_UP_TABLES",
    "RESETTING",
    "RUNNING",
    "STOPPING",
)
ENDED = ("COMPLETED", "FAILED", "CANCELED")
REPLACING = ("RETRY_ON_FAILURE", "SCHEMA_CHANGE", "SERVICE_UPGRADE", "INFRASTRUCTURE_MAINTENANCE")


def ours(id_, state, created=1):
    return Update(id_, state, created, "API_CALL", KEY.parameters)


def foreign(id_, state, created=1):
    return Update(id_, state, created, "API_CALL", OTHER.parameters)


def retry(id_, state, created=2, cause="RETRY_ON_FAILURE"):
    return Update(id_, state, created, cause)


def ids(updates):
    return [update.id for update in updates]


class TestLineage:
    def test_an_update_with_our_run_and_dates_is_ours(self):
        assert ids(lineage([foreign("f", "COMPLETED"), ours("a", "RUNNING", 2)], KEY)) == ["a"]

    @pytest.mark.parametrize("key", [Key(KEY.run_id, "2026-01-03"), Key("20260102T180000Z-0000", KEY.dates)])
    def test_the_same_run_for_other_dates_and_other_runs_are_not_ours(self, key):
        assert lineage([Update("a", "RUNNING", 1, "API_CALL", key.parameters)], KEY) == ()

    def test_an_update_whose_parameters_are_not_told_is_ours_when_the_ledger_knows_it(self):
        update = Update("a", "RUNNING", 1, "API_CALL", None)
        assert lineage([update], KEY) == ()
        assert lineage([update], KEY, known=["a"]) == (update,)

    @pytest.mark.parametrize("cause", REPLACING)
    def test_what_the_platform_starts_in_place_of_ours_is_ours(self, cause):
        chain = [ours("a", "FAILED", 1), retry("b", "FAILED", 2, cause), retry("c", "RUNNING", 3, cause)]
        assert ids(lineage(chain, KEY)) == ["a", "b", "c"]

    def test_a_retry_of_somebody_elses_update_is_not_ours(self):
        chain = [ours("a", "FAILED", 1), foreign("f", "FAILED", 2), retry("g", "RUNNING", 3)]
        assert ids(lineage(chain, KEY)) == ["a"]

    def test_nothing_replaces_an_update_that_completed(self):
        assert ids(lineage([ours("a", "COMPLETED", 1), retry("b", "RUNNING", 2)], KEY)) == ["a"]

    def test_a_second_start_of_ours_begins_a_lineage_of_its_own(self):
        assert ids(lineage([ours("a", "FAILED", 1), retry("b", "FAILED", 2), ours("c", "RUNNING", 3)], KEY)) == ["c"]

    @given(
        st.permutations(
            [ours("a", "FAILED", 1), retry("b", "CANCELED", 2), retry("c", "RUNNING", 3), foreign("f", "FAILED", 0)]
        )
    )
    def test_the_order_in_which_updates_are_listed_does_not_matter(self, updates):
        assert ids(lineage(updates, KEY)) == ["a", "b", "c"]


class TestDecide:
    @pytest.mark.parametrize("following", [False, True])
    @pytest.mark.parametrize("settled", [False, True])
    @pytest.mark.parametrize("state", [*ACTIVE, "A_STATE_OF_NEXT_YEAR"])
    def test_an_active_update_of_ours_is_followed(self, state, following, settled):
        update = ours("a", state)
        assert decide([update], KEY, (), following=following, settled=settled) == Follow((update,))

    @pytest.mark.parametrize("following", [False, True])
    def test_a_completed_update_of_ours_ends_it_even_when_another_is_active(self, following):
        update = ours("a", "COMPLETED")
        updates = [update, foreign("f", "RUNNING", 2)]
        assert decide(updates, KEY, (), following=following, settled=False) == Finish((update,))

    @pytest.mark.parametrize("state", ["FAILED", "CANCELED"])
    def test_after_a_bad_end_the_platform_gets_its_time_to_retry(self, state):
        update = ours("a", state)
        assert decide([update], KEY, (), following=True, settled=False) == Settle((update,))
        assert decide([update], KEY, (), following=True, settled=True) == GiveUp((update,))

    def test_a_platform_that_works_for_somebody_else_retries_no_more(self):
        update = ours("a", "FAILED")
        assert decide([update, foreign("f", "RUNNING", 2)], KEY, (), following=True, settled=False) == GiveUp((update,))

    @pytest.mark.parametrize("state", ["FAILED", "CANCELED"])
    def test_what_ended_badly_before_we_came_is_tried_again(self, state):
        assert decide([ours("a", state)], KEY, ("a",), following=False, settled=False) == Start()

    @pytest.mark.parametrize("state", ACTIVE)
    def test_somebody_elses_active_update_is_waited_for(self, state):
        update = foreign("f", state)
        assert decide([update], KEY, (), following=False, settled=False) == AwaitTurn(update)

    @pytest.mark.parametrize("state", ENDED)
    def test_a_free_pipeline_is_started(self, state):
        assert decide([], KEY, (), following=False, settled=False) == Start()
        assert decide([foreign("f", state)], KEY, (), following=False, settled=False) == Start()


CAUSES = st.sampled_from(["API_CALL", "USER_ACTION", "JOB_TASK", "", *REPLACING])
PARAMETERS = st.sampled_from([None, {}, KEY.parameters, OTHER.parameters])


@st.composite
def histories(draw):
    """Updates as a pipeline can have had them: one after the other, at most the newest active."""
    numbers = count()
    past = draw(st.lists(st.tuples(st.sampled_from(ENDED), CAUSES, PARAMETERS), max_size=8))
    last = draw(st.lists(st.tuples(st.sampled_from(ACTIVE), CAUSES, PARAMETERS), max_size=1))
    rows = [*past, *last]
    return [Update(f"u{n}", state, n, cause, given_) for n, (state, cause, given_) in zip(numbers, rows, strict=False)]


class TestDecideOverHistories:
    @given(histories(), st.sets(st.sampled_from([f"u{n}" for n in range(9)])), st.booleans(), st.booleans())
    def test_a_second_update_is_never_started_beside_an_active_one(self, updates, known, following, settled):
        step = decide(updates, KEY, known, following=following, settled=settled)
        if isinstance(step, Start):
            assert not any(update.active for update in updates)

    @given(histories(), st.sets(st.sampled_from([f"u{n}" for n in range(9)])), st.booleans(), st.booleans())
    def test_only_an_update_of_ours_is_followed_finished_or_given_up(self, updates, known, following, settled):
        step = decide(updates, KEY, known, following=following, settled=settled)
        if isinstance(step, Follow | Finish | GiveUp | Settle):
            first = step.updates[0]
            assert first.id in known or first.carries(KEY)
            assert all(update.succeeds for update in step.updates[1:])

    @given(histories(), st.sets(st.sampled_from([f"u{n}" for n in range(9)])))
    def test_a_step_is_decided_by_the_newest_update_of_ours(self, updates, known):
        step = decide(updates, KEY, known, following=True, settled=True)
        mine = lineage(updates, KEY, known)
        if mine and mine[-1].state == "COMPLETED":
            assert step == Finish(mine)
        elif mine and not mine[-1].active:
            assert step == GiveUp(mine)


class TestBudgets:
    def test_queueing_and_running_are_counted_apart(self):
        budgets = Budgets(queue=10, run=100)
        assert budgets.spend(AwaitTurn(foreign("f", "RUNNING")), 6) is None
        assert budgets.spend(Follow((ours("a", "RUNNING"),)), 90) is None
        assert budgets.spend(Follow((ours("a", "WAITING_FOR_RESOURCES"),)), 5) == "queue"
        assert budgets.spent == {"queue": 11, "run": 90}

    def test_the_wait_for_a_retry_counts_as_running(self):
        assert Budgets(queue=10, run=100).spend(Settle((ours("a", "FAILED"),)), 101) == "run"


def event(
    kind="flow_progress",
    *,
    update="u",
    dataset="",
    flow="",
    level="INFO",
    at="2026-01-02T00:00:00.000Z",
    error=None,
    message="",
    **details,
):
    origin = {"update_id": update, "dataset_name": dataset or None, "flow_name": flow or dataset or None}
    body = {"id": f"{at}{kind}{dataset}{flow}", "timestamp": at, "event_type": kind, "level": level, "message": message}
    return Event({**body, "origin": origin, "details": {kind: details}, **({"error": error} if error else {})})


def quality(*expectations, dropped=None):
    rows = [
        dict(zip(("dataset", "name", "passed_records", "failed_records"), row, strict=True)) for row in expectations
    ]
    return {"expectations": rows, **({} if dropped is None else {"dropped_records": dropped})}


class TestCollect:
    def test_counts_of_a_tables_batches_add_up(self):
        events = [
            event(
                dataset="ecomm.bronze.orders",
                metrics={"num_output_rows": 3},
                data_quality=quality(("orders", "known_path", 3, 0)),
            ),
            event(
                dataset="`ecomm`.`bronze`.`orders`",
                metrics={"num_output_rows": 4},
                data_quality=quality(("orders", "known_path", 2, 2)),
            ),
        ]
        figures = collect(events, ["u"]).as_dict()
        assert figures["tables"] == {"bronze.orders": 7}
        assert figures["expectations"] == [{"dataset": "orders", "name": "known_path", "passed": 5, "failed": 2}]

    @pytest.mark.parametrize(
        ("metrics", "rows"),
        [
            ({"num_output_rows": 5, "num_upserted_rows": 5, "num_deleted_rows": 0}, 5),
            ({"num_upserted_rows": 4, "num_deleted_rows": 1}, 5),
            ({"num_output_rows": 0}, 0),
        ],
    )
    def test_rows_changed_by_auto_cdc_count_as_written_once(self, metrics, rows):
        assert collect([event(dataset="c.silver.dim_orders", metrics=metrics)], ["u"]).tables == {
            "silver.dim_orders": rows
        }

    def test_events_of_other_updates_and_kinds_do_not_count(self):
        events = [
            event(dataset="bronze.orders", update="v", metrics={"num_output_rows": 3}),
            event("update_progress", dataset="bronze.orders", metrics={"num_output_rows": 3}),
            event(dataset="bronze.orders", status="RUNNING"),
        ]
        assert collect(events, ["u"]).tables == {}

    def test_failures_of_the_rescue_expectation_are_the_rescued_rows(self):
        events = [event(dataset="bronze.orders", data_quality=quality(("bronze.orders", "no_rescued_data", 5, 2)))]
        figures = collect(events, ["u"])
        assert figures.rescued == {"bronze.orders": 2}
        assert figures.as_dict()["rescued_rows"] == 2

    def test_dropped_rows_are_counted_by_the_flow_that_dropped_them(self):
        events = [
            event(dataset="silver.dim_orders", data_quality=quality(("orders_typed", "valid_key", 1, 2), dropped=2))
        ]
        assert collect(events, ["u"]).dropped == {"silver.dim_orders": 2}

    def test_an_event_without_figures_is_no_error(self):
        bare = Event({"event_type": "flow_progress", "origin": {"update_id": "u"}})
        nulls = event(metrics=None, data_quality={"expectations": None})
        assert collect([bare, nulls], ["u"]).tables == {}


class TestProgress:
    def test_flows_are_done_when_they_completed_or_were_left_out(self):
        events = [
            event(flow="a", at="1", status="QUEUED"),
            event(flow="b", at="1", status="QUEUED"),
            event(flow="c", at="1", status="EXCLUDED"),
            event(flow="a", at="2", status="COMPLETED"),
            event(flow="x", at="2", status="COMPLETED", update="v"),
        ]
        assert progress(events, "u") == (2, 3)

    def test_the_log_has_arrived_when_it_tells_the_end(self):
        running = event("update_progress", state="RUNNING")
        assert not ended([running, event("update_progress", state="COMPLETED", update="v")], "u")
        assert ended([running, event("update_progress", state="FAILED")], "u")


class TestDurations:
    def test_queueing_and_running_are_told_from_the_states_of_all_updates(self):
        def state(name, second, update="u"):
            return event("update_progress", update=update, at=f"2026-01-02T00:00:{second:02}.500Z", state=name)

        first = [state("QUEUED", 0), state("WAITING_FOR_RESOURCES", 2), state("INITIALIZING", 5), state("FAILED", 9)]
        second = [
            state("QUEUED", 20, "v"),
            state("RUNNING", 21, "v"),
            state("COMPLETED", 31, "v"),
            state("QUEUED", 0, "w"),
        ]
        assert durations([*second, *first], ["u", "v"]) == {"queued": 6, "running": 14}

    def test_a_log_that_tells_nothing_gives_nothing(self):
        assert durations([], ["u"]) == {"queued": 0, "running": 0}


class TestSpent:
    AT = datetime(2026, 1, 2, tzinfo=UTC)

    def update(self, id_, state, second):
        return Update(id_, state, int(self.AT.timestamp() + second) * 1000)

    def state(self, name, second, update="u"):
        return event("update_progress", update=update, at=f"2026-01-02T00:00:{second:02}.000Z", state=name)

    def test_it_counts_from_the_creation_of_the_first_update_to_now(self):
        events = [self.state("QUEUED", 2), self.state("RUNNING", 7)]
        now = self.AT + timedelta(seconds=27)
        assert spent([self.update("u", "RUNNING", 1)], events, now) == {"queue": 6, "run": 20}

    def test_the_wait_for_the_platforms_retry_counts_as_running(self):
        events = [self.state("RUNNING", 3), self.state("FAILED", 5), self.state("QUEUED", 10, "v")]
        lineage_ = [self.update("u", "FAILED", 0), self.update("v", "QUEUED", 9)]
        assert spent(lineage_, events, self.AT + timedelta(seconds=20)) == {"queue": 14, "run": 6}

    @pytest.mark.parametrize(("state", "budget"), [("WAITING_FOR_RESOURCES", "queue"), ("RUNNING", "run")])
    def test_without_a_log_all_the_time_is_that_of_the_present_state(self, state, budget):
        used = spent([self.update("u", state, 5)], [], self.AT + timedelta(seconds=50))
        assert used == {"queue": 0, "run": 0, budget: 45}

    def test_an_update_whose_creation_is_not_told_counts_from_its_first_state(self):
        used = spent([Update("u", "RUNNING")], [self.state("RUNNING", 3)], self.AT + timedelta(seconds=8))
        assert used == {"queue": 0, "run": 5}
        assert spent([Update("u", "RUNNING")], [], self.AT) == {"queue": 0, "run": 0}

    def test_clocks_that_differ_take_nothing_off(self):
        assert spent([self.update("u", "RUNNING", 5)], [], self.AT) == {"queue": 0, "run": 0}

    def test_a_budget_is_not_counted_twice(self):
        budgets = Budgets(queue=10, run=100)
        budgets.spend(Follow((ours("a", "RUNNING"),)), 30)
        budgets.catch_up({"queue": 5, "run": 20})
        assert budgets.spent == {"queue": 5, "run": 30}


def error(*messages):
    return {"fatal": True, "exceptions": [{"class_name": "E", "message": m, "stack": [{}] * 100} for m in messages]}


class TestSummarise:
    def test_it_is_the_deepest_cause_with_its_dataset_and_without_its_stack(self):
        cause = "\n\n[CAST_INVALID_INPUT] The value 'x' cannot be cast to INT.\nat org.apache.spark.Foo(Foo.scala:1)\n"
        events = [
            event(
                "update_progress",
                level="ERROR",
                at="2",
                error=error("Update u is FAILED."),
                message="Update u is FAILED.",
            ),
            event(dataset="ecomm.silver.fact_orders", level="ERROR", at="1", error=error("Flow failed.", cause)),
        ]
        assert summarise(events, "u") == "silver.fact_orders: [CAST_INVALID_INPUT] The value 'x' cannot be cast to INT."

    def test_it_is_one_short_line_whatever_the_message(self):
        text = summarise([event(dataset="t", level="ERROR", error=error("x" * 100_000))], "u")
        assert len(text) < 500
        assert "\n" not in text

    def test_without_an_exception_the_message_tells(self):
        assert (
            summarise([event("update_progress", level="ERROR", message="Update failed: no compute")], "u")
            == "Update failed: no compute"
        )

    def test_it_is_empty_when_the_log_does_not_say(self):
        other = event(level="ERROR", update="v", error=error("of another update"))
        assert summarise([event(status="COMPLETED"), other], "u") == ""

    @pytest.mark.parametrize(
        "summary",
        [
            "AWS_INSUFFICIENT_INSTANCE_CAPACITY_FAILURE: we do not have sufficient capacity",
            "INSUFFICIENT_CAPACITY",
            "Cluster was terminated. Reason: CLOUD_PROVIDER_RESOURCE_STOCKOUT",
            "AZURE_QUOTA_EXCEEDED_EXCEPTION",
        ],
    )
    def test_missing_compute_is_told_from_a_broken_pipeline(self, summary):
        assert is_capacity(summary)
        assert not is_capacity("[TABLE_OR_VIEW_NOT_FOUND] The table `capacity` cannot be found")
