"""The Administrative API of dbt Cloud, version 2, as far as a job's runs go, and its refusals in our own words.

Upstream: https://docs.getdbt.com/dbt-cloud/api-v2
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from ecomm_pipeline.dbt_runner import cloud_plan
from ecomm_pipeline.errors import ConfigurationError, CredentialsError, EcommError, UnavailableError, translated
from ecomm_pipeline.logs import get_logger
from ecomm_pipeline.patience import PATIENCE

if TYPE_CHECKING:
    from requests import PreparedRequest, Response

    from ecomm_pipeline.clock import Clock
    from ecomm_pipeline.settings import DbtCloud

__all__ = ["CloudApi"]

_TIMEOUT: Final = (10.0, 60.0)
"""Seconds to connect, and to wait for an answer."""
_PAGE: Final = 100
"""Runs in an answer: what the service gives at most. Ours are among the newest of its job."""
_EXCERPT: Final = 300
_COME_BACK: Final = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS)


class CloudApi:
    """A session with one job's account. It asks nothing before it is told to.

    Raises `CredentialsError` for a token that is refused, `ConfigurationError` for a job or account that is not there
    and for a request that is refused as it is, `UnavailableError` when nobody answers, or it is told to come back later
    for longer than `patience` seconds.
    """

    def __init__(self, settings: DbtCloud, clock: Clock, *, patience: float = PATIENCE) -> None:
        import requests

        if settings.job_id is None or settings.token is None:
            message = "ECOMM_DBT_CLOUD_JOB_ID is not set"
            raise ConfigurationError(message, next_step="docs/dbt-cloud.md tells what dbt Cloud needs")
        self._token = settings.token.get_secret_value()
        self._clock = clock
        self._patience = patience
        self._job = settings.job_id
        self._account = settings.account_id
        host = settings.host.rstrip("/").removesuffix("/api")
        self.host = host if "://" in host else f"https://{host}"
        self._session = requests.Session()
        self._session.auth = self._sign  # or a line of ~/.netrc would take the header's place

    def _sign(self, request: PreparedRequest) -> PreparedRequest:
        request.headers["Authorization"] = f"Token {self._token}"
        return request

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    @property
    def job(self) -> str:
        """The job as people write it."""
        return f"job {self._job} of account {self._account} at {self.host}"

    def name(self) -> str:
        """Give the job's name. Raises `ConfigurationError` when there is no such job."""
        return str(self._data("GET", f"jobs/{self._job}/")["name"])

    def runs(self) -> list[cloud_plan.CloudRun]:
        """Give the job's newest runs, without their steps."""
        asked = {"job_definition_id": self._job, "order_by": "-id", "limit": _PAGE, "include_related": '["trigger"]'}
        return [_run(one) for one in self._data("GET", "runs/", params=asked)]

    def run(self, run_id: int, *, logs: bool = False) -> cloud_plan.CloudRun:
        """Give a run with its steps and, with `logs`, all that they wrote."""
        related = '["trigger","run_steps","debug_logs"]' if logs else '["trigger","run_steps"]'
        return _run(self._data("GET", f"runs/{run_id}/", params={"include_related": related}))

    def trigger(self, cause: str, steps: list[str] | None) -> cloud_plan.CloudRun:
        """Start the job, with its own commands or with `steps`. Not to be called twice without looking at `runs`."""
        body = {"cause": cause, **({"steps_override": steps} if steps else {})}
        return _run(self._data("POST", f"jobs/{self._job}/run/", json=body))

    def retry(self, run_id: int) -> cloud_plan.CloudRun:
        """Start a run that goes on where one failed. Not to be called twice without looking at `runs`."""
        return _run(self._data("POST", f"runs/{run_id}/retry/"))

    def cancel(self, run_id: int) -> None:
        """Ask for a run's end."""
        self._data("POST", f"runs/{run_id}/cancel/")

    def artifact(self, run_id: int, name: str, step: int) -> bytes | None:
        """Give an artifact of a run's step (from 1); None when that left none."""
        answer = self._send("GET", f"runs/{run_id}/artifacts/{name}", params={"step": step})
        if answer.status_code == HTTPStatus.NOT_FOUND:
            return None
        self._check(answer)
        return answer.content

    def _data(self, method: str, path: str, **options: Any) -> Any:  # noqa: ANN401 (JSON)
        answer = self._send(method, path, **options)
        self._check(answer)
        try:
            return answer.json()["data"]
        except (ValueError, KeyError, TypeError) as error:
            message = f"{self.host} does not answer as dbt Cloud's API does: {_excerpt(answer.text)}"
            raise ConfigurationError(
                message, next_step="set ECOMM_DBT_CLOUD_HOST to the account's access URL"
            ) from error

    def _send(self, method: str, path: str, **options: Any) -> Response:  # noqa: ANN401 (those of requests)
        """Send a request; one that is told to come later was not done, and is sent again then."""
        url = f"{self.host}/api/v2/accounts/{self._account}/{path}"
        began = self._clock.monotonic()
        while True:
            with translated(self._translate):
                answer = self._session.request(method, url, timeout=_TIMEOUT, allow_redirects=False, **options)
            if answer.status_code != HTTPStatus.TOO_MANY_REQUESTS:
                return answer
            pause = max(1.0, _retry_after(answer))
            if self._clock.monotonic() - began + pause > self._patience:
                return answer
            get_logger().warning("dbt-cloud.busy", pause=pause)
            self._clock.sleep(pause)

    def _translate(self, error: Exception) -> EcommError | None:
        from requests import RequestException
        from requests.exceptions import InvalidURL

        message = f"dbt Cloud at {self.host}: {_excerpt(str(error))}"
        if isinstance(error, InvalidURL):
            return ConfigurationError(message, next_step="set ECOMM_DBT_CLOUD_HOST to the account's access URL")
        if isinstance(error, RequestException | OSError):
            next_step = "check ECOMM_DBT_CLOUD_HOST and the network; the same command may be run again"
            return UnavailableError(message, next_step=next_step)
        return None

    def _check(self, answer: Response) -> None:
        """Raise for an answer that is none of success."""
        status, told = answer.status_code, f"dbt Cloud, {self.job}"
        if answer.is_redirect:
            message = f"{told}: it is at {answer.headers['Location']}"
            raise ConfigurationError(message, next_step="set ECOMM_DBT_CLOUD_HOST to the account's access URL")
        if answer.ok:
            return
        message = f"{told}: {status} {_said(answer)}"
        if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            next_step = "check ECOMM_DBT_CLOUD_TOKEN: of this account, not expired, and allowed to run the job"
            raise CredentialsError(message, next_step=next_step)
        if status == HTTPStatus.NOT_FOUND:
            raise ConfigurationError(message, next_step="check ECOMM_DBT_CLOUD_JOB_ID and ECOMM_DBT_CLOUD_ACCOUNT_ID")
        if status in _COME_BACK or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise UnavailableError(message, next_step="the same command may be run again")
        raise ConfigurationError(message, next_step="see the message; the request was refused as it is")


def _run(data: Any) -> cloud_plan.CloudRun:  # noqa: ANN401 (JSON)
    try:
        return cloud_plan.parse(data)
    except (KeyError, TypeError, ValueError) as error:
        message = f"dbt Cloud told of a run in a way that ecomm does not know: {type(error).__name__} {error}"
        raise UnavailableError(message, next_step="the same command may be run again") from error


def _retry_after(answer: Response) -> float:
    """Give the seconds that the service asks to wait: it may name an instant instead."""
    from urllib3.exceptions import InvalidHeader
    from urllib3.util import Retry

    try:
        return float(Retry().parse_retry_after(answer.headers.get("Retry-After", "1")))
    except InvalidHeader:
        return 1.0


def _said(answer: Response) -> str:
    """Give what an answer says for people."""
    try:
        status = answer.json()["status"]
        return _excerpt(str(status.get("user_message") or status.get("developer_message") or answer.reason))
    except (ValueError, KeyError, TypeError, AttributeError):
        return _excerpt(answer.text or answer.reason or "")


def _excerpt(text: str) -> str:
    return " ".join(text.split())[:_EXCERPT]
