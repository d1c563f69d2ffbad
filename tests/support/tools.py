"""The programs that `cluster/tools` brings."""

from __future__ import annotations

import os
import shutil
from pathlib import Path


def tool(name: str) -> str | None:
    """Find a program in PATH, or where `cluster/tools` puts it."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return shutil.which(name) or shutil.which(name, path=str(cache / "ecomm-data-pipeline" / "cluster" / "bin"))
