"""The table of values in the chart's README, from the `# --` comments of values.yaml; render_docs.py writes it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["CHART", "Value", "readme", "values"]

CHART = Path(__file__).parent.parent / "helm" / "ecomm-data-pipeline"
BEGIN, END = "<!-- Made by tools/render_docs.py from values.yaml; run `make render`. -->\n", "<!-- end -->\n"


@dataclass(frozen=True, slots=True)
class Value:
    """A value that is explained: its path with dots, its default, and what it is."""

    path: str
    default: Any
    about: str


def values(text: str) -> list[Value]:
    """Give the values of a values.yaml. Raises ValueError for one that nothing explains, by its path."""
    about = _comments(text)
    return list(_explained(yaml.safe_load(text), "", about))


def _explained(value: dict[str, Any], above: str, about: dict[str, str]) -> Iterator[Value]:
    for key, inner in value.items():
        path = f"{above}.{key}".lstrip(".")
        if isinstance(inner, dict) and any(one.startswith(f"{path}.") for one in about):
            yield from _explained(inner, path, about)
        elif path in about:
            yield Value(path, inner, about[path])
        else:
            message = f"values.yaml: {path} has no `# --` comment"
            raise ValueError(message)


def _comments(text: str) -> dict[str, str]:
    """Give each `# --` comment, with the lines that go on with it, by the path of the key under it."""
    found: dict[str, str] = {}
    path: list[tuple[int, str]] = []
    pending: list[str] = []
    for line in text.splitlines():
        comment = re.match(r" *# (-- )?(.*)", line)
        key = re.match(r"( *)([A-Za-z0-9_-]+):", line)
        if comment and (comment[1] or pending):
            pending = [comment[2]] if comment[1] else [*pending, comment[2]]
        elif key:
            path = [one for one in path if one[0] < len(key[1])] + [(len(key[1]), key[2])]
            if pending:
                found[".".join(name for _, name in path)] = " ".join(pending)
            pending = []
        elif not comment:
            pending = []
    return found


def readme() -> str:
    """Give the chart's README with the table as values.yaml has it now."""
    text = (CHART / "README.md").read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    rows = "".join(
        f"| `{one.path}` | {_default(one.default)} | {one.about.replace('|', chr(92) + '|')} |\n"
        for one in values((CHART / "values.yaml").read_text(encoding="utf-8"))
    )
    return f"{before}{BEGIN}\n| value | default | meaning |\n| --- | --- | --- |\n{rows}\n{END}{after}"


def _default(value: Any) -> str:  # noqa: ANN401 (whatever YAML holds)
    return "" if value in ("", [], {}) else f"`{value if isinstance(value, str) else json.dumps(value)}`"
