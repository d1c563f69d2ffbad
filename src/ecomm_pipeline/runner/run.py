"""`ecomm run`: walk a rendered WorkflowTemplate with processes of this machine.

The run keeps a folder of its own with a log for each step and `steps.jsonl`, where each step that succeeded is noted.
The same run id again takes up from there: a step that succeeded with the same command is not run again, as `argo retry`
does it. Without the folder every step runs again, which is harmless, since all of them are safe to repeat.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import re
import shlex
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import yaml

from ecomm_pipeline.errors import CancelledError, ConfigurationError, EcommError, UnavailableError
from ecomm_pipeline.runner.display import Display
from ecomm_pipeline.runner.plan import Node, Schedule, class_of, delay, items_of, run_scope
from ecomm_pipeline.runner.process import Log, Process
from ecomm_pipeline.runner.workflow import Container, Dag, Suspend, Task, Template, Workflow, holds, parse, substitute

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from ecomm_pipeline.clock import Clock
    from ecomm_pipeline.runner.plan import Choice

__all__ = ["StepFailedError", "find_workflows", "load_workflow", "run_workflow"]

_BESIDE_PACKAGE: Final = Path(__file__).parents[1] / "workflows"
"""Where an installed wheel has them."""
_IN_REPOSITORY: Final = Path(__file__).parents[3] / "helm" / "ecomm-data-pipeline" / "workflows"
"""Where a checkout has them."""
_JOURNAL: Final = "steps.jsonl"


class StepFailedError(EcommError):
    """Raised when a step failed for good; its class is the step's own."""

    def __init__(self, message: str, *, next_step: str, failure_class: str, step: str) -> None:
        super().__init__(message, next_step=next_step)
        self.failure_class = failure_class  # type: ignore[misc]  # known only when it has happened
        self._step = step

    def as_argo_tells(self) -> dict[str, str]:
        """Give it as an element of `{{workflow.failures}}`."""
        return {"displayName": self._step, "templateName": self._step.split()[0], "message": self.message}


def run_workflow(
    choice: Choice,
    *,
    run_id: str,
    workflows: Path,
    runs: Path,
    environment: Mapping[str, str],
    clock: Clock,
) -> None:
    """Run a workflow that `choose` chose, and show how it goes on standard output.

    `workflows` is the folder of rendered YAML, `runs` that of all runs' logs. Raises `StepFailedError` for the first
    step that failed, `CancelledError` after ^C or SIGTERM, when all that was running has been stopped.
    """
    workflow = load_workflow(choice.workflow, workflows)
    display = Display(clock)
    folder = runs / run_id
    title = f"{workflow.name} {choice.dates}"
    display.say(f"{title}   run {run_id}   logs in {folder}")
    began = clock.monotonic()
    with _locked(folder) as lock:
        walk = Walk(workflow, run_id, choice.arguments, folder, lock, environment, display, again=choice.again)
        asyncio.run(walk.run())
    display.say(f"{title} succeeded in {clock.monotonic() - began:.1f} s")


def find_workflows(chosen: Path | None) -> Path:
    """Give the folder of rendered workflows: the chosen one, that of the installed package, or that of the checkout.

    Raises `ConfigurationError` when it holds none.
    """
    for folder in [chosen] if chosen else [_BESIDE_PACKAGE, _IN_REPOSITORY]:
        if any(folder.glob("*.yaml")):
            return folder
    message = f"there are no rendered workflows in {chosen or f'{_BESIDE_PACKAGE} or {_IN_REPOSITORY}'}"
    raise ConfigurationError(message, next_step="give their folder with --workflows or ECOMM_WORKFLOWS_DIR")


def load_workflow(name: str, folder: Path) -> Workflow:
    """Read the WorkflowTemplate of a name. Raises `ConfigurationError` when it is not there or not understood."""
    for path in sorted(folder.glob("*.yaml")):
        try:
            documents = list(yaml.safe_load_all(path.read_text(encoding="utf-8")))
        except yaml.YAMLError as error:
            message = f"{path} is not YAML: {' '.join(str(error).split())}"
            raise ConfigurationError(message, next_step="render it again: python -m workflows.render") from error
        for document in documents:
            if _is_template(document, name):
                return parse(document, str(path))
    message = f"no WorkflowTemplate in {folder} is called {name!r}"
    raise ConfigurationError(message, next_step="render it again: python -m workflows.render")


def _is_template(document: Any, name: str) -> bool:  # noqa: ANN401 (whatever YAML holds)
    return (
        isinstance(document, dict)
        and document.get("kind") == "WorkflowTemplate"
        and (document.get("metadata") or {}).get("name") == name
    )


@dataclass(frozen=True, slots=True)
class Step:
    """A container that is to run: `path` is its place in the DAG, `label` what people call it."""

    path: str
    label: str
    command: tuple[str, ...]
    env: Mapping[str, str]


class Walk:
    """One run of a workflow: recursive over its templates, as many processes at once as the DAG allows."""

    def __init__(
        self,
        workflow: Workflow,
        run_id: str,
        arguments: Mapping[str, str],
        folder: Path,
        lock: int,
        environment: Mapping[str, str],
        display: Display,
        *,
        again: str,
    ) -> None:
        self._workflow = workflow
        self._run_id = run_id
        self._arguments = {**workflow.arguments, **arguments}
        self._scope = run_scope(workflow.name, run_id, _complete(self._arguments, arguments, workflow))
        self._folder = folder
        self._lock = lock
        self._environment = environment
        self._display = display
        self._again = again
        self._journal = _Journal(folder / _JOURNAL)
        self._failures: list[StepFailedError] = []

    async def run(self) -> None:
        """Walk from the entrypoint to the end, and the exit handler in any case. Raises what `run_workflow` raises."""
        main = asyncio.create_task(self._main())
        live = asyncio.create_task(self._display.live())
        try:
            with _cancelled_by_signals(main) as received:
                await main
        except asyncio.CancelledError:
            raise self._stopped(received) from None
        finally:
            live.cancel()
            await asyncio.gather(live, return_exceptions=True)
        if self._failures:
            raise self._failures[0]

    async def _main(self) -> None:
        time = asyncio.get_running_loop().time
        began = time()
        entry = self._workflow.templates[self._workflow.entrypoint]
        given = {name: value for name, value in self._arguments.items() if value is not None and name in entry.inputs}
        succeeded = False
        try:
            succeeded = await self._template(entry, given, entry.name) is not None
        finally:
            await self._exit("Succeeded" if succeeded else "Failed", time() - began)

    async def _exit(self, status: str, seconds: float) -> None:
        """Run the exit handler, as Argo does after a workflow that succeeded, failed or was stopped."""
        if self._workflow.exit_handler is None:
            return
        template = self._workflow.templates[self._workflow.exit_handler]
        self._scope |= {
            "workflow.status": status,
            "workflow.duration": f"{seconds:.3f}",
            "workflow.failures": json.dumps([failure.as_argo_tells() for failure in self._failures]),
        }
        await self._template(template, {}, template.name)

    async def _template(self, template: Template, arguments: Mapping[str, str], path: str) -> str | None:
        """Run a template; gives its result, or None when it failed, the reason of which is then in `_failures`."""
        inputs = {name: value or "" for name, value in {**template.inputs, **arguments}.items()}
        scope = self._scope | {f"inputs.parameters.{name}": value for name, value in inputs.items()}
        if isinstance(template.body, Dag):
            return await self._dag(template.body, template.parallelism, scope, path)
        if isinstance(template.body, Suspend):
            self._hold(template.name, inputs.values())
            return None
        return await self._container(template, template.body, scope, path, " ".join([template.name, *inputs.values()]))

    def _hold(self, name: str, reasons: Iterable[str]) -> None:
        """End the run where one on the cluster waits for a person, whom the inputs tell why: here nobody resumes it."""
        self._display.show(name, "held", "the run ends here")
        why = " ".join(reasons)
        advice = "go on as it says; or mend what is wrong, and do the date again"
        self._failures.append(
            StepFailedError(why or f"{name} waits for a person", next_step=advice, failure_class="bad_data", step=name)
        )

    async def _dag(self, dag: Dag, parallelism: int | None, scope: dict[str, str], path: str) -> str | None:
        """Run the tasks of a DAG in their order; its result is empty."""
        scope = dict(scope)

        def expand(task: Task) -> list[Node]:
            if not holds(task.when, scope, f"{path}.{task.name}"):
                self._display.show(task.name, "skipped", f"since not {task.when}")
                return []
            return items_of(task, None if task.items is None else substitute(task.items, scope, path), path)

        schedule = Schedule(dag, parallelism, expand)
        running: dict[asyncio.Task[str | None], Node] = {}
        try:
            while True:
                for node in schedule.start():
                    running[asyncio.create_task(self._node(node, scope, path))] = node
                if schedule.over:
                    return None if schedule.failed else ""
                ended, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for task in ended:
                    node = running.pop(task)
                    result = task.result()
                    schedule.finish(node, succeeded=result is not None)
                    scope[f"tasks.{node.task.name}.outputs.result"] = result or ""
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def _node(self, node: Node, scope: Mapping[str, str], path: str) -> str | None:
        values = dict(scope) if node.item is None else {**scope, "item": node.item}
        place = f"{path}.{node.name}"
        arguments = {name: substitute(text, values, place) for name, text in node.task.arguments.items()}
        return await self._template(self._workflow.templates[node.task.template], arguments, place)

    async def _container(
        self, template: Template, container: Container, scope: Mapping[str, str], path: str, label: str
    ) -> str | None:
        step = Step(
            path,
            label.strip(),
            tuple(substitute(word, scope, path) for word in container.command),
            {name: substitute(value, scope, path) for name, value in container.env.items()},
        )
        known = self._journal.result(step)
        if known is not None and template.name != self._workflow.exit_handler:
            self._display.show(step.label, "succeeded", "before")
            return known
        tries = 0
        while True:
            tries += 1
            process, exit_code = await self._try(step, container.deadline)
            if not exit_code:
                result = process.result()
                self._journal.succeeded(step, result)
                return result
            pause = delay(template.retry, tries, exit_code)
            if pause is None:
                self._failures.append(self._failure(step, process.log, exit_code, tries))
                return None
            self._display.show(step.label, "again", f"in {pause:.0f} s, try {tries + 1}")
            await asyncio.sleep(pause)

    async def _try(self, step: Step, deadline: float | None) -> tuple[Process, int]:
        files = self._folder / re.sub(r"[^A-Za-z0-9._-]+", "-", step.path).strip("-")
        process = Process(step.command, {**self._environment, **step.env}, files, self._lock)
        self._display.begin(step.label, process.log)
        state, detail = "stopped", ""
        try:
            exit_code = await process.run(deadline)
            state = "failed" if exit_code else "succeeded"
            detail = _cause(process.log, exit_code) if exit_code else _rows(process.log)
        finally:
            self._display.end(step.label, state, detail)
        return process, exit_code

    def _failure(self, step: Step, log: Log, exit_code: int, tries: int) -> StepFailedError:
        name = class_of(exit_code, log.find("failure_class"))
        after = f" after {tries} tries" if tries > 1 else ""
        advice = log.said("next:")
        env = " ".join(f"{key}={shlex.quote(value)}" for key, value in step.env.items())
        alone = f"{env} {shlex.join(step.command)}".strip()
        return StepFailedError(
            f"{step.label} failed{after} ({name}, exit code {exit_code}): {_cause(log, exit_code)}   (log: {log.path})",
            next_step=f"{f'{advice}; ' if advice else ''}go on with: {self._again} --run-id {self._run_id}\n"
            f"       only this step: {alone}",
            failure_class=name,
            step=step.label,
        )

    def _stopped(self, received: list[signal.Signals]) -> CancelledError:
        by = f" by {received[0].name}" if received else ""
        message = f"the run was stopped{by}, and what it was running with it"
        return CancelledError(message, next_step=f"go on with: {self._again} --run-id {self._run_id}")


class _Journal:
    """Which steps have succeeded in this run, with which command and result: a JSON line each."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[tuple[str, tuple[str, ...]], str] = {}
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
            with contextlib.suppress(ValueError, KeyError):  # a line that was cut short when we were killed
                entry = json.loads(line)
                self._known[entry["step"], tuple(entry["command"])] = entry["result"]

    def result(self, step: Step) -> str | None:
        """Give the result of a step that has succeeded with this command."""
        return self._known.get((step.path, step.command))

    def succeeded(self, step: Step, result: str) -> None:
        """Note that a step has succeeded."""
        entry = {"step": step.path, "command": step.command, "result": result}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(f"{json.dumps(entry, ensure_ascii=False)}\n")


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[int]:
    """Hold the run's folder, and give the descriptor of its lock.

    The steps hold it too: when we are killed and they are not, the run cannot be taken up again beside them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            message = f"the run {folder.name} is still going on: by another `ecomm run`, or by a step that outlived it"
            raise UnavailableError(message, next_step="wait for it to end, or end it, and try again") from error
        yield file.fileno()


@contextlib.contextmanager
def _cancelled_by_signals(task: asyncio.Task[Any]) -> Iterator[list[signal.Signals]]:
    """Cancel a task on SIGINT, SIGTERM and SIGHUP, each time; gives the list of those received."""
    received: list[signal.Signals] = []
    loop = asyncio.get_running_loop()

    def receive(number: signal.Signals) -> None:
        received.append(number)
        task.cancel()

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    for number in numbers:
        loop.add_signal_handler(number, receive, number)
    try:
        yield received
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


def _complete(arguments: Mapping[str, str | None], given: Mapping[str, str], workflow: Workflow) -> dict[str, str]:
    """Give the workflow's arguments with their values. Raises `ConfigurationError` for a missing or an unknown one."""
    missing = [name for name, value in arguments.items() if value is None]
    unknown = sorted(given.keys() - workflow.arguments.keys())
    if missing or unknown:
        message = f"{workflow.name} takes {sorted(workflow.arguments)}: missing {missing}, unknown {unknown}"
        raise ConfigurationError(message, next_step="render the workflows of this version: python -m workflows.render")
    return {name: value for name, value in arguments.items() if value is not None}


def _cause(log: Log, exit_code: int) -> str:
    """Tell why a step failed: its own `error:` line, else the last thing that it said."""
    return log.said("error:") or log.last_line()[:300] or f"it said nothing, and ended with {exit_code}"


def _rows(log: Log) -> str:
    rows = log.find("rows_out")
    return f"{rows:,} rows".replace(",", " ") if isinstance(rows, int) else ""
