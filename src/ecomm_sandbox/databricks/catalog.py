"""The catalog: which schemas, tables and views exist, rebuilt at start from what is on disk.

Spark keeps its catalog in memory (a metastore database costs seconds at each start). Tables are found again by
their Delta folders, `warehouse/{schema}.db/{table}`; views, tags and key constraints, which Delta does not hold,
are kept in `catalog.json`. A folder without a committed version is what a killed statement left: it is removed.
"""

from __future__ import annotations

import base64
import json
import logging
import os
import shutil
import threading
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ecomm_sandbox.databricks import deltalog
from ecomm_sandbox.databricks.spark import BULK_BYTES, java

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyspark.sql import SparkSession

    from ecomm_sandbox.databricks.deltalog import TableState

BACKING_PREFIX = "__apply_changes_storage_"  # Databricks' own name for the table behind an AUTO CDC target
MEASURE_SECONDS = 10.0
log = logging.getLogger(__name__)


@dataclass(slots=True)
class Key:
    """An informational constraint: kept, shown, never enforced, as on Databricks."""

    schema: str
    table: str
    name: str
    kind: str  # PRIMARY KEY or FOREIGN KEY
    columns: list[str]
    parent: str | None = None
    parent_columns: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Relation:
    """A table or view as the information schema shows it."""

    schema: str
    name: str
    kind: str  # MANAGED, VIEW, STREAMING_TABLE or MATERIALIZED_VIEW
    state: TableState
    view_text: str | None = None
    location: str | None = None


class Catalog:
    """The sandbox's one catalog over the session `spark`; `name` is how clients call it."""

    def __init__(self, spark: SparkSession, home: Path, name: str) -> None:
        """Use `home/warehouse` for tables and `home/catalog.json` for the rest."""
        self.spark, self.name = spark, name
        self.warehouse, self._file = home / "warehouse", home / "catalog.json"
        self._lock = threading.RLock()
        self.tags: dict[str, dict[str, str]] = {}
        self.keys: list[Key] = []
        self.kinds: dict[str, str] = {}  # "schema.table" -> what a pipeline made it
        self._views: dict[str, str] = {}
        self._size, self._measured_at = 0, -MEASURE_SECONDS

    # -- start and stop

    def restore(self) -> None:
        """Enter what is on disk into Spark's catalog; run once, before the first statement."""
        self.warehouse.mkdir(parents=True, exist_ok=True)
        self._load()
        for folder in sorted(self.warehouse.glob("*.db")):
            schema = folder.name[: -len(".db")]
            self._create_schema(schema)
            for table in sorted(path for path in folder.iterdir() if path.is_dir()):
                if deltalog.versions(table):
                    self._register(schema, table.name, table)
                else:
                    shutil.rmtree(table, ignore_errors=True)
        for name, data in list(self._views.items()):
            self._restore_view(name, data)

    def ensure_schema(self, schema: str) -> None:
        """Create the schema unless it exists."""
        if not self._external().databaseExists(schema):
            with self._lock:
                self._create_schema(schema)

    def _create_schema(self, schema: str) -> None:
        (self.warehouse / f"{schema}.db").mkdir(parents=True, exist_ok=True)  # so that an empty one is found again
        if schema != "default":
            self.spark.sql(f"CREATE SCHEMA IF NOT EXISTS `{schema}`")

    def _load(self) -> None:
        try:
            content = json.loads(self._file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return
        self.tags, self.kinds, self._views = content["tags"], content["kinds"], content["views"]
        self.keys = [Key(**key) for key in content["keys"]]

    def save(self) -> None:
        """Write what Delta does not hold; atomically, so that a kill leaves the old or the new."""
        with self._lock:
            content = {
                "tags": self.tags,
                "kinds": self.kinds,
                "views": self._views,
                "keys": [asdict(key) for key in self.keys],
            }
            partial = self._file.with_suffix(".tmp")
            with partial.open("w", encoding="utf-8") as out:
                json.dump(content, out, indent=1)
                out.flush()
                os.fsync(out.fileno())
            partial.replace(self._file)

    def views_changed(self) -> None:
        """Read all views from Spark's catalog again and keep them; call after a statement about views."""
        with self._lock:
            self._views = {
                f"{schema}.{name}": base64.b64encode(self._jvm().org.apache.spark.util.Utils.serialize(entry)).decode()
                for schema, name, entry in self._entries()
                if entry.tableType().name() == "VIEW"
            }
            self.save()

    # -- Spark's catalog

    def _jvm(self) -> Any:  # noqa: ANN401 - py4j
        return self.spark.sparkContext._jvm  # noqa: SLF001 - pyspark has no public name for it

    def _external(self) -> Any:  # noqa: ANN401 - py4j
        return java(self.spark).sharedState().externalCatalog()

    def _register(self, schema: str, name: str, location: Path) -> None:
        """Enter a Delta folder as a managed table, as `CREATE TABLE` would have."""
        jvm = self._jvm()
        package = jvm.org.apache.spark.sql.catalyst.catalog
        some = jvm.scala.Some
        storage = package.CatalogStorageFormat.empty()
        uri = location.absolute().as_uri()
        storage = storage.copy(
            some(jvm.java.net.URI(uri)),
            *[getattr(storage, f"copy$default${n}")() for n in range(2, _arity(storage) + 1)],
        )
        identifier = jvm.org.apache.spark.sql.catalyst.TableIdentifier(name, some(schema), some("spark_catalog"))
        fields = jvm.org.apache.spark.sql.types.StructType()
        required = [identifier, package.CatalogTableType.MANAGED(), storage, fields, some("delta")]
        companion = package.CatalogTable
        total = _constructor_arity(companion, jvm)
        rest = [getattr(companion, f"apply$default${n}")() for n in range(len(required) + 1, total + 1)]
        self._external().createTable(companion(*required, *rest), True)  # noqa: FBT003 - Scala's ignoreIfExists

    def _restore_view(self, name: str, data: str) -> None:
        jvm = self._jvm()
        try:
            entry = jvm.org.apache.spark.util.Utils.deserialize(base64.b64decode(data))
            self._external().createTable(entry, True)  # noqa: FBT003 - Scala's ignoreIfExists
        except Exception:  # noqa: BLE001 - py4j raises many; a view of another Spark version must not stop the start
            log.warning("view %s cannot be restored; create it again", name)
            del self._views[name]

    def _entries(self, schema: str | None = None) -> Iterator[tuple[str, str, Any]]:
        external = self._external()
        for database in _strings(external.listDatabases()):
            if schema is not None and database.lower() != schema.lower():
                continue
            for table in _strings(external.listTables(database)):
                yield database, table, external.getTable(database, table)

    def schemas(self) -> list[str]:
        """The names of all schemas."""
        return _strings(self._external().listDatabases())

    def relations(self, schema: str | None = None, name: str | None = None) -> list[Relation]:
        """Tables and views, of one schema or all, without the tables behind AUTO CDC targets."""
        found = []
        for database, table, entry in self._entries(schema):
            if table.startswith(BACKING_PREFIX) or (name is not None and table.lower() != name.lower()):
                continue
            relation = self._relation(database, table, entry)
            if relation is not None:
                found.append(relation)
        return found

    def _relation(self, schema: str, name: str, entry: Any) -> Relation | None:  # noqa: ANN401 - py4j
        made = self.kinds.get(f"{schema}.{name}".lower())
        if entry.tableType().name() == "VIEW":
            kind = made or "VIEW"
            backing = deltalog.read(self.folder(schema, BACKING_PREFIX + name)) if made else None
            text = None if made else entry.viewText().get()
            return Relation(schema, name, kind, _view_state(entry, backing), text)
        location = Path(str(entry.location().getPath()))
        state = deltalog.read(location)
        return Relation(schema, name, made or "MANAGED", state, None, str(location)) if state else None

    def is_large(self) -> bool:
        """Whether the tables hold so much that statements over them are work on many rows."""
        now = time.monotonic()
        if now - self._measured_at > MEASURE_SECONDS:
            self._measured_at = now
            self._size = sum(path.stat().st_size for path in self.warehouse.glob("*.db/*/*.parquet"))
        return self._size > BULK_BYTES

    def folder(self, schema: str, table: str) -> Path:
        """Where a managed table's files are."""
        return self.warehouse / f"{schema}.db" / table


def _view_state(entry: Any, backing: TableState | None) -> TableState:  # noqa: ANN401 - py4j
    fields = json.loads(entry.schema().json())["fields"]
    columns = tuple(
        deltalog.Column(
            item["name"], item["type"], bool(item.get("nullable", True)), (item.get("metadata") or {}).get("comment")
        )
        for item in fields
    )
    comment = entry.comment()
    created = int(entry.createTime())
    return deltalog.TableState(
        version=backing.version if backing else 0,
        columns=columns,
        comment=comment.get() if comment.isDefined() else None,
        partition_columns=(),
        properties={},
        created_ms=created,
        modified_ms=backing.modified_ms if backing else created,
    )


def _strings(sequence: Any) -> list[str]:  # noqa: ANN401 - a Scala Seq[String]
    joined = sequence.mkString("\n")
    return joined.split("\n") if joined else []


def _arity(case_object: Any) -> int:  # noqa: ANN401 - py4j
    return int(case_object.productArity())


def _constructor_arity(companion: Any, jvm: Any) -> int:  # noqa: ANN401 - py4j
    constructors = jvm.java.lang.Class.forName(companion._fqn).getConstructors()  # noqa: SLF001 - py4j's own field
    return max(len(constructor.getParameterTypes()) for constructor in constructors)
