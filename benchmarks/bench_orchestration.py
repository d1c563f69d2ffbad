"""What Argo and Kubernetes add to a run: a workflow's wall time less the time of the stages themselves.

    python benchmarks/bench_orchestration.py [WORKFLOW] [--write]

Reads a workflow that succeeded on the cluster of cluster/up (default: the newest of the daily pipeline) and the records
that its stages wrote into the ledger. Of tasks that run side by side the one that ended last counts: the run waited for
it. `--write` puts the figures into docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import page

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.support.cluster import PIPELINE, Cluster, Node, Run, environment

LEVELS = (
    ("extractor",),
    ("dlt-trigger",),
    ("reconciler", "gate"),
    ("dbt-runner",),
    ("tableau-refresher",),
    ("reconciler",),
)
"""The stages in the order in which a run waits for them; those of one level run side by side."""


def newest(cluster: Cluster) -> Run:
    """Give the newest daily run that succeeded, retried nothing, and is still there."""
    runs = [run for run in reversed(cluster.workflows()) if run.name.startswith(PIPELINE) and run.phase == "Succeeded"]
    clean = [run for run in runs if all(node.phase == "Succeeded" for node in run.nodes(kind="Pod"))]
    if not clean:
        sys.exit(
            f"no {PIPELINE} succeeded at the first try\nnext: argo submit -n ecomm --from cronwf/{PIPELINE} -p date=…"
        )
    return clean[0]


def levels(run: Run) -> list[list[Node]]:
    """Give the pods of each level; a reconciler is in the first level that may have one and has none yet."""
    left = [node for node in run.nodes(kind="Pod") if node.template != "finish"]
    found = []
    for names in LEVELS:
        level: dict[str, Node] = {}
        for node in [node for node in left if node.template in names]:
            level.setdefault(node.name if node.template == "extractor" else node.template, node)
        found.append(list(level.values()))
        left = [node for node in left if node not in found[-1]]
    return found


def own_seconds(run: Run, node: Node, date: str) -> float:
    """Give the seconds that the stage itself took, by its record; of a gate, which has none, those of its pod."""
    of_stage = [record for record in run.records(date) if record.stage == node.template]
    table = node.inputs.get("table")
    near = [record for record in of_stage if record.seconds is not None and (table is None or record.table == table)]
    if not near or node.started is None:
        return 0.0
    record = min(near, key=lambda record: abs((record.began_at - node.started).total_seconds()))
    return record.seconds or 0.0


def table(run: Run) -> str:
    """Write the figures."""
    raw = run.get()
    date = raw["metadata"]["labels"]["date"]
    began = datetime.fromisoformat(raw["status"]["startedAt"])
    ended = datetime.fromisoformat(raw["status"]["finishedAt"])
    wall = (ended - began).total_seconds()
    lines = [
        "| level | waited for | in its pod | of it the stage | before its pod |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    at, stages = began, 0.0
    for level in levels(run):
        last = max(level, key=lambda node: node.finished or began)
        own = own_seconds(run, last, date)
        waited = ((last.finished or began) - at).total_seconds()
        before = ((last.started or began) - at).total_seconds()
        names = ", ".join(f"{name} ×{count}" for name, count in Counter(node.template for node in level).items())
        lines.append(f"| {names} | {waited:.0f} s | {last.seconds:.0f} s | {own:.1f} s | {before:.0f} s |")
        stages += own
        at = last.finished or at
    tail = (ended - at).total_seconds()
    lines.append(f"| finish, and Argo's own end | {tail:.0f} s | | | |")
    lines.append(f"| **all** | **{wall:.0f} s** | | **{stages:.0f} s** | |")
    more, count, pods = wall - stages, len(LEVELS) + 1, len(run.nodes(kind="Pod"))
    about = (
        f"Measured {datetime.now(UTC):%Y-%m-%d} on a kind cluster of one node, on 2 cores that its control plane, the "
        "sandbox and the pods share; one date of a tiny shop. Command: `make bench-cluster`."
    )
    result = (
        f"Orchestration is {more:.0f} s of {wall:.0f} s ({more / wall:.0%}), {more / count:.0f} s for each of {count} "
        f"levels of pods, {pods} pods in all. It does not grow with the data."
    )
    return "\n".join([about, "", *lines, "", result])


def main() -> None:
    """Print the figures, and write them where asked to."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("workflow", nargs="?", help="name of a workflow; default: the newest daily one that succeeded")
    parser.add_argument("--write", action="store_true", help="write docs/benchmarks.md")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        cluster = Cluster(environment(), Path(folder) / "sandbox")
        cluster.attach()
        try:
            text = table(Run(cluster, arguments.workflow) if arguments.workflow else newest(cluster))
        finally:
            cluster.detach()
    print(text)
    if arguments.write:
        page.write("bench_orchestration", text)


if __name__ == "__main__":
    main()
