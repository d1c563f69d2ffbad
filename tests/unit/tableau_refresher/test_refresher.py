"""tableau-refresher's way through jobs, against a site in virtual time that does what the real one is known to do."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.virtual import Died, VirtualClock, VirtualStage, die

from ecomm_pipeline.errors import (
    BadDataError,
    CredentialsError,
    MissingSourceError,
    TimedOutError,
    UnavailableError,
    UpstreamFailedError,
)
from ecomm_pipeline.progress import Progress
from ecomm_pipeline.settings import Tableau as TableauSettings
from ecomm_pipeline.tableau_refresher.plan import Job, Target
from ecomm_pipeline.tableau_refresher.run import Refresher

BEGAN = datetime(2026, 1, 2, 22, tzinfo=UTC)
COMMIT = BEGAN - timedelta(minutes=1)
SALES, PRODUCTS, CUSTOMERS = (
    Target("datasource", name, (f"agg_{name}_kpi",)) for name in ("sales", "product", "customer")
)


@dataclass
class Refresh:
    """A job of the site."""

    id: str
    name: str
    began: float
    seconds: float
    ends_as: str = "succeeded"
    notes: str = ""


@dataclass
class Site:
    """Data sources whose refreshes take a while; one refresh of each at a time."""

    clock: VirtualClock
    seconds: float = 10
    ends_as: dict[str, str] = field(default_factory=dict)
    notes: str = ""
    missing: set[str] = field(default_factory=set)
    requests: list[str] = field(default_factory=list)
    all: list[Refresh] = field(default_factory=list)
    answers: list = field(default_factory=list)
    shows_after: float = 0
    most_at_once: int = 0

    def begin(self, name, at=None):
        began = self.clock.seconds if at is None else at
        self.all.append(
            Refresh(f"j{len(self.all)}", name, began, self.seconds, self.ends_as.get(name, "succeeded"), self.notes)
        )
        self.most_at_once = max(self.most_at_once, sum(self._job(r).active for r in self.all))
        return self.all[-1]

    def _job(self, refresh):
        elapsed = self.clock.seconds - refresh.began
        state = "running" if elapsed < refresh.seconds else refresh.ends_as
        return Job(refresh.id, BEGAN + timedelta(seconds=refresh.began), state, refresh.notes)

    def find(self, target):
        if target.name in self.missing:
            message = f"Tableau has no {target}"
            raise MissingSourceError(message)
        return target.name

    def request(self, _target, item_id):
        self.requests.append(item_id)
        answer = self.answers.pop(0) if self.answers else None
        if isinstance(answer, tuple):  # not queued
            raise answer[0]
        if any(r.name == item_id and self._job(r).active for r in self.all):
            return None
        begun = self.begin(item_id)
        if answer is not None:  # queued, and answered so
            raise answer
        return self._job(begun)

    def job(self, job_id):
        return next((self._job(r) for r in self.all if r.id == job_id), None)

    def jobs(self, _target, item_id):
        return [self._job(r) for r in self.all if r.name == item_id]

    def refreshed_at(self, _target, item_id):
        ends = [r.began + r.seconds for r in self.all if r.name == item_id and r.ends_as == "succeeded"]
        shown = [end for end in ends if end + self.shows_after <= self.clock.seconds]
        return BEGAN + timedelta(seconds=int(max(shown))) if shown else BEGAN - timedelta(days=1)


class Stage(VirtualStage):
    """A run of the stage on its site."""

    name = "tableau-refresher"

    def __init__(self, *targets, **limits):
        super().__init__(BEGAN)
        self.site = Site(self.clock)
        self.targets = list(targets) or [SALES]
        self.commit = COMMIT
        self.settings = TableauSettings(server="http://t", token_name="n", token_value="v", poll_interval=1, **limits)

    def work(self, context):
        commits = {table: self.commit for target in self.targets for table in target.tables}
        deadline = self.clock.monotonic() + self.settings.timeout
        Refresher(context, self.settings, self.site, Progress("t", self.clock), deadline).run(self.targets, commits)


def test_each_target_is_refreshed_once_and_proven_fresh():
    stage = Stage(SALES, PRODUCTS, CUSTOMERS)
    record = stage.run()
    assert sorted(stage.site.requests) == ["customer", "product", "sales"]
    figures = record.figures["targets"]["sales"]
    assert figures["refreshed_at"] == "2026-01-02T22:00:10.000Z"
    assert figures["kpi_committed_at"] == "2026-01-02T21:59:00.000Z"
    assert figures["seconds"] == pytest.approx(10, abs=2)


@pytest.mark.parametrize("parallel", [1, 2, 3])
def test_no_more_than_the_limit_run_at_once(parallel):
    stage = Stage(SALES, PRODUCTS, CUSTOMERS, parallel=parallel)
    stage.run()
    assert stage.site.most_at_once == parallel


def test_the_job_is_in_the_ledger_before_it_is_waited_for():
    stage = Stage()
    seen = []
    stage.clock.alarms.append((0.5, lambda: seen.append(stage.ledger().remote["jobs"]["sales"]["job_id"])))
    stage.run()
    assert seen == ["j0"]


def test_a_refresh_that_is_queued_already_is_adopted():
    stage = Stage()
    stage.site.begin("sales", at=-5)
    record = stage.run()
    assert record.figures["targets"]["sales"]["adopted"]
    assert len(stage.site.all) == 1


def test_a_refresh_that_was_queued_before_the_commit_is_followed_by_another():
    stage = Stage()
    stage.site.seconds = 70
    stage.site.begin("sales", at=-61)
    record = stage.run()
    assert record.figures["targets"]["sales"]["job_id"] == "j1"
    assert stage.site.most_at_once == 1


def test_a_failed_job_is_told_with_tableaus_notes_and_the_others_are_done():
    stage = Stage(SALES, PRODUCTS)
    stage.site.ends_as, stage.site.notes = {"sales": "failed"}, "The warehouse\ndid not answer."
    with pytest.raises(
        UpstreamFailedError, match=r"(?m)data source 'sales' \(job j0\) failed: The warehouse did not answer.$"
    ):
        stage.run()
    assert list(stage.ledger().figures["targets"]) == ["product"]


def test_a_used_up_quota_has_words_of_its_own():
    stage = Stage()
    stage.site.ends_as, stage.site.notes = {"sales": "failed"}, "No more non-interactive quota"
    with pytest.raises(UpstreamFailedError, match="quota is used up"):
        stage.run()


def test_a_job_cancelled_on_tableau_is_told_as_such():
    stage = Stage(SALES, PRODUCTS)
    stage.site.ends_as = {"sales": "cancelled"}
    with pytest.raises(UpstreamFailedError, match="was cancelled on Tableau") as caught:
        stage.run()
    assert not caught.value.failure.retry  # whoever cancelled it does not want it again
    assert list(stage.ledger().figures["targets"]) == ["product"]


def test_several_failures_are_told_together_and_the_one_no_retry_helps_decides():
    stage = Stage(SALES, CUSTOMERS, timeout=5, parallel=1)
    stage.site.missing = {"customer"}
    with pytest.raises(MissingSourceError, match=r"no data source 'customer'; .*'sales' .*is not done"):
        stage.run()


def test_an_extract_that_shows_its_new_time_late_is_waited_for():
    stage = Stage()
    stage.site.shows_after = 60
    assert stage.run().outcome == "succeeded"


def test_an_extract_that_stays_old_after_its_job_is_stale():
    stage = Stage()
    stage.site.shows_after = 10_000
    with pytest.raises(
        BadDataError,
        match=r"stale: job j0 succeeded, but it shows 2026-01-01T22:00:00.000Z, and kpi.agg_sales_kpi was committed",
    ):
        stage.run()
    assert stage.ledger().figures["targets"]["sales"]["refreshed_at"] == "2026-01-01T22:00:00.000Z"


def test_the_limit_is_for_jobs_and_not_for_the_proof():
    stage = Stage(timeout=15)
    stage.site.shows_after = 12
    assert stage.run().outcome == "succeeded"


def test_all_targets_share_one_limit():
    stage = Stage(SALES, PRODUCTS, CUSTOMERS, parallel=1, timeout=25)
    with pytest.raises(TimedOutError, match=r"^the refresh of data source 'customer' \(job j2\) is not done") as caught:
        stage.run()
    assert "25 s for all" in caught.value.message
    assert stage.clock.seconds == pytest.approx(25, abs=2)
    assert list(stage.ledger().figures["targets"]) == ["sales", "product"]


def test_after_the_limit_no_refresh_is_asked_for():
    stage = Stage(SALES, PRODUCTS, parallel=1, timeout=5)
    with pytest.raises(TimedOutError, match=r"'product' \(no job of its own yet\)"):
        stage.run()
    assert stage.site.requests == ["sales"]


def test_a_stuck_job_ends_the_wait_and_is_found_again():
    stage = Stage(timeout=30)
    stage.site.seconds = 60
    with pytest.raises(
        TimedOutError, match=r"data source 'sales' \(job j0\) is not done; ECOMM_TABLEAU_TIMEOUT is 30 s"
    ):
        stage.run()
    assert stage.run().figures["targets"]["sales"]["job_id"] == "j0"


@pytest.mark.parametrize("moment", [0.5, 5, 9.5])
def test_after_a_kill_the_same_command_re_attaches(moment):
    stage = Stage(SALES, PRODUCTS)
    stage.clock.alarms.append((moment, die))
    with pytest.raises(Died):
        stage.run()
    stage.clock.seconds += 100 if moment == 5 else 0
    assert stage.run().outcome == "succeeded"
    assert len(stage.site.all) == 2


def test_a_kill_before_the_ledger_was_written_costs_no_second_refresh():
    stage = Stage()
    put_all = stage.bucket.put_all

    def dies_at_the_second_write(objects):
        stage.bucket.put_all = put_all
        put_all(objects)
        stage.bucket.put_all = lambda _: die()

    stage.bucket.put_all = dies_at_the_second_write
    with pytest.raises(Died):
        stage.run()
    stage.bucket.put_all = put_all
    stage.clock.seconds = 100
    assert stage.run().figures["targets"]["sales"]["adopted"]
    assert len(stage.site.all) == 1


def test_tables_that_were_built_again_since_the_last_try_are_refreshed_again():
    stage = Stage()
    stage.run()
    stage.commit = stage.clock.now()
    stage.clock.seconds += 100
    assert stage.run().figures["targets"]["sales"]["job_id"] == "j1"


@pytest.mark.parametrize("error", [CredentialsError("403"), UnavailableError("reset")])
def test_a_refresh_that_was_queued_although_the_answer_was_bad_is_adopted(error):
    stage = Stage()
    stage.site.answers = [error]
    assert stage.run().figures["targets"]["sales"]["job_id"] == "j0"
    assert stage.site.requests == ["sales"]


def test_a_refresh_that_is_refused_and_not_queued_is_an_error():
    stage = Stage()
    stage.site.answers = [(CredentialsError("403"),)]
    with pytest.raises(CredentialsError):
        stage.run()


def test_a_refresh_that_could_not_be_asked_for_is_asked_for_again():
    stage = Stage()
    stage.site.answers = [(UnavailableError("reset"),)] * 3
    assert stage.run().outcome == "succeeded"
    assert len(stage.site.all) == 1


@settings(max_examples=60, deadline=None)
@given(
    kills=st.lists(st.integers(1, 60), max_size=3),
    answers=st.lists(
        st.sampled_from([None, UnavailableError("lost"), (UnavailableError("reset"),), CredentialsError("403")]),
        max_size=6,
    ),
    others=st.lists(st.tuples(st.integers(-100, 30), st.sampled_from(["sales", "product"])), max_size=3),
)
def test_whatever_disturbs_it_each_extract_is_refreshed_after_the_commit(kills, answers, others):
    stage = Stage(SALES, PRODUCTS)
    stage.site.answers = list(answers)
    stage.clock.alarms += [(moment, die) for moment in kills]
    for moment, name in others:
        if moment < 0:
            stage.site.begin(name, at=moment)
        else:
            stage.clock.alarms.append((moment, lambda name=name: stage.site.begin(name)))
    for _ in range(10):
        try:
            record = stage.run()
        except Died:
            continue
        break
    assert record.outcome == "succeeded"
    for name in ("sales", "product"):
        job = stage.site.job(record.figures["targets"][name]["job_id"])
        assert (job.state, job.created > COMMIT) == ("succeeded", True)
