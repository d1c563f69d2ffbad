"""OpenLineage events: off by default; a backend that is named is reached by stages, which alone have its key."""

from __future__ import annotations

from .conftest import of_kind, refuse, render, steps
from .test_network import labels, ports

TELLERS = {"extractor", "dlt-trigger", "dbt-runner", "tableau-refresher", "reconciler", "finish"}
"""The last tells the ends that killed processes could not tell."""
BACKEND = {"url": "http://marquez.lineage:5000", "namespace": "prod", "existingSecret": "lineage-key"}
KEY = {
    "name": "OPENLINEAGE_API_KEY",
    "valueFrom": {"secretKeyRef": {"name": "lineage-key", "key": "OPENLINEAGE_API_KEY"}},
}


def variables(documents):
    return {
        name: value
        for name, value in of_kind(documents, "ConfigMap")["ecomm-data-pipeline"]["data"].items()
        if name.startswith("OPENLINEAGE")
    }


def holders(documents):
    """Give the steps that have the key."""
    return {step["name"] for _, step in steps(documents) if KEY in step["container"].get("env", [])}


def test_without_a_backend_nothing_is_told():
    documents = render()
    assert variables(documents) == {}
    assert "OPENLINEAGE" not in str(documents)
    assert "ecomm-data-pipeline-openlineage" not in of_kind(documents, "NetworkPolicy")


def test_a_backend_is_named_by_the_client_s_own_variables():
    assert variables(render(openLineage=BACKEND)) == {
        "OPENLINEAGE_URL": "http://marquez.lineage:5000",
        "OPENLINEAGE_NAMESPACE": "prod",
    }


def test_every_stage_and_nothing_else_reaches_it_and_has_its_key():
    documents = render(openLineage=BACKEND)
    assert holders(documents) >= TELLERS
    assert not holders(documents) & {"dates", "gate"}
    for name in {step["name"] for _, step in steps(documents)}:
        assert (("TCP", 5000) in ports(documents, labels(name))) == (name in holders(documents))


def test_a_backend_that_asks_for_no_key_gets_none():
    assert holders(render(openLineage={"url": BACKEND["url"]})) == set()


def test_where_it_is_may_be_bounded():
    peer = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "lineage"}}}
    documents = render(openLineage=BACKEND, networkPolicy={"openLineage": {"to": [peer], "ports": [5001]}})
    (rule,) = of_kind(documents, "NetworkPolicy")["ecomm-data-pipeline-openlineage"]["spec"]["egress"]
    assert rule == {"ports": [{"port": 5001}], "to": [peer]}


def test_a_key_without_a_backend_and_a_url_that_is_none_are_refused():
    assert "openLineage.existingSecret is the key of a backend" in refuse(openLineage={"existingSecret": "k"})
    assert "openLineage" in refuse(openLineage={"url": "marquez:5000"})
