"""Section A, the database: it is not there, refuses, is locked, or has nothing new."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from ecomm_sandbox.gameday.scenarios.model import Deed, Fault, Named, Scenario

if TYPE_CHECKING:
    from ecomm_sandbox.gameday.ground import Ground

__all__ = ["EXTRACTION"]


def _nothing(_ground: Ground) -> None:
    """What did not happen."""


def _freeze(ground: Ground) -> None:
    """Let updated_at stand still: the rows look as if nobody had written them lately."""
    ground.sql("UPDATE orders SET updated_at = updated_at - interval '10 years'")


def _thaw(ground: Ground) -> None:
    ground.sql("UPDATE orders SET updated_at = updated_at + interval '10 years'")


def _extracts(*tables: str) -> tuple[tuple[str, ...], ...]:
    return tuple(("extractor", "--table", table, "--date", "{date}") for table in tables)


def _extraction(name: str, kind: str, failure_class: str, *, table: str = "", **more: Any) -> Scenario:  # noqa: ANN401
    return Scenario(
        name=name,
        runbook="A",
        fault=Fault("postgres", kind, {"table": table} if table else {}),
        alert="EcommNightlyFailed",
        priority="P1",
        labels={"stage": "extractor", "failure_class": failure_class},
        steps=_extracts("orders"),
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
        doctor=Named("A", "unreachable", "timed_out"),
        environment={"ECOMM_EXTRACTOR_LOCK_TIMEOUT": "1"},
    ),
    Scenario(
        name="nightly-not-started",
        runbook="A",
        fault=Deed("the CronWorkflow is suspended", _nothing),
        alert="EcommNightlyNotStarted",
        priority="P1",
        doctor=Named("A", "nightly_not_started"),
    ),
    Scenario(
        name="extract-missing",
        runbook="A",
        fault=Deed("a table's pod never began", _nothing),
        alert="EcommExtractMissing",
        priority="P1",
        doctor=Named("A", "extract_missing"),
        labels={"table": "orders"},
        steps=_extracts("customers", "products", "order_items"),
        fails=False,
        repair="alert",
    ),
    Scenario(
        name="extract-empty",
        runbook="A",
        fault=Deed("updated_at is not set", _freeze, _thaw),
        alert="EcommExtractEmpty",
        priority="P2",
        doctor=Named("A", "extract_empty"),
        labels={"table": "orders"},
        state="history",
        steps=_extracts("orders"),
        fails=False,
    ),
)
