"""Databricks on one machine, as one process.

    python -m ecomm_sandbox.databricks --home DIR --port PORT --token TOKEN
        [--catalog ecomm] [--warehouse-id sandbox] [--ivy DIR] [--memory 900m]
        [--landing-endpoint URL] [--landing-region R] [--landing-access-key K] [--landing-secret-key S]
        [--config FILE]

`--config` names a JSON file with the same settings (`landing_endpoint`, …) and `pipelines`, a list of pipelines to
create or bring up to date, each a `CreatePipeline` body of the Pipelines API with a fixed `id`:

    {"id": "ecomm", "name": "ecomm", "catalog": "ecomm", "schema": "bronze", "root_path": "/path/to/dlt",
     "libraries": [{"glob": {"include": "/path/to/dlt/transformations/**"}}], "configuration": {"ecomm.landing": "s3://…"}}

It is ready when `GET /sandbox/health` answers 200 (no token needed). SIGTERM and SIGINT end it. Faults: `faults.py`.
"""

from __future__ import annotations

import logging
import shutil
import signal
import sys
import threading
import time
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from ecomm_sandbox.databricks import config as settings
from ecomm_sandbox.databricks.errors import SandboxError
from ecomm_sandbox.databricks.faults import Faults
from ecomm_sandbox.databricks.server import Application, Request, Routes, serve

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ecomm_sandbox.databricks.config import Config

log = logging.getLogger("ecomm_sandbox.databricks")


def build(config: Config) -> tuple[Application, Any]:
    """Start Spark and wire everything to its routes; the second value is the Spark session."""
    # Imported here, so that --help and a wrong flag answer at once.
    from ecomm_sandbox.databricks.catalog import Catalog
    from ecomm_sandbox.databricks.pipelines.api import PipelineApi
    from ecomm_sandbox.databricks.spark import alias_catalog, build_session
    from ecomm_sandbox.databricks.warehouse.executor import Executor
    from ecomm_sandbox.databricks.warehouse.rest import StatementApi
    from ecomm_sandbox.databricks.warehouse.state import Warehouse
    from ecomm_sandbox.databricks.warehouse.thrift import ThriftService

    config.home.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(config.home / "spark-local", ignore_errors=True)  # a killed process leaves its shuffle files
    spark = build_session(config.home, config.ivy or config.home / "ivy", config.memory, config.spark)
    logging.getLogger("SQLQueryContextLogger").setLevel(logging.CRITICAL)  # pyspark logs each failing statement's stack
    alias_catalog(spark, config.catalog)
    catalog = Catalog(spark, config.home, config.catalog)
    catalog.restore()
    faults = Faults()
    warehouse = Warehouse(config.warehouse_id, "sandbox", faults)
    executor = Executor(spark, catalog, faults, config.home / "statements.jsonl")
    routes = Routes()
    _workspace_routes(routes, spark.version)
    _fault_routes(routes, faults, warehouse)
    _warehouse_routes(routes, warehouse, StatementApi(executor, warehouse), ThriftService(executor, warehouse))
    pipelines = PipelineApi(spark, catalog, config, faults)
    pipelines.add_routes(routes)
    return Application(routes, config.token, faults), spark


def _workspace_routes(routes: Routes, spark_version: str) -> None:
    health = {"status": "ok", "version": version("ecomm-data-pipeline"), "spark": spark_version}
    me = {"id": "1", "userName": "sandbox", "displayName": "Sandbox", "active": True}
    routes.add("GET", "/sandbox/health", lambda _: health, public=True)
    routes.add("GET", "/.well-known/databricks-config", lambda _: {"host_type": "workspace"}, public=True)
    routes.add("GET", "/api/2.0/preview/scim/v2/Me", lambda _: me)
    routes.add("POST", "/telemetry-ext", lambda _: {"errors": [], "numProtoSuccess": 0})


def _fault_routes(routes: Routes, faults: Faults, warehouse: Any) -> None:  # noqa: ANN401 - imported late
    def put(request: Request) -> dict[str, Any]:
        faults.set(request.json().get("faults", []))
        if any(fault["kind"] == "warehouse_cold_start" for fault in faults.as_json()["faults"]):
            warehouse.stop()
        return faults.as_json()

    def delete(_request: Request) -> dict[str, Any]:
        faults.set([])
        warehouse.hurry()
        return faults.as_json()

    routes.add("GET", "/sandbox/faults", lambda _: faults.as_json())
    routes.add("PUT", "/sandbox/faults", put)
    routes.add("DELETE", "/sandbox/faults", delete)


def _warehouse_routes(routes: Routes, warehouse: Any, statements: Any, thrift: Any) -> None:  # noqa: ANN401 - as above
    base = "/api/2.0/sql/warehouses"

    def change(action: str) -> Any:  # noqa: ANN401 - a handler
        def handler(request: Request) -> dict[str, Any]:
            warehouse.require_usable(request.parts[0])
            getattr(warehouse, action)()
            return {}

        return handler

    def get(request: Request) -> dict[str, Any]:
        warehouse.require(request.parts[0])
        return dict(warehouse.as_json(request.host))

    def call(request: Request) -> bytes:
        warehouse.require_usable(request.parts[0])
        return bytes(thrift.answer(request.raw))

    routes.add("GET", base, lambda request: {"warehouses": [warehouse.as_json(request.host)]})
    routes.add("GET", base + "/{}", get)
    routes.add("POST", base + "/{}/start", change("start"))
    routes.add("POST", base + "/{}/stop", change("stop"))
    routes.add("POST", "/sql/1.0/warehouses/{}", call)
    routes.add("POST", "/api/2.0/sql/statements", lambda request: statements.execute(request.json()))
    routes.add("GET", "/api/2.0/sql/statements/{}", lambda request: statements.get(request.parts[0]))
    routes.add("POST", "/api/2.0/sql/statements/{}/cancel", lambda request: statements.cancel(request.parts[0]))
    routes.add(
        "GET",
        "/api/2.0/sql/statements/{}/result/chunks/{}",
        lambda request: statements.chunk(request.parts[0], int(request.parts[1])),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until a signal; the exit code is 0, or 78 when the settings or the machine do not allow a start."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("py4j").setLevel(logging.WARNING)
    began = time.monotonic()
    try:
        config = settings.parse(sys.argv[1:] if arguments is None else arguments)
        application, spark = build(config)
        server = serve(application, config.port, config.bind)
    except (SandboxError, OSError) as error:
        log.error("cannot start: %s", error)  # noqa: TRY400 - the message is the whole story
        return 78
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    threading.Thread(target=server.serve_forever, daemon=True).start()
    log.info("ready on %s:%d after %.1f s", config.bind, config.port, time.monotonic() - began)
    stop.wait()
    server.shutdown()
    spark.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
