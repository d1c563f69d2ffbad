"""Section A, what becomes of a date after it was extracted: rows that come late, files that are damaged or removed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ecomm_sandbox.gameday.scenarios.model import Deed, Fault, Named, Scenario

if TYPE_CHECKING:
    from ecomm_sandbox.gameday.ground import Ground

__all__ = ["FILES"]

_PROOF: Final = ("reconciler", "--date", "{date}")


def _late(product: str) -> str:
    """Give a statement that adds a product to the day of the newest order, at noon by UTC or so."""
    return f"""INSERT INTO products SELECT '{product}', 'late', 1, at, at
FROM (SELECT max(updated_at) - interval '6 hours' AS at FROM orders) AS newest ON CONFLICT DO NOTHING"""


def _commit_late(ground: Ground) -> None:
    ground.sql(_late("LATE-1"))


def _commit_now(ground: Ground) -> None:
    """End the transaction that the fault holds open: it is committed."""
    ground.sandbox.clear_faults()


def _damage(ground: Ground) -> None:
    """Cut the newest file of the orders in half."""
    key = ground.files("orders")[-1]
    content = ground.get(key)
    ground.put(key, content[: len(content) // 2])


def _remove(ground: Ground) -> None:
    """Remove the newest file of the orders."""
    ground.remove(ground.files("orders")[-1])


def _not_reconciled(name: str, fault: Deed | Fault, kind: str, *steps: object) -> Scenario:
    return Scenario(
        name=name,
        runbook="A",
        fault=fault,
        alert="EcommNotReconciled",
        priority="P2",
        doctor=Named("A", kind),
        state="prepared",
        steps=(*steps, _PROOF),  # type: ignore[arg-type]  # they are steps
    )


FILES: Final = (
    _not_reconciled("late-commit", Deed("a row is written with an old updated_at", _commit_late), "extract_differs"),
    _not_reconciled(
        "long-transaction",
        Fault("postgres", "long-transaction", {"sql": _late("LATE-2")}),
        "extract_differs",
        ("extractor", "--table", "products", "--date", "{date}"),
        _commit_now,
    ),
    _not_reconciled("file-damaged", Deed("a file is cut in half", _damage), "extract_damaged"),
    Scenario(
        name="file-removed",
        runbook="A",
        fault=Deed("a file is removed", _remove),
        alert="EcommNightlyFailed",
        priority="P2",
        doctor=Named("A", "extract_damaged"),
        labels={"stage": "reconciler", "failure_class": "bad_data"},
        state="prepared",
        steps=(_PROOF,),
    ),
)
