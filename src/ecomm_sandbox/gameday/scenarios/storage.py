"""Section A, the bucket: it is full, refuses, or does not answer. Nothing can be written to the ledger then."""

from __future__ import annotations

from typing import Final

from ecomm_sandbox.gameday.scenarios.model import Fault, Named, Scenario

__all__ = ["STORAGE"]

STORAGE: Final = (
    Scenario(
        name="bucket-full",
        runbook="A",
        fault=Fault("s3", "full"),
        alert="EcommNightlyNotStarted",
        priority="P1",
        doctor=Named("A", "nightly_not_started"),
        steps=(("extractor", "--table", "orders", "--date", "{date}"),),
    ),
    *(
        Scenario(
            name=f"bucket-{kind}",
            runbook="A",
            fault=Fault("s3", kind),
            alert="EcommExporterDown",
            priority="P1",
            doctor=Named("A", "unreachable", failure_class),
            dated=False,
        )
        for kind, failure_class in (("forbidden", "credentials"), ("unavailable", "unavailable"))
    ),
)
