"""A defect is logged with its traceback, and without what local variables held."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
from ecomm_pipeline.logs import configure, get_logger
configure(json={json})
password = "hun" + "ter2"
try:
    1 / 0
except ZeroDivisionError:
    get_logger().exception("internal_error")
"""


@pytest.mark.parametrize("json", ["True", "False"])
def test_a_traceback_does_not_tell_passwords(json: str) -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT.format(json=json)], capture_output=True, text=True, check=True)
    assert "ZeroDivisionError" in done.stderr
    assert "internal_error" in done.stderr
    assert "hunter2" not in done.stderr
