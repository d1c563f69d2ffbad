"""A real Prometheus asks a real exporter over a ledger in a real S3: the dashboard has answers, and alerts fire."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from tests.support.alerting import free_port
from tests.support.nights import Nights

from ecomm_pipeline.dates import BusinessDate
from ecomm_pipeline.settings import DEFAULT_TABLES
from ecomm_pipeline.settings import Store as StoreSettings
from ecomm_pipeline.store import Store
from ecomm_sandbox.sandbox import Sandbox

REPOSITORY = Path(__file__).parents[2]
CHART = REPOSITORY / "helm/ecomm-data-pipeline"
DASHBOARD = json.loads((CHART / "dashboards/ecomm.json").read_text())
OFFSET = 12 - datetime.now(UTC).hour
TZ = ZoneInfo(f"Etc/GMT{-OFFSET:+d}")
"""Where it is about noon: the night is over, and what was due in the morning is late."""
NIGHTS = 20
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def queries():
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", []):
            labels = re.findall(r"\{\{(\w+)\}\}", target.get("legendFormat", ""))
            yield pytest.param(target["expr"].replace("$table", ".*"), labels, id=f"{panel['title']} {target['refId']}")


def get(url, patience=0.0):
    deadline = time.monotonic() + patience
    while True:
        try:
            return OPENER.open(url, timeout=10).read().decode()
        except (urllib.error.URLError, OSError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


@contextmanager
def running(command, log, **options):
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output, **options) as process:
        try:
            yield process
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def bucket(tmp_path_factory):
    """S3 of a sandbox of which nothing else runs, as environment variables."""
    sandbox = Sandbox(tmp_path_factory.mktemp("live"))
    sandbox.up(["s3"])
    try:
        yield sandbox.env()
    finally:
        sandbox.down(purge=True)


@pytest.fixture(scope="module")
def exporter(bucket, tmp_path_factory):
    """The URL of an exporter over that ledger."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in bucket.items():
            patch.setenv(name, value)
        nights = Nights(Store(StoreSettings()), TZ)
        newest = BusinessDate.of(datetime.now(UTC), TZ).plus(-1)
        for back in range(NIGHTS):
            nights.write(newest.plus(-back), fails=back == 0)
        nights.fail_backfill(newest.plus(-400))
    port = free_port()
    environment = {**os.environ, **bucket, "ECOMM_EXPORTER_REFRESH_INTERVAL": "1", "ECOMM_BUSINESS_TIMEZONE": str(TZ)}
    command = [sys.executable, "-m", "ecomm_pipeline.cli", "exporter", f"--port={port}"]
    with running(command, tmp_path_factory.mktemp("exporter") / "log", env=environment) as process:
        url = f"http://127.0.0.1:{port}/metrics"
        deadline = time.monotonic() + 30
        while "ecomm_exporter_objects_read 0" in get(url, 30) or "ecomm_exporter_objects_read " not in get(url):
            assert time.monotonic() < deadline
            time.sleep(0.2)
        yield url
        process.terminate()
        assert process.wait(15) == 0, "it ends well when it is told to stop"


@pytest.fixture(scope="module")
def prometheus(exporter, tmp_path_factory):
    """A Prometheus that asks the exporter every second and has our alerts, without their waiting."""
    folder = tmp_path_factory.mktemp("prometheus")
    rules = folder / "rules"
    rules.mkdir()
    for path in (CHART / "alerts").glob("*.yaml"):
        text = "\n".join(line for line in path.read_text().splitlines() if not line.lstrip().startswith("for: "))
        (rules / path.name).write_text(text)
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [f"{rules}/*.yaml"],
        "scrape_configs": [
            {"job_name": "exporter", "static_configs": [{"targets": [urllib.parse.urlsplit(exporter).netloc]}]}
        ],
    }
    (folder / "prometheus.yml").write_text(json.dumps(config))
    tools = subprocess.run([REPOSITORY / "tools/prometheus"], check=True, capture_output=True, text=True).stdout.strip()
    port = free_port()
    options = [f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
    with running([f"{tools}/prometheus", *options, f"--web.listen-address=127.0.0.1:{port}"], folder / "log"):
        url = f"http://127.0.0.1:{port}"
        get(f"{url}/-/ready", 30)
        deadline = time.monotonic() + 30
        while not ask(url, 'ALERTS{alertname="EcommDbtFailed",alertstate="firing"}'):
            assert time.monotonic() < deadline, (folder / "log").read_text()[-2000:]
            time.sleep(0.5)
        yield url


def ask(url, expression):
    query = urllib.parse.urlencode({"query": expression})
    answer = json.loads(get(f"{url}/api/v1/query?{query}"))
    assert answer["status"] == "success"
    return answer["data"]["result"]


@pytest.mark.parametrize(("expression", "labels"), list(queries()))
def test_what_the_dashboard_asks_has_an_answer_with_the_labels_of_its_legend(prometheus, expression, labels):
    rows = ask(prometheus, expression)
    assert any(set(labels) <= row["metric"].keys() for row in rows)


def test_the_dashboard_s_variables_have_values(prometheus):
    asked = [one["query"]["query"] for one in DASHBOARD["templating"]["list"] if isinstance(one["query"], dict)]
    for metric, label in re.findall(r"label_values\((\w+), (\w+)\)", " ".join(asked)):
        assert {row["metric"][label] for row in ask(prometheus, metric)} == set(DEFAULT_TABLES)


def names(prometheus):
    return {row["metric"]["alertname"] for row in ask(prometheus, 'ALERTS{alertstate="firing"}')}


def test_alerts_fire_for_what_is_wrong_in_the_ledger_and_for_nothing_else(prometheus):
    expected = {
        "EcommBackfillFailed",
        "EcommDashboardStale",
        "EcommDbtFailed",
        "EcommExpectationFailed",
        "EcommGoldMissing",
        "EcommNightlyLate",
        "EcommNotReconciled",
        "EcommSchemaDrift",
        "EcommStageSlow",
        "EcommWatchdog",
    }
    deadline = time.monotonic() + 20
    while (firing := names(prometheus)) != expected and time.monotonic() < deadline:
        time.sleep(0.5)  # rules are looked at one after the other, the first time before anything was scraped
    assert firing == expected
    (dbt,) = (row["metric"] for row in ask(prometheus, 'ALERTS{alertname="EcommDbtFailed"}'))
    assert (dbt["priority"], dbt["failure_class"], dbt["stage"]) == ("P2", "bad_data", "dbt-runner")


def test_a_ledger_that_does_not_change_is_not_read_again(exporter):
    def value(name):
        return next(float(line.split()[1]) for line in get(exporter).splitlines() if line.startswith(f"{name} "))

    seen, reads = value("ecomm_exporter_refreshed_timestamp_seconds"), value("ecomm_exporter_objects_read")
    deadline = time.monotonic() + 20
    while value("ecomm_exporter_refreshed_timestamp_seconds") < seen + 2:
        assert time.monotonic() < deadline
        time.sleep(0.3)
    assert value("ecomm_exporter_objects_read") == reads


def test_every_metric_that_the_dashboard_or_an_alert_uses_is_told_as_text_with_its_meaning(exporter):
    text = get(exporter)
    assert text.count("# HELP ecomm_") == text.count("# TYPE ecomm_") > 30
    assert "_created" not in text


def test_the_dashboard_s_panels_have_ids_of_their_own_and_do_not_overlap():
    places = [panel["gridPos"] for panel in DASHBOARD["panels"]]
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(places)
    cells = [(x, y) for p in places for x in range(p["x"], p["x"] + p["w"]) for y in range(p["y"], p["y"] + p["h"])]
    assert len(cells) == len(set(cells))
    assert all(p["x"] + p["w"] <= 24 for p in places)
    assert all(panel["targets"] for panel in DASHBOARD["panels"] if panel["type"] != "row"), "a panel that asks nothing"
    assert all(panel["description"] for panel in DASHBOARD["panels"] if panel["type"] != "row")
