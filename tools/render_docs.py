"""Write the pages made from code: settings, failure classes, metrics, the runbook's index, the values of the chart.

    python tools/render_docs.py [--check]

With `--check` nothing is written, and a page that differs is named (exit code 1).
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer
import yaml
from chart_values import readme
from lineage_example import page as lineage_page
from pydantic_core import PydanticUndefined

from ecomm_pipeline.cli import app
from ecomm_pipeline.errors import FAILURE_CLASSES
from ecomm_pipeline.exporter.metrics import LABELS, METRICS
from ecomm_pipeline.settings import GROUPS, variable

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

DOCS = Path(__file__).parent.parent / "docs"
ALERTS = Path(__file__).parent.parent / "helm/ecomm-data-pipeline/alerts"
MADE = "<!-- Made by tools/render_docs.py; change the code and run `make render`. -->\n"


def settings_page() -> str:
    """Give the page of all environment variables, by group."""
    lines = ["# Settings", "", MADE, "From the environment. Each stage reads only the groups that it needs."]
    for group in GROUPS:
        lines += [
            "",
            f"## {group.__name__}",
            "",
            f"{group.__doc__}",
            "",
            "| variable | default | meaning |",
            "| --- | --- | --- |",
        ]
        lines += [
            f"| `{variable(group, name)}` | {_default(info)} | {_one_line(info.description)} |"
            for name, info in group.model_fields.items()
        ]
    lines += ["", "OpenLineage events are set up by the client's own variables: [lineage.md](lineage.md)."]
    lines += ["", "## Command line", "", "Options of `ecomm` that can be set in the environment too.", ""]
    lines += ["| variable | default | meaning |", "| --- | --- | --- |"]
    lines += [f"| `{name}` | {default} | {_one_line(text)} |" for name, default, text in sorted(_options())]
    return "\n".join(lines) + "\n"


def _options() -> set[tuple[str, str, str]]:
    command = typer.main.get_command(app)
    parameters = [*command.params, *(option for one in command.commands.values() for option in one.params)]
    return {
        (str(option.envvar), f"`{option.default}`" if option.default else "", option.help)
        for option in parameters
        if getattr(option, "envvar", None)
    }


def failures_page() -> str:
    """Give the page of failure classes and what follows from each."""
    lines = [
        "# Failure classes",
        "",
        MADE,
        "Each failure is of one class; the class decides what follows (`src/ecomm_pipeline/errors.py`).",
    ]
    lines += ["", "| class | exit code | retried | priority | runbook |", "| --- | --- | --- | --- | --- |"]
    lines += [
        f"| `{row.name}` | {row.exit_code} | {'yes' if row.retry else 'no'} | {row.priority} | {row.runbook} |"
        for row in FAILURE_CLASSES.values()
    ]
    return "\n".join([*lines, "", "Running a stage again is always safe; where it is retried, it can help.", ""])


def _default(info: FieldInfo) -> str:
    value = info.get_default(call_default_factory=True)
    if value is PydanticUndefined:
        return "**required**"
    if value is None or value in ("", ()):
        return ""
    return f"`{','.join(value) if isinstance(value, tuple) else value}`"


def _one_line(text: str | None) -> str:
    return " ".join((text or "").split()).replace("|", "\\|")


def metrics_page() -> str:
    """Give the page of all metrics and their labels."""
    lines = ["# Metrics", "", MADE]
    lines += [
        "What `ecomm exporter` tells Prometheus of the ledger (`exporter/metrics.py`). All are gauges.",
        "`time() - ecomm_…_timestamp_seconds` is how long ago something was.",
        "",
        "- On one machine: `ecomm exporter`, then <http://127.0.0.1:9464/metrics>. Prometheus reads the alerts as they",
        "  are: `rule_files: [helm/ecomm-data-pipeline/alerts/*.yaml]`.",
        "- On a cluster: `monitoring.enabled` in the chart's values. The Prometheus operator gets a ServiceMonitor, a",
        "  PrometheusRule and, with `monitoring.argoNamespace`, a PodMonitor of Argo's controller; Grafana gets",
        "  [its dashboard](../helm/ecomm-data-pipeline/dashboards/ecomm.json).",
        "- The ledger outlives pods and Argo's controller, so nothing here is lost when they restart. Its newest dates",
        "  are listed every `ECOMM_EXPORTER_REFRESH_INTERVAL` seconds, all of them every twentieth time, and only what",
        "  changed is read: a request a look, whatever the ledger's age, and about 1,100 series in 60 MiB",
        "  ([measured](benchmarks.md#the-exporter-over-a-years-ledger) over a year by `make bench-exporter`).",
        "- While the ledger cannot be read, metrics stay as they were last seen and `ecomm_exporter_refreshes_failed`",
        "  rises. A record that cannot be read is left out and named in the log; the others go on.",
        "",
        "| metric | labels | meaning |",
        "| --- | --- | --- |",
    ]
    lines += [
        f"| `{metric.full_name}` | {', '.join(f'`{label}`' for label in metric.labels)} | {metric.meaning} |"
        for metric in METRICS.values()
    ]
    lines += ["", "| label | what it holds |", "| --- | --- |"]
    lines += [f"| `{label}` | {meaning} |" for label, meaning in LABELS.items()]
    return "\n".join(lines) + "\n"


RUNBOOK = ("A. Extraction", "B. Bronze", "C. Silver", "D. Gold", "E. dbt", "F. Tableau")
"""The sections of the runbook, in the order of the chain."""
SECTIONS = ("Whole night", *RUNBOOK, "Watching itself", "Failure classes")


def runbooks_page() -> str:
    """Give the index of the runbook's pages: by its sections A to F, what concerns all of them, and failure classes."""
    alerts = {path.stem: yaml.safe_load(path.read_text())["groups"][0]["rules"][0] for path in ALERTS.glob("*.yaml")}
    classes = {row.runbook: row for row in FAILURE_CLASSES.values()}
    pages = {path.stem: path.read_text() for path in (DOCS / "runbooks").glob("*.md") if path.stem != "README"}
    lines = [
        "# Runbook",
        "",
        MADE,
        "One page an alert, and one a class of failure: what it means, what follows, how to",
    ]
    lines += ["find the cause, and what repairs it. `ecomm doctor DATE` finds the cause by itself."]
    for section in SECTIONS:
        lines += [
            "",
            f"## {section}",
            "",
            "| page | alert or class | priority | repairs |",
            "| --- | --- | --- | --- |",
        ]
        for name in sorted(name for name, text in pages.items() if f"\nSection: {section}\n" in text):
            title = pages[name].splitlines()[0].removeprefix("# ")
            if rule := alerts.get(name):
                priority = rule.get("labels", {}).get("priority", "of the class")
                what, command = rule["alert"], _command(rule["annotations"]["command"])
            else:
                what, priority, command = classes[name].name, classes[name].priority, "ecomm doctor DATE"
            lines.append(f"| [{title}]({name}.md) | `{what}` | {priority} | `{command}` |")
    return "\n".join(lines) + "\n"


def _command(template: str) -> str:
    """Write an alert's command as the pages do: `{{ $labels.date }}` is DATE."""
    return re.sub(r"\{\{ \$labels\.(\w+) \}\}", lambda label: label[1].upper(), template)


PAGES = {
    "lineage.md": lineage_page,
    "metrics.md": metrics_page,
    "runbooks/README.md": runbooks_page,
    "settings.md": settings_page,
    "failure-classes.md": failures_page,
    "../helm/ecomm-data-pipeline/README.md": readme,
}


def main() -> int:
    """Write or check the pages; gives the exit code."""
    stale = [name for name, page in PAGES.items() if not (DOCS / name).exists() or (DOCS / name).read_text() != page()]
    if "--check" in sys.argv:
        for name in stale:
            print(f"docs/{name} is not what the code says: run `make render`", file=sys.stderr)
        return 1 if stale else 0
    for name in stale:
        (DOCS / name).write_text(PAGES[name]())
    return 0


if __name__ == "__main__":
    sys.exit(main())
