"""The site: what is published on it, the jobs that refresh it, and who is signed in.

Jobs and extracts survive a restart; sessions do not, as on Tableau.
"""

from __future__ import annotations

import json
import secrets
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from ecomm_sandbox.faults import FaultBox
from ecomm_sandbox.tableau import extracts

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ecomm_sandbox.state import Home

__all__ = ["PUBLISHED", "SITE_ID", "Item", "Job", "Site", "TableauError"]

_SPACE: Final = uuid.UUID("c0ffee00-0000-4000-8000-000000000000")
_JOBS_KEPT: Final = 500
_BACKGROUNDERS: Final = 2
TOKEN_NAME: Final = "sandbox"


def _id(name: str) -> str:
    return str(uuid.uuid5(_SPACE, name))


SITE_ID: Final = _id("site")
USER_ID: Final = _id("user")
PROJECT_ID: Final = _id("project")
PROJECT: Final = "E-commerce"
CREATED: Final = datetime(2026, 1, 1, tzinfo=UTC)


class TableauError(Exception):
    """Raised for a request that is refused; the first three digits of `code` are the HTTP status.

    https://help.tableau.com/current/api/rest_api/en-us/REST/rest_api_concepts_errors.htm
    """

    def __init__(self, refusal: tuple[str, str], detail: str) -> None:
        self.code, self.summary = refusal
        self.detail = detail
        super().__init__(f"{self.code} {self.summary}: {detail}")


BAD_REQUEST: Final = ("400000", "Bad Request")
BAD_PAGE: Final = ("400006", "Invalid page number")
BAD_FILTER: Final = ("400065", "Bad Request")
NOT_SIGNED_IN: Final = ("401001", "Signin Error")
SESSION_GONE: Final = ("401002", "Unauthorized Access")
NOT_FOUND: Final = ("404000", "Resource Not Found")
NO_ITEM: Final = {"datasource": ("404004", "Resource Not Found"), "workbook": ("404006", "Resource Not Found")}
NO_JOB: Final = ("404009", "Resource Not Found")
QUEUED_ALREADY: Final = ("409093", "Resource Conflict")
LOST: Final = ("500000", "Internal Server Error")


@dataclass(frozen=True, slots=True)
class Item:
    """A data source or workbook, with an extract of one KPI table."""

    kind: str
    """`datasource` or `workbook`."""
    name: str
    table: str

    @property
    def id(self) -> str:
        """Its id (LUID), the same in every sandbox."""
        return _id(f"{self.kind}/{self.name}")


PUBLISHED: Final = (
    *(Item("datasource", table, table) for table in ("agg_sales_kpi", "agg_product_kpi", "agg_customer_kpi")),
    Item("workbook", "Daily Sales", "agg_sales_kpi"),
)


@dataclass(frozen=True, slots=True)
class Job:
    """A refresh of one item. Times are as Tableau writes them; `finish_code` is 0 success, 1 failed, 2 cancelled."""

    id: str
    item_id: str
    created_at: str
    started_at: str | None = None
    ended_at: str | None = None
    finish_code: int | None = None
    progress: int = 0
    notes: str = ""

    @property
    def status(self) -> str:
        """Its state, as the list of jobs writes it."""
        if self.finish_code is not None:
            return ("Success", "Failed", "Cancelled")[self.finish_code]
        return "InProgress" if self.started_at else "Pending"


class Site:
    """All of it. Threads may share it."""

    def __init__(self, home: Home, token: str) -> None:
        self.faults = FaultBox()
        self._home, self._token = home, token
        self._folder = home / "tableau"
        self._folder.mkdir(parents=True, exist_ok=True)
        self._lock = threading.RLock()
        self._jobs: dict[str, Job] = {job.id: job for job in self._read_jobs()}
        self._session = ""
        self._workers = ThreadPoolExecutor(_BACKGROUNDERS, thread_name_prefix="backgrounder")

    # -- sessions

    def sign_in(self, name: str, secret: str, content_url: str) -> str:
        """Begin the one session of the token, which ends the one before; give its key."""
        known = name == TOKEN_NAME and secrets.compare_digest(secret, self._token) and not content_url
        if not known or self.faults.take("credentials", "sign-in"):
            raise TableauError(NOT_SIGNED_IN, "The personal access token you provided is invalid.")
        self._session = secrets.token_urlsafe(24)
        return self._session

    def require(self, session: str) -> None:
        """Raise unless this is the key of the session."""
        if not self._session or session != self._session or self.faults.take("credentials"):
            raise TableauError(SESSION_GONE, "Your authentication credentials are invalid or have expired.")

    def sign_out(self) -> None:
        """End the session."""
        self._session = ""

    # -- what is published

    def item(self, kind: str, item_id: str) -> Item:
        """Find a data source or workbook by its id."""
        for item in PUBLISHED:
            if (item.kind, item.id) == (kind, item_id):
                return item
        raise TableauError(NO_ITEM[kind], f"{kind.capitalize()} '{item_id}' could not be found.")

    def extract(self, item: Item) -> extracts.Extract | None:
        """Tell about the extract of an item; None when it was never refreshed."""
        return extracts.read(self._file(item))

    # -- jobs

    def refresh(self, item: Item) -> Job:
        """Queue a refresh. Raises 409093 when one is queued or running for the same item."""
        with self._lock:
            active = any(job.item_id == item.id and job.finish_code is None for job in self._jobs.values())
            if active or self.faults.take("queued"):
                detail = f"Job for '{item.name}' is already queued. Not queuing a duplicate."
                raise TableauError(QUEUED_ALREADY, detail)
            job = Job(str(uuid.uuid4()), item.id, _now())
            self._put(job)
        self._workers.submit(self._run, job, item)
        if self.faults.take("lost"):
            raise TableauError(LOST, "The answer was lost; the job was queued.")
        return job

    def job(self, job_id: str) -> Job:
        """Find a job."""
        found = self._jobs.get(job_id)
        if found is None:
            raise TableauError(NO_JOB, f"Job '{job_id}' could not be found.")
        return found

    def jobs(self) -> list[Job]:
        """Give all jobs, the newest first."""
        return list(reversed(self._jobs.values()))

    def cancel(self, job_id: str) -> None:
        """Cancel a job that has not ended."""
        with self._lock:
            job = self.job(job_id)
            if job.finish_code is None:
                self._put(replace(job, finish_code=2, ended_at=_now(), notes="The job was cancelled."))

    def _run(self, job: Job, item: Item) -> None:
        self._change(job.id, started_at=_now(), progress=1)
        delay = self.faults.take("delay")
        began = time.monotonic()
        while self._job_goes_on(job.id) and (
            (delay and time.monotonic() < began + delay.options["delay"]) or self.faults.peek("stuck")
        ):
            time.sleep(0.02)
        if not self._job_goes_on(job.id):
            return
        failure = self.faults.take("fail")
        if failure:
            self._change(job.id, finish_code=1, progress=100, ended_at=_now(), notes=failure.options["notes"])
            return
        self._change(job.id, progress=50)
        try:
            stale = self.faults.take("stale")
            age = timedelta(seconds=stale.options["age"] if stale else 0)
            extract = extracts.take(self._home, item.table, self._file(item), age)
        except Exception as error:  # noqa: BLE001 (whatever it is, the job has failed)
            ended: dict[str, Any] = {"finish_code": 1, "notes": str(error) or type(error).__name__}
        else:
            ended = {"finish_code": 0, "notes": f"Finished refresh of extracts: {extract.rows} rows."}
        self._change(job.id, progress=100, ended_at=_now(), **ended)

    def _file(self, item: Item) -> Path:
        return self._folder / "extracts" / f"{item.kind}-{item.table}.json"

    def _job_goes_on(self, job_id: str) -> bool:
        return self._jobs[job_id].finish_code is None

    def _change(self, job_id: str, **changes: Any) -> None:  # noqa: ANN401 (fields of a Job)
        with self._lock:
            if self._job_goes_on(job_id):
                self._put(replace(self._jobs[job_id], **changes))

    def _put(self, job: Job) -> None:
        self._jobs[job.id] = job
        for old in list(self._jobs)[:-_JOBS_KEPT]:
            del self._jobs[old]
        new = self._folder / "jobs.json.new"
        new.write_text(json.dumps([asdict(one) for one in self._jobs.values()]))
        new.replace(self._folder / "jobs.json")

    def _read_jobs(self) -> Iterator[Job]:
        """Read the jobs of an earlier process; what it was at work on has failed."""
        try:
            kept = json.loads((self._folder / "jobs.json").read_text())
        except FileNotFoundError:
            return
        for fields in kept:
            job = Job(**fields)
            lost = job.finish_code is None
            yield replace(job, finish_code=1, ended_at=_now(), notes="The backgrounder was restarted.") if lost else job


def _now() -> str:
    return extracts.stamp(datetime.now(UTC))
