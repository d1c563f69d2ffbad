"""`ecomm exporter`: look at the ledger again and again, and answer Prometheus from what was seen.

One listing tells what changed; only that is read. The dates that metrics tell of, and those that say what is usual for
them, are listed at every look, all older ones now and then: a look costs the same whatever the ledger's age
(docs/metrics.md has the figures).
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor, wait
from datetime import date, timedelta
from threading import Thread
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from ecomm_pipeline.dates import BusinessDate, zone
from ecomm_pipeline.errors import CancelledError, ConfigurationError, EcommError
from ecomm_pipeline.exporter.metrics import METRICS
from ecomm_pipeline.exporter.plan import Calendar, Sample, samples
from ecomm_pipeline.ledger import Record
from ecomm_pipeline.logs import get_logger
from ecomm_pipeline.stage import stop_on_signals
from ecomm_pipeline.usual import HISTORY_DAYS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from ecomm_pipeline.clock import Clock
    from ecomm_pipeline.layout import Layout
    from ecomm_pipeline.settings import ExporterSettings
    from ecomm_pipeline.store import Listed, Store

__all__ = ["LedgerCollector", "LedgerView", "serve"]

_PARALLEL: Final = 16
_LOOKS: Final = 20
"""Looks from one at all dates to the next: ten minutes, by default."""
_BUSY: Final = timedelta(minutes=15)
"""How long after a write to an older date more are waited for."""


class _Row(BaseModel):
    """A row of a reconciler's sheet: how many rows a table has at a hop for a date, and what else the hop tells."""

    model_config = ConfigDict(extra="allow")

    table: str
    date: str
    hop: str


_SHEET: Final = TypeAdapter(list[_Row])


class _Place(NamedTuple):
    """A record in the ledger: under which date, and the rest of its key."""

    day: BusinessDate
    name: str
    listed: Listed


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
    looking: Future[None] = Future()
    interval = settings.exporter.refresh_interval
    # A thread of its own, since a store that hangs is waited for outside of Python, where no signal's handler runs.
    Thread(target=_keep_looking, args=(view, clock, interval, looking), name="ledger", daemon=True).start()
    try:
        with stop_on_signals():
            while not looking.done():
                wait([looking], 1)
        looking.result()
    except CancelledError:
        get_logger().info("exporter.stopped")
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _keep_looking(view: LedgerView, clock: Clock, interval: float, looking: Future[None]) -> None:
    """Look for ever; what goes wrong in a way that nobody foresaw is the future's, and ends the exporter."""
    try:
        while True:
            view.look()
            clock.sleep(interval)
    except BaseException as error:  # noqa: BLE001 (it is raised in the main thread)
        looking.set_exception(error)


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
        self._older: list[_Place] = []
        self._looks_until_all = 0
        self._own: list[Sample] = []
        self._reads = 0
        self._failures = 0

    def look(self) -> bool:
        """Read what changed; give whether the ledger could be read."""
        began = self._clock.monotonic()
        try:
            self._refresh()
        except EcommError as error:
            self._failures += 1
            get_logger().warning("exporter.ledger_unreadable", reason=error.message, next_step=error.next_step)
            return False
        self._own = [
            Sample("exporter_refreshed_timestamp_seconds", (), self._clock.now().timestamp()),
            Sample("exporter_refresh_seconds", (), self._clock.monotonic() - began),
            Sample("exporter_objects", (), len(self._held)),
            Sample("exporter_objects_unreadable", (), sum(_unreadable(record) for record in self._held.values())),
        ]
        return True

    def samples(self) -> list[Sample]:
        """What there is to tell at this instant."""
        calendar = Calendar(self._tz, self._clock.now(), self._settings.nightly, self._settings.exporter)
        told = samples(self._records, calendar, self._settings.business.tables)
        counted = [
            Sample("exporter_objects_read", (), self._reads),
            Sample("exporter_refreshes_failed", (), self._failures),
        ]
        return [*told, *self._own, *counted]

    def _refresh(self) -> None:
        # A run of many dates wrote the same under each: what has the same name and version is the same.
        wanted = {(place.name, place.listed.version): place.listed for place in self._places()}
        new = [identity for identity in wanted if identity not in self._held]
        read = self._read([wanted[identity].key for identity in new])
        held = {identity: self._held[identity] for identity in wanted if identity in self._held}
        self._held = {**held, **dict(zip(new, read, strict=True))}
        # While a run of many dates is written, some dates have its newer version already.
        oldest_first = sorted(wanted, key=lambda identity: wanted[identity].modified)
        records = [record for identity in oldest_first if (record := self._held[identity]) is not None]
        self._records = list({(r.stage, r.part, r.run_id, r.first_date, r.last_date): r for r in records}.values())

    def _places(self) -> list[_Place]:
        """What is wanted: the newest dates as they are, and what is new under older ones as of the last look at all.

        While something is being written under those, as a backfill does, every look is at all.
        """
        now, days = self._clock.now(), self._settings.exporter.days
        oldest = BusinessDate.of(now, self._tz).plus(-days - HISTORY_DAYS)
        every = self._looks_until_all <= 0
        listed = self._store.listing(self._layout.ledgers, after="" if every else self._layout.ledger(oldest))
        places = [place for one in listed for place in self._place(one)]
        if every:
            recent = now - timedelta(days=days)
            self._older = [place for place in places if place.day < oldest and place.listed.modified >= recent]
            busy = any(place.listed.modified >= now - _BUSY for place in self._older)
            self._looks_until_all = 0 if busy else _LOOKS
        self._looks_until_all -= 1
        return [*self._older, *(place for place in places if place.day >= oldest)]

    def _place(self, one: Listed) -> Iterator[_Place]:
        """The date of a record, and the rest of its key."""
        folder, _, name = one.key.removeprefix(f"{self._layout.ledgers}/").partition("/")
        if not name.endswith(".json"):
            return
        try:
            yield _Place(BusinessDate(date.fromisoformat(folder.removeprefix("date="))), name, one)
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
            _warn(key, error)
            return None
        sheet = record.figures.get("sheet_key")
        if sheet and record.ended_at:
            record.figures["sheet"] = self._sheet(sheet)
        return record

    def _sheet(self, key: str) -> list[dict[str, Any]] | None:
        """The rows of a reconciler's sheet; of one that is gone there are none, and None is one that cannot be read."""
        try:
            return [row.model_dump() for row in _SHEET.validate_json(self._get(key) or b"[]")]
        except ValidationError as error:
            _warn(key, error)
            return None

    def _get(self, key: str) -> bytes | None:
        self._reads += 1
        return self._store.get(key)


def _warn(key: str, error: ValidationError) -> None:
    get_logger().warning("exporter.not_a_record", key=key, reason=error.errors()[0]["msg"])


def _unreadable(record: Record | None) -> bool:
    return record is None or ("sheet" in record.figures and record.figures["sheet"] is None)


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
