"""One table's window, in one pass: Postgres → COPY → gzip → multipart upload; the manifest last.

Memory does not depend on the size: a 256 KiB buffer, and the upload's few parts. What dies half-way leaves no object:
an error ends the multipart upload, and one that a killed process left open is ended by the next try of the same run, or
by a later run of the same table and date.
"""

from __future__ import annotations

import hashlib
import io
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import psycopg2

from ecomm_pipeline.errors import CredentialsError, UnavailableError
from ecomm_pipeline.extractor import plan
from ecomm_pipeline.manifest import ExtractFile, Manifest, ManifestWindow
from ecomm_pipeline.postgres import connect, explain, interruptible
from ecomm_pipeline.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from obstore import WritableFile
    from psycopg2.extensions import connection as Connection  # noqa: N812 (it is a class)
    from psycopg2.extensions import cursor as Cursor  # noqa: N812 (it is a class)
    from typing_extensions import Buffer

    from ecomm_pipeline.dates import Window
    from ecomm_pipeline.ledger import Record
    from ecomm_pipeline.settings import ExtractorSettings
    from ecomm_pipeline.stage import StageContext

__all__ = ["extract"]

BUFFER: Final = 256 * 1024
"""Bytes of CSV that are collected before they are compressed: COPY gives one row at a time."""
SAMPLE: Final = 16
"""One block in so many is looked through for the estimate of rows; it takes 0.3 % of an extraction."""


def extract(context: StageContext, settings: ExtractorSettings) -> None:
    """Copy the window of `context.record.table`, for the one date of `context.dates`, to the store.

    Fills the record: `rows_in`, `rows_out`, `bytes` as stored; figures `uncompressed_bytes`, `manifest` (its key),
    `max_updated_at`, `seconds` and `mb_per_second` (10⁶ bytes of CSV); P3 findings where the table is not as the
    contract has it. When an earlier try of this run wrote the manifest, nothing is read again. Raises the `EcommError`
    that fits, and leaves no object then.
    """
    table, date, run_id = context.record.table or "", context.dates.only, context.run_id
    key = context.layout.manifest(table, date, run_id)
    content = context.store.get(key)
    if content is not None:
        _report(context.record, Manifest.from_json(content, key=key), key)
        _repeat(context.record, context.previous)
        return
    began = context.clock.monotonic()
    window = date.window(context.tz, timedelta(seconds=settings.extractor.lookback))
    manifest = interruptible(lambda opened: _extract(context, settings, table, window, opened), context.stop)
    context.store.put(key, manifest.to_json())
    _report(context.record, manifest, key)
    _report_speed(context.record, context.clock.monotonic() - began)


def _extract(
    context: StageContext, settings: ExtractorSettings, table: str, window: Window, opened: list[Connection]
) -> Manifest:
    with _transaction(context, settings, table, opened) as (cursor, source):
        return _copy_window(context, settings, cursor, source, window)


def _report(record: Record, manifest: Manifest, key: str) -> None:
    record.rows_in = record.rows_out = manifest.rows
    record.bytes = manifest.bytes
    record.figures["uncompressed_bytes"] = sum(file.uncompressed_bytes for file in manifest.files)
    record.figures["manifest"] = key
    record.figures["max_updated_at"] = manifest.max_updated_at and manifest.max_updated_at.isoformat()
    record.findings.extend(plan.manifest_findings(manifest))


def _repeat(record: Record, previous: Record | None) -> None:
    """Take over what the try that wrote the manifest knew and the manifest does not tell."""
    if previous is not None and previous.outcome == "succeeded":
        record.figures = previous.figures | record.figures
        record.findings = previous.findings
        record.versions["postgres"] = previous.versions.get("postgres", "unknown")


def _report_speed(record: Record, seconds: float) -> None:
    record.figures["seconds"] = round(seconds, 3)
    record.figures["mb_per_second"] = round(record.figures["uncompressed_bytes"] / 1e6 / max(seconds, 1e-3), 1)


# --- Postgres ---------------------------------------------------------------------------------------------------------


@contextmanager
def _transaction(
    context: StageContext, settings: ExtractorSettings, table: str, opened: list[Connection]
) -> Iterator[tuple[Cursor, plan.Source]]:
    """Open a read-only, repeatable-read transaction that holds the table's definition still; adds to `opened`.

    Upstream: https://www.psycopg.org/docs/connection.html#connection.set_session.
    """
    postgres, limits = settings.postgres, settings.extractor
    source = plan.Source(postgres.host, postgres.port, postgres.database, postgres.user, postgres.db_schema, table)
    opening = plan.opening_statements(
        source, statement_timeout=limits.statement_timeout, lock_timeout=limits.lock_timeout
    )
    connection = connect(postgres, source, plan.application_name(table, context.dates.only, context.run_id))
    opened.append(connection)
    try:
        context.stop.check()
        context.record.versions["postgres"] = connection.info.parameter_status("server_version") or "unknown"
        connection.set_session(isolation_level="REPEATABLE READ", readonly=True)
        with connection.cursor() as cursor:
            cursor.execute(opening)
            yield cursor, source
    except psycopg2.Error as error:
        raise explain(source, error.pgcode, error.diag.message_primary or str(error)) from error
    finally:
        connection.close()


def _copy_window(
    context: StageContext, settings: ExtractorSettings, cursor: Cursor, source: plan.Source, window: Window
) -> Manifest:
    snapshot, snapshot_at = _one(cursor, plan.SNAPSHOT_STATEMENT)
    catalog = _catalog(cursor, source)
    plan.check_columns(source, catalog.columns)
    context.record.findings.extend(plan.catalog_findings(source, catalog))
    (newest,) = _one(cursor, plan.newest_statement(source, window))
    files: tuple[ExtractFile, ...] = ()
    if newest is not None:
        _end_open_uploads(context, settings)
        statement = plan.copy_statement(source, catalog.columns, window)
        files = (_copy(context, cursor, statement, settings.extractor.compression),)
    return Manifest(
        table=source.table,
        date=str(context.dates.only),
        run_id=context.run_id,
        window=ManifestWindow(since=window.since, until=window.until),
        snapshot=snapshot,
        snapshot_at=snapshot_at,
        rows=sum(file.rows for file in files),
        bytes=sum(file.bytes for file in files),
        files=files,
        columns=catalog.columns,
        max_updated_at=newest,
    )


def _one(cursor: Cursor, statement: str) -> tuple[Any, ...]:
    cursor.execute(statement)
    row: tuple[Any, ...] = cursor.fetchone() or ()
    return row


def _catalog(cursor: Cursor, source: plan.Source) -> plan.Catalog:
    cursor.execute(plan.COLUMNS_STATEMENT, (source.schema, source.table))
    return plan.read_catalog(cursor.fetchall())


# --- the store --------------------------------------------------------------------------------------------------------


def _copy(context: StageContext, cursor: Cursor, statement: str, compression: str) -> ExtractFile:
    """Stream what `statement` copies into the next file of the run; the file appears when all of it is there."""
    table, date, run_id = context.record.table or "", context.dates.only, context.run_id
    folder = context.layout.extract(table, date, run_id)
    name = plan.next_part(context.store.keys(folder), compression)  # an earlier try may have left a file, which stays
    key = context.layout.part(table, date, run_id, name)
    with (
        Progress("extractor", context.clock) as progress,
        context.store.writer(key) as writer,
        _Sink(writer, compression, partial(_show, context, progress)) as sink,
    ):
        buffer = io.BufferedWriter(sink, BUFFER)
        cursor.copy_expert(statement, buffer)
        if cursor.rowcount < 0:
            message = f"Postgres did not confirm the end of the copy of {table}"
            raise UnavailableError(message, next_step="the same command may be run again")
        buffer.flush()
        sink.finish()
    return ExtractFile(
        name=name,
        rows=cursor.rowcount,
        bytes=sink.stored_bytes,
        uncompressed_bytes=sink.csv_bytes,
        sha256=sink.sha256.hexdigest(),
    )


def _show(context: StageContext, progress: Progress, rows: int, size: int) -> None:
    context.stop.check()
    progress(table=context.record.table, estimated_rows=rows, bytes=size)


def _end_open_uploads(context: StageContext, settings: ExtractorSettings) -> None:
    """End uploads that killed processes left open: earlier tries of this run, and runs that cannot be alive any more.

    It takes boto3, a quarter of a second and 25 MB, so it is left out where the date has no other try or run.
    """
    table, date = context.record.table or "", context.dates.only
    earliest = context.clock.now() - timedelta(seconds=settings.extractor.statement_timeout)
    try:
        if context.previous is not None:
            context.store.abort_uploads(context.layout.extract(table, date, context.run_id))
        if len(context.store.keys(context.layout.records(date, context.stage, table))) > 1:
            context.store.abort_uploads(context.layout.extracts(table, date), before=earliest)
    except CredentialsError as refused:
        context.record.find("P3", "upload_left_open", refused.message)


class _Sink(io.RawIOBase):
    """Compresses, measures and uploads what is written to it; `finish` writes the end of the compressed stream.

    Closing it without `finish` drops what is still buffered above it, as is wanted after an error. `progress` is called
    with rows and bytes; the rows are estimated from the lines of every `SAMPLE`th block: to count each row as it comes
    would take a quarter more time.
    """

    def __init__(self, writer: WritableFile, compression: str, progress: Callable[[int, int], None]) -> None:
        super().__init__()
        self._writer = writer
        self._compressor = _gzip() if compression == "gzip" else None
        self._progress = progress
        self._blocks = 0
        self._sampled_bytes = 0
        self._sampled_lines = 0
        self.csv_bytes = 0
        self.stored_bytes = 0
        self.sha256 = hashlib.sha256()

    def writable(self) -> bool:
        return True

    def write(self, block: Buffer, /) -> int:
        size = memoryview(block).nbytes
        if self._blocks % SAMPLE == 0:
            self._sampled_bytes += size
            self._sampled_lines += bytes(block).count(b"\n")
        self._blocks += 1
        self.csv_bytes += size
        self._store(self._compressor.compress(block) if self._compressor else bytes(block))
        self._progress(self._sampled_lines * self.csv_bytes // max(self._sampled_bytes, 1), self.csv_bytes)
        return size

    def finish(self) -> None:
        if self._compressor:
            self._store(self._compressor.flush())

    def _store(self, data: bytes) -> None:
        if data:
            self.stored_bytes += len(data)
            self.sha256.update(data)
            self._writer.write(data)


def _gzip() -> Any:  # noqa: ANN401 (isal's compressor has no public type)
    """Make a gzip compressor: level 1 of isal, 1.3 GB/s; its header has no time, so equal rows are equal bytes."""
    from isal import isal_zlib

    gzip_container = 31
    return isal_zlib.compressobj(1, wbits=gzip_container)
