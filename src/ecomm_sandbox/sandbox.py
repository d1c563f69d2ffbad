"""A sandbox as an object: what the commands of `ecomm-sandbox` do, for programs and tests."""

from __future__ import annotations

import os
import shutil
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

from ecomm_sandbox import databricks_service as databricks
from ecomm_sandbox import postgres, s3, sql_faults
from ecomm_sandbox.environment import environment, lineage
from ecomm_sandbox.faults import CATALOGUE, PROXY_SERVICES, Kind
from ecomm_sandbox.services import PythonService, http
from ecomm_sandbox.state import Home, SandboxError, State
from ecomm_sandbox.supervisor import Progress, Service, Status, Supervisor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from mypy_boto3_s3 import S3Client
    from psycopg2.extensions import connection as Connection  # noqa: N812 (a class, by a lower-case name)

    from ecomm_sandbox.generator import Day
    from ecomm_sandbox.loader import Loaded
    from ecomm_sandbox.loader import Progress as LoadProgress

__all__ = ["LoadOptions", "Sandbox", "parse_dates"]


_PROXY = PythonService(
    "proxy",
    ("proxy", "postgres", "s3"),
    lambda home, _state: ["ecomm_sandbox.proxy", str(home.folder)],
    health="/sandbox/health",
)
_TABLEAU = PythonService(
    "tableau",
    ("tableau",),
    lambda home, _state: ["ecomm_sandbox.tableau", str(home.folder)],
    health="/sandbox/health",
    secrets=("tableau-token",),
)
_SINKS = PythonService(
    "sinks",
    ("sinks",),
    lambda home, _state: ["ecomm_sandbox.sinks", str(home.folder)],
    health="/sandbox/health",
    secrets=("sinks-token",),
)
_DBT_CLOUD = PythonService(
    "dbt-cloud",
    ("dbt-cloud",),
    lambda home, _state: ["ecomm_sandbox.dbt_cloud", str(home.folder)],
    health="/sandbox/health",
    secrets=("dbt-cloud-token",),
)


_EXPOSED = ("proxy", "databricks", "tableau", "sinks", "dbt-cloud")
"""Services that clients connect to; Postgres and S3 stand behind the proxy."""
_ON_DEMAND = ("dbt-cloud",)
"""Services that are up only where they are named: while dbt Cloud is, dbt runs there."""
_LOOK_EVERY = 2.0


def services() -> tuple[Service, ...]:
    """Give every service, in the order in which they are listed."""
    ours = (_PROXY, databricks.DatabricksService(), _TABLEAU, _SINKS, _DBT_CLOUD)
    return (postgres.PostgresService(), s3.S3Service(), *ours)


def _silent(_name: str, _what: str) -> None:
    pass


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """What to load: day files of a `folder`, or `generate` days that are made up."""

    folder: Path | None = None
    dates: str = ""
    """`DATE` or `FROM..TO` of the day files; empty for all."""
    timezone: str = ""
    """Zone of the shop's clock; empty for that of the files (Europe/London), or of the business."""
    generate: int = 0
    orders_per_day: float = 100
    seed: int = 0
    until: str = ""
    """Last made-up day; empty for yesterday."""
    countries: dict[str, float] = field(default_factory=dict)


class Sandbox:
    """The sandbox of one home folder."""

    def __init__(self, folder: Path) -> None:
        self.home = Home(folder)
        self._supervisor = Supervisor(self.home, services())

    @property
    def state(self) -> State:
        """What it remembers now. Raises `SandboxError` when it was never up."""
        if not self.home.exists:
            message = f"there is no sandbox in {self.home.folder}"
            raise SandboxError(message, next_step="run `ecomm-sandbox up`, or name another folder with --home")
        return self.home.read()

    def up(
        self,
        names: Iterable[str] = (),
        *,
        ports: dict[str, int] | None = None,
        timezone: str = "",
        expose: str = "",
        progress: Progress = _silent,
    ) -> None:
        """Start what does not run of the named services (default all but dbt-cloud); harmless when all does.

        `timezone` is the business zone that the pipeline is set up with. `expose` is the name by which other machines
        reach this one: services then listen on all addresses, for good. Raises `SandboxError` with the log's end when
        a service does not start.
        """
        if timezone:
            with self.home.change() as state:
                state.values["timezone"] = timezone
        if expose:
            self._expose(expose)
        self._supervisor.up(_names(names), ports or {}, progress)

    def _expose(self, host: str) -> None:
        with self.home.change() as state:
            changes = state.host != host
            state.host = host
        if changes:  # those that run listen where they did before
            self._supervisor.down(_silent, _EXPOSED)

    def stay(self, names: Iterable[str] = (), *, stop: Callable[[float], bool], progress: Progress = _silent) -> None:
        """Look after services that are up, until `stop`, given the seconds it may wait, says so.

        What ended is started again. Meanwhile, while all run, the file `healthy` is in the home, for probes to see.
        """
        healthy, wanted = self.home / "healthy", _names(names)
        healthy.touch()
        try:
            while not stop(_LOOK_EVERY):
                if ended := self._supervisor.ended(wanted):
                    healthy.unlink(missing_ok=True)
                    for name in ended:
                        progress(name, "ended by itself")
                    self._supervisor.up(wanted, {}, progress)
                    healthy.touch()
        finally:
            healthy.unlink(missing_ok=True)

    def down(self, names: Iterable[str] = (), *, purge: bool = False, progress: Progress = _silent) -> None:
        """End what `up` started of the named services (default all); with `purge`, remove all data as well.

        Harmless when there is nothing.
        """
        chosen = tuple(names)
        if not chosen:
            (self.home / "healthy").unlink(missing_ok=True)
        if self.home.folder.exists() or self._supervisor.strays():
            self._supervisor.down(progress, _known(chosen) or None)
        if purge:
            shutil.rmtree(self.home.folder, ignore_errors=True)

    def status(self) -> list[Status]:
        """Tell how each service is; those on demand only where they are up."""
        return [one for one in self._supervisor.status() if one.name not in _ON_DEMAND or one.state != "stopped"]

    def env(self, *, with_lineage: bool = False) -> dict[str, str]:
        """Give the environment with which stages and official clients connect, and send OpenLineage events if asked."""
        return environment(self.state) | (lineage(self.state) if with_lineage else {})

    def connect(self, user: str = postgres.OWNER) -> Connection:
        """Connect to Postgres, as the owner of the tables unless told otherwise."""
        return postgres.connect(self.state, user=user)

    def s3(self) -> S3Client:
        """Give a boto3 client of the store."""
        return s3.client(self.state)

    def load(self, options: LoadOptions, progress: LoadProgress = lambda _day, _lines: None) -> Loaded:
        """Load a shop's days. Raises `SandboxError` when there are none, or a file is not what it should be."""
        from ecomm_sandbox import loader

        with closing(self.connect()) as connection:
            if options.folder is not None:
                first, last = parse_dates(options.dates)
                files = loader.day_files(options.folder, first, last)
                return loader.load_files(connection, files, options.timezone or "Europe/London", progress)
            return loader.load_days(connection, _generated(options), progress)

    def fault(
        self, service: str, kind: str, *, times: int | None = None, seconds: float | None = None, **options: object
    ) -> None:
        """Switch a fault on. `times` and `seconds` bound it; else it stays until `clear_faults`.

        Raises `SandboxError` for a kind or option that the service does not have; `CATALOGUE` lists them.
        """
        known = CATALOGUE.get(service, {})
        entry = known.get(kind)
        if service not in CATALOGUE or (known and entry is None):
            message = f"no fault {kind!r} of {service!r}"
            raise SandboxError(message, next_step="see `ecomm-sandbox fault --list`")
        if entry is not None and entry.by == "sql":
            _apply_sql_fault(self.home, kind, entry, times, seconds, options)
            return
        body = {"kind": kind, "times": times, "seconds": seconds, **options}
        body = {name: value for name, value in body.items() if value is not None}
        url, token = self._faults_url(service), self._token(service)
        if service == "databricks":  # takes the whole list
            body = {"faults": [*http("GET", url, token=token)["faults"], body]}
        http("PUT", url, body, token=token)

    def clear_faults(self, service: str = "") -> None:
        """Switch the faults of a service off, or of all that run, and take those in the database back."""
        running = {one.name for one in self.status() if one.state == "running"}
        for name in [service] if service else CATALOGUE:
            behind = "proxy" if name in PROXY_SERVICES else name
            if behind in running or service:
                http("DELETE", self._faults_url(name), token=self._token(name))
        if self.state.undo and service in ("", "postgres"):
            sql_faults.clear(self.home)

    def faults(self) -> dict[str, list[dict[str, Any]]]:
        """Tell which faults are on, by service."""
        running = {one.name for one in self.status() if one.state == "running"}
        found: dict[str, list[dict[str, Any]]] = {}
        for name in CATALOGUE:
            if ("proxy" if name in PROXY_SERVICES else name) in running:
                found[name] = list(http("GET", self._faults_url(name), token=self._token(name))["faults"])
        found.setdefault("postgres", []).extend({"kind": kind} for _, kind, _ in self.state.undo)
        return found

    def query(self, statement: str) -> list[list[Any]]:
        """Give the rows of a SQL statement on the warehouse, values as strings."""
        return databricks.query(self.state, statement)

    def messages(self) -> dict[str, Any]:
        """Give what the sinks took (`messages`), and the `incidents` and `tickets` that there are."""
        found: dict[str, Any] = http("GET", self._sinks_url())
        return found

    def clear_messages(self) -> None:
        """Forget what the sinks took, with all incidents and tickets."""
        http("DELETE", self._sinks_url())

    def _sinks_url(self) -> str:
        return self._faults_url("sinks").replace("/faults", "/messages")

    def reset_lakehouse(self) -> None:
        """Drop all tables of the lakehouse, and what the pipeline remembers of files. No update may be running."""
        databricks.reset_lakehouse(self.home, self.state)

    def _faults_url(self, service: str) -> str:
        ports = self.state.ports
        port = ports.get("proxy" if service in PROXY_SERVICES else service)
        if port is None:
            message = f"{service} was never up in {self.home.folder}"
            raise SandboxError(message, next_step="run `ecomm-sandbox up`")
        return f"http://127.0.0.1:{port}/sandbox/faults" + (f"/{service}" if service in PROXY_SERVICES else "")

    def _token(self, service: str) -> str:
        return self.state.secrets.get(f"{service}-token", "")

    def empty(self) -> None:
        """Make the shop's tables anew, without rows; faults in the database are taken back."""
        if self.state.undo:
            sql_faults.clear(self.home)
        postgres.make_anew(self.state)

    def empty_bucket(self, prefix: str = "") -> None:
        """Remove the bucket's objects under a prefix."""
        s3.empty(self.state, prefix)

    def reset(self) -> None:
        """Begin anew: no faults, and an empty shop, bucket and lakehouse. No update may be running."""
        self.clear_faults()
        self.empty()
        self.empty_bucket()
        self.reset_lakehouse()


def _apply_sql_fault(
    home: Home, kind: str, entry: Kind, times: int | None, seconds: float | None, options: dict[str, object]
) -> None:
    unknown = sorted(set(options) - set(entry.options))
    if unknown or times is not None or seconds is not None:
        what = f"has no option {', '.join(unknown)}" if unknown else "stays until it is cleared"
        message = f"{kind} {what}"
        raise SandboxError(message, next_step=f"its options: {', '.join(entry.options) or 'none'}")
    sql_faults.apply(home, kind, {**entry.options, **options})


def _generated(options: LoadOptions) -> Iterator[Day]:
    from ecomm_pipeline.dates import zone
    from ecomm_sandbox.generator import COUNTRIES, Plan, generate

    tz = zone(options.timezone or os.environ.get("ECOMM_BUSINESS_TIMEZONE") or "Asia/Ho_Chi_Minh")
    yesterday = datetime.now(UTC).astimezone(tz).date() - timedelta(days=1)
    until = parse_dates(options.until)[1] or yesterday
    plan = Plan(options.generate, until, tz, options.orders_per_day, options.seed, options.countries or COUNTRIES)
    return generate(plan)


def parse_dates(text: str) -> tuple[date | None, date | None]:
    """Read `DATE` or `FROM..TO`; (None, None) for the empty text. Raises `SandboxError` for anything else."""
    first, dots, last = text.partition("..")
    try:
        return (date.fromisoformat(first), date.fromisoformat(last if dots else first)) if text else (None, None)
    except ValueError as error:
        message = f"{text!r} is neither a date nor a range of dates"
        raise SandboxError(message, next_step="write 2011-03-01, or 2011-03-01..2011-03-31") from error


def _names(wanted: Iterable[str]) -> tuple[str, ...]:
    names = _known(tuple(wanted)) or tuple(one.name for one in services() if one.name not in _ON_DEMAND)
    return names if "proxy" in names or not {"postgres", "s3"} & set(names) else (*names, "proxy")


def _known(names: tuple[str, ...]) -> tuple[str, ...]:
    """Give the names back. Raises `SandboxError` for one that is no service's."""
    known = [service.name for service in services()]
    for name in names:
        if name not in known:
            message = f"no service is called {name!r}"
            raise SandboxError(message, next_step=f"there are: {', '.join(known)}")
    return names
