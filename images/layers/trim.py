"""Take out of an installed layer what a production image never reads: `python trim.py /layer/app`.

The package metadata stays whole, so that scanners, `pip list` and the SBOM see every package.
"""  # noqa: INP001 (a script of the image's build)

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

KEPT = {
    # API models: of the store, and of what boto3's chain of credentials asks (roles, web identities, single sign-on,
    # `aws login`). All 430 of them are 27 MB.
    "botocore/data/*/": {"s3", "sts", "sso", "sso-oidc", "signin"},
    # Languages that rich can colour: it does so for tracebacks only.
    "pygments/lexers/*.py": {"__init__", "_mapping", "python"},
    # Locales: agate, which dbt prints tables with, formats numbers in this one.
    "babel/locale-data/*.dat": {"root", "en", "en_US"},
}
"""Data of libraries, by glob under site-packages, and the names of what is used."""

UNUSED = ["pyarrow/*flight*"]
"""Parts of libraries, by glob: Arrow's RPC, which no warehouse of ours speaks."""

BUILD_ONLY = {".pyi", ".pyx", ".pxd", ".pxi", ".c", ".cpp", ".h", ".hpp", ".a"}
"""Suffixes that only type checkers and compilers read."""

SCRIPTS = {"ecomm"}
"""The one command; the libraries' own (`dbt`, `pygmentize`, …) are not needed to import them."""


def main(root: Path) -> None:
    """Trim the virtual environment's part under `root`."""
    for site in root.glob("lib/python*/site-packages"):
        for path in unused(site):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        strip(site)
    for script in (root / "bin").glob("*"):
        if script.name not in SCRIPTS:
            script.unlink()


def unused(site: Path) -> set[Path]:
    """Find what is to go: files, and folders without what is under them."""
    tests = [path.parent for path in site.rglob("tests/__init__.py")]  # dbt's own `tests` without one are macros
    tests = [path for path in tests if not set(tests).intersection(path.parents)]
    files = [
        path for path in site.rglob("*") if path.suffix in BUILD_ONLY and not set(tests).intersection(path.parents)
    ]
    data = [path for pattern, names in KEPT.items() for path in site.glob(pattern) if path.stem not in names]
    return {*files, *tests, *data, *(path for pattern in UNUSED for path in site.glob(pattern))}


def strip(site: Path) -> None:
    """Drop the symbol tables of Rust extensions, which come with them."""
    if extensions := [str(path) for path in site.rglob("*.abi3.so")]:
        subprocess.run(["strip", "--strip-unneeded", *extensions], check=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
