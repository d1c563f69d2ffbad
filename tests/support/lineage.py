"""What is wrong with an OpenLineage event: by the sink, and by the client's classes, which follow the specification."""

from __future__ import annotations

import importlib
import pkgutil
import types
import typing
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any
from zoneinfo import ZoneInfo

import attr
from openlineage.client import generated
from openlineage.client.event_v2 import RunEvent
from openlineage.client.facet_v2 import BaseFacet
from pydantic import SecretStr

from ecomm_pipeline.lineage.places import Places
from ecomm_pipeline.lineage.plan import Where
from ecomm_pipeline.manifest import Column, ExtractFile, Manifest, ManifestWindow
from ecomm_pipeline.settings import Business, Databricks, Postgres, Reconciler, Store, Tableau
from ecomm_sandbox.sinks.openlineage import problems

READ_AT = datetime(2026, 1, 2, 18, tzinfo=UTC)

GROUPS = (
    Reconciler(check_source=True),
    Business(tables=("orders", "customers")),
    Postgres(
        host="db", port=6432, database="shop", user="reader", password=SecretStr("hush"), ECOMM_POSTGRES_SCHEMA="sales"
    ),
    Store(bucket="lake", prefix="night"),
    Databricks(host="https://dbc-1.cloud.databricks.com", token=SecretStr("hush"), warehouse_id="w", catalog="ecomm"),
    Tableau(server="https://tableau.example.com:8443", site="finance", token_name="t", token_value=SecretStr("hush")),
)
WHERE = Where("prod", Places({type(group): group for group in GROUPS}), ZoneInfo("Asia/Ho_Chi_Minh"))
MANIFEST = Manifest(
    table="orders",
    date="2026-01-02",
    run_id="20260102T180000Z-1f3a",
    window=ManifestWindow(since=READ_AT - timedelta(days=1), until=READ_AT),
    snapshot="1:1:",
    snapshot_at=READ_AT,
    rows=12,
    bytes=345,
    files=(ExtractFile(name="part-00000.csv.gz", rows=12, bytes=345, uncompressed_bytes=999, sha256="ab"),),
    columns=(Column(name="order_id", type="text"), Column(name="updated_at", type="timestamp with time zone")),
    max_updated_at=READ_AT,
)  # fmt: skip

MODULES = [
    importlib.import_module(f"{generated.__name__}.{one.name}") for one in pkgutil.iter_modules(generated.__path__)
]
FACETS = {
    kind._get_schema(): kind
    for module in MODULES
    for kind in vars(module).values()
    if isinstance(kind, type) and issubclass(kind, BaseFacet)
}
"""The client's classes of facets, by the schema that each is of."""


def problems_of(event: dict[str, Any]) -> list[str]:
    """Tell what is wrong with an event as it is sent."""
    return [*problems(event), *_differences(RunEvent, event, "event")]


def _differences(kind: Any, value: Any, at: str) -> list[str]:
    """Tell how a JSON value differs from what a type of the client would be written as."""
    origin = typing.get_origin(kind)
    if origin in (typing.Union, types.UnionType):
        return min((_differences(one, value, at) for one in typing.get_args(kind)), key=len)
    if origin is list:
        (of,) = typing.get_args(kind)
        return [one for place, item in enumerate(value) for one in _differences(of, item, f"{at}[{place}]")]
    if origin is dict:
        (_, of) = typing.get_args(kind)
        return [one for name, item in value.items() for one in _differences(of, item, f"{at}.{name}")]
    if attr.has(kind):
        return _of_class(kind, value, at)
    return _of_value(kind, value, at)


def _of_value(kind: Any, value: Any, at: str) -> list[str]:
    if kind is Any:
        return []
    wanted = str if isinstance(kind, type) and issubclass(kind, Enum) else kind
    return [] if type(value) is wanted else [f"{at} is {value!r}, not a {getattr(wanted, '__name__', wanted)}"]


def _of_class(kind: type, value: Any, at: str) -> list[str]:
    if not isinstance(value, dict):
        return [f"{at} is {value!r}, not a {kind.__name__}"]
    if issubclass(kind, BaseFacet):
        found = FACETS.get(value.get("_schemaURL", ""))
        if found is None or not issubclass(found, kind):
            return [f"{at} is no {kind.__name__}: its schema is {value.get('_schemaURL')}"]
        kind = found
    fields = {field.name: field for field in attr.fields(kind)}
    hints = typing.get_type_hints(kind)
    found = [f"{at} has {name}, which a {kind.__name__} has not" for name in value if name not in fields]
    for name, field in fields.items():
        if name not in value:
            found += [f"{at} lacks {name}"] if field.default is attr.NOTHING else []
            continue
        found += _differences(hints[name], value[name], f"{at}.{name}")
    return found
