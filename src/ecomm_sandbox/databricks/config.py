"""What the process is started with: flags, or the same names in one JSON file."""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ecomm_sandbox.databricks.errors import SandboxError

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Config:
    """The sandbox's settings; paths are absolute."""

    home: Path
    port: int
    token: str
    bind: str = "127.0.0.1"
    catalog: str = "ecomm"
    warehouse_id: str = "sandbox"
    ivy: Path | None = None
    memory: str = "900m"
    landing_endpoint: str | None = None
    landing_region: str = "us-east-1"
    landing_access_key: str | None = None
    landing_secret_key: str | None = None
    pipelines: list[dict[str, Any]] = field(default_factory=list)
    spark: dict[str, str] = field(default_factory=dict)  # Spark settings, over those of spark.SETTINGS


def parse(arguments: Sequence[str]) -> Config:
    """Settings from the command line, over those of `--config`; a `SandboxError` names what is missing or wrong."""
    parser = argparse.ArgumentParser(prog="python -m ecomm_sandbox.databricks")
    parser.add_argument("--config", type=Path, help="a JSON file with any of the settings below and pipelines")
    parser.add_argument("--home", type=Path, help="folder for tables, checkpoints and logs")
    parser.add_argument("--port", type=int, help="port to listen on")
    parser.add_argument("--bind", help="address to listen on (127.0.0.1)")
    parser.add_argument("--token", help="the access token that clients must send")
    parser.add_argument("--catalog", help="the catalog's name (ecomm)")
    parser.add_argument("--warehouse-id", help="the SQL warehouse's id (sandbox)")
    parser.add_argument("--ivy", type=Path, help="folder of resolved jars (HOME/ivy); share it between sandboxes")
    parser.add_argument("--memory", help="the JVM's heap (900m)")
    parser.add_argument("--landing-endpoint", help="S3 endpoint that Auto Loader reads s3:// paths from")
    parser.add_argument("--landing-region", help="S3 region (us-east-1)")
    parser.add_argument("--landing-access-key", help="S3 access key; without one, boto3's credential chain")
    parser.add_argument("--landing-secret-key", help="S3 secret key")
    given = {name: value for name, value in vars(parser.parse_args(arguments)).items() if value is not None}
    file = given.pop("config", None)
    return _config({**_read(file), **given} if file else given)


def _read(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        message = f"cannot read the settings in {file}: {error}"
        raise SandboxError(message) from error
    return dict(content)


def _config(values: dict[str, Any]) -> Config:
    known = {item.name for item in fields(Config)}
    unknown, missing = sorted(set(values) - known), sorted({"home", "port", "token"} - set(values))
    if unknown or missing:
        problems = [f"unknown setting {name}" for name in unknown] + [f"missing setting {name}" for name in missing]
        raise SandboxError("; ".join(problems))
    for name in ("home", "ivy"):
        if values.get(name) is not None:
            values[name] = Path(values[name]).absolute()
    return Config(**values)
