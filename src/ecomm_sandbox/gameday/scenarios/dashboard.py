"""Section F, Tableau: it is not there, refuses, a refresh hangs or fails, or what it shows is old or empty."""

from __future__ import annotations

from typing import Any, Final

from ecomm_sandbox.gameday.scenarios.kpi import DBT
from ecomm_sandbox.gameday.scenarios.lakehouse import damage
from ecomm_sandbox.gameday.scenarios.model import Fault, Named, Scenario, Step

__all__ = ["DASHBOARD"]

_REFRESH: Final[Step] = ("tableau-refresher", "--date", "{date}")


def _refresh(name: str, kind: str, failure_class: str, doctor: str, **more: Any) -> Scenario:  # noqa: ANN401
    """Give a scenario in which the refresh fails for a fault of Tableau."""
    return Scenario(
        name=name,
        runbook="F",
        fault=Fault("tableau", kind),
        alert="EcommTableauFailed",
        priority="P1",
        labels={"stage": "tableau-refresher", "failure_class": failure_class},
        doctor=Named("F", doctor, failure_class),
        steps=(_REFRESH,),
        state="prepared",
        **more,
    )


DASHBOARD: Final = (
    _refresh("tableau-down", "drop", "unavailable", "unreachable", environment={"ECOMM_TABLEAU_TIMEOUT": "1"}),
    _refresh("tableau-token-revoked", "credentials", "credentials", "unreachable"),
    _refresh("tableau-sign-in-refused", "sign-in", "credentials", "unreachable"),
    _refresh("refresh-stuck", "stuck", "timed_out", "stage_failed", environment={"ECOMM_TABLEAU_TIMEOUT": "3"}),
    _refresh("refresh-fails", "fail", "upstream_failed", "stage_failed"),
    Scenario(
        name="extract-stale",
        runbook="F",
        fault=Fault("tableau", "stale"),
        alert="EcommDashboardStale",
        priority="P1",
        doctor=Named("F", "stage_failed", "bad_data"),
        steps=(_REFRESH,),
        environment={"ECOMM_TABLEAU_PROOF_TIMEOUT": "1"},
        state="prepared",
    ),
    Scenario(
        name="dashboard-empty",
        runbook="F",
        fault=damage("Gold lost its days", "DELETE FROM gold.agg_daily_sales"),
        alert="EcommDashboardEmpty",
        priority="P1",
        labels={"table": "agg_sales_kpi"},
        doctor=Named("D", "gold_missing", "not_reconciled"),
        steps=(DBT,),
        fails=False,
        state="prepared",
    ),
)
