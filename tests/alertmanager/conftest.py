"""A real Alertmanager with the configuration of the chart, telling the sandbox's sinks; only its waits are shorter."""

from __future__ import annotations

import os
import subprocess
import threading
import urllib.error
from typing import TYPE_CHECKING

import pytest
from tests.support.alerting import CHART, CONFIG, Alertmanager, Sinks, eventually, free_port, http, programs

from ecomm_sandbox.gameday import watch
from ecomm_sandbox.sinks.inbox import Secrets
from ecomm_sandbox.sinks.server import make_server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="session")
def binaries() -> Path:
    """The folder of alertmanager and amtool."""
    return programs("alertmanager")


@pytest.fixture
def sinks() -> Iterator[Sinks]:
    """The sinks, empty."""
    secrets = Secrets("test")
    server = make_server(secrets, 0)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield Sinks(secrets, server.server_address[1])
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def alertmanager(binaries: Path, sinks: Sinks, tmp_path: Path) -> Iterator[Alertmanager]:
    """An Alertmanager with the chart's configuration, telling the sinks."""
    watch.write_credentials(sinks.secrets, sinks.url, tmp_path / "secrets")
    config = watch.alertmanager_config(CHART, sinks.url, tmp_path / "secrets")
    (tmp_path / "alertmanager.yml").write_text(config)
    (tmp_path / "ecomm.tmpl").write_text((CONFIG.parent / "ecomm.tmpl").read_text())
    port = free_port()
    command = [binaries / "alertmanager", "--config.file=alertmanager.yml", "--storage.path=data"]
    command += [f"--web.listen-address=127.0.0.1:{port}", "--cluster.listen-address=", "--log.level=debug"]
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=tmp_path, stderr=log, stdout=log, env=environment)
    try:
        eventually(lambda: _answers(process, port, tmp_path / "log"))
        yield Alertmanager(f"http://127.0.0.1:{port}")
    finally:
        process.terminate()
        process.wait(10)


def _answers(process: subprocess.Popen[bytes], port: int, log: Path) -> bool:
    assert process.poll() is None, log.read_text()[-3000:]
    try:
        http("GET", f"http://127.0.0.1:{port}/-/ready")
    except (urllib.error.URLError, ConnectionError):
        return False
    return True
