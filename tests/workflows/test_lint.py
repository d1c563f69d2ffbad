"""What Argo says of the rendered workflows, offline: needs its `argo`, in PATH or where `cluster/tools` puts it."""

from __future__ import annotations

import subprocess

import pytest
from tests.support.tools import tool
from workflows.render import RENDERED

ARGO = tool("argo")

pytestmark = pytest.mark.skipif(ARGO is None, reason="argo is not here: run `cluster/tools argo`")


def lint(folder):
    command = [str(ARGO), "lint", "--offline", "--strict", "--no-color", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    return done.returncode, done.stdout + done.stderr


def test_argo_accepts_what_is_rendered():
    code, said = lint(RENDERED)
    assert code == 0, said
    assert "no linting errors" in said


@pytest.mark.parametrize(
    ("right", "wrong", "told"),
    [
        ("{{workflow.parameters.not-before}}", "{{workflow.parameters.nope}}", "nope"),
        ("onExit: finish", "onExit: nobody", "nobody"),
        ("podGC:", "podGc:", "podGc"),
        ("- 0 1 * * *", "- 0 99 * * *", "schedule"),
    ],
)
def test_argo_would_say_what_is_wrong(tmp_path, right, wrong, told):
    changed = 0
    for path in RENDERED.glob("batch-*.yaml"):
        text = path.read_text()
        changed += right in text
        (tmp_path / path.name).write_text(text.replace(right, wrong))
    assert changed
    code, said = lint(tmp_path)
    assert code
    assert told in said
