"""Write the workflows as YAML: `python -m workflows.render`; with `--check`, tell whether that would change any."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from hera.workflows import CronWorkflow, Workflow

from workflows.backfill import backfill
from workflows.parts import daily_refresh, dlt_update, reconcile, tableau_refresh
from workflows.pipeline import daily, nightly

__all__ = ["RENDERED", "main", "render"]

RENDERED = Path(__file__).parents[1] / "helm" / "ecomm-data-pipeline" / "workflows"
"""In the chart, which packs them; `ecomm run` reads them there, or beside the package that the wheel installs."""
_HEADER = "# Written by `python -m workflows.render`: change workflows/ and run it again.\n"


def render() -> dict[str, str]:
    """Give the text of every file of `RENDERED`, by its name."""
    workflows = [daily(), nightly(), backfill(), dlt_update(), daily_refresh(), tableau_refresh(), reconcile()]
    return {_file_name(workflow): _HEADER + str(workflow.to_yaml()) for workflow in workflows}


def main(arguments: list[str] | None = None) -> int:
    """Write the files and remove what is no longer drawn, or compare; gives the exit code."""
    parser = argparse.ArgumentParser(prog="python -m workflows.render", description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; fail when a file is not as drawn")
    check = parser.parse_args(arguments).check
    wanted = render()
    there = {path.name: path.read_text(encoding="utf-8") for path in RENDERED.glob("*.yaml")}
    stale = sorted(name for name in wanted.keys() | there.keys() if wanted.get(name) != there.get(name))
    for name in stale:
        print(f"{'differs' if check else 'written'}: {RENDERED / name}")
        if not check:
            _put(RENDERED / name, wanted.get(name))
    if check and stale:
        print("next: python -m workflows.render", file=sys.stderr)
    return 1 if check and stale else 0


def _file_name(workflow: Workflow) -> str:
    return f"{workflow.name}{'.cron' if isinstance(workflow, CronWorkflow) else ''}.yaml"


def _put(path: Path, text: str | None) -> None:
    if text is None:
        path.unlink()
    else:
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
