"""dbt Cloud as a process: `python -m ecomm_sandbox.dbt_cloud HOME`. Ready when `GET /sandbox/health` answers 200."""

from __future__ import annotations

import sys
from pathlib import Path

from ecomm_sandbox.dbt_cloud.account import Account
from ecomm_sandbox.dbt_cloud.commands import Commands
from ecomm_sandbox.dbt_cloud.server import make_server
from ecomm_sandbox.state import Home


def main(argv: list[str]) -> None:
    """Serve the account of the home given as the only argument, until ended."""
    home = Home(Path(argv[0]))
    state = home.read()
    account = Account(home / "dbt-cloud", Commands(home))
    token, port = state.secrets["dbt-cloud-token"], state.ports["dbt-cloud"]
    make_server(account, token, port, bind=state.bind, host=state.address).serve_forever()


if __name__ == "__main__":
    main(sys.argv[1:])
