"""What the chart makes of the configuration says the same: as a file, and in the words of the Prometheus operator."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from tests.chart.conftest import refuse, render
from tests.support.alerting import CONFIG

if TYPE_CHECKING:
    from pathlib import Path

PLAIN = yaml.safe_load(CONFIG.read_text())
JIRA = {"url": "https://j.example.com/rest/api/2", "user": "bot@example.com", "project": "OPS", "issueType": "Bug"}


def rendered(kind: str, **settings: Any) -> dict[str, Any]:
    """Give the object of a kind that is about Alertmanager."""
    found = [one for one in render(monitoring={"alertmanager": settings}) if one["kind"] == kind]
    return next(one for one in found if kind != "Secret" or one["metadata"]["name"].endswith("-alertmanager"))


@pytest.fixture
def as_file() -> dict[str, Any]:
    """The content of the Secret."""
    return dict(rendered("Secret", config="file", secret="told", jira=JIRA)["stringData"])


def test_the_file_is_valid_with_its_templates(binaries: Path, as_file: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "ecomm.tmpl").write_text(as_file["ecomm.tmpl"])
    config = as_file["alertmanager.yaml"].replace("/etc/alertmanager/config/", f"{tmp_path}/")
    (tmp_path / "alertmanager.yaml").write_text(config)
    done = subprocess.run(
        [binaries / "amtool", "check-config", tmp_path / "alertmanager.yaml"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "1 templates" in done.stdout
    assert as_file["ecomm.tmpl"].strip() == (CONFIG.parent / "ecomm.tmpl").read_text().strip()


def test_the_file_knows_the_site_and_else_says_what_the_configuration_says(as_file: dict[str, str]) -> None:
    found = yaml.safe_load(as_file["alertmanager.yaml"])
    for receiver in found["receivers"]:
        for jira in receiver.get("jira_configs", []):
            assert (jira["api_url"], jira["project"], jira["issue_type"]) == (JIRA["url"], "OPS", "Bug")
            assert jira["http_config"]["basic_auth"]["username"] == JIRA["user"]
    text = CONFIG.read_text().replace("/ecomm-alerts/", "/told/").replace("project: DATA", "project: OPS")
    text = text.replace("https://jira.example.com/rest/api/2", JIRA["url"]).replace(
        "issue_type: Task", "issue_type: Bug"
    )
    text = text.replace("alertmanager@example.com", JIRA["user"])
    assert found == {**yaml.safe_load(text), "templates": ["/etc/alertmanager/config/ecomm.tmpl"]}


def test_an_api_that_takes_no_texts_is_refused() -> None:
    said = refuse(monitoring={"alertmanager": {"config": "file", "jira": {"url": "https://j.example.com/rest/api/3"}}})
    assert "url" in said


@pytest.fixture
def spec() -> dict[str, Any]:
    """What the operator is told."""
    return dict(rendered("AlertmanagerConfig", config="operator", secret="told")["spec"])


def plain_matchers(matchers: list[dict[str, str]]) -> list[str]:
    """Write the operator's matchers as Alertmanager does."""
    return [f'{one["name"]}{one["matchType"]}"{one["value"]}"' for one in matchers]


def snake(name: str) -> str:
    """Write a name as Alertmanager does."""
    return re.sub(r"([A-Z])", r"_\1", name).lower()


def test_the_operator_is_told_the_same_routes(spec: dict[str, Any]) -> None:
    routes = [{snake(name): value for name, value in route.items()} for route in spec["route"]["routes"]]
    for route in routes:
        route["matchers"] = plain_matchers(route["matchers"])
    assert routes == PLAIN["route"]["routes"]
    assert (spec["route"]["receiver"], spec["route"]["groupBy"]) == ("nobody", PLAIN["route"]["group_by"])


def test_the_operator_is_told_the_same_silences(spec: dict[str, Any]) -> None:
    assert [
        {
            "source_matchers": plain_matchers(rule["sourceMatch"]),
            "target_matchers": plain_matchers(rule["targetMatch"]),
            "equal": rule["equal"],
        }
        for rule in spec["inhibitRules"]
    ] == PLAIN["inhibit_rules"]


def test_the_operators_messages_say_the_same(binaries: Path, spec: dict[str, Any]) -> None:
    def said(text: str, *options: str) -> str:
        command = [binaries / "amtool", "template", "render", *options, f"--template.text={text}"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    ours = f"--template.glob={CONFIG.parent / 'ecomm.tmpl'}"
    plain = {receiver["name"]: receiver for receiver in PLAIN["receivers"]}
    for receiver in spec["receivers"]:
        for kind in ("slackConfigs", "pagerdutyConfigs"):
            for found, expected in zip(
                map(texts, receiver.get(kind, [])), plain[receiver["name"]].get(snake(kind), []), strict=True
            ):
                assert {name: said(text, "--template.glob=") for name, text in found.items()} == {
                    name: said(text, ours) for name, text in texts(expected).items()
                }


def texts(config: dict[str, Any]) -> dict[str, str]:
    """Give what is written of a notification, by Alertmanager's names."""
    details = config.get("details", {})
    pairs = details.items() if isinstance(details, dict) else ((one["key"], one["value"]) for one in details)
    plain = {snake(name): text for name, text in config.items() if isinstance(text, str)}
    left_out = ("api_url_file", "routing_key_file", "source")  # Secrets; and what the operator has no word for
    return {name: text for name, text in plain.items() if name not in left_out} | dict(pairs)


def test_the_operator_finds_the_credentials(spec: dict[str, Any]) -> None:
    p1, p2 = (next(one for one in spec["receivers"] if one["name"] == name) for name in ("P1", "P2"))
    assert p1["slackConfigs"][0]["apiURL"] == {"name": "told", "key": "slack-data-eng"}
    assert p1["pagerdutyConfigs"][0]["routingKey"] == {"name": "told", "key": "pagerduty"}
    assert p2["slackConfigs"][0]["apiURL"] == {"name": "told", "key": "slack-analytics"}
