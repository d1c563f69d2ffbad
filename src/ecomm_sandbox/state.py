"""What a sandbox remembers: one folder, with one file of state in it.

Ports, secrets and process identities live in `state.json` (mode 0600, replaced atomically), so that the next command
finds what the last one started. Only `up`, `down` and `fault` change it, each under `lock`.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import socket
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

__all__ = ["LOOPBACK", "Home", "PortInUseError", "SandboxError", "State", "pick_port"]

# Ports are drawn from below Linux' ephemeral range (32768 and up), so that no outgoing connection takes one between two
# runs. SeaweedFS adds 10000 for gRPC, which has to stay below it too.
_FIRST_PORT, _LAST_PORT, _GRPC_OFFSET = 12000, 22700, 10000

LOOPBACK: Final = "127.0.0.1"


class SandboxError(Exception):
    """Base of what `ecomm-sandbox` tells its user: `message` names the thing and the place, `next_step` the way out."""

    def __init__(self, message: str, *, next_step: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.next_step = next_step


class PortInUseError(SandboxError):
    """Raised when a port that was asked for belongs to another program."""


@dataclass(slots=True)
class State:
    """The content of `state.json`."""

    version: int = 1
    ports: dict[str, int] = field(default_factory=dict)
    """Port by name (`postgres`, `postgres-proxy`, `s3`, …)."""
    given: list[str] = field(default_factory=list)
    """Names of the ports that the user chose; these are never changed."""
    secrets: dict[str, str] = field(default_factory=dict)
    """Passwords, keys and tokens by name, random for each home."""
    processes: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Process id and start time (clock ticks after boot) by service: together they name one process for ever."""
    values: dict[str, str] = field(default_factory=dict)
    """Ids that services gave out, such as the pipeline's."""
    undo: list[tuple[str, str, list[str]]] = field(default_factory=list)
    """Service, kind and SQL that takes a fault in the database back, oldest first."""
    host: str = ""
    """The name by which other machines reach it; empty when it is for this machine alone."""

    @property
    def address(self) -> str:
        """What clients connect to."""
        return self.host or LOOPBACK

    @property
    def bind(self) -> str:
        """What the services that clients connect to listen on."""
        return "0.0.0.0" if self.host else LOOPBACK


class Home:
    """The folder of one sandbox."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()

    def __truediv__(self, name: str) -> Path:
        """Give a path in the folder."""
        return self.folder / name

    @property
    def exists(self) -> bool:
        """Whether `up` was ever run here."""
        return self._file.exists()

    @property
    def _file(self) -> Path:
        return self.folder / "state.json"

    def read(self) -> State:
        """Read the state; that of a new sandbox when there is none."""
        try:
            raw: dict[str, Any] = json.loads(self._file.read_text())
        except FileNotFoundError:
            return State()
        except ValueError as error:
            message = f"{self._file} is damaged: {error}"
            raise SandboxError(message, next_step=f"end the processes by hand, then remove {self.folder}") from error
        raw["processes"] = {name: (pid, start) for name, (pid, start) in raw["processes"].items()}
        raw["undo"] = [(service, kind, sql) for service, kind, sql in raw["undo"]]
        return State(**raw)

    @contextmanager
    def change(self) -> Iterator[State]:
        """Give the state to be changed, and write it at the end. One process at a time."""
        with self._locked("state.lock"):
            state = self.read()
            yield state
            self._write(state)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other `up` and `down` commands out of this home."""
        with self._locked("lock"):
            yield

    @contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / name).open("w") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield

    def _write(self, state: State) -> None:
        new = self.folder / "state.json.new"
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as handle:
            json.dump(asdict(state), handle, indent=1)
        new.replace(self._file)

    def secret(self, state: State, name: str, make: Callable[[], str] = secrets.token_urlsafe) -> str:
        """Give a secret by name, made at the first call. `state` is being changed."""
        return state.secrets.setdefault(name, make())


def free(port: int) -> bool:
    """Tell whether nothing listens on a port of 127.0.0.1."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def pick_port(taken: set[int], *, with_grpc: bool = False) -> int:
    """Find a free port that is not in `taken`; with `with_grpc`, port + 10000 is free as well."""
    for _ in range(1000):
        port = _FIRST_PORT + secrets.randbelow(_LAST_PORT - _FIRST_PORT)
        ports = {port, port + _GRPC_OFFSET} if with_grpc else {port}
        if not ports & taken and all(free(one) for one in ports):
            return port
    message = f"no free port between {_FIRST_PORT} and {_LAST_PORT} on 127.0.0.1"
    raise SandboxError(message, next_step="end programs that listen, or name ports with --port")
