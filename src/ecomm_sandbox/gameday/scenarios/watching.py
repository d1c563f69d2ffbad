"""Those who watch: what happens when one of them is gone."""

from __future__ import annotations

from typing import Final

from ecomm_sandbox.gameday.scenarios.model import Scenario, Stopped

__all__ = ["WATCHING"]

WATCHING: Final = (
    Scenario(
        name="exporter-down",
        runbook="",
        fault=Stopped("exporter"),
        alert="EcommExporterDown",
        priority="P1",
        doctor=None,
        repair="none",
        dated=False,
    ),
)
