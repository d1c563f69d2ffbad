"""Section B, the source's schema: a column is added, dropped, renamed or widened."""

from __future__ import annotations

from typing import Final

from ecomm_sandbox.gameday.scenarios.model import Fault, Named, Scenario

__all__ = ["DRIFT"]

DRIFT: Final = tuple(
    Scenario(
        name=name,
        runbook="B",
        fault=Fault("postgres", kind),
        alert="EcommSchemaDrift",
        priority="P3",
        doctor=Named("A", "schema_drift"),
        steps=(("extractor", "--table", table, "--date", "{date}"),),
        fails=False,
    )
    for name, kind, table in (
        ("column-added", "add-column", "orders"),
        ("column-dropped", "drop-column", "customers"),
        ("column-renamed", "rename-column", "customers"),
        ("column-widened", "widen-column", "order_items"),
    )
)
