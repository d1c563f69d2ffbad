"""Why Postgres' window differs from the extract: rows that came late, moved on, or were deleted, compared by key."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from ecomm_pipeline.contract import CONTRACT
from ecomm_pipeline.reconciler import files, sql
from ecomm_pipeline.reconciler.amounts import Amount
from ecomm_pipeline.reconciler.extracts import chunks_of, manifest_keys, part_key
from ecomm_pipeline.reconciler.keys import Changes, bucket_groups, compare_keys, cover

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from ecomm_pipeline.databricks import Warehouse
    from ecomm_pipeline.dates import BusinessDate
    from ecomm_pipeline.manifest import Manifest
    from ecomm_pipeline.reconciler.extracts import Place
    from ecomm_pipeline.reconciler.keys import Key, KeyDifferences, Version
    from ecomm_pipeline.reconciler.plan import Day
    from ecomm_pipeline.reconciler.source import Source
    from ecomm_pipeline.settings import ReconcilerSettings
    from ecomm_pipeline.stage import StageContext, Stop

__all__ = ["explain"]


def explain(
    context: StageContext,
    settings: ReconcilerSettings,
    source: Source,
    warehouse: Warehouse,
    days: Sequence[Day],
    manifests: dict[Place, list[Manifest]],
    stop: Stop,
) -> list[Day]:
    """Compare, by key, the windows that differ from their extract, and say what became of the rows."""
    differing = [day for day in days if day.in_lakehouse and not day.damaged and day.has_keys and day.moved_on]
    found = [(day, _compare(context, source, day.manifest, stop)) for day in differing if day.manifest is not None]
    loaded = _loaded(warehouse, [(day.table, changes) for day, changes in found])
    explained: dict[int, Day] = {}
    for day, changes in found:
        manifest = day.manifest
        if manifest is None:
            continue
        late = cover(
            changes.late,
            loaded=loaded.get(day.table, frozenset()),
            until=manifest.window.until,
            lookback=timedelta(seconds=settings.extractor.lookback),
            next_extracted=_is_extracted(context, day.table, day.date.plus(1), manifests),
        )
        explained[id(day)] = replace(day, changes=replace(changes, late=tuple(late)))
    return [explained.get(id(day), day) for day in days]


def _compare(context: StageContext, source: Source, manifest: Manifest, stop: Stop) -> Changes:
    """Compare a window with its extract, bucket by bucket: what is held are some of the versions that differ."""

    def extracted(wanted: Collection[int] | None = None) -> Iterator[tuple[Key, Version]]:
        contract = CONTRACT[manifest.table]
        for file in manifest.files:
            chunks = chunks_of(context, part_key(context, manifest, file.name), stop)
            yield from files.versions(
                chunks,
                compressed=file.name.endswith(".gz"),
                key=contract.key,
                money=sql.factors(contract),
                wanted=wanted,
            )

    changes = Changes()
    for group in bucket_groups(source.buckets(manifest), files.buckets(extracted())):
        keys = compare_keys(source.versions(manifest, group), dict(extracted(group)))
        changes += _changes(source, manifest.table, keys)
    return changes


def _changes(source: Source, table: str, keys: KeyDifferences) -> Changes:
    existing = source.existing(table, keys.gone) if keys.gone else set()
    nothing = Amount()

    def together(alive: bool) -> Amount:  # noqa: FBT001 (a nested function)
        return sum((Amount(1, v.money) for key, v in keys.gone.items() if (key in existing) is alive), nothing)

    moved, deleted = together(True), together(False)  # noqa: FBT003
    return Changes(late=tuple(keys.late), moved=moved, deleted=deleted, altered=keys.altered)


def _loaded(warehouse: Warehouse, found: Sequence[tuple[str, Changes]]) -> dict[str, frozenset[tuple[Key, str]]]:
    """Ask Bronze which of the late versions it holds from any extract."""
    late = {
        sql.SEPARATOR.join((table, *map(str, row.key), row.updated_at)): (table, (row.key, row.updated_at))
        for table, changes in found
        for row in changes.late
    }
    if not late:
        return {}
    tables = list(dict.fromkeys(table for table, changes in found if changes.late))
    loaded: dict[str, set[tuple[Key, str]]] = {}
    for (version,) in warehouse.query(sql.late_in_bronze(tables, late)).rows:
        table, held = late[version or ""]
        loaded.setdefault(table, set()).add(held)
    return {table: frozenset(versions) for table, versions in loaded.items()}


def _is_extracted(
    context: StageContext, table: str, date: BusinessDate, manifests: dict[Place, list[Manifest]]
) -> bool:
    known = manifests.get((table, str(date)))
    return bool(manifest_keys(context, table, date) if known is None else known)
