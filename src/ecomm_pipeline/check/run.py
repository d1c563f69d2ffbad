"""`ecomm check`: ask each service once, all at the same time, and change nothing there.

Postgres: sign in, and read no row of each table. S3: list the extracts' folder. Databricks: look at the pipeline.
Warehouse: look at its state, and at its catalog when it runs; a stopped one is not started, since that costs money.
dbt Cloud: look at the job. Tableau: sign in and out, which ends another session of the same token (tableau-refresher
signs in again).
"""

from __future__ import annotations

from concurrent.futures import Future, wait
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import timedelta
from importlib import import_module
from importlib.util import find_spec
from threading import Thread
from typing import TYPE_CHECKING, Any, Final

from ecomm_pipeline.check.plan import DEPENDENCIES, Result, choose
from ecomm_pipeline.errors import BadDataError, ConfigurationError, EcommError, MissingSourceError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from ecomm_pipeline.check.plan import (
        DbtCloudSettings,
        PipelineSettings,
        PostgresSettings,
        StoreSettings,
        TableauSettings,
        WarehouseSettings,
    )
    from ecomm_pipeline.clock import Clock

__all__ = ["LIMIT", "check", "installed"]

LIMIT: Final = 20.0
"""Seconds until a service has not answered: a packet that a firewall or a NetworkPolicy drops is answered by nobody."""


@dataclass(frozen=True, slots=True)
class _How:
    """How to ask: `limit` is in seconds, `write` whether the bucket is written to."""

    load: Callable[[type[Any]], Any]
    clock: Clock
    limit: float
    write: bool

    @property
    def patience(self) -> timedelta:
        """How long a library may try again, so that its own error comes before ours, which tells less."""
        return timedelta(seconds=max(1, int(self.limit / 2)))


def check(
    names: Iterable[str] = (),
    *,
    load: Callable[[type[Any]], Any],
    environment: Mapping[str, str],
    clock: Clock,
    write: bool = False,
    limit: float = LIMIT,
) -> list[Result]:
    """Ask the services that `names` names, or those that `choose` finds; gives a result for each, in that order.

    `load` reads a dataclass of groups of settings from `environment`. `write` puts a small object into the bucket too.
    No failure of a service is raised; what `choose` raises is.
    """
    chosen, left_out = choose(names, environment, installed)
    how = _How(load, clock, limit, write)
    for library in dict.fromkeys(DEPENDENCIES[name].library for name in chosen):
        if installed(library):
            import_module(library)  # here: threads that import a package of circles at once lock each other out
    asked = {name: _start(name, how) for name in chosen}
    wait(asked.values(), limit)
    results = {name: _result(name, answer, limit) for name, answer in asked.items()}
    results |= {result.name: result for result in left_out}
    return [results[name] for name in (chosen if not left_out else DEPENDENCIES)]


def installed(library: str) -> bool:
    """Whether a library, which may be a part of another, can be imported."""
    try:
        return find_spec(library) is not None
    except ModuleNotFoundError:
        return False


def _start(name: str, how: _How) -> Future[Result]:
    """Ask in a thread of its own, which nobody waits for at the end: a library may wait for longer than we do."""
    answer: Future[Result] = Future()

    def run() -> None:
        began = how.clock.monotonic()
        try:
            detail = _ask(name, how)
            answer.set_result(Result(name, how.clock.monotonic() - began, detail))
        except Exception as error:  # noqa: BLE001 (each of them is an answer)
            answer.set_result(Result(name, how.clock.monotonic() - began, error=_ours(name, error)))

    Thread(target=run, name=f"check-{name}", daemon=True).start()
    return answer


def _result(name: str, answer: Future[Result], limit: float) -> Result:
    if answer.done():
        return answer.result()
    message = f"{name} did not answer within {limit:.0f} s"
    error = UnavailableError(message, next_step="look for a firewall or a NetworkPolicy between here and there")
    return Result(name, limit, error=error)


def _ours(name: str, error: Exception) -> EcommError:
    if isinstance(error, EcommError):
        return error
    message = f"{name}: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
    return EcommError(message, next_step="this is a defect of ecomm: report it with this line")


def _ask(name: str, how: _How) -> str:
    dependency = DEPENDENCIES[name]
    if not installed(dependency.library):
        message = f"{name} cannot be checked here: {dependency.library} is not installed"
        raise ConfigurationError(message, next_step="ask in the image of a stage that uses it")
    return _PROBES[name](how.load(dependency.settings), how)


def _postgres(settings: PostgresSettings, how: _How) -> str:
    import psycopg2
    from psycopg2 import sql

    from ecomm_pipeline.postgres import Place, connect, explain, session_settings

    postgres, tables = settings.postgres, settings.business.tables
    place = Place(postgres.host, postgres.port, postgres.database, postgres.user, postgres.db_schema)
    with closing(connect(postgres, place, "ecomm-check")) as connection:
        connection.set_session(readonly=True)
        try:
            with connection.cursor() as cursor:
                seconds, locked = int(how.limit), max(1, int(how.limit / 2))  # so that a lock is told as one
                cursor.execute(session_settings(statement_timeout=seconds, lock_timeout=locked, idle_timeout=seconds))
                for table in tables:
                    place = replace(place, table=table)
                    name = sql.Identifier(postgres.db_schema, table)
                    cursor.execute(sql.SQL("SELECT * FROM {} LIMIT 0").format(name))
        except psycopg2.Error as error:
            raise explain(place, error.pgcode, str(error)) from error
        version = connection.get_parameter_status("server_version")
    return f"PostgreSQL {version} at {place.server}; {postgres.user} may read {', '.join(tables)}"


def _s3(settings: StoreSettings, how: _How) -> str:
    from ecomm_pipeline.layout import Layout
    from ecomm_pipeline.store import Store

    store, layout = Store(settings.store, give_up=how.patience), Layout(settings.store.prefix)
    tables = store.folders(layout.landing)
    found = f"{store.url}/{layout.landing} has extracts of {', '.join(tables) or 'no table yet'}"
    if not how.write:
        return found
    store.put(layout.probe, b"written by `ecomm check --write`\n")
    if not store.get(layout.probe):
        message = f"{store.url}/{layout.probe} was written and is not there"
        raise BadDataError(message, next_step="the service is not consistent, as S3 is: use another")
    return f"{found}; {layout.probe} was written and read back"


def _databricks(settings: PipelineSettings, how: _How) -> str:
    from ecomm_pipeline.databricks import connect, databricks_errors

    pipeline_id = settings.dlt.pipeline_id
    client = connect(settings.databricks, give_up=how.patience.seconds)
    with databricks_errors(f"pipeline {pipeline_id}"):
        pipeline = client.pipelines.get(pipeline_id)
    state = pipeline.state.value if pipeline.state else "in an unknown state"
    return f"{settings.databricks.host}: the pipeline {pipeline.name} is {state}"


def _warehouse(settings: WarehouseSettings, how: _How) -> str:
    from databricks.sdk.service.sql import State

    from ecomm_pipeline.databricks import Warehouse, connect, look_at_warehouse

    databricks = settings.databricks
    client = connect(databricks, give_up=how.patience.seconds)
    found = look_at_warehouse(client, databricks.warehouse_id)
    state = f"the SQL warehouse {found.name} is {found.state.value if found.state else 'in an unknown state'}"
    if found.state is not State.RUNNING:
        return f"{state}; the first statement starts it"
    warehouse = Warehouse(client, databricks.warehouse_id, databricks.catalog, how.clock)
    try:
        schemas = warehouse.query(f"SHOW SCHEMAS IN `{databricks.catalog}`", timeout=how.limit)
    except MissingSourceError as error:
        message = f"{state}, and shows no catalog {databricks.catalog}: {error.message}"
        next_step = "set ECOMM_DATABRICKS_CATALOG to one that exists, or grant USE CATALOG on it"
        raise ConfigurationError(message, next_step=next_step) from error
    return f"{state}; the catalog {databricks.catalog} has {', '.join(str(row[0]) for row in schemas.rows)}"


def _dbt_cloud(settings: DbtCloudSettings, how: _How) -> str:
    from ecomm_pipeline.dbt_runner.cloud_api import CloudApi

    with closing(CloudApi(settings.dbt_cloud, how.clock, patience=how.patience.seconds)) as api:
        return f"dbt Cloud: {api.name()} is {api.job}"


def _tableau(settings: TableauSettings, how: _How) -> str:
    from ecomm_pipeline.tableau_refresher.site import Tableau

    with Tableau(settings.tableau, how.clock, how.clock.monotonic()) as tableau:
        site = f"the site {settings.tableau.site}" if settings.tableau.site else "the default site"
        return f"Tableau {tableau.version} at {settings.tableau.server}; signed in to {site}"


_PROBES: Final[dict[str, Callable[[Any, _How], str]]] = {
    "postgres": _postgres,
    "s3": _s3,
    "databricks": _databricks,
    "warehouse": _warehouse,
    "dbt-cloud": _dbt_cloud,
    "tableau": _tableau,
}
