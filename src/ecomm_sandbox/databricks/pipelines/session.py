"""The `spark` that a pipeline's source sees: reads of the pipeline's own datasets wait for them, `cloudFiles` works.

A source also reaches the session by `SparkSession.getActiveSession()` or `SparkSession.builder.getOrCreate()`; in a
thread that evaluates a pipeline both give this session.
"""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Any, Protocol

from pyspark.sql import SparkSession
from pyspark.sql.readwriter import DataFrameReader
from pyspark.sql.streaming.readwriter import DataStreamReader

from ecomm_sandbox.databricks import sqltext

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyspark.sql import DataFrame
    from pyspark.sql.types import StructType


class Reads(Protocol):
    """What the session asks the runtime for."""

    def dataset(self, name: str, *, stream: bool) -> DataFrame | None:
        """A view of the pipeline; None for a table, which Spark reads. Does not return while it is not ready."""

    def files(self, path: str, schema: StructType | None, options: dict[str, str]) -> DataFrame:
        """A stream of the new files under `path`."""

    def mentioned(self, sql: str) -> None:
        """A query names these tables and views; does not return while one is not ready."""


class PipelineSession(SparkSession):  # type: ignore[misc] # pyspark is untyped
    """A Spark session whose reads go through the runtime."""

    def __init__(self, base: SparkSession, reads: Reads) -> None:
        """Share `base`'s JVM session."""
        super().__init__(base.sparkContext, base._jsparkSession)  # noqa: SLF001 - how pyspark makes one
        self._reads = reads

    @property
    def read(self) -> DataFrameReader:
        """A batch reader."""
        return _BatchReader(self, self._reads)

    @property
    def readStream(self) -> DataStreamReader:  # noqa: N802 - pyspark's name
        """A stream reader."""
        return _StreamReader(self, self._reads)

    def table(self, tableName: str) -> DataFrame:  # noqa: N803 - pyspark's name
        """A table or view as a batch."""
        return self.read.table(tableName)

    def sql(self, sqlQuery: str, args: Any = None, **kwargs: Any) -> DataFrame:  # noqa: N803, ANN401 - pyspark's
        """A query."""
        self._reads.mentioned(sqlQuery)
        return super().sql(sqlQuery, args, **kwargs)


class _BatchReader(DataFrameReader):  # type: ignore[misc] # as above
    def __init__(self, session: SparkSession, reads: Reads) -> None:
        super().__init__(session)
        self._reads = reads

    def table(self, tableName: str) -> DataFrame:  # noqa: N803 - pyspark's name
        found = self._reads.dataset(tableName, stream=False)
        return super().table(tableName) if found is None else found


class _StreamReader(DataStreamReader):  # type: ignore[misc] # as above
    def __init__(self, session: SparkSession, reads: Reads) -> None:
        super().__init__(session)
        self._reads = reads
        self._format, self._given, self._fields = "", {}, None  # type: str, dict[str, str], Any

    def table(self, tableName: str) -> DataFrame:  # noqa: N803 - pyspark's name
        found = self._reads.dataset(tableName, stream=True)
        return super().table(tableName) if found is None else found

    def format(self, source: str) -> DataStreamReader:
        self._format = source.lower()
        return self if self._format == "cloudfiles" else super().format(source)

    def schema(self, schema: Any) -> DataStreamReader:  # noqa: ANN401 - pyspark's
        self._fields = schema
        return super().schema(schema)

    def option(self, key: str, value: Any) -> DataStreamReader:  # noqa: ANN401 - pyspark's
        self._given[key] = _text(value)
        return super().option(key, value)

    def options(self, **options: Any) -> DataStreamReader:  # noqa: ANN401 - pyspark's
        for key, value in options.items():
            self.option(key, value)
        return self

    def load(self, path: str | None = None, format: str | None = None, schema: Any = None, **options: Any) -> DataFrame:  # noqa: A002, ANN401 - pyspark's
        for key, value in options.items():
            self.option(key, value)
        if (format or self._format).lower() != "cloudfiles":
            return super().load(path, format, schema, **options)
        fields = schema if schema is not None else self._fields
        return self._reads.files(str(path or self._given.get("path")), _struct(fields), self._given)


def _text(value: Any) -> str:  # noqa: ANN401 - any option's value
    return str(value).lower() if isinstance(value, bool) else str(value)


def _struct(fields: Any) -> StructType | None:  # noqa: ANN401 - a DDL string or a StructType
    from pyspark.sql.types import _parse_datatype_string

    return _parse_datatype_string(fields) if isinstance(fields, str) else fields


_local = threading.local()
_active = SparkSession.getActiveSession
_create = SparkSession.Builder.getOrCreate


@contextlib.contextmanager
def active(session: PipelineSession) -> Iterator[None]:
    """Make `session` the active one in this thread."""
    before = getattr(_local, "session", None)
    _local.session = session
    try:
        yield
    finally:
        _local.session = before


def _get_active(_cls: Any = None) -> SparkSession | None:  # noqa: ANN401 - a class method's first argument
    return getattr(_local, "session", None) or _active()


def _get_or_create(builder: Any) -> SparkSession:  # noqa: ANN401 - pyspark's builder
    return getattr(_local, "session", None) or _create(builder)


def install() -> None:
    """Let pyspark's two ways to the current session find the pipeline's, in threads that evaluate one."""
    SparkSession.getActiveSession = classmethod(_get_active)
    SparkSession.Builder.getOrCreate = _get_or_create


def table_names(sql: str) -> set[str]:
    """Every dotted name in a query, outside strings and comments: the tables are among them."""
    parts, names, at = sqltext.code(sql), set(), 0
    while at < len(parts):
        name = parts[at].name
        while name and at + 2 < len(parts) and parts[at + 1].text == "." and parts[at + 2].name:
            name += "." + parts[at + 2].name
            at += 2
        if name:
            names.add(name)
        at += 1
    return names
