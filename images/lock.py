"""Write what each image installs, with hashes, from uv.lock: `python images/lock.py`.

With `--check`, change nothing and fail when a file is not as uv.lock says. With `--tools`, resolve anew what only
builds.

::

    layers/common.txt        every stage
    layers/databricks.txt    and the stages that call Databricks
    STAGE/requirements.txt   and one stage
    STAGE/openlineage.txt    and what sends its OpenLineage events, where an image is built with it
    sandbox/packages.txt     the sandbox, for tests: all of it
"""  # noqa: INP001 (a script)

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

__all__ = ["layers", "lock", "main", "stages"]

IMAGES = Path(__file__).parent
PROJECT = IMAGES.parent
_HEADER = "# Written by `python images/lock.py` from uv.lock: do not edit.\n"
_SMALLEST = "dlt-trigger"
"""The stage that needs nothing beyond the layer of those that call Databricks."""


def stages() -> list[str]:
    """Give the stages that have an image: the folders with requirements of their own."""
    return sorted(path.parent.name for path in IMAGES.glob("*/requirements.txt"))


def layers(stage: str) -> list[Path]:
    """Give the requirements of an image's layers, in order: images/Dockerfile says what a stage shares."""
    shared = re.search(rf"^FROM (\w+) AS shared-{stage}$", (IMAGES / "Dockerfile").read_text(), re.MULTILINE)
    if not shared:
        print(f"error: images/Dockerfile has no line FROM … AS shared-{stage}", file=sys.stderr)
        sys.exit(78)
    names = ["common"] if shared[1] == "tools" else ["common", shared[1]]
    return [*(IMAGES / f"layers/{name}.txt" for name in names), IMAGES / stage / "requirements.txt"]


def lock() -> dict[Path, str]:
    """Give the text of every file of requirements, by its path."""
    common = _export()
    databricks = _without(_export(_SMALLEST), common)
    texts = {IMAGES / "layers/common.txt": common, IMAGES / "layers/databricks.txt": databricks}
    texts[IMAGES / "sandbox/packages.txt"] = _export("sandbox")
    for stage in stages():
        *below, own = layers(stage)
        shared = {requirement for layer in below for requirement in texts[layer]}
        texts[own] = _without(_export(stage), shared)
        if (lineage := own.with_name("openlineage.txt")).exists():
            texts[lineage] = _without(_export(stage, "openlineage"), {*shared, *texts[own]})
    return {path: _HEADER + "".join(requirements.values()) for path, requirements in texts.items()}


def _export(*extras: str) -> dict[str, str]:
    """Give what the project with these extras needs: `name==version ; marker` -> that with its hashes."""
    chosen = [option for extra in extras for option in ("--extra", extra)]
    command = [_uv(), "export", "--frozen", "--offline", "--no-emit-project", "--no-annotate", "--no-header", *chosen]
    run = subprocess.run(command, cwd=PROJECT, check=True, capture_output=True, text=True)
    requirements = re.findall(r"^\S.*\n(?:[ ]+.*\n)*", run.stdout, re.MULTILINE)
    return {text.partition(" \\")[0]: text for text in requirements}


def _without(requirements: dict[str, str], below: Collection[str]) -> dict[str, str]:
    return {requirement: text for requirement, text in requirements.items() if requirement not in below}


def _resolve_tools() -> None:
    target = IMAGES / "layers/tools.txt"
    options = ["--universal", "--python-version", "3.11", "--generate-hashes", "--no-annotate", "--upgrade"]
    command = [_uv(), "pip", "compile", "--quiet", *options, "--no-header", "layers/tools.in", "-o", str(target)]
    subprocess.run(command, cwd=IMAGES, check=True)
    target.write_text("# Written by `python images/lock.py --tools` from tools.in: do not edit.\n" + target.read_text())


def _uv() -> str:
    """Find uv as tools/setup does."""
    found = os.environ.get("UV") or shutil.which("uv") or shutil.which(PROJECT / ".tools/bin/uv")
    if found:
        return found
    print("error: uv was not found\nnext:  tools/setup check", file=sys.stderr)
    sys.exit(78)


def main(arguments: list[str] | None = None) -> int:
    """Write the files, or compare; gives the exit code."""
    parser = argparse.ArgumentParser(prog="python images/lock.py", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="change nothing; fail when a file is not as uv.lock says")
    parser.add_argument("--tools", action="store_true", help="also take the newest of what builds the images")
    chosen = parser.parse_args(arguments)
    if chosen.tools:
        _resolve_tools()
    stale = {path: text for path, text in lock().items() if not path.is_file() or path.read_text() != text}
    for path, text in stale.items():
        print(f"{'differs' if chosen.check else 'written'}: {path.relative_to(PROJECT)}")
        if not chosen.check:
            path.write_text(text)
    if chosen.check and stale:
        print("next: python images/lock.py", file=sys.stderr)
    return 1 if chosen.check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
