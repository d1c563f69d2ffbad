"""The pipeline's configuration (`resources/ecomm.pipeline.yml`), checked before anything is declared."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from zoneinfo import ZoneInfo

from lakehouse import contract

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LANDING: Final = "ecomm.landing"
BUSINESS_TIMEZONE: Final = "ecomm.business_timezone"
TABLES: Final = "ecomm.tables"
KEYS: Final = (LANDING, BUSINESS_TIMEZONE, TABLES)


class ConfigurationError(ValueError):
    """Raised when the pipeline's configuration is missing or wrong; names every wrong key at once."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What the pipeline is told: where the extracts are, the zone of a business day, and the tables that arrive."""

    landing: str
    business_timezone: str
    tables: tuple[contract.Table, ...]


def read(get: Callable[[str], str | None]) -> Settings:
    """The settings, read with `get` (a key's value, or None where it is not set).

    Raises ConfigurationError naming each key that is missing or wrong.
    """
    values = {key: (get(key) or "").strip() for key in KEYS}
    problems = [f"{key}: {problem}" for key in KEYS for problem in _CHECKS[key](values[key])]
    if problems:
        message = "; ".join(problems)
        msg = f"the pipeline's configuration is wrong: {message} (set it in dlt/resources/ecomm.pipeline.yml)"
        raise ConfigurationError(msg)
    return Settings(
        landing=values[LANDING].rstrip("/"),
        business_timezone=values[BUSINESS_TIMEZONE],
        tables=tuple(contract.TABLES[name] for name in _names(values[TABLES])),
    )


def _names(value: str) -> list[str]:
    return [name.strip() for name in value.split(",") if name.strip()]


def _landing(value: str) -> Iterator[str]:
    if not value:
        yield "is not set; it is the folder that holds one folder of extracts a table, such as s3://…/daily_extracts"
    elif "{" in value or not re.match(r"([a-z][a-z0-9+.-]*:)?/", value):
        yield f"{value!r} is neither a URL nor an absolute path"


def _timezone(value: str) -> Iterator[str]:
    if not value:
        yield "is not set; it is the zone of a business day, such as Asia/Ho_Chi_Minh"
        return
    try:
        ZoneInfo(value)
    except (ValueError, OSError, LookupError):
        yield f"{value!r} is not an IANA time zone"


def _tables(value: str) -> Iterator[str]:
    # Databricks drops the tables that a pipeline no longer declares, so a list that is too short is refused.
    if not value:
        yield f"is not set; it lists the tables that arrive: {','.join(contract.TABLES)}"
        return
    names = _names(value)
    if unknown := sorted(set(names) - set(contract.TABLES)):
        yield f"{', '.join(unknown)} not in the data contract (dlt/src/lakehouse/contract.py)"
    if absent := sorted(set(contract.TABLES) - set(names)):
        yield f"{', '.join(absent)} left out, though the data contract has it: its tables would be dropped"
    if len(names) != len(set(names)):
        yield f"{value!r} names a table twice"


_CHECKS: Final[dict[str, Callable[[str], Iterator[str]]]] = {
    LANDING: _landing,
    BUSINESS_TIMEZONE: _timezone,
    TABLES: _tables,
}
