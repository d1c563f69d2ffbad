"""The questions that reconciliation asks, one statement a hop for all tables and dates. Pure: text in, text out.

Money is counted alike everywhere (Postgres, the CSV, Bronze, quarantine): a factor counts where it is a plain decimal
number that, rounded to its scale, fits `FACTORS`; anything else (NULL, NaN, text, a column that is gone) counts as
nothing. So drift in a source never looks like lost money, while a value that changed on the way does.
"""

# ruff: noqa: S608 (names are the contract's, dates and zones are parsed, keys are base64; nothing is free text)

from __future__ import annotations

import base64
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ecomm_pipeline.contract import CONTRACT, UPDATED_AT, TableContract

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from ecomm_pipeline.dates import DateRange

__all__ = [
    "FACTORS",
    "NUMBER",
    "Factor",
    "bronze",
    "factors",
    "kpis",
    "late_in_bronze",
    "sales",
    "silver",
    "source_keys",
    "source_window",
    "source_windows",
]

NUMBER: Final = r"-?[0-9]+([.][0-9]+)?"
"""The form of a number that counts as money, for Python, Postgres and Spark alike."""

SILVER: Final = {
    "customers": "dim_customer",
    "products": "dim_product",
    "orders": "dim_orders",
    "order_items": "fact_orders",
}
"""The Silver table of each source table of the contract."""

_SPARK: Final = {"text": "STRING", "bigint": "BIGINT", "integer": "INT"}


@dataclass(frozen=True, slots=True)
class Factor:
    """A column whose value is a factor of a row's money; digits before the point, and scale after rounding half up."""

    column: str
    digits: int
    scale: int


FACTORS: Final = {"integer": (10, 0), "bigint": (10, 0), "numeric": (19, 8)}
"""Digits and scale by Postgres type; the product of the largest two has the 38 digits of Spark's decimal."""


def factors(table: TableContract) -> tuple[Factor, ...]:
    """Give the columns that a table's money is the product of; none where its rows have no money."""
    names = re.split(r"\s*\*\s*", table.money) if table.money else []
    return tuple(Factor(name, *FACTORS[re.sub(r"\(.*", "", table.columns[name])]) for name in names)


# --- Postgres ------------------------------------------------------------------------------------------------------


_WINDOW: Final = "(%s::text, %s::timestamptz, %s::timestamptz)"


def source_windows(schema: str, columns: Mapping[str, frozenset[str]], windows: Mapping[str, int]) -> str:
    """Rows and money of many windows of many tables; answers (table, date, rows, money).

    `columns` are those that each table has now, `windows` how many it is asked for. Parameters, in order, for each
    window of each table: date, since, until.
    """
    arms = [
        f"SELECT '{_text(table)}', w.day, count(t.{_quote(UPDATED_AT)}), {_source_sum(table, columns[table])}\n"
        f"FROM (VALUES {', '.join([_WINDOW] * count)}) AS w (day, since, until)\n"
        f"LEFT JOIN {_quote(schema)}.{_quote(table)} AS t\n"
        f"  ON t.{_quote(UPDATED_AT)} >= w.since AND t.{_quote(UPDATED_AT)} < w.until\n"
        "GROUP BY w.day"
        for table, count in windows.items()
    ]
    return "\nUNION ALL\n".join(arms)


def source_window(schema: str, table: TableContract, columns: frozenset[str]) -> str:
    """The versions in one window; answers the key, updated_at and money as text. Parameters: since, until."""
    stamp = _quote(UPDATED_AT)
    names = [*(f"t.{_quote(name)}::text" for name in table.key), f"t.{stamp}::text", _source_money(table, columns)]
    return (
        f"SELECT {', '.join(names)}\nFROM {_quote(schema)}.{_quote(table.name)} AS t\n"
        f"WHERE t.{stamp} >= %s AND t.{stamp} < %s"
    )


def source_keys(schema: str, table: TableContract) -> str:
    """Which of many keys still exist; answers the keys as text. One parameter a key column: an array of text."""
    names = ", ".join(f"t.{_quote(name)}::text" for name in table.key)
    wanted = ", ".join(f"k{number}" for number in range(len(table.key)))
    arrays = ", ".join("%s::text[]" for _ in table.key)
    on = " AND ".join(f"t.{_quote(name)} = k{number}::{table.columns[name]}" for number, name in enumerate(table.key))
    source = f"{_quote(schema)}.{_quote(table.name)}"
    return f"SELECT {names}\nFROM unnest({arrays}) AS k ({wanted})\nJOIN {source} AS t ON {on}"


def _source_sum(table: str, columns: frozenset[str]) -> str:
    contract = CONTRACT.get(table)
    if contract is None or contract.money is None:
        return "NULL::numeric"
    return f"coalesce(sum({_source_money(contract, columns)}), 0)"


def _source_money(table: TableContract, columns: frozenset[str]) -> str:
    if table.money is None:
        return "NULL::numeric"
    if any(factor.column not in columns for factor in factors(table)):
        return "0::numeric"
    return " * ".join(_source_factor(factor) for factor in factors(table))


def _source_factor(factor: Factor) -> str:
    text = f"t.{_quote(factor.column)}::text"
    value = f"round(CASE WHEN {text} ~ '^{NUMBER}$' THEN {text}::numeric END, {factor.scale})"
    return f"(CASE WHEN abs({value}) < 1e{factor.digits} THEN {value} END)"


def _quote(name: str) -> str:
    """Quote an identifier of Postgres; a percent sign is doubled, as psycopg2 reads it."""
    return '"' + name.replace('"', '""').replace("%", "%%") + '"'


def _text(value: str) -> str:
    return value.replace("'", "''").replace("%", "%%")


# --- the lakehouse -------------------------------------------------------------------------------------------------

_FILE: Final = "substring_index(_source_file, '/', -1)"


def bronze(tables: Sequence[str], dates: DateRange) -> str:
    """Rows, money and rescued rows of Bronze by file.

    Answers (table_name, date, run_id, file, row_count, money, rescued).
    """
    arms = [
        f"SELECT '{name}' AS table_name, CAST(_date AS STRING) AS date, _run_id AS run_id, {_FILE} AS file, "
        f"count(*) AS row_count, CAST({_lake_sum(CONTRACT[name])} AS STRING) AS money, "
        f"count(_rescued_data) AS rescued\nFROM bronze.{name}\n"
        f"WHERE {_between('_date', dates)}\nGROUP BY _date, _run_id, {_FILE}"
        for name in tables
    ]
    return "\nUNION ALL\n".join(arms)


def silver(files: Mapping[str, Iterable[tuple[str, str, str]]], dates: DateRange) -> str:
    """What became in Silver of each row of the listed files (table → (date, run id, file name)).

    Answers (table_name, date, state, reason, row_count, money, silver_money): rows of Bronze by state `kept`,
    `superseded`, `quarantined` (with the reason, without its values) or `lost`, and `in_quarantine`, the count of
    silver.quarantine itself. `silver_money` is what Silver holds of the kept rows.
    """
    arms = [_silver_arm(CONTRACT[name], sorted(listed), dates) for name, listed in files.items()]
    return "\nUNION ALL\n".join(arms)


def _silver_arm(table: TableContract, listed: Sequence[tuple[str, str, str]], dates: DateRange) -> str:
    values = ", ".join(f"(DATE'{date}', '{run_id}', '{file}')" for date, run_id, file in listed)
    fields = [*table.key, UPDATED_AT, *(f.column for f in factors(table) if f.column not in table.key)]
    parsed = ", ".join(f"{name} STRING" for name in fields)
    same_row = " AND ".join(f"q.{name} <=> b.{name}" for name in (*table.key, UPDATED_AT))
    same_file = "q._date = b._date AND q._run_id = b._run_id AND q.file = b.file"
    same_key = " AND ".join(f"s.{name} = try_cast(b.{name} AS {_SPARK[table.columns[name]]})" for name in table.key)
    stamp = f"try_cast(b.{UPDATED_AT} AS TIMESTAMP)"
    first = table.key[0]
    without_values = "regexp_replace(reason, concat('(?s): ', chr(39), '.*?', chr(39), '(?=; |$)'), '')"
    return f"""
SELECT * FROM (
WITH listed AS (SELECT col1 AS _date, col2 AS _run_id, col3 AS file FROM VALUES {values}),
b AS (
  SELECT {", ".join(f"r.{name}" for name in fields)}, l._date, l._run_id, l.file
  FROM (SELECT *, {_FILE} AS file FROM bronze.{table.name} WHERE {_between("_date", dates)}) AS r
  JOIN listed AS l ON r._date = l._date AND r._run_id = l._run_id AND r.file = l.file
),
refused AS (
  SELECT from_json(row, '{parsed}') AS v, {without_values} AS reason, _date, _run_id, {_FILE} AS file
  FROM silver.quarantine WHERE table_name = '{table.name}' AND {_between("_date", dates)}
),
r AS (
  SELECT r.v.*, r.reason, l._date, l._run_id, l.file
  FROM refused AS r JOIN listed AS l ON r._date = l._date AND r._run_id = l._run_id AND r.file = l.file
),
q AS (
  SELECT {", ".join((*table.key, UPDATED_AT))}, _date, _run_id, file, min(reason) AS reason
  FROM r GROUP BY {", ".join((*table.key, UPDATED_AT))}, _date, _run_id, file
),
states AS (
  SELECT b._date,
    CASE
      WHEN q.file IS NOT NULL THEN 'quarantined'
      WHEN s.{first} IS NULL THEN 'lost'
      WHEN s.{UPDATED_AT} = {stamp} AND s._run_id = b._run_id THEN 'kept'
      WHEN s.{UPDATED_AT} > {stamp} OR (s.{UPDATED_AT} = {stamp} AND s._run_id > b._run_id) THEN 'superseded'
      ELSE 'lost'
    END AS state,
    q.reason, {_lake_money(table, "b")} AS money, {_silver_money(table)} AS silver_money
  FROM b
  LEFT JOIN q ON {same_row} AND {same_file}
  LEFT JOIN silver.{SILVER[table.name]} AS s ON {same_key}
)
SELECT '{table.name}' AS table_name, CAST(_date AS STRING) AS date, state, reason, count(*) AS row_count,
  CAST({_sum(table, "money")} AS STRING) AS money,
  CAST({_sum(table, "CASE WHEN state = 'kept' THEN silver_money END")} AS STRING) AS silver_money
FROM states GROUP BY _date, state, reason
UNION ALL
SELECT '{table.name}', CAST(_date AS STRING), 'in_quarantine', NULL, count(*), NULL, NULL FROM r GROUP BY _date
)""".strip()


SEPARATOR: Final = "\x1f"
"""Between the parts of a version's name; no order id or stock code holds the unit separator."""


def late_in_bronze(tables: Sequence[str], versions: Iterable[str]) -> str:
    """Which of the versions Bronze holds, of whatever extract; answers (version), as it was given.

    A version is the table, its key and `updated_at` as the extract writes them, with SEPARATOR between. They are put
    into the statement as base64, which holds whatever a key may hold and needs no quoting.
    """
    wanted = base64.b64encode(json.dumps(list(versions)).encode()).decode()
    arms = [
        f"SELECT DISTINCT version FROM (\n"
        f"  SELECT concat_ws(chr(31), '{name}', {', '.join((*CONTRACT[name].key, UPDATED_AT))}) AS version\n"
        f"  FROM bronze.{name}\n"
        f") WHERE version IN (SELECT explode(from_json(CAST(unbase64('{wanted}') AS STRING), 'array<string>')))"
        for name in tables
    ]
    return "\nUNION ALL\n".join(arms)


def sales(dates: DateRange, timezone: str) -> str:
    """The measures of sales dates in Silver, gold.sales_analytics and gold.agg_daily_sales.

    Answers (table_name, date, lines, orders, cancelled_orders, customers, units, gross_revenue, refunds, net_revenue),
    a measure NULL where the table cannot tell it; with an empty date the lines of all dates. The sales dates are those
    of the range, and those of every order of which the range brought the order's or a line's newest version (an order
    of last week that was cancelled today).
    """
    return f"""
WITH o AS (SELECT *, {_business_day("ordered_at", timezone)} AS sales_date FROM silver.dim_orders),
touched AS (
  SELECT sales_date FROM o WHERE {_between("_date", dates)} OR {_between("sales_date", dates)}
  UNION SELECT o.sales_date FROM silver.fact_orders AS l JOIN o ON l.order_id = o.order_id
  WHERE {_between("l._date", dates)}
  UNION SELECT sales_date FROM gold.agg_daily_sales WHERE {_between("sales_date", dates)}
),
days AS (SELECT * FROM o WHERE sales_date IN (SELECT sales_date FROM touched)),
counts AS (
  SELECT sales_date, count_if(status = 'completed') AS orders, count_if(status = 'cancelled') AS cancelled_orders,
    count(DISTINCT CASE WHEN status = 'completed' THEN customer_id END) AS customers
  FROM days GROUP BY sales_date
),
lines AS (
  SELECT days.sales_date, count(*) AS lines,
    sum(CASE WHEN status = 'completed' AND quantity > 0 THEN quantity ELSE 0 END) AS units,
    sum(CASE WHEN status = 'completed' THEN quantity * unit_price ELSE 0 END) AS gross,
    sum(CASE WHEN status = 'cancelled' THEN -quantity * unit_price ELSE 0 END) AS refunds
  FROM days JOIN silver.fact_orders AS l ON days.order_id = l.order_id GROUP BY days.sales_date
)
SELECT 'silver' AS table_name, CAST(c.sales_date AS STRING) AS date, coalesce(l.lines, 0) AS lines, c.orders,
  c.cancelled_orders, c.customers, coalesce(l.units, 0) AS units, CAST(coalesce(l.gross, 0) AS STRING) AS gross_revenue,
  CAST(coalesce(l.refunds, 0) AS STRING) AS refunds, CAST(coalesce(l.gross - l.refunds, 0) AS STRING) AS net_revenue
FROM counts AS c LEFT JOIN lines AS l ON c.sales_date = l.sales_date
UNION ALL
SELECT 'sales_analytics', CAST(sales_date AS STRING), count(*), NULL, NULL, NULL, NULL,
  CAST(sum(gross_revenue) AS STRING), CAST(sum(refund) AS STRING), CAST(sum(gross_revenue) - sum(refund) AS STRING)
FROM gold.sales_analytics WHERE sales_date IN (SELECT sales_date FROM touched) GROUP BY sales_date
UNION ALL
SELECT 'agg_daily_sales', CAST(sales_date AS STRING), NULL, orders, cancelled_orders, customers, units,
  CAST(gross_revenue AS STRING), CAST(refunds AS STRING), CAST(net_revenue AS STRING)
FROM gold.agg_daily_sales WHERE sales_date IN (SELECT sales_date FROM touched)
UNION ALL
SELECT 'silver', '', count(*), NULL, NULL, NULL, NULL, NULL, NULL, NULL FROM silver.fact_orders
UNION ALL
SELECT 'sales_analytics', '', count(*), NULL, NULL, NULL, NULL, NULL, NULL, NULL FROM gold.sales_analytics
""".strip()


def kpis(sales_dates: Sequence[str]) -> str:
    """The measures of the KPI tables for sales dates, as `sales` answers, and the totals of known customers.

    The last have an empty date: `sales_analytics` over lines with a customer, and `agg_customer_kpi`.
    """
    chosen = ", ".join(f"DATE'{date}'" for date in sales_dates) or "NULL"
    return f"""
SELECT 'agg_sales_kpi' AS table_name, CAST(sales_date AS STRING) AS date, NULL AS lines, orders, cancelled_orders,
  customers, units, CAST(gross_revenue AS STRING) AS gross_revenue, CAST(refunds AS STRING) AS refunds,
  CAST(net_revenue AS STRING) AS net_revenue
FROM kpi.agg_sales_kpi WHERE sales_date IN ({chosen})
UNION ALL
SELECT 'agg_product_kpi', CAST(sales_date AS STRING), NULL, NULL, NULL, NULL, sum(units),
  CAST(sum(gross_revenue) AS STRING), CAST(sum(refunds) AS STRING), CAST(sum(net_revenue) AS STRING)
FROM kpi.agg_product_kpi WHERE sales_date IN ({chosen}) GROUP BY sales_date
UNION ALL
SELECT 'sales_analytics', '', NULL, NULL, NULL, NULL, NULL, CAST(sum(gross_revenue) AS STRING),
  CAST(sum(refund) AS STRING), CAST(sum(gross_revenue) - sum(refund) AS STRING)
FROM gold.sales_analytics WHERE customer_id IS NOT NULL
UNION ALL
SELECT 'agg_customer_kpi', '', NULL, NULL, NULL, NULL, NULL, CAST(sum(gross_revenue) AS STRING),
  CAST(sum(refunds) AS STRING), CAST(sum(net_revenue) AS STRING)
FROM kpi.agg_customer_kpi
""".strip()


def _between(column: str, dates: DateRange) -> str:
    return f"{column} BETWEEN DATE'{dates.first}' AND DATE'{dates.last}'"


def _business_day(column: str, timezone: str) -> str:
    """The calendar day of an instant in a zone, whatever the session's own zone is."""
    micros, day = f"unix_micros(from_utc_timestamp({column}, '{timezone}'))", "86400000000"
    return f"date_from_unix_date(CAST(({micros} - pmod({micros}, {day})) / {day} AS INT))"


def _lake_sum(table: TableContract) -> str:
    return _sum(table, _lake_money(table))


def _sum(table: TableContract, money: str) -> str:
    return f"coalesce(sum({money}), 0)" if table.money else "NULL"


def _lake_money(table: TableContract, alias: str = "") -> str:
    return " * ".join(_lake_factor(factor, f"{alias}." if alias else "") for factor in factors(table)) or "NULL"


def _lake_factor(factor: Factor, prefix: str) -> str:
    column, kind = f"{prefix}{factor.column}", f"DECIMAL({factor.digits + factor.scale}, {factor.scale})"
    return f"(CASE WHEN {column} RLIKE '^{NUMBER}$' THEN try_cast({column} AS {kind}) END)"


def _silver_money(table: TableContract) -> str:
    return " * ".join(f"s.{factor.column}" for factor in factors(table)) or "NULL"
