"""tableau-refresher's decisions: what is refreshed, which job counts, and when an extract is fresh."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ecomm_pipeline.errors import BadDataError, ConfigurationError
from ecomm_pipeline.tableau_refresher.plan import (
    DEFAULT_TABLES,
    Adopt,
    AwaitStale,
    Job,
    Request,
    Target,
    choose,
    explain,
    is_fresh,
    is_quota,
    last_commit,
    targets_of_exposures,
    targets_of_names,
)

COMMIT = datetime(2026, 1, 2, 22, 20, 30, 250_000, tzinfo=UTC)


def exposures(text):
    return targets_of_exposures({"models/exposures.yml": yaml.safe_load(text)})


class TestTargets:
    def test_exposures_name_data_sources_and_workbooks_with_the_tables_they_read(self):
        targets = exposures("""
            exposures:
              - {name: a, depends_on: [ref('agg_sales_kpi')], config: {meta: {tableau: {datasource: sales}}}}
              - name: b
                depends_on: ["ref('ecomm', 'agg_product_kpi')", 'ref("agg_sales_kpi")']
                meta: {tableau: {workbook: Daily Sales}}
        """)
        assert targets == [
            Target("datasource", "sales", ("agg_sales_kpi",)),
            Target("workbook", "Daily Sales", ("agg_product_kpi", "agg_sales_kpi")),
        ]

    def test_exposures_of_one_data_source_add_up(self):
        targets = exposures("""
            exposures:
              - {name: a, depends_on: [ref('x')], meta: {tableau: {datasource: sales}}}
              - {name: b, depends_on: [ref('y')], meta: {tableau: {datasource: [sales, more], project: Finance}}}
              - {name: c, depends_on: [ref('z')], meta: {tableau: {datasource: sales}}}
        """)
        assert targets == [
            Target("datasource", "sales", ("x", "z")),
            Target("datasource", "sales", ("y",), "Finance"),
            Target("datasource", "more", ("y",), "Finance"),
        ]

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "version: 2",
            "- a list",
            "exposures: []",
            "exposures: [{name: a, meta: {looker: x}}]",
            "exposures: [{name: a, config: {enabled: false, meta: {tableau: {datasource: sales}}}}]",
            "models: [{name: agg_sales_kpi}]",
        ],
    )
    def test_other_files_and_exposures_are_passed_over(self, text):
        assert exposures(text) == []

    @pytest.mark.parametrize("meta", ["{}", "{datasource: ''}", "sales", "{dataset: sales}"])
    def test_a_wrong_form_is_told_with_its_place(self, meta):
        with pytest.raises(ConfigurationError, match=r"models/exposures.yml: exposure 'a' has meta.tableau without"):
            exposures(f"exposures: [{{name: a, meta: {{tableau: {meta}}}}}]")

    def test_exposures_that_are_no_list_are_told(self):
        with pytest.raises(ConfigurationError, match="`exposures` is not a list"):
            exposures("exposures: {name: a}")

    def test_settings_name_data_sources_and_keep_what_exposures_know_of_them(self):
        exposed = [Target("datasource", "sales", ("x",)), Target("workbook", "other", ("y",))]
        assert targets_of_names(["other", "sales", "other"], exposed) == [
            Target("datasource", "other", DEFAULT_TABLES),
            exposed[0],
        ]


def job(id_="j", state="pending", seconds=10):
    return Job(id_, COMMIT + timedelta(seconds=seconds), state)


class TestChoose:
    def test_without_jobs_a_refresh_is_asked_for(self):
        assert choose([], COMMIT, asked_before=False) == Request()

    @pytest.mark.parametrize("state", ["pending", "running"])
    def test_an_active_job_asked_for_after_the_commit_is_adopted(self, state):
        assert choose([job(state=state)], COMMIT, asked_before=False) == Adopt(job(state=state))

    @pytest.mark.parametrize("state", ["pending", "running"])
    @pytest.mark.parametrize("seconds", [-3600, -1, 0])
    def test_an_active_job_asked_for_before_the_commit_is_only_waited_for(self, state, seconds):
        assert choose([job("j", state, seconds)], COMMIT, asked_before=True) == AwaitStale(job("j", state, seconds))

    def test_a_job_that_succeeded_counts_only_when_it_may_be_ours(self):
        done = job(state="succeeded")
        assert choose([done], COMMIT, asked_before=False) == Request()
        assert choose([done], COMMIT, asked_before=True) == Adopt(done)
        assert choose([job(state="succeeded", seconds=-1)], COMMIT, asked_before=True) == Request()

    @pytest.mark.parametrize("state", ["failed", "cancelled"])
    def test_a_job_that_ended_badly_never_counts(self, state):
        assert choose([job(state=state)], COMMIT, asked_before=True) == Request()

    @given(
        st.lists(
            st.builds(
                job,
                st.uuids().map(str),
                st.sampled_from(["pending", "running", "succeeded", "failed", "cancelled"]),
                st.integers(-9, 9),
            )
        ),
        st.booleans(),
    )
    def test_whatever_is_adopted_was_asked_for_after_the_commit_and_nothing_is_queued_beside_an_active_job(
        self, jobs, asked_before
    ):
        choice = choose(jobs, COMMIT, asked_before=asked_before)
        if isinstance(choice, Adopt):
            assert choice.job.created > COMMIT
            assert choice.job.active or choice.job.state == "succeeded"
        elif isinstance(choice, AwaitStale):
            assert choice.job.active
            assert not any(job.active and job.created > COMMIT for job in jobs)
        else:
            assert not any(job.active for job in jobs)


class TestFreshness:
    @pytest.mark.parametrize(
        ("refreshed", "fresh"),
        [
            (None, False),
            (COMMIT - timedelta(seconds=1), False),
            (COMMIT.replace(microsecond=0), True),  # Tableau cuts the fraction off
            (COMMIT + timedelta(seconds=1), True),
        ],
    )
    def test_an_extract_is_fresh_when_it_is_not_older_than_its_tables(self, refreshed, fresh):
        assert is_fresh(refreshed, COMMIT) is fresh

    @pytest.mark.parametrize(
        "text",
        [
            "2026-01-02T22:20:30.250Z",
            "2026-01-02T22:20:30.25+00:00",
            "2026-01-02 22:20:30.250",
            "2026-01-03T05:20:30.250+07:00",
        ],
    )
    def test_the_commits_time_is_read_as_warehouses_write_it(self, text):
        assert last_commit([{"timestamp": text, "operation": "WRITE"}], "t") == COMMIT

    def test_upkeep_of_a_table_makes_no_extract_stale(self):
        times = ["2026-01-03T03:00:00Z", "2026-01-03T02:00:00Z", "2026-01-02T22:20:30.250Z", "2026-01-01T00:00:00Z"]
        operations = ["VACUUM END", "OPTIMIZE", "CREATE OR REPLACE TABLE AS SELECT", "WRITE"]
        history = [
            {"timestamp": time, "operation": operation} for time, operation in zip(times, operations, strict=True)
        ]
        assert last_commit(history, "t") == COMMIT

    def test_a_history_of_upkeep_only_still_gives_a_time(self):
        assert last_commit([{"timestamp": "2026-01-02T22:20:30.250Z", "operation": "OPTIMIZE"}], "t") == COMMIT

    @pytest.mark.parametrize(
        "history", [[], [{"timestamp": None, "operation": "WRITE"}], [{"timestamp": "soon", "operation": None}]]
    )
    def test_a_table_without_a_commits_time_is_an_error_that_names_it(self, history):
        with pytest.raises(BadDataError, match=r"kpi.agg_sales_kpi"):
            last_commit(history, "kpi.agg_sales_kpi")


class TestNotes:
    def test_notes_become_one_short_line(self):
        assert explain("a\n\n b\tc") == "a b c"
        assert explain("") == "Tableau does not say why"
        assert len(explain("x" * 10_000)) == 400

    @pytest.mark.parametrize("notes", ["No more non-interactive quota", "Suspended: Extract refresh capacity at 100%"])
    def test_a_used_up_quota_is_told_from_a_failure(self, notes):
        assert is_quota(notes)
        assert not is_quota("The warehouse did not answer.")
