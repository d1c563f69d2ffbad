"""Slack, PagerDuty and Jira take what the real ones take, and refuse the rest in their words."""

from __future__ import annotations

import base64
import json
import threading
import urllib.error
import urllib.request

import pytest

from ecomm_sandbox.sinks.inbox import Secrets
from ecomm_sandbox.sinks.jira import USER
from ecomm_sandbox.sinks.jql import JqlError, search
from ecomm_sandbox.sinks.server import make_server

SECRETS = Secrets("a-token")
DATA_ENG = SECRETS.webhook("data-eng")
EVENT = {
    "routing_key": SECRETS.routing_key,
    "event_action": "trigger",
    "dedup_key": "k1",
    "payload": {"summary": "the nightly failed", "source": "ecomm", "severity": "critical"},
}
TICKET = {
    "project": {"key": "DATA"},
    "issuetype": {"name": "Task"},
    "summary": "KPIs are missing",
    "description": "of 2026-01-02",
    "labels": ["ALERT{1f3a}"],
}
OPEN = 'statusCategory != Done and project="DATA" and labels="ALERT{1f3a}" order by status ASC,resolutiondate DESC'


class Client:
    """Sends requests and gives status and content of the answers."""

    def __init__(self, port):
        self.url = f"http://127.0.0.1:{port}"

    def __call__(self, method, path, body=None, *, user=USER, raw=None):
        request = urllib.request.Request(self.url + path, method=method)
        request.data = raw if raw is not None or body is None else json.dumps(body).encode()
        credentials = base64.b64encode(f"{user}:{SECRETS.jira_password}".encode()).decode()
        request.add_header("Authorization", f"Basic {credentials}")
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                status, text = answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                status, text = error.code, error.read().decode()
        try:
            return status, json.loads(text or "null")
        except ValueError:
            return status, text

    def messages(self):
        return self("GET", "/sandbox/messages")[1]


@pytest.fixture
def sinks():
    server = make_server(SECRETS, 0)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield Client(server.server_address[1])
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_webhook_posts_to_its_channel_whatever_the_message_says(sinks):
    assert sinks("POST", DATA_ENG, {"channel": "#random", "attachments": [{"title": "P1", "text": "failed"}]}) == (
        200,
        "ok",
    )
    (message,) = sinks.messages()["messages"]
    assert (message["service"], message["to"], message["text"]) == ("slack", "#data-eng", "P1\nfailed")


@pytest.mark.parametrize(
    ("path", "body", "refusal"),
    [
        (DATA_ENG, {"channel": "#data-eng"}, (400, "no_text")),
        (DATA_ENG, {"text": "x" * 40_001}, (400, "msg_too_long")),
        (DATA_ENG, {"text": 1}, (400, "invalid_payload")),
        (DATA_ENG, {"attachments": [{"text": "x"}] * 101}, (400, "too_many_attachments")),
        (f"{DATA_ENG}x", {"text": "x"}, (403, "invalid_token")),
        ("/services/T0/B0/x", {"text": "x"}, (404, "no_service")),
    ],
)
def test_slack_refuses_in_its_words(sinks, path, body, refusal):
    assert sinks("POST", path, body) == refusal
    assert sinks.messages()["messages"] == []


def test_what_is_no_json_is_refused(sinks):
    assert sinks("POST", DATA_ENG, raw=b"{") == (400, "invalid_payload")
    assert sinks("POST", "/v2/enqueue", raw=b"{")[0] == 400
    assert sinks("POST", "/rest/api/2/issue", raw=b"{")[0] == 400


def test_an_incident_is_open_from_its_first_trigger_to_its_resolution(sinks):
    for _ in range(2):
        assert sinks("POST", "/v2/enqueue", EVENT)[0] == 202
    assert sinks.messages()["incidents"] == ["k1"]
    assert sinks("POST", "/v2/enqueue", {**EVENT, "event_action": "resolve"})[1]["dedup_key"] == "k1"
    assert sinks.messages()["incidents"] == []


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"routing_key": "short"}, "Length of 'routing_key' is incorrect (should be 32 characters)"),
        ({"routing_key": "0" * 32}, "Invalid routing key"),
        ({"event_action": "fire"}, "'event_action' is invalid: must be one of trigger, acknowledge, resolve"),
        ({"event_action": "resolve", "dedup_key": ""}, "'dedup_key' is missing or blank"),
        ({"dedup_key": "k" * 256}, "'dedup_key' is not a string of at most 255 characters"),
        ({"payload": None}, "'payload' is missing or blank"),
        ({"payload": {**EVENT["payload"], "summary": ""}}, "'payload.summary' is missing or blank"),
        (
            {"payload": {**EVENT["payload"], "severity": "P1"}},
            "'payload.severity' is invalid: must be one of critical, error, warning, info",
        ),
        (
            {"payload": {**EVENT["payload"], "timestamp": "yesterday"}},
            "'payload.timestamp' is not an ISO 8601 timestamp",
        ),
        ({"links": [{"text": "runbook"}]}, "'links[0].href' is missing or blank"),
    ],
)
def test_pagerduty_refuses_an_invalid_event(sinks, change, problem):
    status, content = sinks("POST", "/v2/enqueue", EVENT | change)
    assert (status, content["status"], content["errors"]) == (400, "invalid event", [problem])
    assert sinks.messages() == {"messages": [], "incidents": [], "tickets": []}


def test_a_ticket_is_found_edited_and_moved(sinks):
    assert sinks("POST", "/rest/api/2/issue", {"fields": TICKET}) == (201, {"id": "10001", "key": "DATA-1"})
    status, found = sinks("POST", "/rest/api/2/search", {"jql": OPEN, "fields": ["status"], "maxResults": 2})
    assert (status, [issue["key"] for issue in found["issues"]]) == (200, ["DATA-1"])
    assert sinks("PUT", "/rest/api/2/issue/DATA-1", {"fields": {"summary": "KPIs are there"}}) == (204, None)
    _, moves = sinks("GET", "/rest/api/2/issue/DATA-1/transitions")
    done = next(move["id"] for move in moves["transitions"] if move["name"] == "Done")
    assert sinks("POST", "/rest/api/2/issue/DATA-1/transitions", {"transition": {"id": done}}) == (204, None)
    (ticket,) = sinks.messages()["tickets"]
    assert (ticket["fields"]["summary"], ticket["fields"]["status"]["name"]) == ("KPIs are there", "Done")
    assert sinks("POST", "/rest/api/2/search", {"jql": OPEN})[1]["issues"] == []


def test_a_comment_is_added_by_itself_or_with_an_edit(sinks):
    sinks("POST", "/rest/api/2/issue", {"fields": TICKET})
    assert sinks("POST", "/rest/api/2/issue/DATA-1/comment", {"body": "looking"})[0] == 201
    assert sinks("PUT", "/rest/api/2/issue/DATA-1", {"update": {"comment": [{"add": {"body": "found"}}]}})[0] == 204
    assert [one["body"] for one in sinks("GET", "/rest/api/2/issue/DATA-1")[1]["fields"]["comment"]["comments"]] == [
        "looking",
        "found",
    ]


@pytest.mark.parametrize(
    ("change", "errors"),
    [
        ({"project": {"key": "X"}}, {"project": "project is required"}),
        ({"issuetype": {"name": "Wish"}}, {"issuetype": "The issue type selected is invalid."}),
        ({"priority": {"name": "P2"}}, {"priority": "The priority selected is invalid."}),
        ({"summary": ""}, {"summary": "You must specify a summary of the issue."}),
        (
            {"summary": "a\nb"},
            {"summary": "The summary is invalid because it contains newline characters."},
        ),
        ({"labels": ["a b"]}, {"labels": "The label 'a b' contains spaces which is invalid."}),
        ({"description": {"type": "doc"}}, {"description": "Operation value must be a string"}),
        (
            {"colour": "red"},
            {"colour": "Field 'colour' cannot be set. It is not on the appropriate screen, or unknown."},
        ),
    ],
)
def test_jira_refuses_an_invalid_ticket(sinks, change, errors):
    assert sinks("POST", "/rest/api/2/issue", {"fields": TICKET | change}) == (
        400,
        {"errorMessages": [], "errors": errors},
    )


def test_version_3_takes_documents_and_not_texts(sinks):
    status, content = sinks("POST", "/rest/api/3/issue", {"fields": TICKET})
    assert (status, list(content["errors"])) == (400, ["description"])
    document = {"type": "doc", "version": 1, "content": []}
    assert sinks("POST", "/rest/api/3/issue", {"fields": TICKET | {"description": document}})[0] == 201
    assert sinks("POST", "/rest/api/3/search/jql", {"jql": OPEN})[1]["issues"][0]["key"] == "DATA-1"


def test_jira_refuses_strangers_and_what_is_not_there(sinks):
    assert sinks("POST", "/rest/api/2/search", {"jql": OPEN}, user="stranger")[0] == 401
    assert sinks("GET", "/rest/api/2/issue/DATA-9")[0] == 404
    assert sinks("POST", "/rest/api/2/search", {"jql": "colour = red"})[0] == 400


def test_a_fault_strikes_all_of_them_and_ends(sinks):
    sinks("PUT", "/sandbox/faults", {"kind": "unavailable", "times": 1})
    assert sinks("POST", "/v2/enqueue", EVENT)[0] == 503
    assert sinks("POST", "/v2/enqueue", EVENT)[0] == 202


NOW_DONE = {"project": "DATA", "labels": [], "statuscategory": "Done", "resolution": "Done"}


@pytest.mark.parametrize(
    ("jql", "finds"),
    [
        ("project = data", True),
        ('(resolution is EMPTY or resolution != "Won\'t Do") and project="DATA"', True),
        ("resolution is EMPTY", False),
        ("resolution is not EMPTY", True),
        ("statusCategory != Done", False),
        ("(resolutiondate is EMPTY OR resolutiondate >= -60m) and project=DATA", True),
        ("labels = x", False),
        ("status != Done", False),  # of a ticket without one
    ],
)
def test_queries_find_what_jira_finds(jql, finds):
    assert bool(search(jql, [NOW_DONE])) is finds


@pytest.mark.parametrize("jql", ["project", "project = x y", "(project = x", "colour = x", "status ~ x", "{"])
def test_a_query_that_jira_does_not_understand_is_refused(jql):
    with pytest.raises(JqlError):
        search(jql, [NOW_DONE])
