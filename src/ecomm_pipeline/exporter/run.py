"""`ecomm exporter`: look at the ledger again and again, and answer Prometheus from what was seen.

One listing tells what changed; only that is read. A year of nights is three thousand objects: three requests to list,
and none to read while nothing happens.
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any, Final

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from pydantic import ValidationError

from ecomm_pipeline.dates import BusinessDate, zone
from ecomm_pipeline.errors import CancelledError, ConfigurationError, EcommError
from ecomm_pipeline.exporter.metrics import METRICS
from ecomm_pipeline.exporter.plan import HISTORY_DAYS, Calendar, Sample, samples
from ecomm_pipeline.ledger import Record
from ecomm_pipeline.logs import get_logger
from ecomm_pipeline.stage import Stop, stop_on_signals

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from datetime import datetime

    from ecomm_pipeline.clock import Clock
    from ecomm_pipeline.layout import Layout
    from ecomm_pipeline.settings import ExporterSettings
    from ecomm_pipeline.store import Listed, Store

__all__ = ["LedgerCollector", "LedgerView", "serve"]

_PARALLEL: Final = 16


def serve(settings: ExporterSettings, store: Store, layout: Layout, clock: Clock, *, address: str, port: int) -> None:
    """Serve metrics until we are told to stop; while the ledger cannot be read, what was last seen of it.

    Raises `ConfigurationError` when the port cannot be had.
    """
    view = LedgerView(store, layout, settings, clock)
    registry = CollectorRegistry()
    registry.register(LedgerCollector(view))
    try:
        server, thread = start_http_server(port, address, registry)
    except OSError as error:
        message = f"cannot listen on {address}:{port}: {error.strerror or error}"
        raise ConfigurationError(message, next_step="give another --port or --address") from error
    get_logger().info("exporter.listening", address=address, port=server.server_port)
    stop = Stop()
    try:
        with stop_on_signals(stop):
            while True:
                view.look()
                stop.check()  # a look that is broken off takes the signal for a ledger that cannot be read
                clock.sleep(settings.exporter.refresh_interval)
    except CancelledError:
        get_logger().info("exporter.stopped")
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class LedgerView:
    """What was last seen of the ledger: the records of the dates that metrics tell of, and what others need them for.

    Records of older dates are held too when they are new, since a backfill writes those.
    """

    def __init__(self, store: Store, layout: Layout, settings: ExporterSettings, clock: Clock) -> None:
        self._store = store
        self._layout = layout
        self._settings = settings
        self._clock = clock
        self._tz = zone(settings.business.business_timezone)
        self._held: dict[tuple[str, str], Record | None] = {}
        self._records: list[Record] = []
        self._own: list[Sample] = []
        self._reads = 0

    def look(self) -> bool:
        """Read what changed; give whether the ledger could be read."""
        began = self._clock.monotonic()
        try:
            self._refresh()
        except EcommError as error:
            get_logger().warning("exporter.ledger_unreadable", reason=error.message)
            return False
        self._own = [
            Sample("exporter_refreshed_timestamp_seconds", (), self._clock.now().timestamp()),
            Sample("exporter_refresh_seconds", (), self._clock.monotonic() - began),
            Sample("exporter_objects", (), len(self._held)),
            Sample("exporter_objects_read", (), self._reads),
        ]
        return True

    def samples(self) -> list[Sample]:
        """What there is to tell at this instant."""
        calendar = Calendar(self._tz, self._clock.now(), self._settings.nightly, self._settings.exporter)
        told = samples(self._records, calendar, self._settings.business.tables)
        return [*told, *self._own]

    def _refresh(self) -> None:
        listed = [one for one in self._store.listing(self._layout.ledgers) if one.key.endswith(".json")]
        dated = [(day, name, one) for one in listed for day, name in self._place(one.key)]
        now = self._clock.now()
        days = self._settings.exporter.days
        oldest = BusinessDate.of(now, self._tz).plus(-days - HISTORY_DAYS)
        recent = now - timedelta(days=days)
        # A run of many dates wrote the same under each: what has the same name and version is the same.
        wanted = {(name, one.version): one for day, name, one in dated if _wanted(day, one, oldest, recent)}
        new = [identity for identity in wanted if identity not in self._held]
        read = self._read([wanted[identity].key for identity in new])
        held = {identity: self._held[identity] for identity in wanted if identity in self._held}
        self._held = {**held, **dict(zip(new, read, strict=True))}
        # While a run of many dates is written, some dates have its newer version already.
        oldest_first = sorted(wanted, key=lambda identity: wanted[identity].modified)
        records = [record for identity in oldest_first if (record := self._held[identity]) is not None]
        self._records = list({(r.stage, r.part, r.run_id, r.first_date, r.last_date): r for r in records}.values())

    def _place(self, key: str) -> Iterator[tuple[BusinessDate, str]]:
        """The date of a record's key, and the rest of it."""
        folder, _, name = key.removeprefix(f"{self._layout.ledgers}/").partition("/")
        try:
            yield BusinessDate(date.fromisoformat(folder.removeprefix("date="))), name
        except ValueError:
            return

    def _read(self, keys: list[str]) -> list[Record | None]:
        """Read records, and beside its key the sheet that a reconciler's names; None for what is not a record."""
        with ThreadPoolExecutor(_PARALLEL) as pool:
            return list(pool.map(self._read_one, keys))

    def _read_one(self, key: str) -> Record | None:
        content = self._get(key)
        try:
            record = Record.model_validate_json(content or b"")
        except ValidationError as error:
            get_logger().warning("exporter.not_a_record", key=key, reason=error.errors()[0]["msg"])
            return None
        sheet = record.figures.get("sheet_key")
        if sheet and record.ended_at:
            record.figures["sheet"] = json.loads(self._get(sheet) or b"[]")
        return record

    def _get(self, key: str) -> bytes | None:
        self._reads += 1
        return self._store.get(key)


def _wanted(day: BusinessDate, one: Listed, oldest: BusinessDate, recent: datetime) -> bool:
    return day >= oldest or one.modified >= recent


class LedgerCollector(Collector):
    """Makes Prometheus' metrics of samples.

    Upstream: https://prometheus.github.io/client_python/collector/custom/
    """

    def __init__(self, view: LedgerView) -> None:
        self._tell: Callable[[], Iterable[Sample]] = view.samples

    def describe(self) -> Iterable[Any]:
        """Give nothing, so that registering does not collect."""
        return []

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Give every metric, with the samples that it has now."""
        families = {
            metric.name: GaugeMetricFamily(metric.full_name, metric.meaning, labels=metric.labels)
            for metric in METRICS.values()
        }
        for sample in self._tell():
            families[sample.metric].add_metric(sample.labels, sample.value)
        return families.values()
