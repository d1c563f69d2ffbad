"""Fetch jars, and check their hashes: `python fetch_jars.py LIST MAVEN_URL FOLDER` (a script of the image's build).

LIST has a line a jar: its SHA-256 and its path in a Maven repository. They are named as Ivy names them.
"""  # noqa: INP001 (a script)

from __future__ import annotations

import hashlib
import ssl
import sys
import urllib.request
from pathlib import Path

CERTIFICATES = Path("ca.pem")


def main(jars: Path, maven: str, folder: Path) -> None:
    """Fetch each jar of the list into the folder."""
    context = ssl.create_default_context(cafile=str(CERTIFICATES) if CERTIFICATES.exists() else None)
    folder.mkdir(parents=True)
    for line in jars.read_text().splitlines():
        if line.startswith("#"):
            continue
        wanted, path = line.split()
        with urllib.request.urlopen(f"{maven}/{path}", timeout=120, context=context) as answer:  # noqa: S310 (https)
            content = answer.read()
        if hashlib.sha256(content).hexdigest() != wanted:
            sys.exit(f"{maven}/{path} is not the file whose hash {jars} has")
        *group, _name, _version, file = path.split("/")
        (folder / f"{'.'.join(group)}_{file}").write_bytes(content)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
