"""Tableau's site: sessions, jobs and filters, asked by the official client, without a warehouse behind it."""

from __future__ import annotations

import json
import logging
import threading
import time
import urllib.request
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
import tableauserverclient as tsc
from tableauserverclient.server.endpoint.exceptions import InternalServerError, NotSignedInError

from ecomm_sandbox.faults import CATALOGUE, Fault
from ecomm_sandbox.state import Home
from ecomm_sandbox.tableau.server import make_server
from ecomm_sandbox.tableau.site import Site

SECRET = "a secret"


@pytest.fixture
def site(tmp_path, monkeypatch):
    logging.getLogger("tableau").setLevel(logging.CRITICAL)
    return Site(Home(tmp_path), SECRET)


@pytest.fixture
def address(site):
    server = make_server(site, 0)
    threading.Thread(target=server.serve_forever, daemon=True, kwargs={"poll_interval": 0.01}).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    site.faults.clear()
    server.shutdown()
    server.server_close()


def sign_in(address, secret=SECRET, name="sandbox", site=""):
    server = tsc.Server(address)
    server.auth.sign_in(tsc.PersonalAccessTokenAuth(name, secret, site))
    server.use_server_version()
    return server


@pytest.fixture
def server(address):
    server = sign_in(address)
    yield server
    server.session.close()


def switch_on(site, kind, **options):
    site.faults.put(Fault.parse({"kind": kind, **options}, CATALOGUE["tableau"]))


def ended(server, job):
    deadline = time.monotonic() + 10
    while (found := server.jobs.get_by_id(job.id)).completed_at is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


def test_refusing_to_sign_in_leaves_an_open_session_alone(site, address, server):
    switch_on(site, "sign-in")
    with pytest.raises(tsc.FailedSignInError, match="401001"):
        sign_in(address)
    assert server.datasources.get()[0]


@pytest.mark.parametrize("wrong", [{"secret": "x"}, {"name": "x"}, {"site": "x"}])
def test_a_sign_in_with_anything_wrong_is_refused(address, wrong):
    with pytest.raises(tsc.FailedSignInError, match="401001"):
        sign_in(address, **wrong)


def test_a_second_sign_in_with_the_token_ends_the_first_session(address, server):
    second = sign_in(address)
    with pytest.raises(NotSignedInError, match="401002"):
        server.datasources.get()
    assert second.datasources.get()[0]
    second.auth.sign_out()
    second.session.close()


def test_data_sources_and_workbooks_are_listed_by_page_and_found_by_name(server):
    options = tsc.RequestOptions(pagenumber=2, pagesize=2)
    items, page = server.datasources.get(options)
    assert ([item.name for item in items], page.total_available) == (["agg_customer_kpi"], 3)
    assert [item.name for item in server.workbooks.filter(name="Daily Sales")] == ["Daily Sales"]
    assert list(server.datasources.filter(name="no")) == []
    assert [item.name for item in server.datasources.filter(name__in=["agg_sales_kpi", "no"])] == ["agg_sales_kpi"]


def test_a_refresh_that_is_queued_or_running_is_not_queued_again_for_the_same_item_only(site, server):
    switch_on(site, "stuck")
    first, second, _ = server.datasources.get()[0]
    job = server.datasources.refresh(first.id)
    assert server.datasources.refresh(first.id) is None
    assert server.datasources.refresh(second.id) is not None
    site.faults.clear()
    ended(server, job)
    assert server.datasources.refresh(first.id) is not None


def test_a_job_fails_with_the_reason_when_the_warehouse_cannot_be_asked(server):
    job = ended(server, server.datasources.refresh(server.datasources.get()[0][0].id))
    assert job.finish_code == tsc.JobItem.FinishCode.Failed
    assert job.notes


def test_a_fault_makes_jobs_fail_with_its_notes(site, server):
    switch_on(site, "fail", notes="out of quota", times=1)
    job = ended(server, server.datasources.refresh(server.datasources.get()[0][0].id))
    assert (job.finish_code, job.notes) == (1, ["out of quota"])


class Warehouse(BaseHTTPRequestHandler):
    """A SQL warehouse that answers each statement with one row."""

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        schema = {"columns": [{"name": "orders", "type_name": "LONG"}]}
        answer = {"status": {"state": "SUCCEEDED"}, "manifest": {"schema": schema}, "result": {"data_array": [["1"]]}}
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(answer).encode())

    def log_message(self, *_):
        pass


def test_a_stale_extract_is_as_old_as_it_was_told_to_be(site, server, tmp_path):
    warehouse = HTTPServer(("127.0.0.1", 0), Warehouse)
    threading.Thread(target=warehouse.serve_forever, daemon=True, kwargs={"poll_interval": 0.01}).start()
    with Home(tmp_path).change() as state:
        state.ports["databricks"], state.secrets["databricks-token"] = warehouse.server_port, "token"
    switch_on(site, "stale", age=3600)
    source = server.datasources.get()[0][0]
    assert ended(server, server.datasources.refresh(source.id)).finish_code == 0
    age = datetime.now(UTC) - server.datasources.get_by_id(source.id).updated_at
    assert timedelta(hours=1) <= age < timedelta(hours=1, minutes=1)
    warehouse.shutdown()
    warehouse.server_close()


def test_a_stuck_job_runs_until_it_is_cancelled(site, server):
    switch_on(site, "stuck")
    job = server.datasources.refresh(server.datasources.get()[0][0].id)
    while server.jobs.get_by_id(job.id).started_at is None:
        time.sleep(0.01)
    server.jobs.cancel(job.id)
    assert server.jobs.get_by_id(job.id).finish_code == tsc.JobItem.FinishCode.Cancelled


def test_jobs_are_filtered_by_time_and_status(site, server):
    switch_on(site, "fail")
    job = ended(server, server.datasources.refresh(server.datasources.get()[0][0].id))
    hour = timedelta(hours=1)
    now = datetime.now(UTC).replace(microsecond=0)
    assert [row.id for row in server.jobs.filter(created_at__gte=now - hour)] == [job.id]
    assert list(server.jobs.filter(created_at__gte=now + hour)) == []
    assert list(server.jobs.filter(status="Success")) == []
    (row,) = server.jobs.filter(status="Failed", created_at__gte=now - hour)
    assert (row.title, row.type) == ("agg_sales_kpi", "refresh_extracts")


def test_jobs_survive_a_restart_and_what_was_running_has_failed(site, server, tmp_path):
    switch_on(site, "stuck")
    job = server.datasources.refresh(server.datasources.get()[0][0].id)
    again = Site(Home(tmp_path), SECRET).job(job.id)
    assert (again.finish_code, again.notes) == (1, "The backgrounder was restarted.")


def test_a_lost_answer_has_queued_its_job(site, server):
    switch_on(site, "lost", times=1)
    with pytest.raises(InternalServerError):
        server.datasources.refresh(server.datasources.get()[0][0].id)
    assert len(list(server.jobs.filter(title="agg_sales_kpi"))) == 1


def test_a_dropped_request_gets_no_answer_and_an_unavailable_server_503(site, server):
    switch_on(site, "drop", times=1)
    with pytest.raises(OSError, match=r"Connection aborted|closed"):
        server.datasources.get()
    switch_on(site, "unavailable", times=1)
    with pytest.raises(InternalServerError):
        server.datasources.get()
    assert server.datasources.get()


def test_a_revoked_token_ends_the_session(site, server):
    switch_on(site, "credentials")
    with pytest.raises(NotSignedInError, match="401002"):
        server.datasources.get()


def test_faults_are_switched_over_http(address, site):
    def ask(method, body=None):
        request = urllib.request.Request(
            f"{address}/sandbox/faults", data=body and json.dumps(body).encode(), method=method
        )
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)["faults"]

    assert ask("PUT", {"kind": "delay", "delay": 0.5, "times": 2}) == [
        {"kind": "delay", "times": 2, "seconds": None, "delay": 0.5}
    ]
    assert [fault["kind"] for fault in ask("GET")] == ["delay"]
    assert ask("DELETE") == []
