"""What is done to the tables of the lakehouse behind the pipeline's back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ecomm_sandbox.gameday.scenarios.model import Deed

if TYPE_CHECKING:
    from ecomm_sandbox.gameday.ground import Ground

__all__ = ["damage"]


def damage(what: str, statement: str) -> Deed:
    """Give a deed that runs a statement on the warehouse, in which `{date}` is the date; the repair mends it."""

    def do(ground: Ground) -> None:
        ground.sandbox.query(statement.format(date=ground.date))

    return Deed(what, do)
