"""A pod that extracts starts fast: what its import pulls in is the whole of its start-up."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import sys, time
before = time.perf_counter()
import {module}
print(round(time.perf_counter() - before, 3), *sorted({{name.partition(".")[0] for name in sys.modules}}))
"""


def imported_by(module: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(module=module)], capture_output=True, text=True, check=True
    )
    seconds, *names = done.stdout.split()
    print(f"import {module}: {seconds} s")
    return set(names)


def test_the_extractor_does_not_import_what_it_can_do_without() -> None:
    names = imported_by("ecomm_pipeline.extractor.run")
    assert "psycopg2" in names
    heavy = {"boto3", "botocore", "dbt", "databricks", "numpy", "pandas", "pyarrow", "pyspark", "tableauserverclient"}
    assert not names & heavy


def test_its_decisions_import_no_client_library() -> None:
    assert not imported_by("ecomm_pipeline.extractor.plan") & {"boto3", "isal", "obstore", "psycopg2"}
