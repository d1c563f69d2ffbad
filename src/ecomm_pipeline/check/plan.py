"""What `ecomm check` can ask, what it asks of itself, and what the answers come to."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Final, Literal, get_type_hints

from ecomm_pipeline.errors import ConfigurationError, EcommError, FailureClass
from ecomm_pipeline.settings import Business, Databricks, DbtCloud, DltTrigger, Postgres, Store, Tableau, variable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

__all__ = ["DEPENDENCIES", "Dependency", "Result", "as_json", "as_lines", "choose", "exit_code", "unknown"]

Outcome = Literal["ok", "failed", "skipped"]


@dataclass(frozen=True, slots=True)
class PostgresSettings:
    """What the check of Postgres reads of the environment."""

    business: Business
    postgres: Postgres


@dataclass(frozen=True, slots=True)
class StoreSettings:
    """What the check of the bucket reads of the environment."""

    store: Store


@dataclass(frozen=True, slots=True)
class PipelineSettings:
    """What the check of the Databricks pipeline reads of the environment."""

    databricks: Databricks
    dlt: DltTrigger


@dataclass(frozen=True, slots=True)
class WarehouseSettings:
    """What the check of the SQL warehouse reads of the environment."""

    databricks: Databricks


@dataclass(frozen=True, slots=True)
class DbtCloudSettings:
    """What the check of dbt Cloud reads of the environment."""

    dbt_cloud: DbtCloud


@dataclass(frozen=True, slots=True)
class TableauSettings:
    """What the check of Tableau reads of the environment."""

    tableau: Tableau


@dataclass(frozen=True, slots=True)
class Dependency:
    """A service: the groups of settings (a dataclass of them) and the library that asking it takes.

    `chosen_by` is the variable that has it used, where the pipeline can do without it.
    """

    settings: type[Any]
    library: str
    chosen_by: str = ""

    @property
    def required(self) -> tuple[str, ...]:
        """The variables without which it is not set up."""
        if self.chosen_by:
            return (self.chosen_by,)
        hints = get_type_hints(self.settings)
        groups = [hints[field.name] for field in fields(self.settings)]
        return tuple(
            variable(group, name) for group in groups for name, info in group.model_fields.items() if info.is_required()
        )


DEPENDENCIES: Final[dict[str, Dependency]] = {
    "postgres": Dependency(PostgresSettings, "psycopg2"),
    "s3": Dependency(StoreSettings, "obstore"),
    "databricks": Dependency(PipelineSettings, "databricks.sdk"),
    "warehouse": Dependency(WarehouseSettings, "databricks.sdk"),
    "dbt-cloud": Dependency(DbtCloudSettings, "requests", chosen_by="ECOMM_DBT_CLOUD_JOB_ID"),
    "tableau": Dependency(TableauSettings, "tableauserverclient"),
}
"""Every service by its name, in the order in which data meets them. `databricks` is the workspace and its pipeline."""


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one check: `detail` is what answered, `error` why it failed, `skipped` why nothing was asked."""

    name: str
    seconds: float = 0.0
    detail: str = ""
    error: EcommError | None = None
    skipped: str = ""

    @property
    def outcome(self) -> Outcome:
        """Whether it is as it should be."""
        return "failed" if self.error else "skipped" if self.skipped else "ok"

    @property
    def failure(self) -> FailureClass | None:
        """The class of its failure."""
        return self.error.failure if self.error else None


def choose(
    names: Iterable[str], environment: Mapping[str, str], installed: Callable[[str], bool]
) -> tuple[list[str], list[Result]]:
    """Give the services to ask and, as results, those that are left out.

    Named ones are asked, come what may. Of themselves, those are asked of which a required variable is set (a service
    that is set up by half is a failure) and whose library is `installed`, as an image has those of its stage only.
    Raises `ConfigurationError` when a name is none, or nothing is left to ask.
    """
    named = list(dict.fromkeys(names))
    if named:
        if any(name not in DEPENDENCIES for name in named):
            raise unknown(named)
        return named, []
    left_out = [
        Result(name, skipped=reason)
        for name, dependency in DEPENDENCIES.items()
        if (reason := _hindrance(dependency, environment, installed))
    ]
    skipped = {result.name for result in left_out}
    chosen = [name for name in DEPENDENCIES if name not in skipped]
    if not chosen:
        message = f"there is nothing to check: {'; '.join(f'{one.name}: {one.skipped}' for one in left_out)}"
        raise ConfigurationError(message, next_step="set them in the environment; docs/settings.md tells each one")
    return chosen, left_out


def _hindrance(dependency: Dependency, environment: Mapping[str, str], installed: Callable[[str], bool]) -> str:
    if not installed(dependency.library):
        return f"{dependency.library} is not installed here"
    if not any(environment.get(name) for name in dependency.required):
        return f"{dependency.required[0]} is not set"
    return ""


def unknown(names: Iterable[str]) -> ConfigurationError:
    """Make the error for names of which some are no service's."""
    wrong = ", ".join(repr(name) for name in names if name not in DEPENDENCIES)
    return ConfigurationError(f"no service is called {wrong}", next_step=f"name some of {', '.join(DEPENDENCIES)}")


def exit_code(results: Iterable[Result]) -> int:
    """Give the exit code of the worst failure: one that no retry can help before one that it can, P1 before P2."""
    failures = [failure for result in results if (failure := result.failure)]
    worst = min(failures, key=lambda failure: (failure.retry, failure.priority), default=None)
    return worst.exit_code if worst else 0


def as_lines(results: Iterable[Result]) -> str:
    """Write the results for people: a line each, and under a failure what to do next."""
    return "\n".join(line for result in results for line in _lines(result))


def _lines(result: Result) -> list[str]:
    took = "" if result.outcome == "skipped" else f"{result.seconds:.2f} s"
    head = f"{result.outcome:<8} {result.name:<11} {took:>7}  "
    if result.error:
        said = f"{result.error.failure.name} ({result.error.failure.exit_code}): {result.error.message}"
        next_step = [f"{'next: ':>{len(head)}}{result.error.next_step}"] if result.error.next_step else []
        return [head + said, *next_step]
    return [head + (result.skipped or result.detail)]


def as_json(results: Iterable[Result]) -> list[dict[str, Any]]:
    """Write the results for programs."""
    return [_fields(result) for result in results]


def _fields(result: Result) -> dict[str, Any]:
    failure = result.failure
    return {
        "dependency": result.name,
        "outcome": result.outcome,
        "seconds": round(result.seconds, 3),
        "detail": result.detail or result.skipped or None,
        "failure_class": failure.name if failure else None,
        "exit_code": failure.exit_code if failure else 0,
        "error": result.error.message if result.error else None,
        "next_step": result.error.next_step if result.error else None,
    }
