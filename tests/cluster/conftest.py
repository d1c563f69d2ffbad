"""The kind cluster, with both releases on it, that all tests of this folder share."""

from __future__ import annotations

import os
import subprocess
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from tests.support import invoices
from tests.support.cluster import NAMESPACE, PIPELINE, ROOT, Cluster, environment
from tests.support.invoices import ZONE, Days
from tests.support.kpis import Kpis, expected_kpis, read_kpis

from ecomm_sandbox.sandbox import LoadOptions

from .release import live

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CANNOT = 3
"""Exit code of cluster/up where a machine cannot run a cluster."""


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The cluster, with the images of this source, an empty sandbox, and the pipeline's chart.

    ECOMM_TEST_CLUSTER=ready takes it as it is, sandbox and all.
    """
    if os.environ.get("ECOMM_TEST_CLUSTER") != "ready":
        _make()
    made = Cluster(environment(), tmp_path_factory.mktemp("cluster") / "sandbox")
    made.attach()
    yield made
    made.detach()


def _make() -> None:
    up = subprocess.run(["cluster/up"], cwd=ROOT, stderr=subprocess.PIPE, text=True, check=False)
    if up.returncode == CANNOT and os.environ.get("CI") != "true":
        pytest.skip(up.stderr.strip().splitlines()[-1])
    assert up.returncode == 0, up.stderr
    tools = environment()
    base = subprocess.run(
        ["cluster/base-image"], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
    ).stdout.strip()
    stages = sorted(path.parent.name for path in (ROOT / "images").glob("*/requirements.txt"))
    subprocess.run(["images/build", *stages, "sandbox"], cwd=ROOT, check=True, env={**tools, "BASE_IMAGE": base})
    forget = ["kubectl", "-n", NAMESPACE, "delete", "workflows,cronworkflows", "--all", "--ignore-not-found"]
    subprocess.run(forget, cwd=ROOT, check=True, env=tools)
    subprocess.run(["cluster/deploy"], cwd=ROOT, check=True, env={**tools, "FRESH": "true"})


@pytest.fixture(scope="session", autouse=True)
def release(
    request: pytest.FixtureRequest, cluster: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Future[None] | None]:
    """The life of a release, which goes on beside the first tests: it has a namespace of its own, and mostly waits."""
    if not any(item.path.name == "test_release.py" for item in request.session.items):
        yield None
        return
    with ThreadPoolExecutor(1) as beside:
        yield beside.submit(live, cluster, tmp_path_factory.mktemp("release"))


@pytest.fixture(scope="session")
def shop(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Callable[[int, int], Days]:
    """Give days of a shop, loaded: a block of days for each number, which no other has, nor the week before it."""

    def load(block: int, count: int) -> Days:
        first = date.today() - timedelta(days=60 + 28 * block)  # noqa: DTZ011 (any day of the past does)
        days = invoices.write(tmp_path_factory.mktemp(f"block-{block}"), first, count)
        cluster.sandbox.load(LoadOptions(days.folder, timezone=ZONE))
        return days

    return load


@pytest.fixture(scope="session")
def week(shop: Callable[[int, int], Days]) -> Days:
    """A week of which only the fourth day is run, by `good_day`; test_backfill.py does the others."""
    return shop(0, 7)


class GoodDay:
    """A date that was submitted from the CronWorkflow and ended green, with the KPI tables as they were then."""

    def __init__(self, cluster: Cluster, week: Days) -> None:
        self.days = Days(week.folder, week.first + timedelta(days=3), 1)
        self.date = self.days.dates[0]
        self.run = cluster.submit(f"cronwf/{PIPELINE}", date=self.date, trigger="manual")
        self.run.ends("Succeeded", within=400)
        self.kpis: Kpis = read_kpis(cluster.sandbox, self.days)


@pytest.fixture(scope="session")
def good_day(cluster: Cluster, week: Days) -> GoodDay:
    """The good day."""
    return GoodDay(cluster, week)


@pytest.fixture
def equals_the_computation(cluster: Cluster) -> Callable[[Days], None]:
    """Compare the KPI tables of days with the independent computation."""

    def check(days: Days) -> None:
        assert read_kpis(cluster.sandbox, days) == expected_kpis(days)

    return check


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Add to a failure what a person would look at first: workflows, logs of their pods, events."""
    outcome: Any = yield
    report = outcome.get_result()
    found = getattr(item, "funcargs", {}).get("cluster")
    if report.failed and isinstance(found, Cluster):
        since = datetime.fromtimestamp(call.start, UTC)
        try:
            report.sections.append(("cluster", found.diagnose(since)))
        except Exception as error:  # noqa: BLE001 (the failure itself matters more)
            report.sections.append(("cluster", f"could not be asked: {error}"))
