"""The built images (`make images`), as containers that are locked down as on the cluster."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pytest
from images.lock import stages

from ecomm_pipeline import __version__

LOCKED_DOWN = [
    "--network=none",
    "--read-only",
    "--tmpfs=/tmp",
    "--cap-drop=ALL",
    "--security-opt=no-new-privileges",
    "--memory=1g",
]
"""As the workflows' pods are, and without a network."""


def docker(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["docker", *arguments], check=False, capture_output=True, text=True, timeout=120, **options)


@dataclass(frozen=True)
class Image:
    stage: str
    name: str

    @cached_property
    def config(self) -> dict[str, Any]:
        return json.loads(docker("image", "inspect", self.name).stdout)[0]

    @property
    def labels(self) -> dict[str, str]:
        return {
            name.removeprefix("org.opencontainers.image."): text
            for name, text in self.config["Config"]["Labels"].items()
        }

    @property
    def history(self) -> str:
        return docker("history", "--no-trunc", "--format={{.CreatedBy}}", self.name).stdout

    def run(self, *command: str, entrypoint: str = "ecomm", **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a command as a pod's `command` and `args` do."""
        return docker("run", "--rm", "-i", *LOCKED_DOWN, f"--entrypoint={entrypoint}", self.name, *command, **options)

    def python(self, source: str) -> Any:
        """Run Python inside and give what it prints, as JSON."""
        run = self.run("-", entrypoint="python", input=source)
        assert run.returncode == 0, run.stderr
        return json.loads(run.stdout)


@pytest.fixture(scope="session", autouse=True)
def _engine() -> None:
    if shutil.which("docker") is None or docker("version").returncode:
        assert os.environ.get("CI") != "true", "no Docker engine answers in CI: cluster/engine starts one"
        pytest.skip("no Docker engine answers: cluster/engine starts one")


def built(stage: str) -> Image:
    """Give the image of a stage, which has been built."""
    found = Image(stage, f"ecomm-data-pipeline/{stage}:{__version__}")
    if docker("image", "inspect", found.name).returncode:
        pytest.fail(f"there is no image {found.name}: make images")
    return found


@pytest.fixture(scope="session", params=stages())
def image(request) -> Image:
    """Each image in turn."""
    return built(request.param)


@pytest.fixture(scope="session", params=[stage for stage in stages() if stage != "dbt-runner"])
def small_image(request) -> Image:
    """Each that is to be small."""
    return built(request.param)


@pytest.fixture(scope="session")
def extractor() -> Image:
    return built("extractor")


@pytest.fixture(scope="session")
def dbt_runner() -> Image:
    return built("dbt-runner")


@pytest.fixture(scope="session")
def base_size(extractor) -> int:
    """Bytes of the base image; it is on a machine that built the images."""
    base = extractor.labels["base.name"]
    inspected = docker("image", "inspect", "--format={{.Size}}", base)
    assert inspected.returncode == 0, f"the base {base} is not here: pull it, or build the images here"
    return int(inspected.stdout)


@pytest.fixture(scope="session")
def inside(image) -> dict[str, Any]:
    """What a look around inside the image finds."""
    return image.python(LOOK)


LOOK = """
import importlib.metadata, importlib.util, json, os, sys, sysconfig
from pathlib import Path
site = Path(sysconfig.get_path("purelib"))
writable = []
for folder in ("/", "/app", "/etc", str(site)):
    try:
        Path(folder, "probe").touch()
        writable.append(folder)
    except OSError:
        pass
modules = [path for path in site.rglob("*.py")]
print(json.dumps({
    "uid": os.getuid(),
    "site": str(site),
    "writable": writable,
    "packages": {d.metadata["Name"]: d.version for d in importlib.metadata.distributions(path=[str(site)])},
    "files": {suffix: sum(1 for _ in site.rglob("*" + suffix)) for suffix in (".pyi", ".h", ".pyx")},
    "tests": [str(path) for path in site.rglob("tests/__init__.py")],
    "uncompiled": [str(path) for path in modules if not Path(importlib.util.cache_from_source(path)).exists()],
    "aws": sorted(path.name for path in (site / "botocore/data").iterdir() if path.is_dir()),
    "scripts": sorted(path.name for path in Path(sys.executable).parent.iterdir()),
    "sandbox": importlib.util.find_spec("ecomm_sandbox") is not None,
    "pip": importlib.util.find_spec("pip") is not None,
    "sbom": json.loads(Path("/app/sbom.cdx.json").read_text()),
}))
"""
