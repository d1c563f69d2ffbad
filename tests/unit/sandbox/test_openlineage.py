"""The lineage backend takes what the specification allows, in the order of a run, and refuses the rest."""

from __future__ import annotations

import copy
import json

import pytest

from ecomm_sandbox.sinks.inbox import Inbox, RefusedError, Secrets
from ecomm_sandbox.sinks.openlineage import OpenLineage

SECRETS = Secrets("a-token")
RUN = "019b7fa1-d0d0-7000-8000-000000000001"
PARENT = {
    "_producer": "pkg:pypi/p@1",
    "_schemaURL": "https://openlineage.io/spec/facets/1-2-0/ParentRunFacet.json#/$defs/ParentRunFacet",
    "run": {"runId": RUN},
    "job": {"namespace": "n", "name": "nightly"},
}
EVENT = {
    "eventType": "START",
    "eventTime": "2026-01-02T18:00:00+00:00",
    "producer": "pkg:pypi/p@1",
    "schemaURL": "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent",
    "run": {"runId": RUN, "facets": {"parent": PARENT}},
    "job": {"namespace": "n", "name": "nightly.extract"},
    "inputs": [{"namespace": "postgres://db:5432", "name": "shop.public.orders"}],
    "outputs": [],
}


@pytest.fixture
def backend():
    return Backend()


class Backend:
    """A backend, and what it took."""

    def __init__(self):
        self.inbox = Inbox()
        self._sink = OpenLineage(SECRETS, self.inbox)

    def send(self, event, key=SECRETS.lineage_key, method="POST"):
        """Send an event, and give the status and the content of the answer."""
        body = event if isinstance(event, bytes) else json.dumps(event).encode()
        try:
            answer = self._sink.answer(method, f"Bearer {key}", body)
        except RefusedError as refusal:
            answer = refusal.answer
        return answer.status, answer.content


def changed(path, value, event=EVENT):
    """Give the event with another value at a path; None takes it out."""
    made = copy.deepcopy(event)
    *above, last = path.split("/")
    part = made
    for name in above:
        part = part[int(name) if isinstance(part, list) else name]
    if value is None:
        del part[last]
    else:
        part[last] = value
    return made


def test_an_event_is_taken_and_shown_with_its_job_and_data_sets(backend):
    assert backend.send(EVENT) == (201, "")
    (message,) = backend.inbox.all()
    assert (message.service, message.what, message.to) == ("openlineage", "START", "n/nightly.extract")
    assert message.text == "input postgres://db:5432/shop.public.orders"
    assert message.body == EVENT


@pytest.mark.parametrize(
    ("path", "value", "problem"),
    [
        ("eventTime", None, "eventTime must not be null"),
        ("eventTime", "2026-01-02T18:00:00", "eventTime is not"),
        ("eventTime", "2026-01-02", "eventTime is not"),
        ("eventType", "DONE", "eventType must be one of"),
        ("producer", "us", "producer is not"),
        ("schemaURL", "https://openlineage.io/", "schemaURL is not"),
        ("run", None, "run must not be null"),
        ("run/runId", "nightly-1", "run.runId is not"),
        ("job/name", "", "job.name is not"),
        ("job/namespace", "a b", "job.namespace is not"),
        ("inputs/0/name", None, "inputs[0].name must not be null"),
        ("inputs/0/namespace", "", "inputs[0].namespace is not"),
        ("run/facets/parent/_producer", None, "run.facets.parent._producer must not be null"),
        ("run/facets/parent/_schemaURL", "ParentRunFacet", "run.facets.parent._schemaURL is not"),
        ("run/facets/parent/run/runId", "x", "run.facets.parent.run.runId is not"),
    ],
)
def test_an_event_that_is_wrong_is_refused_by_what_is_wrong(backend, path, value, problem):
    status, content = backend.send(changed(path, value))
    assert status == 422
    assert any(found.startswith(problem) for found in content["errors"]), content
    assert backend.inbox.all() == []


def end(state="COMPLETE"):
    return EVENT | {"eventType": state, "eventTime": "2026-01-02T18:01:00+00:00"}


@pytest.mark.parametrize("state", ["COMPLETE", "FAIL", "ABORT"])
def test_a_run_begins_and_ends_once(backend, state):
    assert backend.send(end(state))[0] == 422
    assert backend.send(EVENT)[0] == 201
    assert backend.send(EVENT | {"eventTime": "2026-01-02T18:00:09+00:00"})[0] == 422
    assert backend.send(end(state))[0] == 201
    assert backend.send(end("RUNNING"))[0] == 422
    assert [message.what for message in backend.inbox.all()] == ["START", state]


def test_the_same_event_again_is_a_client_s_retry(backend):
    assert [backend.send(event)[0] for event in (EVENT, EVENT, end(), end())] == [201] * 4
    assert len(backend.inbox.all()) == 2


def test_a_run_is_of_one_job(backend):
    backend.send(EVENT)
    status, content = backend.send(changed("job/name", "nightly.load", end()))
    assert status == 422
    assert "is of the job" in content["errors"][0]


@pytest.mark.parametrize(
    ("given", "status"),
    [({"key": "wrong"}, 401), ({"method": "GET"}, 405), ({"event": b"{"}, 400), ({"event": b"[]"}, 400)],
)
def test_who_has_no_key_or_sends_no_event_is_refused(backend, given, status):
    assert backend.send(**{"event": EVENT, **given})[0] == status
