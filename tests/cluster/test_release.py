"""The chart as a release of its own: tested, upgraded and gone."""

from __future__ import annotations

import pytest


@pytest.mark.timeout(300)
def test_a_release_is_tested_upgraded_with_other_tables_and_leaves_nothing_behind(release):
    release.result(timeout=240)
