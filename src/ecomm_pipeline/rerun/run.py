"""`ecomm rerun`: walk the workflows of a part here, or submit them to the cluster and follow each to its end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ecomm_pipeline.runner.plan import Choice
from ecomm_pipeline.runner.run import run_workflow

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from ecomm_pipeline.argo import Argo
    from ecomm_pipeline.clock import Clock
    from ecomm_pipeline.dates import DateRange
    from ecomm_pipeline.rerun.plan import Submission

__all__ = ["on_argo", "on_this_machine"]


def on_this_machine(
    chosen: Sequence[Submission],
    dates: DateRange,
    *,
    again: str,
    run_id: str,
    workflows: Path,
    runs: Path,
    environment: Mapping[str, str],
    clock: Clock,
) -> None:
    """Walk the workflows here, one after the other, as one run. Raises what `run_workflow` raises."""
    for one in chosen:
        run_workflow(
            Choice(one.workflow, one.arguments, dates, again),
            run_id=run_id,
            workflows=workflows,
            runs=runs,
            environment=environment,
            clock=clock,
        )


def on_argo(chosen: Sequence[Submission], argo: Argo, *, follow: bool) -> None:
    """Submit the workflows, each when the one before it has succeeded. Raises what `Argo` raises.

    Without `follow` only the first is submitted: nobody is there to submit the others.
    """
    for one in chosen:
        name = argo.submit(one.workflow, one.arguments)
        print(f"{one.workflow} {one.arguments.get('date', '')}: submitted as {name}", flush=True)
        if not follow:
            return
        argo.follow(name, lambda text: print(text, flush=True))
        print(f"{name} succeeded", flush=True)
