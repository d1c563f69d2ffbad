"""Write the page: read the ledger and the KPI table, fill the template, put the file in its place at once."""

from __future__ import annotations

import json
import tempfile
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ecomm_pipeline.clock import Clock, SystemClock
from ecomm_pipeline.dates import DateRange, zone
from ecomm_pipeline.errors import ConfigurationError, EcommError
from ecomm_pipeline.ledger import Ledger
from ecomm_pipeline.report import plan, svg, words
from ecomm_pipeline.report.page import Kpi, Page

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ecomm_pipeline.layout import Layout
    from ecomm_pipeline.ledger import Record
    from ecomm_pipeline.settings import Business, Databricks
    from ecomm_pipeline.store import Store

__all__ = ["render", "write_report"]

_HERE: Final = Path(__file__).parent
_WAREHOUSE_TIMEOUT: Final = 120.0
_UNREACHABLE: Final = 10
"""Seconds until the page is made without charts: of a warehouse that is starting, and of one that cannot be reached."""
KPI_COLUMNS: Final = (
    ("orders", 0),
    ("cancelled orders", 0),
    ("customers", 0),
    ("units", 0),
    ("gross revenue", 2),
    ("refunds", 2),
    ("net revenue", 2),
    ("average order value", 2),
    ("net revenue 7d", 2),
)
"""What the page tells of a day of agg_sales_kpi, and how many decimals of it."""
_SMALL: Final = (
    ("Orders", "orders", "bar", 0),
    ("Average order value", "average_order_value", "line", 2),
    ("Net revenue of 7 days", "net_revenue_7d", "line", 0),
    ("Refunds", "refunds", "bar", 0),
    ("Customers", "customers", "bar", 0),
    ("Cancellation rate, %", "cancellation_rate", "line", 1),
)


def write_report(
    dates: DateRange | None,
    output: Path,
    *,
    store: Store,
    layout: Layout,
    databricks: Databricks,
    business: Business,
    clock: Clock | None = None,
) -> None:
    """Write the page of `dates` (default: all dates of the ledger) to `output`, and print its path.

    When the warehouse does not answer, the page is made without charts and says why. Raises `ConfigurationError` when
    `output` cannot be written, and what the store raises.
    """
    clock, tz = clock or SystemClock(), zone(business.business_timezone)
    ledger = Ledger(store, layout)
    chosen = dates or _ledger_dates(ledger)
    records = _with_sheets(ledger.of_range(chosen), store) if chosen else []
    kpis, missing = _kpis(chosen, databricks, clock) if chosen and records else ([], "")
    page = plan.build(records, chosen, tz=tz, now=clock.now(), kpis=kpis, kpis_missing=missing)
    _write(output, render(page))
    print(f"{output}: {page.dates}: {page.verdict.headline}")


def render(page: Page) -> str:
    """Fill the template; everything in it is escaped."""
    import jinja2
    from markupsafe import Markup

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=False
    )
    environment.filters["number"] = words.number
    environment.filters["short"] = words.short_number
    days = plan.calendar(page.kpis)
    return environment.get_template("page.html.j2").render(
        page=page,
        css=Markup((_HERE / "page.css").read_text(encoding="utf-8")),  # noqa: S704 (a file of ours)
        charts=_charts(days) if days else None,
        days=[kpi.date for kpi in days],
        kpi_columns=KPI_COLUMNS,
    )


def _charts(kpis: Sequence[Kpi]) -> dict[str, Any]:
    titles = [_day_title(kpi) for kpi in kpis]
    seven = [None if (value := kpi["net_revenue_7d"]) is None else value / 7 for kpi in kpis]
    revenue = svg.chart(
        [
            svg.Series([kpi["gross_revenue"] for kpi in kpis], "bar", "gross"),
            svg.Series([kpi["net_revenue"] for kpi in kpis], "bar", "net"),
            svg.Series(seven, "line", "week"),
        ],
        titles,
        f"Gross and net revenue a day from {kpis[0].date} to {kpis[-1].date}",
    )
    return {"revenue": revenue, "small": [_small_chart(kpis, *one) for one in _SMALL]}


def _small_chart(kpis: Sequence[Kpi], label: str, name: str, kind: str, places: int) -> dict[str, Any]:
    factor = Decimal(100 if name == "cancellation_rate" else 1)
    values = [None if (value := kpi[name]) is None else value * factor for kpi in kpis]
    known = [value for value in values if value is not None]
    titles = [
        f"{kpi.date}: {'–' if value is None else words.number(value, places)}"
        for kpi, value in zip(kpis, values, strict=True)
    ]
    style = "one" if kind == "bar" else "line"
    drawn = svg.chart([svg.Series(values, kind, style)], titles, f"{label} a day")
    return {"label": label, "chart": drawn, "last": words.number(known[-1], places) if known else "–"}


def _day_title(kpi: Kpi) -> str:
    figures = [
        f"{name} {words.number(value, places)}"
        for name, places in KPI_COLUMNS
        if (value := kpi[name.replace(" ", "_")])
    ]
    return f"{kpi.date}: {', '.join(figures)}"


def _kpis(dates: DateRange, settings: Databricks, clock: Clock) -> tuple[list[Kpi], str]:
    """Read agg_sales_kpi; and, where that is not possible, why."""
    from ecomm_pipeline.databricks import Warehouse, connect

    shown = plan.kpi_dates(dates)
    sql = (
        "SELECT * FROM kpi.agg_sales_kpi WHERE sales_date BETWEEN "  # noqa: S608 (dates)
        f"DATE'{shown.first}' AND DATE'{shown.last}' ORDER BY sales_date"
    )
    try:
        warehouse = Warehouse(connect(settings, give_up=_UNREACHABLE), settings.warehouse_id, settings.catalog, clock)
        rows = warehouse.query(sql, timeout=_WAREHOUSE_TIMEOUT).dicts()
    except EcommError as error:
        return [], error.message
    names = {name.replace(" ", "_") for name, _ in KPI_COLUMNS} | {name for _, name, _, _ in _SMALL}
    return [Kpi(row["sales_date"] or "", {name: _decimal(row.get(name)) for name in names}) for row in rows], ""


def _decimal(text: str | None) -> Decimal | None:
    return None if text is None else Decimal(text)


def _ledger_dates(ledger: Ledger) -> DateRange | None:
    """Give the range of all dates that the ledger has records of; None when it has none."""
    found = ledger.dates()
    return DateRange(found[0], found[-1]) if found else None


def _with_sheets(records: Sequence[Record], store: Store) -> list[Record]:
    """Put the rows of each sheet beside its key; none where the object is gone."""
    keys = [record.figures.get("sheet_key") for record in records]
    wanted = [key for key in keys if key]
    sheets = dict(zip(wanted, store.get_all(wanted), strict=True))
    return [
        record.model_copy(update={"figures": {**record.figures, "sheet": json.loads(sheets.get(key) or b"[]")}})
        if key
        else record
        for record, key in zip(records, keys, strict=True)
    ]


def _write(output: Path, text: str) -> None:
    """Put the file in its place at once: a reader sees the page of before, or this one whole."""
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", dir=output.parent, prefix=f".{output.name}.", delete=False
        ) as file:
            file.write(text)
        temporary = Path(file.name)
        temporary.chmod(0o644)
        temporary.replace(output)
    except OSError as error:
        message = f"cannot write {output}: {error.strerror}"
        raise ConfigurationError(message, next_step="choose another file with -o") from error
