"""The README: each command that it shows exists, with the options that it uses, and each file that it links."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer

from ecomm_pipeline.cli import app
from ecomm_sandbox.cli import app as sandbox_app

ROOT = Path(__file__).parents[3]
README = (ROOT / "README.md").read_text("utf-8")
COMMANDS = {"ecomm": typer.main.get_command(app), "ecomm-sandbox": typer.main.get_command(sandbox_app)}
SHOWN = [
    shlex.split(line.partition("  #")[0])
    for line in re.findall(r"^ {4}((?:ecomm|ecomm-sandbox) .*)$", README, flags=re.MULTILINE)
]
PAGES = ["README.md", "CONTRIBUTING.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("words", SHOWN, ids=" ".join)
def test_a_command_of_the_readme_exists_with_its_options(words):
    program, name, *arguments = words
    command = COMMANDS[program].commands[name]
    options = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    assert {word for word in arguments if word.startswith("--")} <= options


def test_the_readme_shows_commands():
    assert len(SHOWN) >= 5


def test_make_targets_of_the_readme_exist():
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for target in set(re.findall(r"make ([a-z-]+)", README)):
        assert re.search(rf"^(?:.* )?{target}(?: .*)?:", makefile, flags=re.MULTILINE), target


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files_that_are_there(page):
    text = (ROOT / page).read_text("utf-8")
    targets = [target.partition("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in target]
    missing = [target for target in targets if target and not (ROOT / page).parent.joinpath(target).exists()]
    assert not missing
