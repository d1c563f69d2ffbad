"""Numbers, durations, moments and names as people read them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from datetime import datetime
    from decimal import Decimal
    from zoneinfo import ZoneInfo

    from ecomm_pipeline.ledger import Record
    from ecomm_pipeline.report.page import Tone

__all__ = ["OUTCOME_TONE", "counted", "moment_text", "number", "short_number", "span", "stage_name"]

OUTCOME_TONE: Final[dict[str, Tone]] = {"succeeded": "good", "failed": "bad", "cancelled": "warn", "running": "busy"}
_THIN: Final = "\u202f"


def number(value: Decimal | float, places: int = 0) -> str:
    """Write a number with thin spaces between thousands and a true minus."""
    return f"{value:,.{places}f}".replace(",", _THIN).replace("-", "−")


def short_number(value: Decimal | float) -> str:
    """Write a number in about four characters: 12.3 k, 4.56 M."""
    size = abs(float(value))
    for limit, unit in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if size >= limit:
            scaled = float(value) / limit
            text = number(scaled, 0 if abs(scaled) >= 100 else 1)  # noqa: PLR2004
            return f"{text.removesuffix('.0')}{_THIN}{unit}"
    return number(value, 0 if value == int(value) else 2)


def span(seconds: float) -> str:
    """Write a duration: 0.4 s, 42 s, 3 min 20 s, 2 h 05 min."""
    if seconds < 10:  # noqa: PLR2004
        return f"{max(0, seconds):.1f} s"
    whole = round(seconds)
    if whole < 60:  # noqa: PLR2004
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:  # noqa: PLR2004
        return f"{minutes} min {rest:02} s" if rest else f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60:02} min" if minutes % 60 else f"{minutes // 60} h"


def counted(many: int, one: str, several: str = "") -> str:
    """Write a number of things: 1 row, 2 rows."""
    return f"{number(many)} {one if many == 1 else several or f'{one}s'}"


def moment_text(instant: datetime, tz: ZoneInfo) -> str:
    """Write an instant in a zone."""
    return f"{instant.astimezone(tz):%Y-%m-%d %H:%M}"


def stage_name(record: Record) -> str:
    """Name a record's stage, with its table."""
    return f"{record.stage} {record.table}" if record.table else record.stage
