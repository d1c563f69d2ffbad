"""Section E, the KPI tables: no warehouse, dbt fails, a table or a date is missing, or a figure is wrong."""

from __future__ import annotations

from typing import Any, Final

from ecomm_sandbox.gameday.scenarios.lakehouse import damage
from ecomm_sandbox.gameday.scenarios.model import Fault, Named, Scenario, Step

__all__ = ["DBT", "KPI", "PROOF"]

DBT: Final[Step] = ("dbt-runner", "--date", "{date}", "--select", "agg_sales_kpi")
PROOF: Final[Step] = ("reconciler", "--date", "{date}")


def _failed(name: str, failure_class: str, priority: str, **more: Any) -> Scenario:  # noqa: ANN401
    """Give a scenario in which dbt fails."""
    return Scenario(
        name=name,
        runbook="E",
        alert="EcommDbtFailed",
        priority=priority,
        labels={"stage": "dbt-runner", "failure_class": failure_class},
        steps=(DBT,),
        state="prepared",
        **more,
    )


def _proof(name: str, what: str, statement: str, alert: str, kind: str, **labels: str) -> Scenario:
    """Give a scenario in which a KPI table was changed by somebody, which the proof finds."""
    return Scenario(
        name=name,
        runbook="E",
        fault=damage(what, statement),
        alert=alert,
        priority="P2",
        labels=labels,
        doctor=Named("E", kind, "not_reconciled"),
        steps=(PROOF,),
        state="prepared",
    )


KPI: Final = (
    _failed(
        "warehouse-not-starting",
        "timed_out",
        "P1",
        fault=Fault("databricks", "warehouse_cold_start", {"seconds": 600}),
        doctor=Named("E", "stage_failed", "timed_out"),
        environment={"ECOMM_DBT_WARMUP_TIMEOUT": "1"},
    ),
    _failed(
        "warehouse-gone",
        "configuration",
        "P1",
        fault=Fault("databricks", "warehouse_deleted"),
        doctor=Named("E", "unreachable", "configuration"),
    ),
    _failed(
        "dbt-model-fails",
        "upstream_failed",
        "P1",
        fault=Fault(
            "databricks",
            "statement_fails",
            {"matches": "create or replace table.*agg_sales_kpi", "message": "[DIVIDE_BY_ZERO] Division by zero."},
        ),
        doctor=Named("E", "stage_failed", "upstream_failed"),
    ),
    _failed(
        "dbt-test-fails",
        "bad_data",
        "P2",
        fault=damage(
            "Gold has the date twice",
            "INSERT INTO gold.agg_daily_sales SELECT * FROM gold.agg_daily_sales WHERE sales_date = DATE'{date}'",
        ),
        doctor=Named("D", "gold_differs", "not_reconciled"),
    ),
    Scenario(
        name="kpi-table-missing",
        runbook="E",
        fault=damage("a KPI table is dropped", "DROP TABLE kpi.agg_product_kpi"),
        alert="EcommTableauFailed",
        priority="P2",
        labels={"failure_class": "bad_data"},
        doctor=Named("E", "tables_missing", "bad_data"),
        steps=(("tableau-refresher", "--date", "{date}"),),
        state="prepared",
    ),
    _proof(
        "kpi-missing",
        "a KPI table lacks the date",
        "DELETE FROM kpi.agg_sales_kpi WHERE sales_date = DATE'{date}'",
        "EcommKpiMissing",
        "kpi_missing",
        table="agg_sales_kpi",
    ),
    _proof(
        "kpi-empty",
        "a KPI table is empty",
        "DELETE FROM kpi.agg_product_kpi",
        "EcommKpiMissing",
        "kpi_missing",
        table="agg_product_kpi",
    ),
    _proof(
        "kpi-differs",
        "a KPI is wrong",
        "UPDATE kpi.agg_sales_kpi SET net_revenue = net_revenue + 1 WHERE sales_date = DATE'{date}'",
        "EcommNotReconciled",
        "kpi_differs",
    ),
)
