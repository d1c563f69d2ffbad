"""One suite for the sandbox and for real services: `pytest tests/contract [--target live]`.

With `--target live` the environment names the services, as for the stages (ECOMM_DATABRICKS_…, ECOMM_TABLEAU_…); tests
of a service that it does not name are skipped. They validate the pipeline and refresh one data source
(ECOMM_CONTRACT_DATASOURCE; default: the first): choose ones that are made for trying.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from ecomm_pipeline.errors import ConfigurationError
from ecomm_pipeline.settings import load

if TYPE_CHECKING:
    from collections.abc import Callable


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--target",
        choices=("sandbox", "live"),
        default="sandbox",
        help="what the contract tests talk to: the local sandbox, or the services that the environment names",
    )


@pytest.fixture(scope="session")
def target(request: pytest.FixtureRequest) -> str:
    """What is talked to: `sandbox` or `live`."""
    # In a run of all tests the option is not known: this file is read after the command line.
    return str(request.config.getoption("--target", default="sandbox"))


@pytest.fixture(scope="session")
def environment(request: pytest.FixtureRequest, target: str) -> dict[str, str]:
    """The variables that name the services."""
    return dict(os.environ) if target == "live" else {**os.environ, **request.getfixturevalue("sandbox").env}


@pytest.fixture(scope="session")
def settings(environment: dict[str, str], target: str) -> Callable[[type[Any]], Any]:
    """Read a group of settings of the target; a live one that is not named skips the test."""

    def read(kind: type[Any]) -> Any:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            try:
                return load(kind)
            except ConfigurationError as error:
                if target == "live":
                    pytest.skip(str(error))
                raise

    return read
