"""Silver: Bronze's text as typed values. A value that does not fit its type exactly is quarantined, never changed."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from pyspark.sql import functions as F  # noqa: N812  # its usual name

from lakehouse import contract

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pyspark.sql import Column, DataFrame

KEY_PROBLEM: Final = "_key_problem"
TYPE_PROBLEM: Final = "_type_problem"
HELPERS: Final = (KEY_PROBLEM, TYPE_PROBLEM)
"""Columns of `accepted` that the expectations read and that no Silver table holds."""

DROPPING: Final[dict[str, str]] = {
    "valid_key": f"{KEY_PROBLEM} IS NULL",
    "valid_types": f"{TYPE_PROBLEM} IS NULL",
}
"""Expectations that drop the row from Silver; `quarantined` keeps exactly these rows."""

TABLE_PROPERTIES: Final[dict[str, str]] = {
    "quality": "silver",
    # What materialized views need on their sources to be refreshed by increments.
    "delta.enableRowTracking": "true",
    "delta.enableDeletionVectors": "true",
    "delta.enableChangeDataFeed": "true",
}
QUARANTINE_PROPERTIES: Final[dict[str, str]] = {"quality": "silver"}

SHOWN: Final = 60
"""Characters of a bad value that a reason shows."""

# The forms in which Postgres writes values that can fit. \A…\z, because $ also matches before a final newline.
_INTEGER: Final = r"\A(?:0|-?[1-9][0-9]*)\z"
_TIMESTAMP: Final = (
    r"\A[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,6})?[+-][0-9]{2}(?::[0-9]{2}){0,2}\z"
)
# Spark's range, less a day at each end: so the calendar day of an instant is in range too, whatever the zone.
_FIRST: Final = "0001-01-02 00:00:00+00:00"
_LAST: Final = "9999-12-30 23:59:59.999999+00:00"
_LINE_AMOUNT: Final = "decimal(23,4)"
"""Holds any int × decimal(12,4)."""


def accepted(bronze: DataFrame, table: contract.Table) -> DataFrame:
    """The rows of a Bronze table, typed; grain: one row a version of a row of the source.

    Columns: those of the Silver table, then HELPERS. Rows that break DROPPING are still there, so that the expectations
    can count them.
    """
    return _checked(bronze, table).select(
        *(_typed(column).alias(column.name) for column in table.columns),
        contract.SOURCE_FILE.name,
        contract.RUN_ID.name,
        contract.BUSINESS_DATE.name,
        F.current_timestamp().alias(contract.PROCESSED_AT.name),
        *HELPERS,
    )


def warnings(table: contract.Table) -> dict[str, str]:
    """Expectations that are counted and drop nothing: what is odd, but fits. Bronze counts rescued data already."""
    if table.name != "orders":
        return {}
    return {"known_status": f"status IN ({', '.join(repr(status) for status in contract.STATUSES)})"}


def quarantined(bronze: DataFrame, table: contract.Table) -> DataFrame:
    """The rows of a Bronze table that Silver refuses, with the reason; grain: one row a refused row.

    With the rows of `accepted` that meet DROPPING they are all of Bronze's rows, each once.
    """
    checked = _checked(bronze, table).where(F.col(KEY_PROBLEM).isNotNull() | F.col(TYPE_PROBLEM).isNotNull())
    return checked.select(
        F.lit(table.name).alias("table_name"),
        F.concat_ws("; ", KEY_PROBLEM, TYPE_PROBLEM).alias("reason"),
        F.to_json(F.struct(*table.names), {"ignoreNullFields": "false"}).alias("row"),
        contract.RESCUED.name,
        contract.SOURCE_FILE.name,
        contract.RUN_ID.name,
        contract.BUSINESS_DATE.name,
        F.current_timestamp().alias("processed_at"),
    )


def version() -> Column:
    """What orders the versions of a key: `updated_at`, then the run, then the file (a range overlaps itself)."""
    return F.struct(contract.UPDATED_AT.name, contract.RUN_ID.name, contract.SOURCE_FILE.name)


def _checked(bronze: DataFrame, table: contract.Table) -> DataFrame:
    keys = [_problem(column) for column in table.columns if column.name in table.key]
    rest = [_problem(column) for column in table.columns if column.name not in table.key]
    if table.name == "order_items":
        rest.append(_amount_problem())
    rest.append(_origin_problem())
    return bronze.withColumns({KEY_PROBLEM: _joined(keys), TYPE_PROBLEM: _joined(rest)})


def _joined(problems: Iterable[Column]) -> Column:
    return F.nullif(F.concat_ws("; ", *problems), F.lit(""))


def _problem(column: contract.Column) -> Column:
    """What is wrong with the column's text, or NULL."""
    value = F.col(column.name)
    missing = F.when(value.isNull(), F.lit(f"{column.name}: missing") if column.required else F.lit(None))
    return missing.when(~_fits(column), _reason(f"{column.name}: does not fit {column.type}", value))


def _amount_problem() -> Column:
    """Why the line's amount does not fit Gold's money, or NULL; NULL too where a factor is itself bad."""
    quantity, price = F.col("quantity"), F.col("unit_price")
    amount = quantity.try_cast(contract.INT) * price.try_cast(contract.PRICE)
    fits = amount.cast(_LINE_AMOUNT).try_cast(contract.MONEY).isNotNull()
    shown = F.concat_ws(" × ", quantity, price)
    return F.when(amount.isNotNull() & ~fits, _reason(f"quantity × unit_price: does not fit {contract.MONEY}", shown))


def _origin_problem() -> Column:
    """Why the row's version cannot be ordered, or NULL: its file lies outside the layout of the extracts."""
    outside = F.col(contract.RUN_ID.name).isNull() | F.col(contract.BUSINESS_DATE.name).isNull()
    source = F.col(contract.SOURCE_FILE.name)
    return F.when(outside, _reason(f"{contract.SOURCE_FILE.name}: not …/date=…/run=…/part-…", source))


def _reason(what: str, value: Column) -> Column:
    cut = F.when(F.length(value) > SHOWN, F.concat(F.substring(value, 1, SHOWN), F.lit("…"))).otherwise(value)
    return F.concat(F.lit(f"{what}: '"), cut, F.lit("'"))


def _typed(column: contract.Column) -> Column:
    """The column's value; NULL where it is missing or does not fit."""
    value = F.col(column.name)
    return value if column.type == contract.TEXT else F.when(_fits(column), value.try_cast(column.type))


def _fits(column: contract.Column) -> Column:
    """Whether the column's text is a value of its type, exactly."""
    value = F.col(column.name)
    match column.type:
        case contract.TEXT:
            return F.lit(True)  # noqa: FBT003  # the literal itself
        case contract.INT | contract.BIGINT:
            return value.rlike(_INTEGER) & value.try_cast(column.type).isNotNull()
        case contract.TIMESTAMP:
            moment = value.try_cast(column.type)
            in_range = moment.between(F.lit(_FIRST).cast(column.type), F.lit(_LAST).cast(column.type))
            return value.rlike(_TIMESTAMP) & F.coalesce(in_range, F.lit(False))  # noqa: FBT003
        case _:
            return value.rlike(_decimal(column.type)) & value.try_cast(column.type).isNotNull()


def _decimal(type_name: str) -> str:
    """The form of a number that fits `decimal(p,s)` without rounding; zeros past the scale change nothing."""
    precision, scale = (int(digits) for digits in re.findall(r"\d+", type_name))
    return rf"\A-?(?:0|[1-9][0-9]{{0,{precision - scale - 1}}})(?:\.[0-9]{{1,{scale}}}0*)?\z"
