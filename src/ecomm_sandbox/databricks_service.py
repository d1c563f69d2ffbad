"""How the Databricks of the sandbox is started, and given the project's own pipeline from its asset bundle."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from pathlib import Path
from typing import Any, Final

from ecomm_sandbox import s3
from ecomm_sandbox.services import PythonService, http
from ecomm_sandbox.state import Home, SandboxError, State

__all__ = ["CATALOG", "PIPELINE", "WAREHOUSE", "DatabricksService", "cache", "execute", "query", "reset_lakehouse"]

CATALOG: Final = "ecomm"
PIPELINE: Final = "ecomm"
WAREHOUSE: Final = "sandbox"
DEFAULT_TIMEZONE: Final = "Asia/Ho_Chi_Minh"
_LANDING: Final = f"s3://{s3.BUCKET}/ecomm_db_extracts/daily_extracts"
_TABLES: Final = "orders,products,customers,order_items"


class DatabricksService(PythonService):
    """The module `ecomm_sandbox.databricks`, with a configuration file."""

    def __init__(self) -> None:
        super().__init__(
            "databricks",
            ("databricks",),
            lambda home, _: ["ecomm_sandbox.databricks", "--config", str(home / "databricks" / "config.json")],
            health="/sandbox/health",
            secrets=("databricks-token",),
            timeout=240.0,  # the first start of all fetches Delta's jars
        )

    def prepare(self, home: Home, state: State) -> None:
        """Write the configuration, with the pipeline of the bundle in it."""
        super().prepare(home, state)
        folder = home / "databricks"
        folder.mkdir(parents=True, exist_ok=True)
        config: dict[str, Any] = {
            "home": str(folder),
            "port": state.ports["databricks"],
            "bind": state.bind,
            "token": state.secrets["databricks-token"],
            "catalog": CATALOG,
            "warehouse_id": WAREHOUSE,
            "ivy": str(cache() / "ivy"),
            "pipelines": [_pipeline(state)],
        }
        if "s3-access-key" in state.secrets:
            config |= {
                "landing_endpoint": f"http://127.0.0.1:{state.ports['s3']}",
                "landing_region": s3.REGION,
                "landing_access_key": state.secrets["s3-access-key"],
                "landing_secret_key": state.secrets["s3-secret-key"],
            }
        with os.fdopen(os.open(folder / "config.json", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as handle:
            json.dump(config, handle, indent=1)

    def finish(self, state: State) -> None:
        """Bring the pipeline up to date in a Databricks that ran already."""
        base, token = _base(state), state.secrets["databricks-token"]
        url = f"{base}/api/2.0/pipelines/{PIPELINE}"
        wanted = _pipeline(state)
        found = http("GET", url, token=token)["spec"]
        if {**found, **wanted} != found:
            http("PUT", url, wanted, token=token)


def query(state: State, statement: str) -> list[list[Any]]:
    """Run SQL on the warehouse and give all rows, values as strings (null as None). Raises `SandboxError`."""
    return execute(state, statement)[1]


def execute(state: State, statement: str) -> tuple[list[tuple[str, str]], list[list[Any]]]:
    """Run SQL on the warehouse; give the columns, each with its type's name, and all rows.

    Upstream: https://docs.databricks.com/api/workspace/statementexecution. Raises `SandboxError` when it fails.
    """
    base, token = f"{_base(state)}/api/2.0/sql/statements", state.secrets["databricks-token"]
    body = {
        "statement": statement,
        "warehouse_id": WAREHOUSE,
        "catalog": CATALOG,
        "wait_timeout": "50s",
        "format": "JSON_ARRAY",
    }
    answer = http("POST", base, body, token=token, timeout=120)
    while answer["status"]["state"] in ("PENDING", "RUNNING"):
        time.sleep(0.2)
        answer = http("GET", f"{base}/{answer['statement_id']}", token=token, timeout=120)
    if answer["status"]["state"] != "SUCCEEDED":
        reason = (answer["status"].get("error") or {}).get("message", answer["status"]["state"])
        message = f"the warehouse could not run {statement[:200]!r}: {reason}"
        raise SandboxError(message)
    columns = (answer.get("manifest") or {}).get("schema", {}).get("columns") or []
    chunk = answer.get("result") or {}
    rows = list(chunk.get("data_array") or [])
    while chunk.get("next_chunk_internal_link"):
        chunk = http("GET", _base(state) + chunk["next_chunk_internal_link"], token=token, timeout=120)
        rows += chunk.get("data_array") or []
    return [(column["name"], column["type_name"]) for column in columns], rows


def reset_lakehouse(home: Home, state: State) -> None:
    """Drop all schemas of the lakehouse and what the pipeline remembers of files. No update may be running."""
    for schema in ("kpi", "gold", "silver", "bronze"):
        query(state, f"DROP SCHEMA IF EXISTS `{schema}` CASCADE")
    shutil.rmtree(home / "databricks" / "pipelines" / PIPELINE / "checkpoints", ignore_errors=True)


def _base(state: State) -> str:
    return f"http://127.0.0.1:{state.ports['databricks']}"


def cache() -> Path:
    """Give the folder that homes share: what is fetched is fetched once."""
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "ecomm-sandbox"


def _bundle() -> Path:
    """Find the project's `dlt` folder: here, or where this package was installed from."""
    places = [Path("dlt").absolute(), Path(__file__).parents[2] / "dlt"]
    found = next((place for place in places if (place / "resources" / "ecomm.pipeline.yml").exists()), None)
    if found is None:
        message = (
            f"the pipeline's bundle, dlt/resources/ecomm.pipeline.yml, is neither in {places[0]} nor in {places[1]}"
        )
        raise SandboxError(message, next_step="run the command in the project's folder")
    return found


def _pipeline(state: State) -> dict[str, Any]:
    """Read the pipeline of the bundle as `databricks bundle deploy` would send it, its variables filled in."""
    import yaml

    folder = _bundle() / "resources"
    variables = {
        "bundle.target": "sandbox",
        "var.catalog": CATALOG,
        "var.landing": _LANDING,
        "var.business_timezone": state.values.get("timezone", DEFAULT_TIMEZONE),
        "var.tables": _TABLES,
        "var.owner": "sandbox",
    }
    text = re.sub(r"\$\{([\w.]+)\}", lambda found: variables[found[1]], (folder / "ecomm.pipeline.yml").read_text())
    spec: dict[str, Any] = yaml.safe_load(text)["resources"]["pipelines"]["ecomm"]
    spec["root_path"] = str((folder / spec["root_path"]).resolve())
    spec["libraries"] = [
        {"glob": {"include": os.path.normpath(folder / entry["glob"]["include"])}} for entry in spec["libraries"]
    ]
    del spec["notifications"]
    return {"id": PIPELINE, **spec}
