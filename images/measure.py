"""Measure the images and write the tables of docs/images.md: `python -m images.measure`, after `images/build`.

Sizes are bytes on disk above the base. Times are of a new container: the best of several runs, and the first, since a
node that just loaded an image reads it from disk.
"""  # noqa: INP001 (a script)

from __future__ import annotations

import json
import runpy
import subprocess
from typing import TYPE_CHECKING, NamedTuple

from images.lock import PROJECT, stages

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = PROJECT / "docs/images.md"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
LAYERS = ("common", "databricks", "own", "ours")
"""The Dockerfile's last layers with files, without the skeleton and the SBOM, which are some kilobytes."""

ARGUMENTS = {"extractor": ["--table=orders", "--date=2026-01-02"], "exporter": []}
"""Of the stages that take other arguments than a date. Without settings each ends once its own modules are loaded."""

PROBE = """
import json, resource, subprocess, sys, time
def once(arguments):
    cpu, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(["ecomm", *arguments], capture_output=True)
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - cpu.ru_utime - cpu.ru_stime
def probe(arguments):
    runs = [once(arguments) for _ in range(7)]
    return dict(first=runs[0][0], best=min(wall for wall, _ in runs), cpu=min(cpu for _, cpu in runs))
print(json.dumps(dict(help=probe({help}), loaded=probe({loaded}))))
"""


class Measured(NamedTuple):
    """An image's figures: megabytes and seconds."""

    stage: str
    above: float
    layers: dict[str, float]
    times: dict[str, dict[str, float]]


def docker(*arguments: str, text: str | None = None) -> str:
    """Run docker and give what it prints."""
    return subprocess.run(["docker", *arguments], check=True, capture_output=True, text=True, input=text).stdout


def measure(stage: str, version: str) -> Measured:
    """Look at an image and start its command some times."""
    image = f"ecomm-data-pipeline/{stage}:{version}"
    [inspected] = json.loads(docker("image", "inspect", image))
    base = inspected["Config"]["Labels"]["org.opencontainers.image.base.name"]
    above = inspected["Size"] - int(docker("image", "inspect", "-f", "{{.Size}}", base))
    history = docker("history", "--no-trunc", "--human=false", "--format={{.Size}} {{.CreatedBy}}", image)
    copies = [int(line.split()[0]) for line in reversed(history.splitlines()) if "COPY" in line][-len(LAYERS) - 1 : -1]
    probe = PROBE.format(help=[stage, "--help"], loaded=[stage, *ARGUMENTS.get(stage, ["--date=2026-01-02"])])
    times = json.loads(docker("run", "--rm", "-i", "--network=none", "--entrypoint=python", image, "-", text=probe))
    return Measured(stage, above / 1e6, dict(zip(LAYERS, (size / 1e6 for size in copies), strict=True)), times)


def tables(measured: list[Measured], base: str) -> Iterator[str]:
    """Draw the tables."""
    yield f"Above the base ({base}), in MB:\n"
    yield "| image | all | every stage's packages | Databricks' | its own | ecomm |"
    yield "| --- | ---: | ---: | ---: | ---: | ---: |"
    for stage, above, layers, _ in measured:
        cells = " | ".join(f"{layers[layer]:.1f}" if layers[layer] > 0.05 else "" for layer in LAYERS)  # noqa: PLR2004
        yield f"| {stage} | **{above:.0f}** | {cells} |"
    once = {layer: max(image.layers[layer] for image in measured) for layer in ("common", "databricks", "ours")}
    own = sum(image.layers["own"] for image in measured)
    yield (
        f"| all on one node | **{sum(once.values()) + own:.0f}** | "
        + " | ".join(f"{size:.1f}" for size in (once["common"], once["databricks"], own, once["ours"]))
        + " |"
    )
    yield "\nSeconds until the command answers: `--help`, and the stage itself, which lacks its settings here:\n"
    yield "| image | `--help`: best | first | CPU | stage: best | first | CPU |"
    yield "| --- | ---: | ---: | ---: | ---: | ---: | ---: |"
    for stage, _, _, times in measured:
        cells = " | ".join(f"{times[what][key]:.2f}" for what in ("help", "loaded") for key in ("best", "first", "cpu"))
        yield f"| {stage} | {cells} |"


def main() -> None:
    """Measure all and write the page."""
    version = str(runpy.run_path(str(PROJECT / "src/ecomm_pipeline/__init__.py"))["__version__"])
    measured = [measure(stage, version) for stage in stages()]
    label = '{{index .Config.Labels "org.opencontainers.image.base.name"}}'
    base = docker("image", "inspect", "-f", label, f"ecomm-data-pipeline/{stages()[0]}:{version}").strip()
    before, _, rest = PAGE.read_text().partition(BEGIN)
    text = "\n".join(tables(measured, f"`{base.partition('@')[0]}`"))
    PAGE.write_text(f"{before}{BEGIN}\n{text}\n{END}{rest.partition(END)[2]}")
    print(text)


if __name__ == "__main__":
    main()
