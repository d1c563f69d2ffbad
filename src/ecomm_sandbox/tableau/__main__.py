"""Tableau as a process: `python -m ecomm_sandbox.tableau HOME`. Ready when `GET /sandbox/health` answers 200."""

from __future__ import annotations

import sys
from pathlib import Path

from ecomm_sandbox.state import Home
from ecomm_sandbox.tableau.server import make_server
from ecomm_sandbox.tableau.site import Site


def main(argv: list[str]) -> None:
    """Serve the site of the home given as the only argument, until ended."""
    home = Home(Path(argv[0]))
    state = home.read()
    make_server(Site(home, state.secrets["tableau-token"]), state.ports["tableau"], state.bind).serve_forever()


if __name__ == "__main__":
    main(sys.argv[1:])
