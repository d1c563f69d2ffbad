"""The example event of docs/lineage.md, as `lineage/plan.py` makes it of a record; render_docs.py writes it."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from openlineage.client.serde import Serde
from pydantic import SecretStr

from ecomm_pipeline.contract import CONTRACT
from ecomm_pipeline.ledger import Record
from ecomm_pipeline.lineage.places import Places
from ecomm_pipeline.lineage.plan import Where, event
from ecomm_pipeline.lineage.run import NAMESPACE
from ecomm_pipeline.manifest import Column, ExtractFile, Manifest, ManifestWindow
from ecomm_pipeline.settings import Business, Postgres, Store

__all__ = ["page"]

PAGE = Path(__file__).parent.parent / "docs/lineage.md"
BEGIN, END = "<!-- Made by tools/render_docs.py; run `make render`. -->\n", "<!-- end -->\n"
_WIDTH = 120


def page() -> str:
    """Give the page with the example as the code makes it now."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    return f"{before}{BEGIN}\n```json\n{_json(_example())}\n```\n\n{END}{after}"


def _example() -> dict[str, Any]:
    """Give the end of an extraction of `orders`."""
    tz, day = ZoneInfo("Asia/Ho_Chi_Minh"), date(2026, 1, 2)
    began = datetime(2026, 1, 2, 18, 0, 12, tzinfo=UTC)
    groups = (
        Business(tables=("orders",)),
        Store(bucket="example-ecomm", prefix=""),
        Postgres(
            host="orders.db.example.com",
            port=5432,
            database="shop",
            user="extractor",
            password=SecretStr(""),
            ECOMM_POSTGRES_SCHEMA="public",
        ),
    )
    record = Record(
        stage="extractor",
        table="orders",
        first_date=day,
        last_date=day,
        run_id="20260102T180000Z-1f3a",
        trigger="cron",
        started_at=began,
        tried_at=began,
        ended_at=began + timedelta(seconds=9),
        outcome="succeeded",
        rows_in=10412,
        rows_out=10412,
        bytes=310224,
        versions={"ecomm": "0.1.0"},
    )
    manifest = Manifest(
        table="orders",
        date=str(day),
        run_id=record.run_id,
        window=ManifestWindow(since=began - timedelta(days=1), until=began),
        snapshot="",
        snapshot_at=began,
        rows=10412,
        bytes=310224,
        files=(ExtractFile(name="part-00000.csv.gz", rows=10412, bytes=310224, uncompressed_bytes=0, sha256=""),),
        columns=tuple(Column(name=name, type=kind) for name, kind in CONTRACT["orders"].columns.items()),
        max_updated_at=None,
    )
    where = Where(NAMESPACE, Places({type(group): group for group in groups}), tz)
    return Serde.to_dict(event(record, where, manifest))


def _json(value: object, indent: str = "") -> str:
    """Write JSON with what fits a line in one."""
    line = json.dumps(value)
    if len(indent + line) <= _WIDTH - len(indent) or not isinstance(value, dict | list):
        return line
    inner = indent + "  "
    if isinstance(value, dict):
        parts = [f"{inner}{json.dumps(key)}: {_json(item, inner)}" for key, item in value.items()]
    else:
        parts = [f"{inner}{_json(item, inner)}" for item in value]
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    return f"{opening}\n" + ",\n".join(parts) + f"\n{indent}{closing}"
