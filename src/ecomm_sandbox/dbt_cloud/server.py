"""The Administrative API, version 2, as far as a job's runs go (https://docs.getdbt.com/dbt-cloud/api-v2)."""

from __future__ import annotations

import json
import secrets
from datetime import UTC, datetime
from http import HTTPStatus
from http.server import ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs, urlsplit

from ecomm_sandbox.dbt_cloud import account as account_
from ecomm_sandbox.dbt_cloud.account import Account, CloudError, Run, Step
from ecomm_sandbox.dbt_cloud.commands import ARTIFACTS
from ecomm_sandbox.dbt_cloud.ids import ACCOUNT_ID, ENVIRONMENT_ID, JOB_ID, PROJECT_ID
from ecomm_sandbox.serving import Handler
from ecomm_sandbox.state import LOOPBACK

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ecomm_sandbox.faults import FaultBox

__all__ = ["make_server"]

_PAGE: Final = 100
_LINES: Final = 1000
"""Lines of a log that are given when not all of it is asked for."""
_WORDS: Final = {1: "Queued", 2: "Starting", 3: "Running", 10: "Success", 20: "Error", 30: "Cancelled"}
_NOT_FOUND: Final = (HTTPStatus.NOT_FOUND, "The requested resource was not found.")

Answer = dict[str, Any] | bytes


class Api:
    """Answers requests; knows nothing of sockets."""

    def __init__(self, account: Account, address: str) -> None:
        self._account = account
        self._address = address

    def answer(self, method: str, url: str, body: bytes) -> Answer:
        """Give the content of a request below `/api/v2/accounts/`: JSON, or an artifact. Raises `CloudError`."""
        parts = urlsplit(url)
        path = parts.path.removeprefix("/api/v2/accounts").strip("/").split("/")
        options = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        match method, *path:
            case "GET", "":
                return _list([_account()], options, 1)
            case method, account, *rest if account == str(ACCOUNT_ID):
                return self._in_account(method, rest, options, body)
        raise CloudError(*_NOT_FOUND)

    def _in_account(self, method: str, path: list[str], options: dict[str, str], body: bytes) -> Answer:
        match method, *path:
            case ("GET",):
                return _one(_account())
            case "GET", "jobs":
                return _list([_job()], options, 1)
            case method, "jobs", job, *rest if job == str(JOB_ID):
                return self._of_job(method, rest, body)
            case "GET", "runs":
                return self._runs(options)
            case method, "runs", run_id, *rest if run_id.isdigit():
                return self._of_run(method, int(run_id), rest, options)
        raise CloudError(*_NOT_FOUND)

    def _of_job(self, method: str, path: list[str], body: bytes) -> Answer:
        match method, *path:
            case ("GET",):
                return _one(_job())
            case "POST", "run":
                return self._trigger(body)
            case "POST", "rerun":
                return _one(self._run(self._account.rerun(), {"trigger"}))
        raise CloudError(*_NOT_FOUND)

    def _of_run(self, method: str, run_id: int, path: list[str], options: dict[str, str]) -> Answer:
        run, related = self._account.run(run_id), _related(options)
        match method, *path:
            case ("GET",):
                return _one(self._run(run, related))
            case "POST", "cancel":
                return _one(self._run(self._account.cancel(run_id), {"trigger"}))
            case "POST", "retry":
                return _one(self._run(self._account.retry(run_id), {"trigger"}))
            case "GET", "artifacts":
                found = [name for name in ARTIFACTS if self._account.artifact(run, name, None) is not None]
                return {**_status(HTTPStatus.OK), "data": found}
            case "GET", "artifacts", *name:
                step = options.get("step")
                content = self._account.artifact(run, "/".join(name), int(step) if step else None)
                if content is not None:
                    return content
        raise CloudError(*_NOT_FOUND)

    def _trigger(self, body: bytes) -> Answer:
        try:
            asked = json.loads(body)
            cause, steps = str(asked["cause"]), asked.get("steps_override")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CloudError(HTTPStatus.BAD_REQUEST, "cause: This field is required.") from error
        run = self._account.trigger(cause, [str(step) for step in steps] if steps else None)
        if self._account.faults.take("lost"):
            raise CloudError(HTTPStatus.INTERNAL_SERVER_ERROR, "The answer was lost; the run was queued.")
        return _one(self._run(run, {"trigger"}))

    def _runs(self, options: dict[str, str]) -> Answer:
        found = [run for run in self._account.runs() if _wanted(run, options)]
        order = options.get("order_by", "id")
        found.sort(key=lambda run: run.id, reverse=order.startswith("-"))
        limit, offset = min(int(options.get("limit", _PAGE)), _PAGE), int(options.get("offset", 0))
        page = [self._run(run, _related(options)) for run in found[offset : offset + limit]]
        return _list(page, options, len(found))

    def _run(self, run: Run, related: set[str]) -> dict[str, Any]:
        reason = self._account.not_retried(run)
        complete = not run.active
        trigger = {"cause": run.cause, "job_definition_id": JOB_ID, "steps_override": run.steps_override}
        page = f"deploy/{ACCOUNT_ID}/projects/{PROJECT_ID}/runs/{run.id}/"
        return {
            "id": run.id,
            "trigger_id": run.id,
            "account_id": ACCOUNT_ID,
            "environment_id": ENVIRONMENT_ID,
            "project_id": PROJECT_ID,
            "job_definition_id": JOB_ID,
            "job_id": JOB_ID,
            "status": run.status,
            "status_humanized": _WORDS[run.status],
            "status_message": run.said,
            "git_branch": "main",
            "git_sha": None,
            "artifacts_saved": complete,
            "created_at": run.created_at,
            "updated_at": run.finished_at or run.started_at or run.created_at,
            "dequeued_at": run.started_at,
            "started_at": run.started_at,
            "finished_at": run.finished_at,
            "trigger": trigger if "trigger" in related else None,
            "job": _job() if "job" in related else None,
            "environment": None,
            "run_steps": [self._step(run, step, related) for step in run.steps] if "run_steps" in related else [],
            "in_progress": run.active,
            "is_complete": complete,
            "is_success": run.status == account_.SUCCESS,
            "is_error": run.status == account_.ERROR,
            "is_cancelled": run.status == account_.CANCELLED,
            "duration": _duration(run.created_at, run.finished_at),
            "retrying_run_id": run.retrying_run_id,
            "can_retry": reason is None,
            "retry_not_supported_reason": reason,
            "href": f"{self._address}/{page}",
        }

    def _step(self, run: Run, step: Step, related: set[str]) -> dict[str, Any]:
        log = self._account.log(run, step)
        return {
            "id": run.id * 100 + step.index,
            "run_id": run.id,
            "account_id": ACCOUNT_ID,
            "index": step.index,
            "name": step.name,
            "status": step.status,
            "status_humanized": _WORDS[step.status],
            "logs": step.logs,
            "debug_logs": log if "debug_logs" in related else "",
            "truncated_debug_logs": "\n".join(log.splitlines()[-_LINES:]),
            "created_at": step.started_at,
            "started_at": step.started_at,
            "finished_at": step.finished_at,
            "duration": _duration(step.started_at, step.finished_at),
        }


def _wanted(run: Run, options: dict[str, str]) -> bool:
    statuses = options.get("status__in") or options.get("status") or ""
    return options.get("job_definition_id", str(JOB_ID)) == str(JOB_ID) and (
        not statuses or str(run.status) in _listed(statuses)
    )


def _related(options: dict[str, str]) -> set[str]:
    return _listed(options.get("include_related", ""))


def _listed(text: str) -> set[str]:
    """Read a list: `["a","b"]` or `a,b`."""
    return {part.strip(" \"'") for part in text.strip("[] ").split(",")}


def _account() -> dict[str, Any]:
    return {"id": ACCOUNT_ID, "name": "Sandbox", "state": 1, "plan": "enterprise"}


def _job() -> dict[str, Any]:
    places = {"account_id": ACCOUNT_ID, "project_id": PROJECT_ID, "environment_id": ENVIRONMENT_ID}
    does = {"execute_steps": list(account_.COMMANDS), "generate_docs": False, "run_generate_sources": False}
    return {"id": JOB_ID, "name": account_.JOB, **places, **does, "state": 1, "job_type": "other"}


def _duration(began: str, ended: str | None) -> str:
    end = datetime.fromisoformat(ended) if ended else datetime.now(UTC)
    return str(end - datetime.fromisoformat(began)).partition(".")[0].rjust(8, "0")


def _status(code: HTTPStatus, said: str = "Success!") -> dict[str, Any]:
    well = code < HTTPStatus.BAD_REQUEST
    return {"status": {"code": int(code), "is_success": well, "user_message": said, "developer_message": ""}}


def _one(data: dict[str, Any]) -> dict[str, Any]:
    return {**_status(HTTPStatus.OK), "data": data}


def _list(data: Iterable[dict[str, Any]], options: dict[str, str], total: int) -> dict[str, Any]:
    page = list(data)
    filters = {"limit": _PAGE, "offset": 0, **options}
    extra = {"filters": filters, "order_by": options.get("order_by", "id")}
    pagination = {"count": len(page), "total_count": total}
    return {**_status(HTTPStatus.OK), "data": page, "extra": {**extra, "pagination": pagination}}


class _Handler(Handler):
    """One connection of a client."""

    service = "dbt-cloud"
    server: _Server

    @property
    def faults(self) -> FaultBox:
        """Those of the account."""
        return self.server.account.faults

    def serve(self, body: bytes) -> None:
        """Answer as the API does."""
        if busy := self.faults.take("busy"):
            said = _status(HTTPStatus.TOO_MANY_REQUESTS, "Too many requests.")
            self.reply_json(429, said, {"Retry-After": str(busy.options["retry_after"])})
            return
        try:
            self._require()
            answer = self.server.api.answer(self.command, self.path, body)
        except CloudError as error:
            self.reply_json(error.status, {**_status(error.status, error.message), "data": None})
            return
        if isinstance(answer, bytes):
            self.reply(200, answer, "application/json")
        else:
            self.reply_json(200, answer)

    def _require(self) -> None:
        """Raise unless the request carries the token."""
        scheme, _, given = self.headers.get("Authorization", "").partition(" ")
        known = scheme in ("Token", "Bearer") and secrets.compare_digest(given, self.server.token)
        if not known or self.faults.take("credentials"):
            raise CloudError(HTTPStatus.UNAUTHORIZED, "Invalid token.")


class _Server(ThreadingHTTPServer):
    """The server, with the account that it serves."""

    daemon_threads = True

    def __init__(self, account: Account, token: str, address: tuple[str, int], host: str) -> None:
        super().__init__(address, _Handler)
        self.account, self.token = account, token
        self.api = Api(account, f"http://{host}:{self.server_address[1]}")


def make_server(
    account: Account, token: str, port: int, *, bind: str = LOOPBACK, host: str = LOOPBACK
) -> ThreadingHTTPServer:
    """Make the server, not yet running; `host` is the name by which others reach it."""
    return _Server(account, token, (bind, port), host)
