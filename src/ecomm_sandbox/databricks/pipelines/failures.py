"""Failures of an update as its event log shows them."""

from __future__ import annotations

from typing import Any

from ecomm_sandbox.databricks.warehouse.executor import problem_of

FRAMES = 20


def described(error: BaseException, catalog: str) -> tuple[str, dict[str, Any]]:
    """An error's text, and its `error` entry of an event (fatal, with its exceptions)."""
    problem = problem_of(error, catalog)
    frames = []
    trace = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        where = {"declaring_class": code.co_filename, "method_name": code.co_qualname}
        frames.append(where | {"line_number": trace.tb_lineno})
        trace = trace.tb_next
    exception = {"class_name": type(error).__name__, "message": problem.message, "stack": frames[-FRAMES:]}
    return problem.message, {"fatal": True, "exceptions": [exception]}
