"""The folder of the dbt project: what it holds, and which tables it reads."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from ecomm_pipeline.dbt_runner import plan
from ecomm_pipeline.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["digest", "find", "sources"]


def find(folder: Path) -> Path:
    """Give the whole path of the project. Raises `ConfigurationError` when the folder holds none."""
    project = folder.resolve()
    if (project / "dbt_project.yml").is_file():
        return project
    message = f"there is no dbt project in {folder}"
    raise ConfigurationError(message, next_step="set ECOMM_DBT_PROJECT_DIR to the folder that holds dbt_project.yml")


def digest(project: Path) -> str:
    """Give what tells a project from one with another file in it: 16 hex digits."""
    content = hashlib.sha256()
    for path in _files(project):
        content.update(f"{path.relative_to(project)}\0".encode() + path.read_bytes())
    return content.hexdigest()[:16]


def sources(project: Path) -> list[plan.SourceTable]:
    """Find the tables that the project reads. Raises `ConfigurationError` when a YAML file of it cannot be read."""
    import yaml

    documents = [path for path in _files(project) if path.suffix in {".yml", ".yaml"}]
    try:
        return plan.source_tables(yaml.safe_load(path.read_text()) for path in documents)
    except yaml.YAMLError as error:
        message = f"a YAML file of the dbt project cannot be read: {' '.join(str(error).split())}"
        raise ConfigurationError(message, next_step="mend it; `dbt parse` checks the whole project") from error


def _files(project: Path) -> list[Path]:
    left_out = {"target", "logs", "dbt_packages"}
    return sorted(
        path
        for path in project.rglob("*")
        if path.is_file()
        and path.suffix in {".sql", ".yml", ".yaml", ".csv"}
        and not left_out.intersection(path.relative_to(project).parts)
    )
