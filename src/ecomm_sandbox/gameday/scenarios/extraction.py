"""Section A, the database: it is not there, refuses, is locked, or has nothing new."""

from __future__ import annotations

from typing import Any, Final

from ecomm_sandbox.gameday.scenarios.model import Fault, Named, Scenario

__all__ = ["EXTRACTION"]


def _extraction(name: str, kind: str, failure_class: str, *, table: str = "", **more: Any) -> Scenario:  # noqa: ANN401
    return Scenario(
        name=name,
        runbook="A",
        fault=Fault("postgres", kind, {"table": table} if table else {}),
        alert="EcommNightlyFailed",
        priority="P1",
        labels={"stage": "extractor", "failure_class": failure_class},
        steps=(("extractor", "--table", "orders", "--date", "{date}"),),
        **more,
    )


EXTRACTION: Final = (
    _extraction(
        "database-down",
        "refuse",
        "unavailable",
        doctor=Named("A", "unreachable", "unavailable"),
        environment={"ECOMM_POSTGRES_CONNECT_TIMEOUT": "1"},
    ),
    _extraction("wrong-password", "password", "credentials", doctor=Named("A", "unreachable", "credentials")),
    _extraction(
        "table-not-readable",
        "permission",
        "credentials",
        table="orders",
        doctor=Named("A", "unreachable", "credentials"),
        repair="alert",
    ),
    _extraction(
        "table-locked",
        "lock",
        "timed_out",
        table="orders",
        doctor=Named("A", "stage_failed", "timed_out"),
        environment={"ECOMM_EXTRACTOR_LOCK_TIMEOUT": "1"},
    ),
)
