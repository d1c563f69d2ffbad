"""The sinks as a process: `python -m ecomm_sandbox.sinks HOME`. Ready when `GET /sandbox/health` answers 200."""

from __future__ import annotations

import sys
from pathlib import Path

from ecomm_sandbox.sinks.inbox import Secrets
from ecomm_sandbox.sinks.server import make_server
from ecomm_sandbox.state import Home


def main(argv: list[str]) -> None:
    """Serve the sinks of the home given as the only argument, until ended."""
    state = Home(Path(argv[0])).read()
    make_server(Secrets.of(state), state.ports["sinks"], state.bind).serve_forever()


if __name__ == "__main__":
    main(sys.argv[1:])
