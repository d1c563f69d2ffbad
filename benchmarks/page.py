"""The page of results, docs/benchmarks.md: each benchmark has its own section between two marks."""

from __future__ import annotations

from pathlib import Path

PAGE = Path(__file__).parent.parent / "docs" / "benchmarks.md"


def write(benchmark: str, text: str) -> None:
    """Put a benchmark's section between its marks, `<!-- NAME: begin -->` and `<!-- NAME: end -->`."""
    begin, end = f"<!-- {benchmark}: begin -->", f"<!-- {benchmark}: end -->"
    before, began, rest = PAGE.read_text(encoding="utf-8").partition(begin)
    _, ended, after = rest.partition(end)
    if not began or not ended:
        message = f"{PAGE} has no marks {begin} and {end}"
        raise ValueError(message)
    PAGE.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")
