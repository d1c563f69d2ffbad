"""The extracts on S3: their manifests, and what their files hold when they are read back."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import TYPE_CHECKING, Final

from ecomm_pipeline.contract import CONTRACT
from ecomm_pipeline.dates import BusinessDate
from ecomm_pipeline.layout import MANIFEST_NAME
from ecomm_pipeline.manifest import Manifest
from ecomm_pipeline.progress import Progress
from ecomm_pipeline.reconciler import files, sql
from ecomm_pipeline.reconciler.amounts import Amount

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ecomm_pipeline.stage import StageContext, Stop

__all__ = ["Count", "Place", "chunks_of", "count_files", "manifest_keys", "part_key", "read_manifests"]

_PARALLEL_FILES: Final = 4
_PARALLEL_LISTINGS: Final = 16

Place = tuple[str, str]
"""A table and a business date."""


def read_manifests(context: StageContext, tables: Iterable[str]) -> dict[Place, list[Manifest]]:
    """Read the manifests of all runs, by table and date."""
    places = [(table, date) for date in context.dates for table in tables]
    with ThreadPoolExecutor(_PARALLEL_LISTINGS) as pool:
        listed = list(pool.map(lambda place: manifest_keys(context, *place), places))
    keys = [key for found in listed for key in found]
    contents = dict(zip(keys, context.store.get_all(keys), strict=True))
    read = {key: Manifest.from_json(content, key=key) for key, content in contents.items() if content is not None}
    return {
        (table, str(date)): [read[key] for key in found if key in read]
        for (table, date), found in zip(places, listed, strict=True)
    }


def manifest_keys(context: StageContext, table: str, date: BusinessDate) -> list[str]:
    """List the manifests of a table and date, of all runs."""
    folder = context.layout.extracts(table, date)
    return [key for key in context.store.keys(folder) if key.endswith(f"/{MANIFEST_NAME}")]


@dataclass(slots=True)
class Count:
    """What the files of one extract hold, and what is wrong with them."""

    amount: Amount
    checksum: int | None
    damaged: tuple[str, ...] = ()


def count_files(context: StageContext, extracts: dict[Place, Manifest], stop: Stop) -> dict[Place, Count]:
    """Read every file of every extract back, and count it."""
    done = rows = 0
    counts = {}
    with Progress("reconciler", context.clock) as progress, ThreadPoolExecutor(_PARALLEL_FILES) as pool:
        for place, count in zip(
            extracts, pool.map(lambda manifest: _count_extract(context, manifest, stop), extracts.values()), strict=True
        ):
            counts[place] = count
            done, rows = done + 1, rows + count.amount.rows
            progress(extracts=f"{done}/{len(extracts)}", rows=rows)
    return counts


def _count_extract(context: StageContext, manifest: Manifest, stop: Stop) -> Count:
    table = CONTRACT.get(manifest.table)
    money = sql.factors(table) if table else ()
    of_key = table.key if table else ()
    amount, checksum = Amount(0, Decimal(0) if money else None), 0 if table else None
    damaged = []
    for file in manifest.files:
        key = part_key(context, manifest, file.name)
        chunks = chunks_of(context, key, stop)
        found = files.count(chunks, compressed=file.name.endswith(".gz"), key=of_key, money=money)
        amount += found.amount
        checksum = None if checksum is None or found.checksum is None else checksum + found.checksum
        if found.sha256 != file.sha256:
            damaged.append(
                f"{key} is not what was written: its SHA-256 is {found.sha256}, the manifest's {file.sha256}"
            )
        elif found.broken:
            damaged.append(f"{key} cannot be read: {found.broken}")
    return Count(amount, checksum, tuple(damaged))


def chunks_of(context: StageContext, key: str, stop: Stop) -> Iterator[bytes]:
    """Read an object in pieces, until `stop` says so."""
    for chunk in context.store.chunks(key):
        stop.check()
        yield chunk


def part_key(context: StageContext, manifest: Manifest, name: str) -> str:
    """Give the key of a file that a manifest lists."""
    return context.layout.part(manifest.table, BusinessDate(date.fromisoformat(manifest.date)), manifest.run_id, name)
