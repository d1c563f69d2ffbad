"""What a run may do that was held back: go on when a person let it, and not because its time ran out."""

from __future__ import annotations

from datetime import timedelta

import pytest
from tests.support.virtual import BEGAN, DATES, RUN, VirtualStage

from ecomm_pipeline.errors import BadDataError
from ecomm_pipeline.layout import KPI_GATE, Layout
from ecomm_pipeline.ledger import Ledger, Record
from ecomm_pipeline.tableau_refresher.run import refuse_what_nobody_let_go_on


class Refresh(VirtualStage):
    """tableau-refresher's first step."""

    name = "tableau-refresher"

    def work(self, context):
        refuse_what_nobody_let_go_on(context)

    def judged(self, run_id=RUN, **figures):
        """Put a verdict on the KPIs into the ledger, of a hold that ends 12 hours after the run began."""
        record = Record(
            stage=KPI_GATE,
            first_date=DATES.first.day,
            last_date=DATES.last.day,
            run_id=run_id,
            started_at=BEGAN,
            figures=figures,
        )
        Ledger(self.bucket, Layout()).write(record)


UNTIL = (BEGAN + timedelta(hours=12)).isoformat()


@pytest.mark.parametrize(
    ("run_id", "figures", "hours"),
    [
        (RUN, {"verdict": "held", "held_until": UNTIL}, 11.9),
        (RUN, {"verdict": "passed"}, 99),
        ("20260102T190000Z-other", {"verdict": "held", "held_until": UNTIL}, 99),
    ],
)
def test_a_run_goes_on_that_passed_or_was_let_go_on_in_time_or_is_another_one(run_id, figures, hours):
    refresh = Refresh()
    refresh.judged(run_id, **figures)
    refresh.clock.sleep(hours * 3600)
    assert refresh.run().outcome == "succeeded"


def test_a_run_without_a_gate_goes_on():
    assert Refresh().run().outcome == "succeeded"


def test_silence_is_no_consent():
    refresh = Refresh()
    refresh.judged(verdict="held", held_until=UNTIL)
    refresh.clock.sleep(12 * 3600)
    with pytest.raises(BadDataError, match="2026-01-02 was held back, and nobody let it go on by ") as error:
        refresh.run()
    assert error.value.next_step.startswith("ecomm rerun tableau 2026-01-02 --onwards")
    assert (error.value.failure.retry, error.value.failure.priority) == (False, "P2")
