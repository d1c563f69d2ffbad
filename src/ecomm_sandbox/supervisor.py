"""Brings the services of one home up and down.

Services start side by side; each is started only when it does not run, so `up` again repairs what is missing. State is
written the moment a process exists, so that `down` finds it whatever happened in between.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from ecomm_sandbox import processes
from ecomm_sandbox.state import Home, PortInUseError, SandboxError, State, free, pick_port

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Service", "Status", "Supervisor"]

_POLL: Final = 0.05
_ATTEMPTS: Final = 3
_LOG_LINES: Final = 15

Progress = Callable[[str, str], None]
"""Called with a service's name and what became of it."""


class Service(Protocol):
    """One program of the sandbox. All methods may be called again and again."""

    @property
    def name(self) -> str:
        """What it is called."""

    @property
    def ports(self) -> Sequence[str]:
        """Names of the ports it listens on."""

    @property
    def grpc(self) -> bool:
        """Whether it also listens on each port + 10000."""

    @property
    def stop_signal(self) -> int:
        """Signal that asks it to end."""

    @property
    def timeout(self) -> float:
        """Seconds until it must be healthy."""

    def prepare(self, home: Home, state: State) -> None:
        """Make secrets and files that it needs before it starts; `state` may be changed."""

    def command(self, home: Home, state: State) -> list[str]:
        """Give its command line."""

    def environment(self) -> dict[str, str]:
        """Give its environment."""

    def check(self, state: State) -> None:
        """Raise anything unless it answers."""

    def finish(self, state: State) -> None:
        """Make what it must hold (bucket, schema, pipeline), once it answers."""


@dataclass(frozen=True, slots=True)
class Status:
    """How a service is: `state` is running, unhealthy or stopped."""

    name: str
    state: str
    pid: int | None
    ports: dict[str, int]


class Supervisor:
    """The services of one home."""

    def __init__(self, home: Home, services: Iterable[Service]) -> None:
        self.home = home
        self.services = {service.name: service for service in services}

    def up(self, names: Iterable[str], ports: dict[str, int], progress: Progress) -> None:
        """Start what does not run of the named services, and wait until each is healthy.

        `ports` are the user's own choices. Raises `SandboxError` naming the service that did not start, with the end
        of its log; the others stay up.
        """
        services = [self.services[name] for name in names]
        with self.home.lock():
            missing = [service for service in services if not self._is_running(service)]
            self._clear_away(missing)
            with self.home.change() as state:
                self._assign_ports(missing, ports, state)
                for service in services:
                    service.prepare(self.home, state)
            with ThreadPoolExecutor(max_workers=len(services) or 1) as pool:
                jobs = [pool.submit(self._bring_up, service, progress) for service in services]
            errors = [error for job in jobs if (error := job.exception())]
            if errors:
                raise errors[0]

    def down(self, progress: Progress, names: Iterable[str] | None = None) -> None:
        """End the named services (default all), wait for them, and forget their processes."""
        with self.home.lock(), ThreadPoolExecutor() as pool:
            for job in [pool.submit(self._take_down, self.services[name], progress) for name in names or self.services]:
                job.result()

    def strays(self) -> bool:
        """Tell whether processes of this home run that its state, perhaps lost, need not know."""
        return any(processes.leftovers(self._marker(service)) for service in self.services.values())

    def ended(self, names: Iterable[str]) -> list[str]:
        """Tell which of the named services do not run."""
        return [name for name in names if not self._is_running(self.services[name])]

    def status(self) -> list[Status]:
        """Tell how each service is."""
        state = self.home.read()
        with ThreadPoolExecutor() as pool:
            return list(pool.map(lambda service: self._status(service, state), self.services.values()))

    def _status(self, service: Service, state: State) -> Status:
        process = state.processes.get(service.name)
        ports = {name: state.ports[name] for name in service.ports if name in state.ports}
        if process is None or not processes.is_running(process):
            return Status(service.name, "stopped", None, ports)
        try:
            service.check(state)
        except Exception:  # noqa: BLE001 (whatever it is, the service does not answer)
            return Status(service.name, "unhealthy", process[0], ports)
        return Status(service.name, "running", process[0], ports)

    def _is_running(self, service: Service) -> bool:
        return processes.is_running(self.home.read().processes.get(service.name))

    def _marker(self, service: Service) -> str:
        return f"{self.home.folder}:{service.name}"

    def _clear_away(self, services: Iterable[Service]) -> None:
        """End what services that were killed have forked."""
        for service in services:
            processes.end(processes.leftovers(self._marker(service)), how=signal.SIGKILL)

    def _assign_ports(self, missing: Sequence[Service], wanted: dict[str, int], state: State) -> None:
        """Give each port of the services to be started a number: the user's, the remembered one, or a free one."""
        for service in missing:
            for name in service.ports:
                if name in wanted:
                    state.ports[name] = wanted[name]
                    state.given = sorted({*state.given, name})
                port = state.ports.get(name)
                if port is None or (name not in state.given and not free(port)):
                    taken = {number for value in state.ports.values() for number in (value, value + 10000)}
                    state.ports[name] = pick_port(taken, with_grpc=service.grpc)
                elif not free(port):
                    message = f"port {port} of 127.0.0.1, given for {name}, is in use by another program"
                    raise PortInUseError(message, next_step=f"end that program, or give another --port {name}=NUMBER")

    def _bring_up(self, service: Service, progress: Progress) -> None:
        began = time.monotonic()
        state = self.home.read()
        found = self._is_running(service)
        if not found:
            self._start(service, state)
        self._await(service, state, service.timeout)
        with self.home.change() as state:
            service.finish(state)
        progress(service.name, "already up" if found else f"up after {time.monotonic() - began:.1f} s")

    def _start(self, service: Service, state: State) -> None:
        log = self.home / "logs" / f"{service.name}.log"
        if log.exists():
            log.replace(log.with_suffix(".log.1"))
        folder = self.home / service.name
        folder.mkdir(exist_ok=True)
        process = processes.start(
            service.command(self.home, state),
            log=log,
            cwd=folder,
            env=service.environment(),
            marker=self._marker(service),
        )
        with self.home.change() as changed:
            identity = processes.identity(process.pid)
            changed.processes[service.name] = identity or (process.pid, 0)

    def _await(self, service: Service, state: State, timeout: float) -> None:
        deadline, attempts, problem = time.monotonic() + timeout, 1, "it did not answer"
        while time.monotonic() < deadline:
            if not self._is_running(service):
                if attempts == _ATTEMPTS:
                    raise self._failure(service, "ended while it started")
                # A server that was killed may hold its files for a moment through the processes it forked.
                attempts += 1
                time.sleep(0.3)
                self._clear_away([service])
                with self.home.change() as changed:
                    service.prepare(self.home, changed)
                self._start(service, state)
            try:
                service.check(state)
            except Exception as error:  # noqa: BLE001 (not yet healthy, whatever it says)
                problem = f"{type(error).__name__}: {error}".strip()
                time.sleep(_POLL)
            else:
                return
        raise self._failure(service, f"was not healthy after {timeout:.0f} s ({problem})")

    def _failure(self, service: Service, what: str) -> SandboxError:
        log = self.home / "logs" / f"{service.name}.log"
        message = f"{service.name} {what}. The end of {log}:\n{_tail(log)}"
        return SandboxError(message, next_step="mend the cause and run `ecomm-sandbox up` again")

    def _take_down(self, service: Service, progress: Progress) -> None:
        process = self.home.read().processes.get(service.name)
        running = process is not None and processes.is_running(process)
        if process is not None and running:
            processes.end([process], how=service.stop_signal)
        processes.end(processes.leftovers(self._marker(service)), grace=2)
        cleanup = getattr(service, "cleanup", None)
        with self.home.change() as state:
            state.processes.pop(service.name, None)
            if cleanup:
                cleanup(state)
        progress(service.name, "stopped" if running else "was not running")


def _tail(log: Path) -> str:
    try:
        lines = log.read_text(errors="replace").splitlines()[-_LOG_LINES:]
    except OSError:
        lines = ["(no log)"]
    return "\n".join(f"  {line[:300]}" for line in lines)
