"""What is to be refreshed, which job may be taken for ours, and when an extract is fresh. Pure.

A refresh counts only if Tableau was asked for it after the KPI tables were committed: a job that was queued before may
have read the tables as they were. Hence what is done with the jobs of a data source::

    one active, asked for after the commit ──► Adopt
    one active, asked for before           ──► AwaitStale, then look again
    one succeeded after, and may be ours   ──► Adopt
    otherwise                              ──► Request

Names come from the exposures of the dbt project, in `config: {meta: …}` or `meta: …`::

    exposures:
      - name: sales
        depends_on: [ref('agg_sales_kpi')]
        config:
          meta: {tableau: {datasource: agg_sales_kpi, project: Finance}}      # or {tableau: {workbook: Daily Sales}}

`project` (the Tableau project) is only needed where two things on the site have one name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Literal

from ecomm_pipeline.errors import BadDataError, ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = [
    "DEFAULT_TABLES",
    "Adopt",
    "AwaitStale",
    "Choice",
    "Job",
    "Kind",
    "Request",
    "Target",
    "choose",
    "explain",
    "is_fresh",
    "is_quota",
    "last_commit",
    "targets_of_exposures",
    "targets_of_names",
]

Kind = Literal["datasource", "workbook"]
JobState = Literal["pending", "running", "succeeded", "failed", "cancelled"]

DEFAULT_TABLES: Final = ("agg_sales_kpi", "agg_product_kpi", "agg_customer_kpi")
"""Tables in the schema `kpi` that a data source is taken to read when no exposure says which."""

_KINDS: Final[tuple[Kind, ...]] = ("datasource", "workbook")
_REF: Final = re.compile(r"^\s*ref\(\s*(?:['\"][^'\"]+['\"]\s*,\s*)?['\"]([^'\"]+)['\"]")


@dataclass(frozen=True, slots=True)
class Target:
    """A data source or workbook to refresh, and the KPI tables that it reads."""

    kind: Kind
    name: str
    tables: tuple[str, ...] = DEFAULT_TABLES
    project: str | None = None

    def __str__(self) -> str:
        """Write it for people."""
        return f"{'data source' if self.kind == 'datasource' else 'workbook'} {self.name!r}"

    @property
    def key(self) -> str:
        """Write it for the ledger."""
        return self.name if self.kind == "datasource" else f"{self.kind}:{self.name}"


def targets_of_exposures(documents: Mapping[str, Any]) -> list[Target]:
    """Read the targets from the YAML documents of a dbt project, by the path of each.

    Two exposures of one target add up their tables. Raises `ConfigurationError` when an exposure's form is wrong.
    """
    found: dict[tuple[Kind, str, str | None], set[str]] = {}
    for path, document in documents.items():
        for exposure in _list(document, "exposures", path):
            for kind, name, project in _named(exposure, path):
                found.setdefault((kind, name, project), set()).update(_models(exposure))
    return [
        Target(kind, name, tuple(sorted(tables)) or DEFAULT_TABLES, project)
        for (kind, name, project), tables in found.items()
    ]


def targets_of_names(names: Iterable[str], exposed: Sequence[Target]) -> list[Target]:
    """Give the data sources of these names, each once; what the exposures know of them is kept."""
    known = {target.name: target for target in exposed if target.kind == "datasource"}
    return [known.get(name, Target("datasource", name)) for name in dict.fromkeys(names)]


def _list(document: Any, key: str, path: str) -> list[dict[str, Any]]:  # noqa: ANN401 (YAML)
    items = document.get(key) if isinstance(document, dict) else None
    if items is None:
        return []
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        message = f"{path}: `{key}` is not a list of mappings"
        raise ConfigurationError(message, next_step="write the exposures as dbt's documentation shows them")
    return items


def _named(exposure: dict[str, Any], path: str) -> Iterable[tuple[Kind, str, str | None]]:
    config = exposure.get("config") or {}
    if not config.get("enabled", exposure.get("enabled", True)):
        return
    tableau = {**(exposure.get("meta") or {}), **(config.get("meta") or {})}.get("tableau")
    if tableau is None:
        return
    project = tableau.get("project") if isinstance(tableau, dict) else None
    names = [
        (kind, name) for kind in _KINDS for name in _strings(tableau.get(kind) if isinstance(tableau, dict) else None)
    ]
    if not names:
        message = f"{path}: exposure {exposure.get('name')!r} has meta.tableau without a datasource or workbook"
        raise ConfigurationError(message, next_step="write it as {tableau: {datasource: NAME}}")
    yield from ((kind, name, project) for kind, name in names)


def _strings(value: object) -> list[str]:
    values = value if isinstance(value, list) else [value]
    return [str(item) for item in values if item is not None and str(item)]


def _models(exposure: dict[str, Any]) -> list[str]:
    matches = [_REF.match(str(dependency)) for dependency in exposure.get("depends_on") or []]
    return [match[1] for match in matches if match]


@dataclass(frozen=True, slots=True)
class Job:
    """A refresh job, as far as decisions need it; `created` is when Tableau was asked for it (to the second)."""

    id: str
    created: datetime
    state: JobState
    notes: str = ""
    progress: int = 0

    @property
    def active(self) -> bool:
        """Whether it still goes on."""
        return self.state in ("pending", "running")


@dataclass(frozen=True, slots=True)
class Request:
    """Ask for a refresh."""


@dataclass(frozen=True, slots=True)
class Adopt:
    """Take the job for ours: it reads the KPI tables as they are."""

    job: Job


@dataclass(frozen=True, slots=True)
class AwaitStale:
    """Let the job end, since Tableau does not queue a second one, and do not trust what it read."""

    job: Job


Choice = Request | Adopt | AwaitStale


def choose(jobs: Iterable[Job], committed: datetime, *, asked_before: bool) -> Choice:
    """Decide from the jobs of a target what to do about it.

    `asked_before` is whether this run may have asked for a refresh already (a killed try, an answer that was lost):
    only then does a job that has succeeded count, since an operator who runs the stage anew wants a new refresh.
    """
    newest_first = sorted(jobs, key=lambda job: job.created, reverse=True)
    after = [job for job in newest_first if job.created > committed]
    good = [job for job in after if job.active] or [job for job in after if asked_before and job.state == "succeeded"]
    if good:
        return Adopt(good[0])
    stale = [job for job in newest_first if job.active]
    return AwaitStale(stale[0]) if stale else Request()


def is_fresh(refreshed: datetime | None, committed: datetime) -> bool:
    """Whether an extract is newer than the tables it reads; Tableau tells its time in whole seconds."""
    return refreshed is not None and refreshed >= committed.replace(microsecond=0)


_UPKEEP: Final = re.compile(
    r"^(OPTIMIZE|VACUUM|REORG|FSCK|COMPUTE STATS|ANALYZE|SET TBLPROPERTIES|UNSET TBLPROPERTIES|CHANGE COLUMN"
    r"|ADD CONSTRAINT|DROP CONSTRAINT|UPGRADE PROTOCOL|ADD FEATURE|CLUSTER BY|SET COMMENT|COMMENT)",
    re.IGNORECASE,
)
"""Operations that change how a table lies or is described, and none of its rows."""


def last_commit(history: Sequence[Mapping[str, str | None]], table: str) -> datetime:
    """Give when a table's rows last changed, from `DESCRIBE HISTORY` (newest first).

    Raises `BadDataError` when it has none.
    """
    changes = [row for row in history if not _UPKEEP.match(row.get("operation") or "")] or list(history)
    if not changes:
        message = f"{table} has no history"
        raise BadDataError(message, next_step="it is not a Delta table; build it with dbt-runner")
    return _instant(changes[0].get("timestamp") or "", table)


def _instant(text: str, table: str) -> datetime:
    try:
        instant = datetime.fromisoformat(text.strip())
    except ValueError as error:
        message = f"the time of the last commit of {table} is {text!r}"
        raise BadDataError(message, next_step="look at DESCRIBE HISTORY") from error
    return instant.astimezone(UTC) if instant.tzinfo else instant.replace(tzinfo=UTC)


_QUOTA: Final = re.compile(r"no more .{0,40}quota|refresh capacity|daily (limit|quota)", re.IGNORECASE)
_EXCERPT: Final = 400


def is_quota(notes: str) -> bool:
    """Whether a job failed because the site may refresh no more today."""
    return _QUOTA.search(notes) is not None


def explain(notes: str) -> str:
    """Write a job's notes in one line."""
    text = " ".join(notes.split())
    return (text if len(text) <= _EXCERPT else text[: _EXCERPT - 1] + "…") or "Tableau does not say why"
