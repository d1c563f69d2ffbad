"""The command `ecomm`: the only place that reads the environment and wires the parts together.

Imports are inside the commands: `--help` must not wait for Spark's, dbt's or Databricks' libraries.
"""

from __future__ import annotations

import json
import os
import sys
from datetime import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ecomm_pipeline.errors import FAILURE_CLASSES, EcommError, classify

if TYPE_CHECKING:
    from collections.abc import Callable

    from ecomm_pipeline.backlog import Mode, Need
    from ecomm_pipeline.dates import DateRange
    from ecomm_pipeline.settings import Business, Run
    from ecomm_pipeline.settings import Store as StoreSettings
    from ecomm_pipeline.stage import StageContext

__all__ = ["app", "main"]

app = typer.Typer(
    name="ecomm",
    help="Postgres to S3 to Databricks to dbt to Tableau, every day, proven at each hop.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
)

DateOption = Annotated[str, typer.Option("--date", help="2026-01-02, FROM..TO, or the RFC 3339 instant of a schedule.")]
DatesArgument = Annotated[str, typer.Argument(help="2026-01-02 or FROM..TO.", metavar="DATE|FROM..TO")]

WorkflowsOption = Annotated[
    Path | None, typer.Option(envvar="ECOMM_WORKFLOWS_DIR", help="Rendered workflows; default those of ecomm.")
]
RunsOption = Annotated[Path, typer.Option(envvar="ECOMM_RUNS_DIR", help="Where the logs go.")]
OnOption = Annotated[
    Literal["local", "argo"], typer.Option("--on", envvar="ECOMM_ON", help="On this machine, or on the cluster.")
]
NamespaceOption = Annotated[
    str, typer.Option(envvar="ECOMM_ARGO_NAMESPACE", help="The cluster's namespace of the workflows, for --on argo.")
]
ContextOption = Annotated[
    str, typer.Option(envvar="ECOMM_KUBE_CONTEXT", help="Of ~/.kube/config, for --on argo; default its current one.")
]
FollowOption = Annotated[bool, typer.Option("--follow/--no-follow", help="Wait for the end, for --on argo.")]


@app.callback()
def _options(
    log_level: Annotated[str, typer.Option(envvar="ECOMM_LOG_LEVEL", help="DEBUG, INFO, WARNING or ERROR.")] = "INFO",
) -> None:
    from ecomm_pipeline.logs import configure

    configure(level=log_level)


@app.command()
def extractor(
    table: Annotated[str, typer.Option(help="The source table.")],
    date: Annotated[str, typer.Option(help="2026-01-02, or the RFC 3339 instant of a schedule.")],
) -> None:
    """Copy one table's window from Postgres to S3."""
    from ecomm_pipeline.extractor.run import extract
    from ecomm_pipeline.settings import ExtractorSettings, load

    settings = load(ExtractorSettings)
    dates = _dates(date, settings.business)
    _stage("extractor", settings, dates, lambda context: extract(context, settings), table=table)


@app.command("dlt-trigger")
def dlt_trigger(date: DateOption) -> None:
    """Update the Databricks pipeline (Bronze, Silver, Gold) and wait for that update."""
    from ecomm_pipeline.dlt_trigger.run import update_pipeline
    from ecomm_pipeline.settings import DltTriggerSettings, load

    settings = load(DltTriggerSettings)
    _stage("dlt-trigger", settings, _dates(date, settings.business), lambda context: update_pipeline(context, settings))


@app.command()
def gate(
    date: DateOption,
    not_before: Annotated[str, typer.Option(help="Time of the day after DATE in the business zone, or now.")] = "05:00",
) -> None:
    """Wait until a time of the day after DATE; a past one passes at once."""
    from ecomm_pipeline.clock import SystemClock
    from ecomm_pipeline.gate import wait_until
    from ecomm_pipeline.settings import Business, load

    business = load(Business)
    wait_until(_dates(date, business).last, _time(not_before), _zone(business), SystemClock())


@app.command("dbt-runner")
def dbt_runner(
    date: DateOption,
    select: Annotated[str, typer.Option(help="dbt's node selection, such as agg_sales_kpi; default everything.")] = "",
) -> None:
    """Build and test the KPI tables (DailyRefresh)."""
    from ecomm_pipeline.dbt_runner.run import build
    from ecomm_pipeline.settings import DbtRunnerSettings, load

    settings = load(DbtRunnerSettings)
    dates = _dates(date, settings.business)
    _stage("dbt-runner", settings, dates, lambda context: build(context, settings, select=select))


@app.command("tableau-refresher")
def tableau_refresher(date: DateOption) -> None:
    """Refresh the Tableau extracts and prove that they are fresh."""
    from ecomm_pipeline.settings import TableauRefresherSettings, load
    from ecomm_pipeline.tableau_refresher.run import refresh

    settings = load(TableauRefresherSettings)
    _stage("tableau-refresher", settings, _dates(date, settings.business), lambda context: refresh(context, settings))


@app.command()
def reconciler(
    date: DateOption,
    through: Annotated[Literal["gold", "kpi"], typer.Option(help="How far to prove.")] = "kpi",
) -> None:
    """Prove that rows and money add up from Postgres to the KPI tables."""
    from ecomm_pipeline.reconciler.run import reconcile
    from ecomm_pipeline.settings import ReconcilerSettings, load

    settings = load(ReconcilerSettings)
    dates = _dates(date, settings.business)
    _stage(
        "reconciler", settings, dates, lambda context: reconcile(context, settings, through=through), through=through
    )


@app.command("kpi-gate")
def kpi_gate(
    date: DateOption,
    workflow: Annotated[str, typer.Option(help="NAMESPACE/NAME of what waits when it is held; default none.")] = "",
) -> None:
    """Tell whether a KPI moved further than ECOMM_KPI_GATE_BOUNDS allows, and Tableau is to wait for a person."""
    from ecomm_pipeline.kpi_gate.run import judge
    from ecomm_pipeline.settings import KpiGateSettings, load

    settings = load(KpiGateSettings)
    dates = _dates(date, settings.business)
    _stage("kpi-gate", settings, dates, lambda context: judge(context, settings, workflow=workflow))


@app.command()
def dates(
    date: DateOption,
    mode: Annotated[
        Literal["missing", "failed", "all"], typer.Option(help="Which of them: by what the ledger says, or all.")
    ] = "all",
    parallelism: Annotated[int, typer.Option(min=0, help="Give a list of so many lists; 0: one plain list.")] = 0,
) -> None:
    """Tell which business dates DATE means, as JSON, for workflows to go through."""
    from ecomm_pipeline.backlog import lanes, needed

    needs = _backlog(date, mode)
    print(lanes(needed(needs), parallelism) if parallelism else json.dumps([str(day) for day in needed(needs)]))


@app.command()
def finish(
    date: DateOption,
    workflow: Annotated[str, typer.Option(help="The workflow's name.")],
    status: Annotated[str, typer.Option(help="How it ended, in Argo's words: Succeeded, Failed or Error.")],
    duration: Annotated[float, typer.Option(help="Seconds that it took.")] = 0.0,
    failures: Annotated[str, typer.Option(help="Argo's list of the nodes that failed, as JSON.")] = "",
) -> None:
    """Close the ledger at the end of a run: its outcome, and the stages that a killed process left open."""
    from ecomm_pipeline.clock import SystemClock
    from ecomm_pipeline.finish.plan import end_of
    from ecomm_pipeline.finish.run import close_ledger
    from ecomm_pipeline.ledger import Ledger
    from ecomm_pipeline.lineage.run import lineage_of
    from ecomm_pipeline.settings import Business, Run, load
    from ecomm_pipeline.settings import Store as StoreSettings

    this_run, business, clock = load(Run), load(Business), SystemClock()
    end = end_of(
        _dates(date, business),
        workflow=workflow,
        run_id=_run_id(this_run, clock),
        trigger=this_run.trigger,
        status=status,
        seconds=duration,
        failures=failures,
        now=clock.now(),
    )
    store, layout = _store(load(StoreSettings))
    close_ledger(end, Ledger(store, layout), lineage_of(None, _zone(business), store, os.environ))


@app.command()
def run(
    dates: DatesArgument,
    run_id: Annotated[str, typer.Option(help="Go on with the run of that id.")] = "",
    workflows: WorkflowsOption = None,
    runs: RunsOption = Path(".ecomm/runs"),
) -> None:
    """Run the whole pipeline here, from the workflows that Kubernetes runs."""
    from ecomm_pipeline.clock import SystemClock
    from ecomm_pipeline.runner.plan import choose
    from ecomm_pipeline.runner.run import find_workflows, run_workflow
    from ecomm_pipeline.settings import Business, KpiGate, load

    business, clock = load(Business), SystemClock()
    this_run = _this_run(run_id)
    run_workflow(
        choose(_dates(dates, business), business.tables, load(KpiGate).bounds),
        run_id=_run_id(this_run, clock),
        workflows=find_workflows(workflows),
        runs=runs,
        environment=os.environ,
        clock=clock,
    )


@app.command()
def status(
    dates: Annotated[str, typer.Argument(help="2026-01-02 or FROM..TO; default the last 14 of the ledger.")] = "",
    output: Annotated[Literal["table", "json"], typer.Option("--format", help="How to print it.")] = "table",
) -> None:
    """Show dates and stages from the ledger."""
    from ecomm_pipeline.settings import Business, load
    from ecomm_pipeline.settings import Store as StoreSettings
    from ecomm_pipeline.status.run import show_status

    business, store = load(Business), load(StoreSettings)
    show_status(_dates(dates, business) if dates else None, *_store(store), output=output)


@app.command()
def query(
    sql: str,
    output: Annotated[str, typer.Option("--format", help="table, csv or json.")] = "table",
) -> None:
    """Ask the SQL warehouse."""
    from ecomm_pipeline.query import show_query
    from ecomm_pipeline.settings import Databricks, load

    show_query(sql, load(Databricks), output=output)


@app.command()
def check(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            help="Default: those that are set up, and whose libraries are installed.",
            metavar="[postgres|s3|databricks|warehouse|tableau]...",
        ),
    ] = None,
    *,
    write: Annotated[bool, typer.Option("--write", help="Put a small object into the bucket, too.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Write a JSON list.")] = False,
) -> None:
    """Ask each service whether it answers, lets us in and has what we need; the exit code is of the worst answer."""
    from ecomm_pipeline.check import plan
    from ecomm_pipeline.check.run import check
    from ecomm_pipeline.clock import SystemClock
    from ecomm_pipeline.settings import load

    results = check(names or (), load=load, environment=os.environ, clock=SystemClock(), write=write)
    print(json.dumps(plan.as_json(results), indent=1, ensure_ascii=False) if as_json else plan.as_lines(results))
    raise typer.Exit(plan.exit_code(results))


@app.command()
def report(
    dates: Annotated[str, typer.Argument(help="2026-01-02 or FROM..TO; default all dates of the ledger.")] = "",
    output: Annotated[Path, typer.Option("--output", "-o", help="The page to write.")] = Path("report.html"),
) -> None:
    """Write one self-contained page: stages, rows and money by hop, quality, KPIs."""
    from ecomm_pipeline.report.run import write_report
    from ecomm_pipeline.settings import Business, Databricks, load
    from ecomm_pipeline.settings import Store as StoreSettings

    business, databricks = load(Business), load(Databricks)
    store, layout = _store(load(StoreSettings))
    chosen = _dates(dates, business) if dates else None
    write_report(chosen, output, store=store, layout=layout, databricks=databricks, business=business)


@app.command()
def backfill(  # noqa: PLR0913 (the options of a command)
    dates: DatesArgument,
    *,
    missing: Annotated[bool, typer.Option("--missing", help="Dates some stage never succeeded for. Default.")] = False,
    failed: Annotated[bool, typer.Option("--failed", help="Dates of which some stage's newest try failed.")] = False,
    everything: Annotated[bool, typer.Option("--all", help="Every date.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan and do nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Write the plan as JSON.")] = False,
    parallelism: Annotated[int, typer.Option(min=1, help="Dates that are extracted at once.")] = 2,
    on: OnOption = "local",
    namespace: NamespaceOption = "ecomm",
    context: ContextOption = "",
    follow: FollowOption = True,
    workflows: WorkflowsOption = None,
    runs: RunsOption = Path(".ecomm/runs"),
) -> None:
    """Do the dates of a range that need it: the plan, with the reasons and the time it takes, comes before the act."""
    from ecomm_pipeline.backfill.plan import mode_of
    from ecomm_pipeline.backfill.run import Backfill, Here
    from ecomm_pipeline.clock import SystemClock
    from ecomm_pipeline.layout import new_run_id
    from ecomm_pipeline.ledger import Ledger
    from ecomm_pipeline.runner.run import find_workflows
    from ecomm_pipeline.settings import Business, KpiGate, Nightly, load
    from ecomm_pipeline.settings import Store as StoreSettings

    business, clock = load(Business), SystemClock()
    wanted = Backfill(
        _dates(dates, business),
        mode_of(missing=missing, failed=failed, everything=everything),
        business.tables,
        load(KpiGate).bounds,
        _zone(business),
        load(Nightly),
        parallelism,
        Ledger(*_store(load(StoreSettings))),
        clock,
    )
    todo = wanted.show(where=f"in the namespace {namespace}" if on == "argo" else "here", as_json=as_json)
    if dry_run or not todo:
        return
    if on == "argo":
        from ecomm_pipeline.argo import Argo

        wanted.run_on_argo(todo, Argo(namespace, clock, context=context), follow=follow)
        return
    here = Here(lambda: new_run_id(clock.now()), find_workflows(workflows), runs, os.environ)
    wanted.run_here(todo, here)


@app.command()
def rerun(  # noqa: PLR0913 (the options of a command)
    part: Annotated[Literal["dlt", "dbt", "tableau", "reconcile"], typer.Argument(help="What to do again.")],
    date: Annotated[str, typer.Argument(help="2026-01-02 or FROM..TO; default yesterday in the business zone.")] = "",
    *,
    select: Annotated[str, typer.Option(help="dbt's node selection, such as agg_sales_kpi; default everything.")] = "",
    onwards: Annotated[bool, typer.Option("--onwards", help="And all that is behind it, up to the proof.")] = False,
    on: OnOption = "local",
    namespace: NamespaceOption = "ecomm",
    context: ContextOption = "",
    follow: FollowOption = True,
    run_id: Annotated[str, typer.Option(help="Go on with the run of that id.")] = "",
    workflows: WorkflowsOption = None,
    runs: RunsOption = Path(".ecomm/runs"),
) -> None:
    """Do a part of a date again from what is there, without extracting it: Bronze to Gold, KPI tables, or Tableau."""
    from ecomm_pipeline.clock import SystemClock
    from ecomm_pipeline.rerun import plan
    from ecomm_pipeline.rerun.run import on_argo, on_this_machine
    from ecomm_pipeline.runner.run import find_workflows
    from ecomm_pipeline.settings import Business, load

    business, clock = load(Business), SystemClock()
    dates = _dates(date or clock.now().isoformat(), business)
    trigger = "manual" if on == "argo" else "local"
    chosen = plan.submissions(part, dates, select=select, onwards=onwards, trigger=trigger)
    if on == "argo":
        from ecomm_pipeline.argo import Argo

        on_argo(chosen, Argo(namespace, clock, context=context), follow=follow)
        return
    this_run = _this_run(run_id)
    on_this_machine(
        chosen,
        dates,
        again=plan.command(part, dates, select=select, onwards=onwards),
        run_id=_run_id(this_run, clock),
        workflows=find_workflows(workflows),
        runs=runs,
        environment=os.environ,
        clock=clock,
    )


@app.command()
def doctor(
    date: Annotated[str, typer.Argument(help="2026-01-02; default yesterday, in the business zone.")] = "",
    *,
    within: Annotated[float, typer.Option(min=1, help="Seconds: what takes longer is left out.")] = 60.0,
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON.")] = False,
) -> None:
    """Tell what is wrong with a date first, what follows from it, and the command that repairs it; change nothing."""
    from ecomm_pipeline.clock import SystemClock
    from ecomm_pipeline.doctor.run import DoctorSettings, show_diagnosis
    from ecomm_pipeline.settings import load

    settings, clock = load(DoctorSettings), SystemClock()
    chosen = _dates(date or clock.now().isoformat(), settings.business).only
    code = show_diagnosis(
        chosen,
        settings,
        load=load,
        environment=os.environ,
        clock=clock,
        within=within,
        output="json" if as_json else "text",
    )
    raise typer.Exit(code)


@app.command()
def explain(
    date: Annotated[str, typer.Argument(help="The sales date, 2026-01-02.")],
    metric: Annotated[str, typer.Argument(help="A column of kpi.agg_sales_kpi, such as net_revenue.")],
    *,
    product: Annotated[
        str | None, typer.Option(help="Of this product alone, by its code: a column of kpi.agg_product_kpi.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON.")] = False,
) -> None:
    """Show what a KPI of a day is made of, down to the files and their runs, each sum proven against the next."""
    from ecomm_pipeline.explain.run import show_explanation
    from ecomm_pipeline.settings import Business, Databricks, load
    from ecomm_pipeline.settings import Store as StoreSettings

    business, databricks = load(Business), load(Databricks)
    store, layout = _store(load(StoreSettings))
    show_explanation(
        _dates(date, business).only,
        metric,
        product=product,
        business=business,
        databricks=databricks,
        store=store,
        layout=layout,
        output="json" if as_json else "tree",
    )


@app.command()
def diff(
    one: Annotated[str, typer.Argument(help="2026-01-02, or 2026-01-02@RUN with the beginning of a run's id.")],
    other: Annotated[str, typer.Argument(help="The same, of what it is compared with.")],
    output: Annotated[Literal["table", "json"], typer.Option("--format", help="How to print it.")] = "table",
) -> None:
    """Show what differs between two dates, or two runs of a date: rows, money, columns, outcomes, durations."""
    from ecomm_pipeline.diff.run import show_diff
    from ecomm_pipeline.settings import Business, load
    from ecomm_pipeline.settings import Store as StoreSettings

    business = load(Business)
    store, layout = _store(load(StoreSettings))
    show_diff(one, other, tables=business.tables, tz=_zone(business), store=store, layout=layout, output=output)


@app.command()
def exporter(
    port: Annotated[int, typer.Option(help="TCP port to listen on; 0 takes a free one.")] = 9464,
    address: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 in a pod.")] = "127.0.0.1",
) -> None:
    """Serve the ledger as metrics for Prometheus."""
    from ecomm_pipeline.clock import SystemClock
    from ecomm_pipeline.exporter.run import serve
    from ecomm_pipeline.settings import ExporterSettings, load

    settings = load(ExporterSettings)
    serve(settings, *_store(settings.store), SystemClock(), address=address, port=port)


def _stage(
    stage: str,
    settings: Any,  # noqa: ANN401 (each stage's own settings; all hold business, run and store)
    dates: DateRange,
    work: Callable[[StageContext], None],
    *,
    table: str | None = None,
    through: str | None = None,
) -> None:
    from ecomm_pipeline.clock import SystemClock
    from ecomm_pipeline.lineage.run import lineage_of
    from ecomm_pipeline.stage import run_stage

    run: Run = settings.run
    store, layout = _store(settings.store)
    clock, tz = SystemClock(), _zone(settings.business)
    run_stage(
        work,
        stage=stage,
        dates=dates,
        tz=tz,
        run_id=_run_id(run, clock),
        trigger=run.trigger,
        store=store,
        layout=layout,
        clock=clock,
        table=table,
        through=through,
        lineage=lineage_of(settings, tz, store, os.environ),
    )


def _backlog(text: str, mode: Mode) -> list[Need]:
    """Plan which dates of a range are to be done; only `all` needs no ledger."""
    from ecomm_pipeline.backlog import plan_backfill
    from ecomm_pipeline.ledger import Ledger
    from ecomm_pipeline.logs import get_logger
    from ecomm_pipeline.settings import Business, load
    from ecomm_pipeline.settings import Store as StoreSettings

    business = load(Business)
    dates = _dates(text, business)
    records = [] if mode == "all" else Ledger(*_store(load(StoreSettings))).of_range(dates)
    needs = plan_backfill(dates, mode, records, business.tables)
    for need in filter(None, needs if mode != "all" else ()):
        get_logger().info("dates.needed", date=str(need.date), reasons=need.reasons)
    get_logger().info("dates.planned", dates=str(dates), mode=mode, needed=sum(map(bool, needs)), of=len(needs))
    return needs


def _this_run(run_id: str) -> Run:
    """Give the run that the environment describes, with the id of the command line if one was given."""
    from ecomm_pipeline.settings import Run, load

    run = load(Run)
    return run.model_copy(update={"run_id": run_id}) if run_id else run


def _run_id(run: Run, clock: Any) -> str:  # noqa: ANN401 (a Clock, imported where it is made)
    from ecomm_pipeline.layout import check_run_id, new_run_id

    return check_run_id(run.run_id) if run.run_id else new_run_id(clock.now())


def _store(settings: StoreSettings) -> tuple[Any, Any]:
    from ecomm_pipeline.layout import Layout
    from ecomm_pipeline.store import Store

    return Store(settings), Layout(settings.prefix)


def _zone(business: Business) -> Any:  # noqa: ANN401 (a ZoneInfo)
    from ecomm_pipeline.dates import zone

    return zone(business.business_timezone)


def _dates(text: str, business: Business) -> DateRange:
    from ecomm_pipeline.dates import parse_dates

    return parse_dates(text, _zone(business))


def _time(text: str) -> time | None:
    from ecomm_pipeline.errors import ConfigurationError

    try:
        return None if text == "now" else time.fromisoformat(text)
    except ValueError as error:
        message = f"--not-before: {text!r} is not a time of day"
        raise ConfigurationError(message, next_step="write it as 05:00, or now") from error


def main() -> None:
    """Run the command line; every failure becomes one line, the next step, and the exit code of its class."""
    usage_error = typer.BadParameter.__bases__[0]
    try:
        sys.exit(app(standalone_mode=False) or 0)
    except EcommError as error:
        _say(error.message, error.next_step, *getattr(error, "__notes__", ()))
        sys.exit(error.failure.exit_code)
    except typer.Abort:
        sys.exit(FAILURE_CLASSES["cancelled"].exit_code)
    except Exception as error:  # noqa: BLE001 (the last place where one can be caught)
        if isinstance(error, usage_error):
            error.show()  # type: ignore[attr-defined]
            sys.exit(FAILURE_CLASSES["configuration"].exit_code)
        from ecomm_pipeline.logs import get_logger

        get_logger().exception("internal_error")
        _say(f"this is a defect of ecomm: {type(error).__name__}: {error}", "report it with the lines above")
        sys.exit(classify(error).exit_code)


def _say(message: str, next_step: str, *notes: str) -> None:
    print(f"error: {message}", file=sys.stderr)
    for line in filter(None, (next_step, *notes)):
        print(f"next:  {line}", file=sys.stderr)


if __name__ == "__main__":
    main()
