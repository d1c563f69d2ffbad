"""One small local SparkSession with Delta for the whole test run: the one that the sandbox's Databricks is made of.

Spark starts once (5 to 10 s) and every test shares it, so tests leave no temporary views or changed settings behind.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ecomm_sandbox.databricks.spark import build_session
from ecomm_sandbox.databricks_service import cache

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyspark.sql import SparkSession


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    """A SparkSession of two threads with Delta, in UTC; its warehouse is a temporary folder."""
    # Row tracking, which Silver's tables ask for, needs the statistics that the sandbox does without.
    settings = {"spark.databricks.delta.stats.collect": "true"}
    session = build_session(tmp_path_factory.mktemp("spark"), cache() / "ivy", settings=settings)
    yield session
    session.stop()
