"""What arrives at Slack, PagerDuty and Jira, by way of a real Alertmanager (and, once, of a real Prometheus)."""

from __future__ import annotations

import http.server
import os
import re
import subprocess
import threading
from typing import TYPE_CHECKING

import pytest
import yaml
from tests.support.alerting import CHART, Alertmanager, Sinks, eventually, free_port, programs
from tests.support.alerting import http as send

from ecomm_sandbox.gameday import watch

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DATE = "2026-01-02"


def test_a_p1_reaches_data_eng_and_pagerduty_at_once_and_is_over_there_when_it_is_over(
    alertmanager: Alertmanager, sinks: Sinks
) -> None:
    alertmanager.fire("EcommGoldMissing", "P1", date=DATE, table="sales_analytics")
    eventually(lambda: len(sinks.told("slack")) == 1 and len(sinks.told("pagerduty")) == 1)
    (chat,), (page,) = sinks.told("slack"), sinks.told("pagerduty")
    assert chat["to"] == "#data-eng"
    assert page["what"] == "trigger"
    assert page["body"]["payload"]["severity"] == "critical"
    assert page["text"] == f"P1: EcommGoldMissing of sales_analytics for {DATE}"
    assert sinks.everything()["incidents"] == [page["to"]]

    alertmanager.fire("EcommGoldMissing", "P1", date=DATE, table="sales_analytics", minutes=0)
    eventually(lambda: len(sinks.told("slack")) == 2 and len(sinks.told("pagerduty")) == 2)
    assert sinks.told("pagerduty")[1]["what"] == "resolve"
    assert sinks.told("slack")[1]["text"].startswith("Resolved: ")
    assert sinks.everything()["incidents"] == []
    assert sinks.everything()["tickets"] == []


def test_an_incident_is_a_date_and_an_alert(alertmanager: Alertmanager, sinks: Sinks) -> None:
    alertmanager.fire("EcommGoldMissing", "P1", date=DATE, table="sales_analytics")
    eventually(lambda: len(sinks.told("pagerduty")) == 1)
    alertmanager.fire("EcommGoldMissing", "P1", date=DATE, table="agg_daily_sales")
    eventually(lambda: len(sinks.told("pagerduty")) == 2)
    assert len(sinks.everything()["incidents"]) == 1
    alertmanager.fire("EcommGoldMissing", "P1", date="2026-01-03", table="sales_analytics")
    eventually(lambda: len(sinks.everything()["incidents"]) == 2)


@pytest.mark.parametrize(
    ("priority", "service"), [("P1", "slack"), ("P1", "pagerduty"), ("P2", "slack"), ("P2", "jira")]
)
def test_a_message_lets_a_person_act_without_opening_anything(
    alertmanager: Alertmanager, sinks: Sinks, priority: str, service: str
) -> None:
    alertmanager.fire("EcommKpiMissing", priority, date=DATE, table="agg_sales_kpi")
    eventually(lambda: sinks.told(service))
    said = str(sinks.told(service)[0]["body"]) + sinks.told(service)[0]["text"]
    for needed in (priority, DATE, "agg_sales_kpi", f"ecomm rerun dbt {DATE}", "more."):
        assert needed in said
    assert re.search(r"since \d{4}-\d\d-\d\d \d\d:\d\d UTC", said)
    assert "https://example.com/docs/runbooks/EcommKpiMissing.md" in said


def test_slack_shows_what_would_be_its_own_signs(alertmanager: Alertmanager, sinks: Sinks) -> None:
    alertmanager.fire("EcommKpiMissing", "P2", date=DATE)
    eventually(lambda: sinks.told("slack"))
    assert "3 rows &lt; 5 rows &amp; more." in sinks.told("slack")[0]["text"]


def test_a_p2_is_one_ticket_that_is_kept_up_to_date_closed_and_opened_again(
    alertmanager: Alertmanager, sinks: Sinks
) -> None:
    alertmanager.fire("EcommKpiMissing", "P2", date=DATE, table="agg_sales_kpi")
    eventually(lambda: sinks.everything()["tickets"])
    alertmanager.fire("EcommKpiMissing", "P2", date=DATE, table="agg_product_kpi")
    eventually(lambda: "agg_product_kpi" in _ticket(sinks)["description"])
    assert _ticket(sinks)["priority"] == {"name": "High"}
    assert {one["to"] for one in sinks.told("slack")} == {"#analytics"}

    for table in ("agg_sales_kpi", "agg_product_kpi"):
        alertmanager.fire("EcommKpiMissing", "P2", date=DATE, table=table, minutes=0)
    eventually(lambda: _ticket(sinks)["status"]["name"] == "Done")
    assert "Over: " in _ticket(sinks)["description"]

    alertmanager.fire("EcommKpiMissing", "P2", date=DATE, table="agg_sales_kpi")
    eventually(lambda: _ticket(sinks)["status"]["name"] == "To Do")
    assert sinks.told("pagerduty") == []


def test_a_p3_is_a_ticket_of_the_backlog_for_all_dates_and_nobody_is_disturbed(
    alertmanager: Alertmanager, sinks: Sinks
) -> None:
    alertmanager.fire("EcommSchemaDrift", "P3", date=DATE, table="orders")
    eventually(lambda: sinks.everything()["tickets"])
    alertmanager.fire("EcommSchemaDrift", "P3", date="2026-01-03", table="orders")
    eventually(lambda: "2026-01-03" in _ticket(sinks)["description"])
    assert _ticket(sinks)["priority"] == {"name": "Low"}
    assert {one["service"] for one in sinks.everything()["messages"]} == {"jira"}


def test_a_p1_silences_its_consequences_of_the_same_date_only(alertmanager: Alertmanager, sinks: Sinks) -> None:
    alertmanager.fire("EcommNightlyFailed", "P1", date=DATE, stage="dlt-trigger", failure_class="unavailable")
    alertmanager.fire("EcommNightlyFailed", "P2", date="2026-01-04", stage="dlt-trigger", failure_class="bad_data")
    eventually(lambda: sinks.told("pagerduty"))
    alertmanager.fire("EcommKpiMissing", "P2", date=DATE, table="agg_sales_kpi")
    alertmanager.fire("EcommDashboardStale", "P1", date="2026-01-03")
    alertmanager.fire("EcommNightlyLate", "P1", date="2026-01-04")
    eventually(lambda: len(sinks.told("pagerduty")) == 3)
    assert alertmanager.inhibited() == {"EcommKpiMissing"}
    summaries = [one["text"] for one in sinks.told("pagerduty")]
    assert any("EcommNightlyLate" in text for text in summaries), "a ticket keeps nobody from being paged"


FOLLOWS = {
    "EcommNightlyNotStarted": {"EcommNightlyAtRisk", "EcommNightlyLate", "EcommDashboardStale"},
    "EcommNightlyFailed": {"EcommExtractMissing", "EcommNightlyAtRisk", "EcommNightlyLate", "EcommDashboardStale"},
    "EcommExtractMissing": {"EcommNightlyAtRisk", "EcommNightlyLate", "EcommDashboardStale"},
    "EcommGoldMissing": {"EcommKpiMissing", "EcommNotReconciled", "EcommNightlyLate", "EcommDashboardStale"},
    "EcommDbtFailed": {"EcommNightlyAtRisk", "EcommNightlyLate", "EcommKpiMissing", "EcommDashboardStale"},
    "EcommTableauFailed": {"EcommNightlyAtRisk", "EcommNightlyLate", "EcommDashboardStale"},
    "EcommNightlyLate": {"EcommNightlyAtRisk", "EcommDashboardStale"},
    "EcommDashboardEmpty": {"EcommKpiMissing", "EcommNotReconciled"},
}
"""What each P1 brings about on its date."""
PRIORITIES = {"EcommNightlyAtRisk": "P2", "EcommKpiMissing": "P2", "EcommNotReconciled": "P2"}


def test_each_p1_tells_of_itself_and_none_of_its_consequences(alertmanager: Alertmanager, sinks: Sinks) -> None:
    dates = {cause: f"2026-01-{day:02}" for day, cause in enumerate(FOLLOWS, 1)}
    for cause, date in dates.items():
        alertmanager.fire(cause, "P1", date=date)
    eventually(lambda: len(sinks.told("pagerduty")) == len(FOLLOWS))
    for cause, date in dates.items():
        for alert in FOLLOWS[cause]:
            alertmanager.fire(alert, PRIORITIES.get(alert, "P1"), date=date)
    alertmanager.fire("EcommSchemaDrift", "P3", date=dates["EcommNightlyFailed"])
    eventually(lambda: sinks.everything()["tickets"])
    assert [one["fields"]["priority"] for one in sinks.everything()["tickets"]] == [{"name": "Low"}]
    assert len(sinks.told("pagerduty")) == len(FOLLOWS)
    assert alertmanager.inhibited() == set().union(*FOLLOWS.values())


def test_what_could_not_be_delivered_is_delivered_later(alertmanager: Alertmanager, sinks: Sinks) -> None:
    send("PUT", f"{sinks.url}/sandbox/faults", {"kind": "unavailable", "times": 3})
    alertmanager.fire("EcommGoldMissing", "P1", date=DATE, table="sales_analytics")
    eventually(lambda: sinks.told("slack") and sinks.told("pagerduty"))
    assert len(sinks.everything()["incidents"]) == 1


def _ticket(sinks: Sinks) -> dict:
    (ticket,) = sinks.everything()["tickets"]
    return ticket["fields"]


class Metrics:
    """A page of metrics, as the exporter serves it."""

    text = ""


@pytest.fixture
def metrics() -> Iterator[tuple[Metrics, int]]:
    """The page, to be written, and its port."""
    page = Metrics()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = page.text.encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield page, server.server_address[1]
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def prometheus(metrics: tuple[Metrics, int], alertmanager: Alertmanager, tmp_path: Path) -> Iterator[Metrics]:
    """A Prometheus that reads the page and knows the chart's rules, with all waits left out."""
    rules = tmp_path / "rules"
    watch.rules(CHART, rules)
    page, port = metrics
    settings = {
        "global": {"scrape_interval": "500ms", "evaluation_interval": "500ms"},
        "rule_files": [f"{rules}/kpi-missing.yaml", f"{rules}/gold-missing.yaml", f"{rules}/watchdog.yaml"],
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": [alertmanager.url.removeprefix("http://")]}]}]},
        "scrape_configs": [{"job_name": "exporter", "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]}],
    }
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(settings))
    command = [programs("prometheus") / "prometheus", "--config.file=prometheus.yml", "--storage.tsdb.path=tsdb"]
    command += [f"--web.listen-address=127.0.0.1:{free_port()}", "--rules.alert.resend-delay=500ms"]
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    with (tmp_path / "prometheus.log").open("w") as log:
        process = subprocess.Popen(command, cwd=tmp_path, stdout=log, stderr=log, env=environment)
    yield page
    process.terminate()
    process.wait(20)


def test_from_a_metric_to_a_ticket_and_back(prometheus: Metrics, sinks: Sinks) -> None:
    sample = 'ecomm_sales_present{{date="{0}",table="agg_sales_kpi",layer="kpi"}} {1}\n'
    prometheus.text = sample.format(DATE, 0)
    eventually(lambda: sinks.everything()["tickets"], 60)
    said = _ticket(sinks)["description"]
    rule = yaml.safe_load((CHART / "alerts" / "kpi-missing.yaml").read_text())["groups"][0]["rules"][0]
    command = rule["annotations"]["command"].replace("{{ $labels.date }}", DATE)
    assert f"{{noformat}}{command.replace('{{ $labels.table }}', 'agg_sales_kpi')}{{noformat}}" in said
    assert f"date {DATE}, table agg_sales_kpi, since " in said
    prometheus.text = sample.format(DATE, 1)
    eventually(lambda: _ticket(sinks)["status"]["name"] == "Done", 60)
    assert [one["to"] for one in sinks.told("slack")] == ["#analytics"] * 2
