"""Each fault is noticed by the right alert, told at the right places only, named by the doctor, and over."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from tests.support.alerting import programs

from ecomm_sandbox.gameday.run import play
from ecomm_sandbox.gameday.scenarios import SCENARIOS
from ecomm_sandbox.gameday.scenarios.model import QUICK, Scenario
from ecomm_sandbox.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    """A sandbox without a lakehouse."""
    made = Sandbox(tmp_path_factory.mktemp("gameday"))
    try:
        made.up(QUICK)
        yield made
    finally:
        made.down()


@pytest.mark.parametrize("scenario", [one for one in SCENARIOS if one.quick], ids=lambda one: one.name)
def test_a_fault_is_noticed_told_diagnosed_and_over_after_the_printed_command(
    shop: Sandbox, scenario: Scenario, binaries: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", os.pathsep.join([str(binaries), str(programs("prometheus")), os.environ["PATH"]]))
    (result,) = play(shop, [scenario], lambda _name, _what: None)
    assert result.problems == []
