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
from ecomm_pipeline.reconciler.keys import BUCKETS

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from ecomm_pipeline.dates import DateRange

__all__ = [
    "FACTORS",
    "NUMBER",
    "Factor",
    "bronze",
    "business_day",
    "compared",
    "factors",
    "fingerprint",
    "kpis",
    "late_in_bronze",
    "sales",
    "silver",
    "source_buckets",
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

GOLD: Final = ("silver.quarantine", "gold.sales_analytics", "gold.agg_daily_sales")
KPI: Final = ("kpi.agg_sales_kpi", "kpi.agg_product_kpi", "kpi.agg_customer_kpi")

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


def compared(tables: Iterable[str], through: str) -> list[str]:
    """Name the tables of the lakehouse that the statements read, for source tables and as far as is proven."""
    known = [table for table in tables if table in CONTRACT]
    own = [name for table in known for name in (f"bronze.{table}", f"silver.{SILVER[table]}")]
    return [*own, *GOLD, *(KPI if through == "kpi" else ())]


# --- Postgres ------------------------------------------------------------------------------------------------------


_WINDOW: Final = "(%s::text, %s::timestamptz, %s::timestamptz)"


def source_windows(schema: str, columns: Mapping[str, frozenset[str]], windows: Mapping[str, int]) -> str:
    """Rows, money and checksum of many windows of many tables; answers (table, date, rows, money, checksum).

    `columns` are those that each table has now, `windows` how many it is asked for. Parameters, in order, for each
    window of each table: date, since, until. The checksum is NULL where a column of the key is gone; it makes the
    statement take two thirds more time (a million order lines on a busy machine: 9 s instead of 5.5 s).
    """
    arms = [
        f"SELECT '{_text(table)}', w.day, count(t.{_quote(UPDATED_AT)}), {_source_sum(table, columns[table])},\n"
        f"  {_source_checksum(table, columns[table])}\n"
        f"FROM (VALUES {', '.join([_WINDOW] * count)}) AS w (day, since, until)\n"
        f"LEFT JOIN {_quote(schema)}.{_quote(table)} AS t\n"
        f"  ON t.{_quote(UPDATED_AT)} >= w.since AND t.{_quote(UPDATED_AT)} < w.until\n"
        "GROUP BY w.day"
        for table, count in windows.items()
    ]
    return "\nUNION ALL\n".join(arms)


def source_buckets(schema: str, table: TableContract, columns: frozenset[str]) -> str:
    """One window by bucket; answers (bucket, rows, money, checksum). Parameters: since, until."""
    stamp, name = _quote(UPDATED_AT), table.name
    return (
        f"SELECT {_bucket(table)}, count(*), {_source_sum(name, columns)}, {_source_checksum(name, columns)}\n"
        f"FROM {_quote(schema)}.{_quote(name)} AS t\nWHERE t.{stamp} >= %s AND t.{stamp} < %s\nGROUP BY 1"
    )


def source_window(schema: str, table: TableContract, columns: frozenset[str]) -> str:
    """The versions in buckets of a window; answers the key, updated_at and money. Parameters: since, until, buckets."""
    stamp = _quote(UPDATED_AT)
    names = [*(f"concat(t.{_quote(name)})" for name in table.key), f"t.{stamp}::text", _source_money(table, columns)]
    return (
        f"SELECT {', '.join(names)}\nFROM {_quote(schema)}.{_quote(table.name)} AS t\n"
        f"WHERE t.{stamp} >= %s AND t.{stamp} < %s AND {_bucket(table)} = ANY(%s)"
    )


def source_keys(schema: str, table: TableContract) -> str:
    """Which of many keys still exist; answers the keys as text. One parameter a key column: an array of text."""
    names = ", ".join(f"t.{_quote(name)}::text" for name in table.key)
    wanted = ", ".join(f"k{number}" for number in range(len(table.key)))
    arrays = ", ".join("%s::text[]" for _ in table.key)
    on = " AND ".join(f"t.{_quote(name)} = k{number}::{table.columns[name]}" for number, name in enumerate(table.key))
    source = f"{_quote(schema)}.{_quote(table.name)}"
    return f"SELECT {names}\nFROM unnest({arrays}) AS k ({wanted})\nJOIN {source} AS t ON {on}"


def fingerprint(table: TableContract) -> str:
    """Write the 60 bits of `plan.fingerprint`: `concat` writes values as COPY does, and NULL as nothing."""
    parts = ", ".join(f"t.{_quote(name)}, chr(31)" for name in table.key)
    digest = f"md5(convert_to(concat({parts}, t.{_quote(UPDATED_AT)}), 'UTF8'))"
    return f"('x' || left({digest}, 15))::bit(60)::bigint"


def _bucket(table: TableContract) -> str:
    return f"({fingerprint(table)} %% {BUCKETS})::int"


def _source_checksum(table: str, columns: frozenset[str]) -> str:
    contract = CONTRACT.get(table)
    if contract is None or not columns.issuperset(contract.key):
        return "NULL::numeric"
    counted = f"FILTER (WHERE t.{_quote(UPDATED_AT)} IS NOT NULL)"  # a window that is empty has one row of NULLs
    return f"coalesce(sum({fingerprint(contract)}) {counted}, 0)"


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
_MONEY: Final = "DECIMAL(38, 8)"
_REASON: Final = "regexp_replace(reason, concat('(?s): ', chr(39), '.*?', chr(39), '(?=; |$)'), '')"
"""`quantity: not a int: '12a'` without the value, so that alike reasons are counted together."""


def bronze(tables: Sequence[str], dates: DateRange) -> str:
    """Rows, money and rescued rows by file: of Bronze, and of silver.quarantine.

    Answers (layer, table_name, date, run_id, file, row_count, money, rescued); layer is `bronze` or `quarantine`, of
    the latter only rows are told. One aggregation over the union of the tables: a shuffle a table would cost more.
    """
    chosen = f"_date, _run_id, {_FILE} AS file"
    arms = [
        f"SELECT 'bronze' AS layer, '{name}' AS table_name, {chosen}, {_row_money(CONTRACT[name])} AS money,\n"
        f"  _rescued_data IS NOT NULL AS is_rescued\nFROM bronze.{name} WHERE {_between('_date', dates)}"
        for name in tables
    ]
    quarantine = (
        f"SELECT 'quarantine', table_name, {chosen}, CAST(NULL AS {_MONEY}), false\n"
        f"FROM silver.quarantine WHERE {_between('_date', dates)}"
    )
    return f"""
SELECT layer, table_name, CAST(_date AS STRING) AS date, _run_id AS run_id, file, count(*) AS row_count,
  CAST(sum(money) AS STRING) AS money, count_if(is_rescued) AS rescued
FROM ({_union([*arms, quarantine])})
GROUP BY layer, table_name, _date, _run_id, file""".strip()


def silver(files: Mapping[str, Iterable[tuple[str, str, str]]], refused: Collection[str], dates: DateRange) -> str:
    """What became in Silver of each row of the listed files (table → (date, run id, file name)).

    Answers (table_name, date, state, reason, row_count, money, silver_money): rows of Bronze by state `kept`,
    `superseded`, `quarantined` (with the reason, without its values) or `lost`. `silver_money` is what Silver holds of
    the kept rows. Quarantine is looked into for the tables in `refused` only: for the others it holds nothing.
    """
    arms = [_silver_arm(CONTRACT[name], sorted(listed), dates, name in refused) for name, listed in files.items()]
    return f"""
SELECT table_name, CAST(_date AS STRING) AS date, state, reason, count(*) AS row_count,
  CAST(sum(money) AS STRING) AS money,
  CAST(sum(CASE WHEN state = 'kept' THEN silver_money END) AS STRING) AS silver_money
FROM ({_union(arms)})
GROUP BY table_name, _date, state, reason""".strip()


def _silver_arm(
    table: TableContract,
    listed: Sequence[tuple[str, str, str]],
    dates: DateRange,
    refused: bool,  # noqa: FBT001 (an internal function)
) -> str:
    stamp = f"try_cast(b.{UPDATED_AT} AS TIMESTAMP)"
    same_key = " AND ".join(f"s.{name} = try_cast(b.{name} AS {_SPARK[table.columns[name]]})" for name in table.key)
    join = _quarantine_join(table, dates) if refused else ""
    return f"""SELECT '{table.name}' AS table_name, b._date,
    CASE
      {"WHEN q.file IS NOT NULL THEN 'quarantined'" if refused else ""}
      WHEN s.{UPDATED_AT} = {stamp} AND s._run_id = b._run_id THEN 'kept'
      WHEN s.{UPDATED_AT} > {stamp} OR (s.{UPDATED_AT} = {stamp} AND s._run_id > b._run_id) THEN 'superseded'
      ELSE 'lost'
    END AS state,
    {"q.reason" if refused else "CAST(NULL AS STRING)"} AS reason,
    {_row_money(table, "b")} AS money, CAST({_silver_money(table)} AS {_MONEY}) AS silver_money
  FROM (SELECT *, {_FILE} AS file FROM bronze.{table.name} WHERE {_between("_date", dates)}) AS b
  {join}
  LEFT JOIN silver.{SILVER[table.name]} AS s ON {same_key}
  WHERE concat_ws('/', b._date, b._run_id, b.file) IN ({", ".join(f"'{'/'.join(file)}'" for file in listed)})"""


def _union(arms: Sequence[str]) -> str:
    return "\n  UNION ALL\n".join(arms)


def _quarantine_join(table: TableContract, dates: DateRange) -> str:
    """The refused rows, told apart by file, key and updated_at as text; their reasons without the values."""
    names = (*table.key, UPDATED_AT)
    fields = ", ".join(f"{name} STRING" for name in names)
    same = " AND ".join(f"q.{name} <=> b.{name}" for name in (*names, "_date", "_run_id", "file"))
    columns = ", ".join(f"v.{name}" for name in names)
    return f"""LEFT JOIN (
    SELECT {columns}, _date, _run_id, file, min({_REASON}) AS reason
    FROM (
      SELECT from_json(row, '{fields}') AS v, reason, _date, _run_id, {_FILE} AS file
      FROM silver.quarantine WHERE table_name = '{table.name}' AND {_between("_date", dates)}
    )
    GROUP BY {columns}, _date, _run_id, file
  ) AS q ON {same}"""


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
    a measure NULL where the table cannot tell it. The sales dates are those of the range, and those of every order of
    which the range brought the order's or a line's newest version (an order of last week that was cancelled today). An
    empty date has the lines whose order has not arrived. A date that is there twice counts twice, and so differs.
    """
    in_range, brought = _between("sales_date", dates), _between("_date", dates)
    return f"""
WITH o AS (
  SELECT order_id, customer_id, status, _date, {business_day("ordered_at", timezone)} AS sales_date
  FROM silver.dim_orders
),
counts AS (
  SELECT sales_date, count_if(status = 'completed') AS orders, count_if(status = 'cancelled') AS cancelled_orders,
    count(DISTINCT CASE WHEN status = 'completed' THEN customer_id END) AS customers, max({brought}) AS touched
  FROM o GROUP BY sales_date
),
lines AS (
  SELECT o.sales_date, count(*) AS lines,
    sum(CASE WHEN status = 'completed' AND quantity > 0 THEN quantity ELSE 0 END) AS units,
    sum(CASE WHEN status = 'completed' THEN quantity * unit_price ELSE 0 END) AS gross,
    sum(CASE WHEN status = 'cancelled' THEN -quantity * unit_price ELSE 0 END) AS refunds,
    max(l.{brought}) AS touched
  FROM silver.fact_orders AS l LEFT JOIN o ON l.order_id = o.order_id GROUP BY o.sales_date
),
found AS (
  SELECT 'silver' AS table_name, coalesce(c.sales_date, l.sales_date) AS sales_date, coalesce(l.lines, 0) AS lines,
    c.orders, c.cancelled_orders, c.customers, coalesce(l.units, 0) AS units,
    CAST(coalesce(l.gross, 0) AS STRING) AS gross_revenue, CAST(coalesce(l.refunds, 0) AS STRING) AS refunds,
    CAST(coalesce(l.gross - l.refunds, 0) AS STRING) AS net_revenue, c.touched OR l.touched AS touched
  FROM counts AS c FULL JOIN lines AS l ON c.sales_date = l.sales_date
  UNION ALL
  SELECT 'sales_analytics', sales_date, count(*), NULL, NULL, NULL, NULL, CAST(sum(gross_revenue) AS STRING),
    CAST(sum(refund) AS STRING), CAST(sum(gross_revenue) - sum(refund) AS STRING), false
  FROM gold.sales_analytics GROUP BY sales_date
  UNION ALL
  SELECT 'agg_daily_sales', sales_date, NULL, sum(orders), sum(cancelled_orders), sum(customers), sum(units),
    CAST(sum(gross_revenue) AS STRING), CAST(sum(refunds) AS STRING), CAST(sum(net_revenue) AS STRING), false
  FROM gold.agg_daily_sales GROUP BY sales_date
)
SELECT table_name, coalesce(CAST(sales_date AS STRING), '') AS date, lines, orders, cancelled_orders, customers, units,
  gross_revenue, refunds, net_revenue
FROM (SELECT *, max(touched) OVER (PARTITION BY sales_date) AS wanted FROM found)
WHERE wanted OR {in_range} OR sales_date IS NULL
""".strip()


def kpis(sales_dates: Sequence[str]) -> str:
    """The measures of the KPI tables for sales dates, as `sales` answers, and the totals of known customers.

    The last have an empty date: `sales_analytics` over lines with a customer, and `agg_customer_kpi`.
    """
    chosen = ", ".join(f"DATE'{date}'" for date in sales_dates) or "NULL"
    return f"""
SELECT 'agg_sales_kpi' AS table_name, CAST(sales_date AS STRING) AS date, NULL AS lines, sum(orders) AS orders,
  sum(cancelled_orders) AS cancelled_orders, sum(customers) AS customers, sum(units) AS units,
  CAST(sum(gross_revenue) AS STRING) AS gross_revenue, CAST(sum(refunds) AS STRING) AS refunds,
  CAST(sum(net_revenue) AS STRING) AS net_revenue
FROM kpi.agg_sales_kpi WHERE sales_date IN ({chosen}) GROUP BY sales_date
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


def business_day(column: str, timezone: str) -> str:
    """The calendar day of an instant in a zone, whatever the session's own zone is."""
    micros, day = f"unix_micros(from_utc_timestamp({column}, '{timezone}'))", "86400000000"
    return f"date_from_unix_date(CAST(({micros} - pmod({micros}, {day})) / {day} AS INT))"


def _row_money(table: TableContract, alias: str = "") -> str:
    """The money of a row of Bronze; NULL where the table has none."""
    product = " * ".join(_lake_factor(factor, f"{alias}." if alias else "") for factor in factors(table))
    return f"CAST({f'coalesce({product}, 0)' if product else 'NULL'} AS {_MONEY})"


def _lake_factor(factor: Factor, prefix: str) -> str:
    column, kind = f"{prefix}{factor.column}", f"DECIMAL({factor.digits + factor.scale}, {factor.scale})"
    return f"(CASE WHEN {column} RLIKE '^{NUMBER}$' THEN try_cast({column} AS {kind}) END)"


def _silver_money(table: TableContract) -> str:
    return " * ".join(f"s.{factor.column}" for factor in factors(table)) or "NULL"
