"""What Bronze, Silver, Gold and the KPI tables hold, by table and date."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING

from ecomm_pipeline.contract import CONTRACT
from ecomm_pipeline.reconciler import sql
from ecomm_pipeline.reconciler.amounts import Amount
from ecomm_pipeline.reconciler.sales import SalesDay

if TYPE_CHECKING:
    from ecomm_pipeline.databricks import Warehouse
    from ecomm_pipeline.manifest import Manifest
    from ecomm_pipeline.reconciler.extracts import Place
    from ecomm_pipeline.reconciler.sales import Measures
    from ecomm_pipeline.stage import StageContext

__all__ = ["Lakehouse", "amount_of"]


@dataclass(slots=True)
class Lakehouse:
    """The answers of the lakehouse, by table and date."""

    warehouse: Warehouse
    context: StageContext
    timezone: str
    bronze: dict[Place, dict[tuple[str, str], tuple[Amount, int]]] = field(default_factory=dict)
    quarantined: dict[Place, dict[tuple[str, str], int]] = field(default_factory=dict)
    states: dict[Place, list[dict[str, str | None]]] = field(default_factory=dict)
    sales: list[SalesDay] = field(default_factory=list)
    customers: tuple[Measures, Measures] = field(default_factory=lambda: ({}, {}))

    def ask_tables(self, extracts: dict[Place, Manifest]) -> None:
        """Ask Bronze, then Silver, of the extracts."""
        tables = [table for table in dict.fromkeys(table for table, _ in extracts) if table in CONTRACT]
        if tables:
            self._ask_bronze(tables)
        listed: dict[str, list[tuple[str, str, str]]] = {}
        for (table, date), manifest in extracts.items():
            if table in CONTRACT:
                listed.setdefault(table, []).extend((date, manifest.run_id, file.name) for file in manifest.files)
        listed = {table: found for table, found in listed.items() if found}
        if listed:
            refused = {table for table, _ in self.quarantined}
            for row in self.warehouse.query(sql.silver(listed, refused, self.context.dates)).dicts():
                self.states.setdefault(_place(row), []).append(row)

    def _ask_bronze(self, tables: list[str]) -> None:
        for row in self.warehouse.query(sql.bronze(tables, self.context.dates)).dicts():
            file = (row["run_id"] or "", row["file"] or "")
            if row["layer"] == "quarantine":
                self.quarantined.setdefault(_place(row), {})[file] = int(row["row_count"] or 0)
            else:
                self.bronze.setdefault(_place(row), {})[file] = (amount_of(row), int(row["rescued"] or 0))

    def ask_sales(self, through: str) -> None:
        """Ask Silver and Gold, and then the KPI tables, of the sales dates."""
        found: dict[str, dict[str, Measures]] = {}
        for row in self.warehouse.query(sql.sales(self.context.dates, self.timezone)).dicts():
            found.setdefault(row["date"] or "", {})[row["table_name"] or ""] = _measures(row)
        if through == "kpi":
            totals: dict[str, Measures] = {}
            for row in self.warehouse.query(sql.kpis(sorted(date for date in found if date))).dicts():
                of_date = found.setdefault(row["date"], {}) if row["date"] else totals
                of_date[row["table_name"] or ""] = _measures(row)
            self.customers = (totals.get("sales_analytics", {}), totals.get("agg_customer_kpi", {}))
        self.sales = [SalesDay(date, tables) for date, tables in sorted(found.items())]


def _place(row: dict[str, str | None]) -> Place:
    return row["table_name"] or "", row["date"] or ""


def amount_of(row: dict[str, str | None]) -> Amount:
    """Read the amount of an answer's row: `row_count` and `money`."""
    money = row["money"]
    return Amount(int(row["row_count"] or 0), None if money is None else Decimal(money))


def _measures(row: dict[str, str | None]) -> Measures:
    return {
        name: Decimal(value) for name, value in row.items() if name not in {"table_name", "date"} and value is not None
    }
