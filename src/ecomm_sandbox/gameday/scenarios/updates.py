"""Sections B to D: the update of the Databricks pipeline, and what it makes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from ecomm_sandbox.gameday.scenarios.lakehouse import damage
from ecomm_sandbox.gameday.scenarios.model import Deed, Fault, Named, Scenario

if TYPE_CHECKING:
    from ecomm_sandbox.gameday.ground import Ground

__all__ = ["UPDATES"]

_UPDATE: Final = ("dlt-trigger", "--date", "{date}")
_PROOF: Final = ("reconciler", "--date", "{date}")


def _update(name: str, kind: str, options: dict[str, Any], failure_class: str, **more: Any) -> Scenario:  # noqa: ANN401
    return Scenario(
        name=name,
        runbook="B",
        fault=Fault("databricks", kind, options),
        alert="EcommNightlyFailed",
        priority="P1",
        doctor=Named("B", "stage_failed", failure_class),
        labels={"stage": "dlt-trigger", "failure_class": failure_class},
        state="prepared",
        steps=(_UPDATE,),
        **more,
    )


def _spoil(ground: Ground) -> None:
    """Let a row of the newest day have a key that is no key."""
    ground.sql("ALTER TABLE order_items ALTER COLUMN quantity DROP NOT NULL")
    ground.sql(
        """UPDATE order_items SET quantity = NULL WHERE (order_id, line_number) =
(SELECT order_id, line_number FROM order_items ORDER BY updated_at DESC LIMIT 1)"""
    )


def _heal(ground: Ground) -> None:
    ground.sql("UPDATE order_items SET quantity = 1 WHERE quantity IS NULL")
    ground.sql("ALTER TABLE order_items ALTER COLUMN quantity SET NOT NULL")


UPDATES: Final = (
    _update("update-fails", "update_fails", {"message": "[DIVIDE_BY_ZERO] Division by zero."}, "upstream_failed"),
    _update(
        "update-queued",
        "update_queued",
        {"seconds": 3600},
        "timed_out",
        environment={"ECOMM_DLT_QUEUE_TIMEOUT": "2"},
    ),
    Scenario(
        name="rows-quarantined",
        runbook="C",
        fault=Deed("a required value is missing", _spoil, _heal),
        alert="EcommRowsDropped",
        priority="P2",
        doctor=Named("C", "rows_quarantined"),
        labels={"table": "order_items"},
        state="prepared",
        steps=(("extractor", "--table", "order_items", "--date", "{date}"), _UPDATE, (*_PROOF, "--through", "gold")),
        fails=False,
    ),
    Scenario(
        name="gold-missing",
        runbook="D",
        fault=damage("Gold loses a day", "DELETE FROM gold.agg_daily_sales WHERE sales_date = DATE'{date}'"),
        alert="EcommGoldMissing",
        priority="P1",
        doctor=Named("D", "gold_missing"),
        labels={"table": "agg_daily_sales"},
        state="prepared",
        steps=(_PROOF,),
    ),
)
