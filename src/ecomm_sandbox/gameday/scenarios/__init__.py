"""Every scenario of the game day, in the order of the chain. A module a part of it."""

from __future__ import annotations

from typing import Final

from ecomm_sandbox.gameday.scenarios.dashboard import DASHBOARD
from ecomm_sandbox.gameday.scenarios.drift import DRIFT
from ecomm_sandbox.gameday.scenarios.extraction import EXTRACTION
from ecomm_sandbox.gameday.scenarios.files import FILES
from ecomm_sandbox.gameday.scenarios.kpi import KPI
from ecomm_sandbox.gameday.scenarios.storage import STORAGE
from ecomm_sandbox.gameday.scenarios.updates import UPDATES
from ecomm_sandbox.gameday.scenarios.watching import WATCHING

__all__ = ["SCENARIOS"]

SCENARIOS: Final = (*EXTRACTION, *STORAGE, *FILES, *DRIFT, *UPDATES, *KPI, *DASHBOARD, *WATCHING)
"""All of them."""
