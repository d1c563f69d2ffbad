"""How far an extraction says that it is."""

from __future__ import annotations

from typing import Any

from ecomm_pipeline.extractor.run import BUFFER, _Sink


class Nowhere:
    """A file of the store that keeps nothing."""

    def write(self, _data: bytes) -> None:
        """Take it."""


def test_rows_are_estimated_to_within_a_hundredth_and_bytes_are_exact() -> None:
    told: list[tuple[int, int]] = []
    nowhere: Any = Nowhere()
    sink = _Sink(nowhere, "none", lambda rows, size: told.append((rows, size)))
    row = b"536365,1,85123A,6,2.5500,2010-12-01 08:26:00+00\n"
    content = row * (100 * BUFFER // len(row))
    for start in range(0, len(content), BUFFER):
        sink.write(content[start : start + BUFFER])
    rows, size = told[-1]
    assert size == len(content)
    assert abs(rows * len(row) - size) < size / 100
