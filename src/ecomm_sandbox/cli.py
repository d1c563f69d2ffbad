"""`ecomm-sandbox`: a local Postgres, S3, Databricks and Tableau, to run the pipeline on one machine."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    import threading
    from datetime import date

    from ecomm_sandbox.sandbox import Sandbox

__all__ = ["app", "main"]

app = typer.Typer(
    help=__doc__, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None
)

HomeOption = Annotated[
    Path,
    typer.Option("--home", envvar="ECOMM_SANDBOX_HOME", help="Folder that holds the sandbox.", show_default=".sandbox"),
]
_HOME = Path(".sandbox")


def _sandbox(home: Path) -> Sandbox:
    from ecomm_sandbox.sandbox import Sandbox

    return Sandbox(home)


def _say(name: str, what: str) -> None:
    typer.echo(f"{name}: {what}", err=True)


@app.command()
def up(
    *,
    services: Annotated[
        list[str] | None, typer.Argument(help="Services to start. Default: all but dbt-cloud.", show_default=False)
    ] = None,
    home: HomeOption = _HOME,
    port: Annotated[list[str] | None, typer.Option(help="NAME=NUMBER: a port of your own choice.")] = None,
    timezone: Annotated[
        str, typer.Option(envvar="ECOMM_BUSINESS_TIMEZONE", help="Business zone of the pipeline.", show_default=False)
    ] = "",
    expose: Annotated[
        str,
        typer.Option(metavar="HOST", help="Listen on all addresses; clients connect to HOST. Default: loopback only."),
    ] = "",
    foreground: Annotated[
        bool, typer.Option("--foreground", help="Stay, start again what ends, and end all on SIGTERM or SIGINT.")
    ] = False,
) -> None:
    """Start what does not run, and wait until all is healthy."""
    sandbox, names = _sandbox(home), services or ()
    stop = _stop_on_signals() if foreground else None
    sandbox.up(names, ports=_ports(port or []), timezone=timezone, expose=expose, progress=_say)
    if stop:
        try:
            sandbox.stay(names, stop=stop.wait, progress=_say)
        finally:
            sandbox.down(progress=_say)


def _stop_on_signals() -> threading.Event:
    import signal
    import threading

    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):  # the first process of a container ignores them otherwise
        signal.signal(number, lambda *_: stop.set())
    return stop


@app.command()
def down(
    *,
    services: Annotated[list[str] | None, typer.Argument(help="Services to end. Default: all.")] = None,
    home: HomeOption = _HOME,
    purge: Annotated[bool, typer.Option("--purge", help="Remove the data too.")] = False,
) -> None:
    """End the processes that `up` started."""
    _sandbox(home).down(services or (), purge=purge, progress=_say)


@app.command()
def status(
    *, home: HomeOption = _HOME, json_: Annotated[bool, typer.Option("--json", help="Write JSON.")] = False
) -> None:
    """Tell how each service is; exit code 1 unless all run."""
    from dataclasses import asdict

    found = _sandbox(home).status()
    if json_:
        typer.echo(json.dumps([asdict(one) for one in found], indent=1))
    for one in () if json_ else found:
        ports = " ".join(f"{name}={number}" for name, number in one.ports.items())
        typer.echo(f"{one.name:<11}{one.state:<11}{one.pid or '-':<9}{ports}")
    raise typer.Exit(any(one.state != "running" for one in found))


@app.command()
def env(
    home: HomeOption = _HOME,
    format_: Annotated[
        str, typer.Option("--format", help="`shell`, `json`, or for helm/ecomm-data-pipeline `values` and `secret`.")
    ] = "shell",
    *,
    lineage: Annotated[
        bool, typer.Option("--lineage", help="And what sends their OpenLineage events to the sinks.")
    ] = False,
) -> None:
    """Write what stages and official clients need to connect: eval "$(ecomm-sandbox env)"."""
    from ecomm_sandbox import environment

    formats = {
        "shell": environment.exports,
        "json": lambda found: json.dumps(found, indent=1),
        "values": environment.values,
        "secret": environment.secret,
    }
    if format_ not in formats:
        message = f"--format is one of {', '.join(formats)}"
        raise typer.BadParameter(message)
    typer.echo(formats[format_](_sandbox(home).env(with_lineage=lineage)))


@app.command()
def load(  # noqa: PLR0913, PLR0917 (the options of a command)
    folder: Annotated[
        Path | None, typer.Argument(help="Folder of Online Retail day files.", show_default=False)
    ] = None,
    home: HomeOption = _HOME,
    dates: Annotated[str, typer.Option(help="DATE or FROM..TO: which of the day files. Default: all.")] = "",
    timezone: Annotated[str, typer.Option(help="Zone of the shop's clock. Default: Europe/London for day files.")] = "",
    generate: Annotated[int | None, typer.Option(help="Make up so many days of a shop, in place of day files.")] = None,
    orders_per_day: Annotated[float, typer.Option(help="Orders on a made-up day, about.")] = 100,
    seed: Annotated[int, typer.Option(help="The same seed makes up the same shop.")] = 0,
    until: Annotated[str, typer.Option(help="Last made-up day. Default: yesterday in the shop's zone.")] = "",
    country_mix: Annotated[str, typer.Option(help="Shares of customers, as in Vietnam=60,Japan=5.")] = "",
) -> None:
    """Load a shop's days into Postgres: from day files, or made up. Loading a day again changes nothing."""
    from ecomm_sandbox.sandbox import LoadOptions

    if (folder is None) == (generate is None):
        message = "name either a folder of day files or --generate DAYS"
        raise typer.BadParameter(message)
    options = LoadOptions(folder, dates, timezone, generate or 0, orders_per_day, seed, until, _mix(country_mix))
    loaded = _sandbox(home).load(options, _show_load)
    counts = ", ".join(f"{name} {count:,}" for name, count in loaded.written.items())
    typer.echo(f"\r{loaded.days:,} days, {loaded.lines:,} order lines read; rows written: {counts}", err=True)


@app.command()
def fault(
    service: Annotated[str | None, typer.Argument(show_default=False)] = None,
    kind: Annotated[str | None, typer.Argument(show_default=False)] = None,
    home: HomeOption = _HOME,
    *,
    times: Annotated[int | None, typer.Option(help="Strike so often, then stop.")] = None,
    seconds: Annotated[float | None, typer.Option(help="Stop after so many seconds.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="NAME=VALUE: an option of the fault.")] = None,
    list_: Annotated[bool, typer.Option("--list", help="List the kinds, and which are on.")] = False,
    clear: Annotated[bool, typer.Option("--clear", help="Switch all off, or all of SERVICE.")] = False,
) -> None:
    """Make something go wrong: a fault of a service, until it has struck --times, after --seconds, or until --clear."""
    sandbox = _sandbox(home)
    if list_:
        _list_faults(sandbox)
    elif clear:
        sandbox.clear_faults(service or "")
    elif service and kind:
        given: dict[str, Any] = dict(_pairs("--set", set_ or []))
        if service == "databricks":  # whose options have types of their own
            given = {name: _json_or_text(value) for name, value in given.items()}
        sandbox.fault(service, kind, times=times, seconds=seconds, **given)
    else:
        message = "name SERVICE and KIND, or --list, or --clear"
        raise typer.BadParameter(message)


@app.command()
def messages(
    home: HomeOption = _HOME,
    *,
    json_: Annotated[bool, typer.Option("--json", help="Write JSON, with open incidents and all tickets.")] = False,
    clear: Annotated[bool, typer.Option("--clear", help="Forget all of it.")] = False,
) -> None:
    """List what Slack, PagerDuty, Jira and the lineage backend were told, oldest first."""
    sandbox = _sandbox(home)
    if clear:
        sandbox.clear_messages()
        return
    found = sandbox.messages()
    if json_:
        typer.echo(json.dumps(found, indent=1))
        return
    for one in found["messages"]:
        typer.echo(f"{one['at']}  {one['service']:<12}{one['what']:<12}{one['to']}")
        typer.echo("".join(f"    {line}\n" for line in one["text"].splitlines()), nl=False)


@app.command()
def gameday(
    *,
    home: Annotated[Path, typer.Option("--home", help="Folder of the sandbox, which should be for this only.")] = Path(
        ".gameday"
    ),
    scenario: Annotated[list[str] | None, typer.Option(help="Play this one only; may be given again.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Those that need no lakehouse, repaired without it.")] = False,
    list_: Annotated[bool, typer.Option("--list", help="List the scenarios.")] = False,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="File of a page about the results.", show_default=False)
    ] = None,
    results: Annotated[
        Path | None,
        typer.Option(
            help="File that keeps each scenario's newest result, all of which are on the page.", show_default=False
        ),
    ] = None,
    keep: Annotated[bool, typer.Option("--keep/--no-keep", help="Leave the sandbox up.")] = False,
) -> None:
    """Make things go wrong; prove that each is noticed, told, diagnosed, and over after the command that was printed.

    Needs prometheus and alertmanager on PATH (tools/prometheus, tools/alertmanager).
    """
    from ecomm_sandbox.gameday.results import kept, merged, page, table
    from ecomm_sandbox.gameday.run import play
    from ecomm_sandbox.gameday.scenarios import SCENARIOS
    from ecomm_sandbox.gameday.scenarios.model import QUICK, WHOLE

    known = {one.name: one for one in SCENARIOS if one.quick or not quick}
    if list_:
        for one in known.values():
            typer.echo(f"{one.name:<22}{one.runbook:<2}{one.priority}  {one.alert}")
        return
    if unknown := sorted(set(scenario or ()) - set(known)):
        message = f"no scenario is called {', '.join(unknown)}; see --list"
        raise typer.BadParameter(message)
    sandbox = _sandbox(home)
    try:
        sandbox.up(QUICK if quick else WHOLE, progress=_say)
        played = []
        for result in play(sandbox, [known[name] for name in scenario or known], _say):
            played.append(result)
            if results:
                before = json.loads(results.read_text(encoding="utf-8")) if results.exists() else {}
                results.write_text(json.dumps(merged(before, [result]), indent=1), encoding="utf-8")
    finally:
        if not keep:
            sandbox.down(progress=_say)
    typer.echo(table(played))
    if output:
        told = kept(json.loads(results.read_text(encoding="utf-8")), SCENARIOS) if results else played
        output.write_text(page(told, SCENARIOS), encoding="utf-8")
    raise typer.Exit(not all(result.good for result in played))


@app.command()
def demo(
    *,
    data: Annotated[Path | None, typer.Option(help="Folder of Online Retail day files.", show_default=False)] = None,
    home: HomeOption = _HOME,
    dates: Annotated[str, typer.Option(help="FROM..TO. Default: all made-up days, or all of --data.")] = "",
    days: Annotated[int, typer.Option(help="Made-up days, up to yesterday.")] = 7,
    orders_per_day: Annotated[float, typer.Option(help="Orders on a made-up day, about.")] = 120,
    report: Annotated[Path, typer.Option("--report", "-o", help="File of the report.")] = Path("report.html"),
    keep: Annotated[bool, typer.Option("--keep/--no-keep", help="Leave the sandbox up.")] = True,
) -> None:
    """Bring a sandbox up, load a shop, run the pipeline over it, and write a report."""
    from ecomm_sandbox.demo import DemoOptions
    from ecomm_sandbox.demo import demo as run_demo

    sandbox = _sandbox(home)
    try:
        run_demo(sandbox, DemoOptions(data, dates, days, orders_per_day, report), _say)
    finally:
        if not keep:
            sandbox.down(progress=_say)


def _json_or_text(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _list_faults(sandbox: Sandbox) -> None:
    from ecomm_sandbox.databricks.faults import KINDS as DATABRICKS_KINDS
    from ecomm_sandbox.faults import CATALOGUE

    found = sandbox.faults() if sandbox.home.exists else {}
    on = {(name, fault["kind"]) for name, faults in found.items() for fault in faults}
    rows = [
        (name, kind, entry.about, " ".join(f"--set {option}={default!r}" for option, default in entry.options.items()))
        for name, kinds in CATALOGUE.items()
        for kind, entry in kinds.items()
    ]
    rows += [
        ("databricks", kind, "", " ".join(f"--set {option}=…" for option in sorted(options)))
        for kind, options in DATABRICKS_KINDS.items()
    ]
    for name, kind, about, options in rows:
        typer.echo(f"{'*' if (name, kind) in on else ' '} {name:<11}{kind:<21}{about}  {options}".rstrip())


def _show_load(day: date, lines: int) -> None:
    if sys.stderr.isatty():
        typer.echo(f"\r{day}  {lines:,} order lines", nl=False, err=True)


def _mix(text: str) -> dict[str, float]:
    try:
        return {name.strip(): float(share) for name, share in (part.split("=") for part in text.split(",") if part)}
    except ValueError as error:
        message = "--country-mix takes NAME=SHARE,NAME=SHARE, as in Vietnam=60,Japan=5"
        raise typer.BadParameter(message) from error


def _ports(texts: list[str]) -> dict[str, int]:
    try:
        return {name: int(number) for name, number in _pairs("--port", texts).items()}
    except ValueError as error:
        message = "--port takes NAME=NUMBER, as in --port postgres=5432"
        raise typer.BadParameter(message) from error


def _pairs(option: str, texts: list[str]) -> dict[str, str]:
    pairs = [text.partition("=") for text in texts]
    if not all(equals for _, equals, _ in pairs):
        message = f"{option} takes NAME=VALUE"
        raise typer.BadParameter(message)
    return {name: value for name, _, value in pairs}


def main() -> None:
    """Run the command line; errors of ours end it with one line and exit code 1."""
    from ecomm_sandbox.state import SandboxError

    try:
        app()
    except SandboxError as error:
        typer.echo(f"error: {error.message}", err=True)
        if error.next_step:
            typer.echo(f"next: {error.next_step}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
