"""What dbt is told, and what its answers mean. Pure: dbt's log lines, run results and manifest come in as data.

Upstream: https://docs.getdbt.com/reference/artifacts/run-results-json and
https://docs.getdbt.com/reference/events-logging (the JSON log lines).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from ecomm_pipeline.databricks import CONDITIONS, error_condition
from ecomm_pipeline.errors import (
    BadDataError,
    CancelledError,
    ConfigurationError,
    CredentialsError,
    EcommError,
    MissingSourceError,
    TimedOutError,
    UnavailableError,
    UpstreamFailedError,
)
from ecomm_pipeline.ledger import Finding

if TYPE_CHECKING:
    from pathlib import Path

    from ecomm_pipeline.ledger import Record

__all__ = [
    "UNIT_TESTS_OUT",
    "Event",
    "NodeOutcome",
    "SourceTable",
    "arguments",
    "classify_message",
    "count_sql",
    "failure",
    "findings",
    "fingerprint_sql",
    "may_resume",
    "merged",
    "outcomes",
    "parse_event",
    "source_tables",
]

RETRYABLE: Final = frozenset({"error", "fail", "skipped", "runtime error", "partial success"})
"""The statuses of a node that `dbt retry` runs again."""
FAILED: Final = RETRYABLE - {"skipped"}
UNIT_TESTS_OUT: Final = ("--exclude-resource-type", "unit_test")
"""Unit tests are left out: they test the SQL, not the night's data, and CI runs them."""
_EXCERPT: Final = 400
_NAMED_AT_ONCE: Final = 5

_HTTP: Final = r"\b(?:HTTP|code|error|server|status)[ :=]+{0}\b|\b{0} (?:Client|Server) Error"
"""A status of HTTP's as the adapter, the SDK and requests write it; a bare number may be a line or a value."""

_MESSAGES: Final[tuple[tuple[type[EcommError], re.Pattern[str]], ...]] = tuple(
    (kind, re.compile("|".join(patterns), re.IGNORECASE))
    for kind, patterns in (
        (BadDataError, ("enforced contract that failed",)),
        (
            CredentialsError,
            ("access token", "un(?:authenticated|authorized)", "invalid.client", _HTTP.format("40[13]")),
        ),
        (
            UnavailableError,
            (
                "max retries exceeded",
                "retry request",
                "connection (?:refused|reset|aborted)",
                "remote end closed",
                "failed to resolve",
                "name or service not known",
                "error during request to server",
                "invalid sessionhandle",
                "temporarily.unavailable",
                "service unavailable",
                _HTTP.format("50[234]"),
                "(?:connect(?:ion)?|operation|read|request)\\b.{0,80} timed out",
                "(?:connect|read) ?timeout",
                "broken pipe",
            ),
        ),
        (
            ConfigurationError,
            ("env var required", "could not find profile", "not a valid", "invalid profile", "parsing error"),
        ),
    )
)
"""What a message without a condition tells of the class of its failure; the first that fits."""

_GRAVEST: Final = (
    CredentialsError,
    UnavailableError,
    TimedOutError,
    CancelledError,
    ConfigurationError,
    MissingSourceError,
    UpstreamFailedError,
    BadDataError,
)
"""Of several failures the class of the whole is the first here: what hides the others comes before what they show."""

_NEXT_STEP: Final[dict[type[EcommError], str]] = {
    CredentialsError: "check the token or the service principal, and its grants on the schemas gold and kpi",
    **dict.fromkeys(
        (UnavailableError, TimedOutError, CancelledError), "run the same command again: it resumes where dbt stopped"
    ),
    ConfigurationError: "check the dbt project and its profile: `dbt parse` in the project's folder",
    MissingSourceError: "run dlt-trigger, then the same command again",
    UpstreamFailedError: "see dbt.log among the run's artifacts; then run the same command again",
    BadDataError: "look at the rows with the test's SQL in dbt.log; mend the data or the contract, then run again",
}


@dataclass(frozen=True, slots=True)
class SourceTable:
    """A table that the project reads. `loaded_at` is the column that tells how fresh it is, where one is named."""

    schema: str
    name: str
    loaded_at: str | None = None

    def __str__(self) -> str:
        """Write it as people do: gold.sales_analytics."""
        return f"{self.schema}.{self.name}"


def source_tables(documents: Iterable[Any]) -> list[SourceTable]:
    """Find the tables named under `sources:` in the project's YAML documents."""
    sources = [s for document in documents if isinstance(document, Mapping) for s in document.get("sources") or []]
    return [
        SourceTable(
            str(source.get("schema") or source["name"]),
            str(table.get("identifier") or table["name"]),
            (table.get("config") or {}).get("loaded_at_field") or (source.get("config") or {}).get("loaded_at_field"),
        )
        for source in sources
        for table in source.get("tables") or []
    ]


def fingerprint_sql(catalog: str, tables: Sequence[SourceTable]) -> str:
    """Write the statement that tells tables' states: name, number of rows, time of the newest; a row a table."""
    return " UNION ALL ".join(
        f"SELECT '{table}' AS name, count(*) AS row_count, "  # noqa: S608 (names of our own project)
        f"{f'CAST(max({table.loaded_at}) AS STRING)' if table.loaded_at else 'CAST(NULL AS STRING)'} AS newest "
        f"FROM `{catalog}`.`{table.schema}`.`{table.name}`"
        for table in tables
    )


def count_sql(relations: Mapping[str, str]) -> str:
    """Write the statement that counts the rows of relations (by the names to answer under): name, rows."""
    return " UNION ALL ".join(
        f"SELECT '{name}' AS name, count(*) AS row_count FROM {relation}"  # noqa: S608 (dbt's own quoted names)
        for name, relation in relations.items()
    )


def arguments(
    *, project: Path, target: Path, logs: Path, threads: int, select: str = "", resume_from: Path | None = None
) -> list[str]:
    """Give dbt's arguments: a build of `select` (all when empty), or what is left of the run saved in `resume_from`.

    `threads` of a resumed run are those given here, its selection that of the run.
    """
    shared = [
        *("--project-dir", str(project), "--profiles-dir", str(project)),
        *("--target-path", str(target), "--log-path", str(logs), "--threads", str(threads)),
    ]
    shell = ["--log-format", "json", "--log-format-file", "text", "--no-use-colors", "--no-send-anonymous-usage-stats"]
    if resume_from:
        return [*shell, "retry", "--state", str(resume_from), *shared]
    chosen = ["--select", *select.split()] if select.strip() else []
    return [*shell, "--no-version-check", "build", *UNIT_TESTS_OUT, *shared, *chosen]


def may_resume(previous: Record | None, figures: Mapping[str, Any]) -> bool:
    """Whether what an earlier try of this run built may stand.

    It may when dbt left results with something to do, for the same selection, by the same project, and the sources are
    as they were: `figures` are this try's `select`, `project` and `sources`, to compare with the earlier try's. A table
    built from an older Gold must be built again, even where it was built well.
    """
    if previous is None or previous.outcome not in ("failed", "cancelled"):
        return False
    if any(previous.figures.get(name) != figures[name] for name in ("select", "project", "sources")):
        return False
    return any(node.get("status") in RETRYABLE for node in previous.figures.get("nodes", {}).values())


@dataclass(frozen=True, slots=True)
class Event:
    """A line of dbt's log. `node` is the model or test that it is about; `index` of `total` is how far the run is."""

    name: str
    level: str
    message: str
    invocation_id: str
    node: str | None = None
    index: int | None = None
    total: int | None = None


def parse_event(line: str) -> Event | None:
    """Read a line of dbt's JSON log; None for anything else that was printed."""
    try:
        content = json.loads(line)
        info, data = content["info"], content["data"]
        node = (data.get("node_info") or {}).get("node_name") or None
        return Event(
            info["name"], info["level"], info["msg"], info["invocation_id"], node, data.get("index"), data.get("total")
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


@dataclass(frozen=True, slots=True)
class NodeOutcome:
    """What became of a model or test. `status` is dbt's word; `seconds` it took; `failures` rows failed a test.

    `message` is one line, cut short. `relation` is the table that a model built, quoted.
    """

    name: str
    kind: str
    file: str
    status: str
    seconds: float
    failures: int | None = None
    message: str | None = None
    relation: str | None = None

    @property
    def failed(self) -> bool:
        """Whether it ran and failed; what was skipped because of it did not."""
        return self.status in FAILED

    def figures(self) -> dict[str, Any]:
        """Give it as the ledger keeps it, without what is empty."""
        kept = asdict(self)
        return {k: v for k, v in kept.items() if v is not None and k not in ("name", "relation")}

    def __str__(self) -> str:
        """Write it in one line: name, file, what."""
        if self.status == "fail":
            return f"test {self.name} ({self.file}): {_rows(self.failures)} it"
        return f"{self.kind} {self.name} ({self.file}): {self.message or self.status}"


def _rows(failures: int | None) -> str:
    return "1 row fails" if failures == 1 else f"{failures} rows fail"


def outcomes(run_results: Mapping[str, Any], manifest: Mapping[str, Any]) -> list[NodeOutcome]:
    """Read the outcomes of models and tests from dbt's artifacts; exposures, which do nothing, are left out."""
    nodes = {**manifest.get("nodes", {}), **manifest.get("unit_tests", {})}
    return [
        _outcome(result, nodes.get(result["unique_id"], {}))
        for result in run_results.get("results", [])
        if not result["unique_id"].startswith("exposure.")
    ]


def _outcome(result: Mapping[str, Any], node: Mapping[str, Any]) -> NodeOutcome:
    kind = result["unique_id"].split(".")[0]
    status = str(result["status"])
    return NodeOutcome(
        name=node.get("name") or result["unique_id"].split(".")[2],
        kind=kind,
        file=node.get("original_file_path", "?"),
        status=status,
        seconds=round(float(result.get("execution_time") or 0), 3),
        failures=result.get("failures") if kind != "model" and status != "skipped" else None,
        message=_one_line(result.get("message")) if status in FAILED else None,
        relation=result.get("relation_name") if kind == "model" else None,
    )


def _one_line(message: object) -> str | None:
    """Cut dbt's message to one line: without its heading, which repeats the node, and the place of its SQL."""
    lines = [line.strip() for line in str(message or "").splitlines()]
    kept = [line for line in lines if line and not re.match(r"(compiled code at |.* Error in \w+ )", line)]
    return " ".join(" ".join(kept or lines).split())[:_EXCERPT] or None


def merged(previous: Mapping[str, Any], new: Iterable[NodeOutcome]) -> dict[str, Any]:
    """Put new outcomes over those that an earlier try of the run left: what it built well still stands."""
    return {**previous, **{outcome.name: outcome.figures() for outcome in new}}


def findings(nodes: Mapping[str, Mapping[str, Any]]) -> list[Finding]:
    """Tell what tests only warn of, a finding each of the test's name; `nodes` are those of the ledger's figures."""
    return [
        Finding(
            priority="P3",
            kind=name,
            message=f"{_rows(node.get('failures'))} the test {name} ({node['file']}); its SQL in dbt.log shows them",
        )
        for name, node in nodes.items()
        if node["status"] == "warn"
    ]


def classify_message(message: str) -> type[EcommError]:
    """Tell the class of a failure from a message of dbt or the warehouse; a condition it begins with decides alone."""
    condition = error_condition(message)
    if condition:
        return CONDITIONS.get(condition, UpstreamFailedError)
    return next((kind for kind, pattern in _MESSAGES if pattern.search(message)), UpstreamFailedError)


def failure(
    done: Sequence[NodeOutcome], *, how: str = "", log: Sequence[str] = (), url: str | None = None
) -> EcommError | None:
    """Make the error of a dbt run: None when it went well.

    `how` says how dbt ended, where that was badly; `log` holds the error lines that it wrote, which tell why where no
    node failed. `url` is where people see the run.
    """
    failed = [outcome for outcome in done if outcome.failed]
    if failed:
        kind, message = _of_nodes(failed, sum(outcome.status == "skipped" for outcome in done))
    elif how:
        text = " ".join(" ".join(log).split())[:_EXCERPT] or "it wrote no reason"
        kind, message = _of_log(text), f"{how}: {text}"
    else:
        return None
    return kind(message, next_step=f"{_NEXT_STEP[kind]}; {url}" if url else _NEXT_STEP[kind])


def _of_log(text: str) -> type[EcommError]:
    kind = classify_message(text)
    if kind is UpstreamFailedError and re.search(r"(?i)(compilation|parsing|usage|runtime) ?error", text):
        return ConfigurationError
    return kind


def _of_nodes(failed: Sequence[NodeOutcome], skipped: int) -> tuple[type[EcommError], str]:
    kinds = {_class(outcome) for outcome in failed}
    kind = next(kind for kind in _GRAVEST if kind in kinds)
    named = "; ".join(str(outcome) for outcome in failed[:_NAMED_AT_ONCE])
    more = f"; and {len(failed) - _NAMED_AT_ONCE} more" if len(failed) > _NAMED_AT_ONCE else ""
    after = f"; {skipped} that depend on them were skipped" if skipped else ""
    return kind, f"dbt: {named}{more}{after}"


def _class(outcome: NodeOutcome) -> type[EcommError]:
    return BadDataError if outcome.status == "fail" else classify_message(outcome.message or "")
