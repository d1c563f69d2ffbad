"""Take out of an installed layer what a production image never reads: `python trim.py /layer/app`.

The package metadata stays whole, so that scanners, `pip list` and the SBOM see every package.
"""  # noqa: INP001 (a script of the image's build)

from __future__ import annotations

import shutil
import sys
from pathlib import Path

AWS_SERVICES = {"s3", "sts", "sso", "sso-oidc", "signin"}
"""The API models of botocore that are used: the store, and what boto3's chain of credentials asks (roles, web
identities, single sign-on, `aws login`). All 430 of them are 27 MB."""

BUILD_ONLY = {".pyi", ".pyx", ".pxd", ".pxi", ".c", ".cpp", ".h", ".hpp", ".a"}
"""Suffixes that only type checkers and compilers read."""

SCRIPTS = {"ecomm"}
"""The one command; the libraries' own (`dbt`, `pygmentize`, …) are not needed to import them."""


def main(root: Path) -> None:
    """Trim the virtual environment's part under `root`."""
    for script in (root / "bin").glob("*"):
        if script.name not in SCRIPTS:
            script.unlink()
    for path in sorted(root.rglob("*"), reverse=True):
        if path.name == "tests" and path.is_dir():
            shutil.rmtree(path)
        elif path.suffix in BUILD_ONLY and path.is_file():
            path.unlink()
    for model in root.glob("lib/python*/site-packages/botocore/data/*/"):
        if model.name not in AWS_SERVICES:
            shutil.rmtree(model)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
