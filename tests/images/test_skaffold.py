"""skaffold.yaml, by the JSON schema of skaffold itself: of the program, or of its Go module where there is Go."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from images.lock import PROJECT

SKAFFOLD = yaml.safe_load((PROJECT / "skaffold.yaml").read_text())
MODULE = "github.com/GoogleContainerTools/skaffold/v2@v2.16.1"


@pytest.fixture(scope="module")
def schema(tmp_path_factory) -> dict[str, Any]:
    if shutil.which("skaffold"):
        return json.loads(_output("skaffold", "schema", "get", SKAFFOLD["apiVersion"]))
    if shutil.which("go"):
        module = json.loads(_output("go", "mod", "download", "-json", MODULE, cwd=tmp_path_factory.mktemp("go")))
        name = SKAFFOLD["apiVersion"].removeprefix("skaffold/")
        return json.loads((Path(module["Dir"]) / f"docs-v2/content/en/schemas/{name}.json").read_text())
    assert os.environ.get("CI") != "true", "neither skaffold nor Go is here, in CI"
    pytest.skip("neither skaffold nor Go is here")


def _output(*command: str, cwd: Path | None = None) -> str:
    return subprocess.run(command, cwd=cwd, check=True, capture_output=True, text=True, timeout=120).stdout


def test_skaffold_understands_it(schema):
    jsonschema.validate(SKAFFOLD, schema)


def test_its_schema_would_refuse_a_wrong_name(schema):
    wrong = SKAFFOLD | {"builds": SKAFFOLD["build"]}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, schema)
