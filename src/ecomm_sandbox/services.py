"""The services that are modules of ours: each is run by the same Python, and asked for its health over HTTP."""

from __future__ import annotations

import json
import os
import sys
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ecomm_sandbox.state import Home, SandboxError, State

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["PythonService", "http"]

_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # never by way of the user's web proxy


def http(method: str, url: str, body: object = None, *, token: str = "", timeout: float = 30) -> Any:  # noqa: ANN401 (JSON)
    """Send a request with JSON, and give the answer's JSON. Raises `SandboxError` with what the service says."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, method=method)
    request.add_header("Content-Type", "application/json")
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with _opener.open(request, timeout=timeout) as answer:
            return json.loads(answer.read() or b"null")
    except urllib.error.HTTPError as error:
        with error:
            message = f"{method} {url} was answered {error.code}: {error.read()[:500].decode(errors='replace')}"
        raise SandboxError(message) from error
    except (OSError, ValueError) as error:
        message = f"{method} {url} failed: {error}"
        raise SandboxError(message, next_step="see `ecomm-sandbox status`") from error


@dataclass(frozen=True)
class PythonService:
    """A module of ours that is run as a program."""

    name: str
    ports: tuple[str, ...]
    arguments: Callable[[Home, State], list[str]]
    """The module and its arguments, after `python -m`."""
    health: str
    """Path that answers 200 when it is healthy, on the port of the service's name."""
    secrets: tuple[str, ...] = ()
    """Names of the secrets it needs."""
    timeout: float = 30.0
    grpc: bool = False
    stop_signal: int = 15

    def prepare(self, home: Home, state: State) -> None:
        """Make its secrets."""
        for name in self.secrets:
            home.secret(state, name)

    def command(self, home: Home, state: State) -> list[str]:
        """Give its command line."""
        return [sys.executable, "-m", *self.arguments(home, state)]

    def environment(self) -> dict[str, str]:
        """Give the environment of this process, without what names other services."""
        others = ("AWS_", "DATABRICKS_", "ECOMM_", "PG", "SPARK_")
        return {name: value for name, value in os.environ.items() if not name.startswith(others)} | {
            "PYTHONUNBUFFERED": "1"
        }

    def check(self, state: State) -> None:
        """Raise unless it answers."""
        http("GET", f"http://127.0.0.1:{state.ports[self.name]}{self.health}", timeout=5)

    def finish(self, state: State) -> None:
        """Make what it must hold: nothing."""
