"""tableau-refresher on the sandbox: each extract refreshed once after the commit, whatever happens on the way."""

from __future__ import annotations

import time
from datetime import datetime
from typing import TYPE_CHECKING

import pytest
from tests.support.trial import wait_until

from ecomm_pipeline.errors import (
    BadDataError,
    CredentialsError,
    MissingSourceError,
    TimedOutError,
    UpstreamFailedError,
)

if TYPE_CHECKING:
    import subprocess

    from ecomm_pipeline.ledger import Record

    from .conftest import Site

SALES = "agg_sales_kpi"


def test_what_the_exposures_name_is_refreshed_and_proven_fresh(site: Site) -> None:
    site.set(ECOMM_TABLEAU_DATASOURCES="")
    record = site.run()
    targets = record.figures["targets"]
    assert set(targets) == {SALES, "agg_product_kpi", "agg_customer_kpi", "workbook:Daily Sales"}
    for target in targets.values():
        committed = datetime.fromisoformat(target["kpi_committed_at"])
        assert datetime.fromisoformat(target["refreshed_at"]) >= committed.replace(microsecond=0)
    assert {key: job["job_id"] for key, job in record.remote["jobs"].items()} == {
        key: target["job_id"] for key, target in targets.items()
    }

    # The same command again asks for nothing.
    again = site.run()
    assert again.remote == record.remote
    assert len(site.jobs()) == 1


def test_a_refresh_that_is_queued_already_is_adopted(site: Site) -> None:
    site.commit()
    time.sleep(1.1)  # Tableau tells times in whole seconds
    with site.sandbox.fault("tableau", "stuck"):
        job_id = site.queue()
        process = site.start()
        site.hear(process, "tableau-refresher.job_adopted")
    record = _ended(site, process)
    assert record.figures["targets"][SALES]["job_id"] == job_id
    assert site.jobs() == [job_id]


def test_a_refresh_queued_before_the_commit_is_waited_for_and_followed_by_another(site: Site) -> None:
    with site.sandbox.fault("tableau", "stuck"):
        stale = site.queue()
        site.commit()
        process = site.start()
        site.hear(process, "tableau-refresher.stale_job")
    record = _ended(site, process)
    fresh = record.figures["targets"][SALES]["job_id"]
    assert fresh != stale
    assert sorted(site.jobs()) == sorted([stale, fresh])


def test_a_failed_job_is_told_with_tableaus_notes(site: Site) -> None:
    with (
        site.sandbox.fault("tableau", "fail", notes="The warehouse did not answer."),
        pytest.raises(
            UpstreamFailedError, match=rf"data source '{SALES}' \(job .*\) failed: .*The warehouse did not answer"
        ),
    ):
        site.run()


def test_a_stuck_job_ends_the_wait_and_the_same_command_finds_it_again(site: Site) -> None:
    with site.sandbox.fault("tableau", "stuck"):
        left = site.queue()
        site.set(ECOMM_TABLEAU_TIMEOUT="1")
        with pytest.raises(TimedOutError, match="ECOMM_TABLEAU_TIMEOUT is 1 s"):
            site.run()
    site.set(ECOMM_TABLEAU_TIMEOUT="1800")
    record = site.run()
    assert record.figures["targets"][SALES]["job_id"] == left
    assert site.jobs() == [left]


def test_kill_9_and_the_same_command_again_are_one_refresh(site: Site) -> None:
    with site.sandbox.fault("tableau", "stuck"):
        process = site.start()
        wait_until(site.queued)
        process.kill()
        process.communicate()
    assert site.run().outcome == "succeeded"
    assert len(site.jobs()) == 1


@pytest.mark.parametrize("kind", ["lost", "queued", "unavailable", "drop"])
def test_a_site_that_answers_badly_costs_no_second_refresh(site: Site, kind: str) -> None:
    with site.sandbox.fault("tableau", kind, times=1):
        assert site.run().outcome == "succeeded"
    assert len(site.jobs()) == 1


def test_a_revoked_token_is_told_as_such(site: Site) -> None:
    with site.sandbox.fault("tableau", "credentials"), pytest.raises(CredentialsError, match="401"):
        site.run()


def test_a_data_source_that_is_not_there_is_named(site: Site) -> None:
    site.set(ECOMM_TABLEAU_DATASOURCES="no such thing")
    with pytest.raises(MissingSourceError, match="no data source 'no such thing'"):
        site.run()


def test_an_extract_older_than_its_table_is_stale(site: Site) -> None:
    site.set(ECOMM_TABLEAU_PROOF_TIMEOUT="1")
    with (
        site.sandbox.fault("tableau", "stale"),
        pytest.raises(BadDataError, match=rf"the extract of data source '{SALES}' is stale"),
    ):
        site.run()


def _ended(site: Site, process: subprocess.Popen[str]) -> Record:
    """Give the record that a process of the stage leaves, which is to succeed."""
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    return site.record()
