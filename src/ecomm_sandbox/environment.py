"""The environment in which stages and official clients find the sandbox, and the forms in which it is written."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, Any, Final

from ecomm_sandbox import databricks_service as databricks
from ecomm_sandbox import postgres, s3
from ecomm_sandbox.dbt_cloud.ids import ACCOUNT_ID, JOB_ID
from ecomm_sandbox.sinks.inbox import Secrets

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ecomm_sandbox.state import State

__all__ = ["environment", "exports", "lineage", "secret", "values"]

_CHART: Final = "ecomm-data-pipeline"
_CREDENTIALS: Final = (
    "_USER",
    "_PASSWORD",
    "_TOKEN",
    "_TOKEN_NAME",
    "_TOKEN_VALUE",
    "_ACCESS_KEY_ID",
    "_SECRET_ACCESS_KEY",
)
_ZONE: Final = "ECOMM_BUSINESS_TIMEZONE"


def environment(state: State) -> dict[str, str]:
    """Give the variables of the services that were ever up; of one that is up on demand, those while it is."""
    ports, secrets = state.ports, state.secrets
    env = {"ECOMM_BUSINESS_TIMEZONE": state.values.get("timezone", databricks.DEFAULT_TIMEZONE)}
    # The proxy has the ports of Postgres and S3, whichever of them stands behind it; their secrets are their own.
    if f"postgres-{postgres.READER}" in secrets:
        reader = {"HOST": state.address, "PORT": str(ports["postgres"]), "DATABASE": postgres.DATABASE}
        reader |= {"USER": postgres.READER, "PASSWORD": secrets[f"postgres-{postgres.READER}"], "SSLMODE": "disable"}
        env |= {f"ECOMM_POSTGRES_{name}": value for name, value in reader.items()} | {"ECOMM_POSTGRES_SCHEMA": "public"}
        env |= {f"PG{name}": value for name, value in reader.items()}
        owner = f"{postgres.OWNER}:{secrets[f'postgres-{postgres.OWNER}']}"
        env["ECOMM_SANDBOX_OWNER_DSN"] = (
            f"postgresql://{owner}@{state.address}:{ports['postgres']}/{postgres.DATABASE}?sslmode=disable"
        )
    if "s3-access-key" in secrets:
        endpoint = f"http://{state.address}:{ports['s3']}"
        env |= {"ECOMM_STORE_BUCKET": s3.BUCKET, "ECOMM_STORE_PREFIX": "", "ECOMM_STORE_ENDPOINT": endpoint}
        env |= {"ECOMM_STORE_REGION": s3.REGION, "AWS_ENDPOINT_URL": endpoint, "AWS_REGION": s3.REGION}
        env |= {"AWS_DEFAULT_REGION": s3.REGION, "AWS_ACCESS_KEY_ID": secrets["s3-access-key"]}
        env |= {"AWS_SECRET_ACCESS_KEY": secrets["s3-secret-key"]}
    if "databricks" in ports:
        host, token = f"http://{state.address}:{ports['databricks']}", secrets["databricks-token"]
        ours = {"HOST": host, "TOKEN": token, "PIPELINE_ID": databricks.PIPELINE}
        ours |= {"WAREHOUSE_ID": databricks.WAREHOUSE, "CATALOG": databricks.CATALOG}
        env |= {f"ECOMM_DATABRICKS_{name}": value for name, value in ours.items()}
        env |= {"DATABRICKS_HOST": host, "DATABRICKS_TOKEN": token}
        env["DATABRICKS_HTTP_PATH"] = f"/sql/1.0/warehouses/{databricks.WAREHOUSE}"
    if "tableau" in ports:
        env |= {"ECOMM_TABLEAU_SERVER": f"http://{state.address}:{ports['tableau']}", "ECOMM_TABLEAU_SITE": ""}
        env |= {"ECOMM_TABLEAU_TOKEN_NAME": "sandbox", "ECOMM_TABLEAU_TOKEN_VALUE": secrets["tableau-token"]}
    if "dbt-cloud" in state.processes:  # only while it is up: with it, dbt runs there
        cloud = {"HOST": f"http://{state.address}:{ports['dbt-cloud']}", "TOKEN": secrets["dbt-cloud-token"]}
        cloud |= {"ACCOUNT_ID": str(ACCOUNT_ID), "JOB_ID": str(JOB_ID)}
        env |= {f"ECOMM_DBT_CLOUD_{name}": value for name, value in cloud.items()}
    return env


def lineage(state: State) -> dict[str, str]:
    """Give the client's own variables by which stages send their OpenLineage events to the sinks."""
    url = f"http://{state.address}:{state.ports['sinks']}"
    return {"OPENLINEAGE_URL": url, "OPENLINEAGE_API_KEY": Secrets.of(state).lineage_key}


def exports(env: Mapping[str, str]) -> str:
    """Write an environment as shell commands."""
    return "\n".join(f"export {name}={shlex.quote(value)}" for name, value in env.items())


def values(env: Mapping[str, str]) -> str:
    """Write the settings as values of the pipeline's chart, in JSON, which is YAML."""
    settings = {name: value for name, value in env.items() if value and _is_ours(name) and not _is_credential(name)}
    zone = settings.pop(_ZONE)
    return json.dumps({"timezone": zone, "secret": {"existingSecret": _CHART}, "settings": settings}, indent=1)


def secret(env: Mapping[str, str]) -> str:
    """Write the credentials as the Secret that the pipeline's chart asks for."""
    credentials = {name: value for name, value in env.items() if _is_ours(name) and _is_credential(name)}
    manifest: dict[str, Any] = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": _CHART}}
    return json.dumps(manifest | {"type": "Opaque", "stringData": credentials}, indent=1)


def _is_ours(name: str) -> bool:
    """Whether the stages read it; the other variables are for the services' own clients."""
    return name.startswith(("ECOMM_", "AWS_ACCESS", "AWS_SECRET")) and not name.startswith("ECOMM_SANDBOX_")


def _is_credential(name: str) -> bool:
    return name.endswith(_CREDENTIALS)
