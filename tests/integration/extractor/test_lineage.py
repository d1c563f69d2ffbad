"""An extraction tells an OpenLineage backend, by the real client over HTTP, what it read and wrote."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from tests.support.command import run_ecomm
from tests.support.lineage import problems_of

from .conftest import DATE, RUN_ID

if TYPE_CHECKING:
    from .conftest import Shop

ORDERS = """
CREATE TABLE orders (order_id text PRIMARY KEY, updated_at timestamptz NOT NULL);
CREATE INDEX ON orders (updated_at);
INSERT INTO orders SELECT i, '2026-01-02 12:00+07' FROM generate_series(1, 12) AS i;
"""


class Told:
    """The command with a backend, and what that was told of the test's own tables since."""

    def __init__(self, shop: Shop) -> None:
        self._shop = shop
        shop.set(**shop.sandbox.lineage, OPENLINEAGE_NAMESPACE=shop.prefix)

    def extract(self, *, code: int = 0) -> list[dict[str, Any]]:
        """Run the command, and give its log."""
        arguments = ("extractor", "--table", "orders", "--date", DATE)
        done = run_ecomm(*arguments, env=self._shop.env, code=code, cwd=self._shop.folder)
        return [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]

    def events(self) -> list[dict[str, Any]]:
        """Give the events that the backend took, each of them as the specification has it."""
        taken = [one["body"] for one in self._shop.sandbox.messages() if one["service"] == "openlineage"]
        own = [event for event in taken if event["job"]["namespace"] == self._shop.prefix]
        assert [problem for event in own for problem in problems_of(event)] == []
        return own


@pytest.fixture
def told(shop: Shop, tmp_path: Any) -> Told:
    shop.folder = tmp_path  # type: ignore[attr-defined] (a folder without a git repository, which the client would tell)
    return Told(shop)


def lineage_warnings(log: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [line for line in log if line["event"].startswith("lineage.")]


def test_an_extraction_is_told_by_its_start_and_its_end(shop: Shop, told: Told) -> None:
    shop.sql(ORDERS)
    log = told.extract()
    start, end = told.events()
    assert (start["eventType"], end["eventType"]) == ("START", "COMPLETE")
    assert start["run"]["runId"] == end["run"]["runId"]
    assert end["job"]["name"] == "batch-ecomm-pipeline.extractor.orders"
    (source,), (folder,) = end["inputs"], end["outputs"]
    env, record = shop.env, shop.record("orders")
    assert source["namespace"] == f"postgres://{env['ECOMM_POSTGRES_HOST']}:{env['ECOMM_POSTGRES_PORT']}"
    assert source["name"] == f"{env['ECOMM_POSTGRES_DATABASE']}.{shop.schema}.orders"
    assert folder["namespace"] == f"s3://{env['ECOMM_STORE_BUCKET']}"
    assert folder["name"] == f"{shop.prefix}/ecomm_db_extracts/daily_extracts/orders"
    assert [field["type"] for field in folder["facets"]["schema"]["fields"]] == ["text", "timestamp with time zone"]
    written = folder["outputFacets"]["outputStatistics"]
    assert (written["rowCount"], written["size"], written["fileCount"]) == (12, record.bytes, 1)
    assert {tag["key"]: tag["value"] for tag in end["run"]["facets"]["tags"]["tags"]}["ecomm_run_id"] == RUN_ID
    assert lineage_warnings(log) == []


def test_tries_of_a_run_are_runs_of_one_parent_and_a_failure_tells_its_cause(shop: Shop, told: Told) -> None:
    told.extract(code=65)
    shop.sql(ORDERS)
    told.extract()
    events = told.events()
    assert [event["eventType"] for event in events] == ["START", "FAIL", "START", "COMPLETE"]
    assert len({event["run"]["runId"] for event in events}) == 2
    assert len({event["run"]["facets"]["parent"]["run"]["runId"] for event in events}) == 1
    assert "orders" in events[1]["run"]["facets"]["errorMessage"]["message"]


def test_a_backend_that_is_broken_costs_an_extraction_one_warning(shop: Shop, told: Told) -> None:
    shop.sql(ORDERS)
    with shop.sandbox.fault("sinks", "unavailable"):
        log = told.extract()
    (warning,) = lineage_warnings(log)
    assert warning["level"] == "warning"
    assert shop.record("orders").outcome == "succeeded"
    assert told.events() == []
