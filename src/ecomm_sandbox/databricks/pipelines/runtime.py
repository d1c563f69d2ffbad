"""One update of a pipeline: its source is loaded, its flows run in the order that their reads ask for."""

from __future__ import annotations

import importlib
import shutil
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pyspark
from pyspark.sql import functions as F  # noqa: N812 - its usual name

from ecomm_sandbox.databricks import deltalog, sqltext
from ecomm_sandbox.databricks.errors import SandboxError
from ecomm_sandbox.databricks.pipelines import autocdc, autoloader, tables
from ecomm_sandbox.databricks.pipelines.expectations import Observer
from ecomm_sandbox.databricks.pipelines.failures import described
from ecomm_sandbox.databricks.pipelines.graph import CdcFlow, Dataset, Declarations, Flow, Graph, PipelineSourceError
from ecomm_sandbox.databricks.pipelines.session import PipelineSession, active, install, table_names
from ecomm_sandbox.databricks.spark import BULK_ROWS, cancel_jobs, cancellable, new_session

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql.streaming.query import StreamingQuery
    from pyspark.sql.types import StructType

    from ecomm_sandbox.databricks.catalog import Catalog
    from ecomm_sandbox.databricks.faults import Faults
    from ecomm_sandbox.databricks.pipelines.graph import Name
    from ecomm_sandbox.databricks.pipelines.landing import Landing

PARALLEL_FLOWS = 2
POLL_SECONDS = 0.5


class CancelledError(SandboxError):
    """Raised when the update was stopped."""

    def __init__(self) -> None:
        super().__init__("The update was stopped.")


class UpdateFailedError(SandboxError):
    """Raised at the end of an update in which a flow has failed; its cause is the first flow's error."""


class _NotReady(BaseException):
    def __init__(self, dataset: Dataset) -> None:
        super().__init__(dataset.label)
        self.dataset = dataset


@dataclass(frozen=True, slots=True)
class Options:
    """What an update was started with."""

    full_refresh: bool = False
    refresh_selection: tuple[str, ...] = ()
    full_refresh_selection: tuple[str, ...] = ()
    validate_only: bool = False


@dataclass(slots=True)
class _Task:
    """A flow on its way."""

    dataset: Dataset
    flow: Flow | CdcFlow
    waits_for: Dataset | None = None


@dataclass(slots=True)
class _Evaluation:
    """What a flow's query has used while it was evaluated."""

    label: str
    folder: Path
    observer: Observer
    sources: list[autoloader.Source] = field(default_factory=list)


class Update:
    """Runs once."""

    def __init__(
        self,
        spark: SparkSession,
        catalog: Catalog,
        landing: Landing,
        faults: Faults,
        folder: Path,
        spec: dict[str, Any],
        options: Options,
        report: Callable[..., None],
    ) -> None:
        """`folder` holds checkpoints; `report(event_type, message, **sides)` writes to the event log."""
        self.catalog, self.landing, self.faults = catalog, landing, faults
        self.folder, self.spec, self.options, self.report = folder, spec, options, report
        self.cancelled = threading.Event()
        self.job_group = f"update-{time.time_ns()}"
        schema = str(spec.get("schema") or spec.get("target") or "default")
        catalog.ensure_schema(schema)
        install()
        self.session = self._open(spark, schema, bulk=False)
        self.bulk_session = self._open(spark, schema, bulk=True)
        self._many_new_rows = False
        self.graph = Graph(str(spec.get("catalog") or catalog.name), schema)
        self.tables = tables.Tables(new_session(spark, catalog.name), catalog)
        self._finished: set[Name] = set()
        self._queries: set[StreamingQuery] = set()
        self._local = threading.local()

    def _open(self, spark: SparkSession, schema: str, *, bulk: bool) -> PipelineSession:
        base = new_session(spark, self.catalog.name, bulk=bulk)
        for key, value in (self.spec.get("configuration") or {}).items():
            base.conf.set(key, str(value))
        base.catalog.setCurrentDatabase(schema)
        return PipelineSession(base, self)

    def _read(self, name: str) -> DataFrame:
        return self._current().read.table(name)

    def _read_stream(self, name: str) -> DataFrame:
        return self._current().readStream.table(name)

    def _current(self) -> PipelineSession:
        """The session of the flow that is evaluated in this thread."""
        return cast("PipelineSession", getattr(self._local, "session", self.session))

    # -- the phases

    def load(self) -> None:
        """Run the source files; what they declare is in `graph` afterwards."""
        module = Declarations(self.graph).module(
            "pyspark.pipelines",
            self._read,
            self._read_stream,
        )
        files = list(source_files(self.spec))
        if not files:
            message = f"pipeline {self.spec.get('name')}: no source file matches its libraries"
            raise PipelineSourceError(message)
        with active(self.session), _modules(self.spec, module):
            for file in files:
                names = {"__name__": f"pipeline_{file.stem}", "__file__": str(file), "spark": _Spark(self._current)}
                code = compile(file.read_text(encoding="utf-8"), str(file), "exec", dont_inherit=True)
                exec(code, names)
        for dataset in self.graph.tables():
            for flow in dataset.flows:
                self._report_flow(dataset, flow, "flow_definition", f"Flow '{flow.name}' defined as APPEND.")

    def reset(self) -> None:
        """Drop what a full refresh starts again."""
        chosen = {self.graph.resolve(name) for name in self.options.full_refresh_selection}
        for dataset in self.graph.tables():
            if self.options.full_refresh or dataset.name in chosen:
                self.tables.reset(dataset, self._checkpoints(dataset))

    def run(self) -> None:
        """Run the flows; an `UpdateFailedError` when one failed, `CancelledError` when stopped."""
        with _source_path(self.spec):
            _Scheduler(self, self._tasks()).run()

    def stop(self) -> None:
        """End the flows that run, and start no more."""
        self.cancelled.set()
        cancel_jobs(self.session, self.job_group)
        for query in list(self._queries):
            query.stop()

    def _tasks(self) -> list[_Task]:
        names = (*self.options.refresh_selection, *self.options.full_refresh_selection)
        selected = {self.graph.resolve(name) for name in names}
        unknown = sorted(".".join(name) for name in selected - set(self.graph.datasets))
        if unknown:
            message = f"[REFRESH_SELECTION_NOT_FOUND] {unknown[0]} is not a table of this pipeline"
            raise PipelineSourceError(message)
        datasets = [d for d in self.graph.tables() if not selected or d.name in selected]
        self._finished = {d.name for d in self.graph.tables() if d not in datasets}
        for dataset in datasets:
            if not dataset.flows:
                self._finished.add(dataset.name)
                self._create_without_flows(dataset)
        return [_Task(dataset, flow) for dataset in datasets for flow in dataset.flows]

    def _create_without_flows(self, dataset: Dataset) -> None:
        schema = tables.declared(dataset)
        if schema is not None:
            self.tables.ensure(dataset, self.session.createDataFrame([], schema), "STREAMING_TABLE")

    # -- what a source's reads ask for (session.Reads)

    def dataset(self, name: str, *, stream: bool) -> DataFrame | None:
        """A view, evaluated here; None for a table that is ready."""
        found = self.graph.find(name)
        if found is None:
            return None
        if found.kind != "VIEW":
            self._require(found)
            return None
        frame = self._query(found.flows[0])
        if stream and not frame.isStreaming:
            message = f"view {found.label} is read as a stream but its query is a batch"
            raise PipelineSourceError(message)
        return self._evaluation().observer.apply(_without_metadata(frame), found)

    def files(self, path: str, schema: StructType | None, options: dict[str, str]) -> DataFrame:
        """The new files under `path`, as a stream of their rows."""
        evaluation = self._evaluation()
        folder = evaluation.folder / f"files-{len(evaluation.sources)}"
        wanted = autoloader.source(self.landing, folder, path, schema, options)
        evaluation.sources.append(wanted)
        if autoloader.stage(wanted) > BULK_ROWS:
            self._many_new_rows = True
        return autoloader.stream(self.bulk_session if self._many_new_rows else self.session, wanted)

    def mentioned(self, sql: str) -> None:
        """Wait for the tables in a query, and make its views."""
        for name in table_names(sql):
            found = self.graph.find(name)
            if found is not None and found.kind == "VIEW":
                frame = self.dataset(name, stream=False)
                if frame is not None:
                    frame.createOrReplaceTempView(found.label)
            elif found is not None:
                self._require(found)

    def _require(self, dataset: Dataset) -> None:
        if dataset.name not in self._finished:
            raise _NotReady(dataset)

    def _evaluation(self) -> _Evaluation:
        evaluation: _Evaluation | None = getattr(self._local, "evaluation", None)
        if evaluation is None:
            message = "a dataset is read outside the function of a dataset; read it inside the decorated function"
            raise PipelineSourceError(message)
        return evaluation

    # -- one flow

    def flow(self, dataset: Dataset, flow: Flow | CdcFlow) -> None:
        """Evaluate and run a flow; a `_NotReady` leaves before anything is written."""
        folder = self._checkpoints(dataset) / _file_name(flow.name)
        evaluation = _Evaluation(flow.name, folder, Observer(flow.name))
        many = self.catalog.is_large() if dataset.kind == "MATERIALIZED_VIEW" else self._many_new_rows
        self._local.evaluation = evaluation
        self._local.session = self.bulk_session if many else self.session
        try:
            with active(self._local.session):
                frame = self._query(flow)
        finally:
            self._local.evaluation = None
        self._started(dataset, flow)
        frame = evaluation.observer.apply(_without_metadata(frame), dataset)
        metrics = self._write(dataset, flow, frame, evaluation)
        for source in evaluation.sources:
            autoloader.consumed(source.folder)
        self._completed(dataset, flow, evaluation.observer, metrics)

    def _query(self, flow: Flow | CdcFlow) -> DataFrame:
        if isinstance(flow, Flow):
            return flow.query()
        return self._current().readStream.table(flow.source)

    def _started(self, dataset: Dataset, flow: Flow | CdcFlow) -> None:
        self._report_flow(dataset, flow, "flow_progress", f"Flow '{flow.name}' is RUNNING.", status="RUNNING")
        slow = self.faults.hit("flow_slow", dataset=dataset.label) or self.faults.hit("flow_slow", dataset="")
        if slow is not None:
            self.cancelled.wait(float(slow.get("seconds", 5)))
        self.faults.update(dataset.label)
        self.check()

    def check(self) -> None:
        """Raise `CancelledError` when the update was stopped."""
        if self.cancelled.is_set():
            raise CancelledError

    def _write(
        self, dataset: Dataset, flow: Flow | CdcFlow, frame: DataFrame, evaluation: _Evaluation
    ) -> dict[str, int]:
        if isinstance(flow, CdcFlow):
            return self._merge_stream(dataset, flow, frame, evaluation)
        if frame.isStreaming:
            if dataset.kind == "MATERIALIZED_VIEW":
                message = f"{dataset.label} is a materialized view but its query is a stream; use @dp.table"
                raise PipelineSourceError(message)
            return self._append_stream(dataset, frame, evaluation)
        if dataset.kind == "STREAMING_TABLE":
            return self._append_once(dataset, flow, frame, evaluation)
        return self._overwrite(dataset, frame, evaluation)

    def _append_stream(self, dataset: Dataset, frame: DataFrame, evaluation: _Evaluation) -> dict[str, int]:
        schema = self.tables.ensure(dataset, frame, "STREAMING_TABLE")
        rows = evaluation.observer.written(_in_order(frame, schema))
        path = self.tables.path(dataset)
        writer = rows.writeStream.format("delta").outputMode("append").queryName(f"{dataset.label} {evaluation.label}")
        writer = writer.option("mergeSchema", "true")
        writer = writer.option("checkpointLocation", str(evaluation.folder / "checkpoint"))
        self._await(writer.trigger(availableNow=True).start(str(path)), evaluation.observer)
        return {"num_output_rows": evaluation.observer.rows}

    def _merge_stream(
        self, dataset: Dataset, flow: CdcFlow, frame: DataFrame, evaluation: _Evaluation
    ) -> dict[str, int]:
        if not frame.isStreaming:
            message = f"AUTO CDC into {dataset.label}: its source {flow.source} is no stream"
            raise PipelineSourceError(message)
        self.tables.ensure_target(dataset, autocdc.changes(_static(frame), flow))
        path = self.tables.path(dataset, backing=True)
        total: dict[str, int] = {}

        def apply(batch: DataFrame, _number: int) -> None:
            # Run the stream's own plan once, so that its expectations are counted once however often MERGE reads.
            rows = batch.localCheckpoint(eager=True)
            for key, value in autocdc.merge(autocdc.changes(rows, flow), path, flow, empty=_is_empty(path)).items():
                total[key] = total.get(key, 0) + value

        rows = evaluation.observer.written(frame)
        writer = rows.writeStream.foreachBatch(apply).queryName(f"{dataset.label} {evaluation.label}")
        writer = writer.option("checkpointLocation", str(evaluation.folder / "checkpoint"))
        self._await(writer.trigger(availableNow=True).start(), evaluation.observer)
        upserted = total.get("num_upserted_rows", evaluation.observer.rows)
        return {"num_output_rows": upserted, "num_upserted_rows": upserted}

    def _append_once(self, dataset: Dataset, flow: Flow, frame: DataFrame, evaluation: _Evaluation) -> dict[str, int]:
        if not flow.once:
            message = f"flow {flow.name} into {dataset.label} is a batch; append flows are streams, or once=True"
            raise PipelineSourceError(message)
        done = evaluation.folder / "once"
        if done.exists():
            return {"num_output_rows": 0}
        schema = self.tables.ensure(dataset, frame, "STREAMING_TABLE")
        rows = evaluation.observer.written(_in_order(frame, schema))
        writer = rows.write.format("delta").mode("append")
        writer = writer.option("txnAppId", str(evaluation.folder)).option("txnVersion", 1)
        self._cancellable(lambda: writer.save(str(self.tables.path(dataset))))
        done.parent.mkdir(parents=True, exist_ok=True)
        done.touch()
        return {"num_output_rows": deltalog.last_output_rows(self.tables.path(dataset)) or 0}

    def _overwrite(self, dataset: Dataset, frame: DataFrame, evaluation: _Evaluation) -> dict[str, int]:
        schema = self.tables.ensure(dataset, frame, "MATERIALIZED_VIEW")
        path = self.tables.path(dataset)
        writer = _in_order(frame, schema).write.format("delta").mode("overwrite")
        if not tables.same_columns(path, schema):
            writer = writer.option("overwriteSchema", "true")
        self._cancellable(lambda: writer.save(str(path)))
        evaluation.observer.collect_batch()
        return {"num_output_rows": deltalog.last_output_rows(path) or 0}

    def _cancellable(self, work: Callable[[], None]) -> None:
        with cancellable(self.session, self.job_group):
            work()

    def _await(self, query: StreamingQuery, observer: Observer) -> None:
        self._queries.add(query)
        try:
            while not query.awaitTermination(POLL_SECONDS):
                if self.cancelled.is_set():
                    query.stop()
            self.check()
            observer.collect_stream(query.recentProgress)
        finally:
            self._queries.discard(query)

    def _checkpoints(self, dataset: Dataset) -> Path:
        return self.folder / "checkpoints" / _file_name(dataset.label)

    # -- events

    def _completed(self, dataset: Dataset, flow: Flow | CdcFlow, observer: Observer, metrics: dict[str, int]) -> None:
        quality = observer.quality()
        details = {"status": "COMPLETED", "metrics": metrics, **({"data_quality": quality} if quality else {})}
        self._report_flow(dataset, flow, "flow_progress", f"Flow '{flow.name}' has COMPLETED.", **details)

    def _report_flow(self, dataset: Dataset, flow: Flow | CdcFlow, kind: str, message: str, **details: Any) -> None:  # noqa: ANN401 - JSON
        self.report(kind, message, details={kind: details}, origin=self.origin(dataset, flow))

    def origin(self, dataset: Dataset, flow: Flow | CdcFlow) -> dict[str, str]:
        """The origin of a flow's events; names are full, as Unity Catalog's are."""
        return {
            "dataset_name": f"{self.catalog.name}.{dataset.label}",
            "flow_name": f"{self.catalog.name}.{flow.name}" if flow.name == dataset.label else flow.name,
        }

    def failed(self, dataset: Dataset, flow: Flow | CdcFlow, error: dict[str, Any], cause: str) -> None:
        """Tell that a flow has failed."""
        message = f"Flow '{flow.name}' has FAILED fatally. {cause}"
        details, origin = {"flow_progress": {"status": "FAILED"}}, self.origin(dataset, flow)
        self.report("flow_progress", message, level="ERROR", details=details, error=error, origin=origin)

    def skipped(self, dataset: Dataset, flow: Flow | CdcFlow, upstream: str) -> None:
        """Tell that a flow was not run."""
        message = f"Flow '{flow.name}' was SKIPPED because {upstream} failed."
        details = {"flow_progress": {"status": "SKIPPED"}}
        self.report("flow_progress", message, level="WARN", details=details, origin=self.origin(dataset, flow))

    def finished(self, dataset: Dataset) -> None:
        """A dataset's flows are all done: others may read it."""
        self._finished.add(dataset.name)


class _Scheduler:
    """Runs flows, `PARALLEL_FLOWS` at a time; one that reads what is not ready is put back and tried again."""

    def __init__(self, update: Update, tasks: list[_Task]) -> None:
        self.update, self.waiting = update, tasks
        self.left = {task.dataset.name: 0 for task in tasks}
        for task in tasks:
            self.left[task.dataset.name] += 1
        self.busy: set[Name] = set()
        self.broken: set[Name] = set()
        self.errors: list[Exception] = []
        self.changed = threading.Condition()

    def run(self) -> None:
        with ThreadPoolExecutor(PARALLEL_FLOWS, thread_name_prefix="flow") as pool:
            for worker in [pool.submit(self._work) for _ in range(PARALLEL_FLOWS)]:
                worker.result()
        self.update.check()
        if self.errors:
            raise UpdateFailedError(str(self.errors[0])) from self.errors[0]

    def _work(self) -> None:
        while (task := self._next()) is not None:
            try:
                self.update.flow(task.dataset, task.flow)
            except _NotReady as signal:
                self._put_back(task, signal.dataset)
            except CancelledError:
                self._done(task, broken=True)
            except Exception as error:  # noqa: BLE001 - a flow's failure must not stop the others
                self._failed(task, error)
            else:
                self._done(task, broken=False)

    def _next(self) -> _Task | None:
        with self.changed:
            while True:
                self._skip()
                if not self.waiting or self.update.cancelled.is_set():
                    return None
                task = next((task for task in self.waiting if self._ready(task)), None)
                if task is not None:
                    self.waiting.remove(task)
                    self.busy.add(task.dataset.name)
                    return task
                if not self.busy:
                    self._deadlock()
                    return None
                self.changed.wait()

    def _ready(self, task: _Task) -> bool:
        if task.dataset.name in self.busy:  # two writers of one table would only wait for each other in Delta
            return False
        return task.waits_for is None or self.left.get(task.waits_for.name, 0) == 0

    def _skip(self) -> None:
        """Give up flows whose source has failed."""
        while skipped := [t for t in self.waiting if t.waits_for is not None and t.waits_for.name in self.broken]:
            for task in skipped:
                self.waiting.remove(task)
                self.left[task.dataset.name] -= 1
                self.broken.add(task.dataset.name)
                self.update.skipped(task.dataset, task.flow, task.waits_for.label if task.waits_for else "")

    def _deadlock(self) -> None:
        names = ", ".join(sorted({task.dataset.label for task in self.waiting}))
        self.errors.append(PipelineSourceError(f"[CIRCULAR_DEPENDENCY] these datasets read each other: {names}"))
        self.waiting.clear()
        self.changed.notify_all()

    def _put_back(self, task: _Task, dataset: Dataset) -> None:
        with self.changed:
            task.waits_for = dataset
            self.waiting.append(task)
            self.busy.discard(task.dataset.name)
            self.changed.notify_all()

    def _failed(self, task: _Task, error: Exception) -> None:
        if not self.update.cancelled.is_set():
            cause, detail = described(error, self.update.catalog.name)
            self.update.failed(task.dataset, task.flow, detail, cause)
            self.errors.append(error)
        self._done(task, broken=True)

    def _done(self, task: _Task, *, broken: bool) -> None:
        with self.changed:
            self.busy.discard(task.dataset.name)
            self.left[task.dataset.name] -= 1
            if broken:
                self.broken.add(task.dataset.name)
            elif self.left[task.dataset.name] == 0 and task.dataset.name not in self.broken:
                self.update.finished(task.dataset)
            self.changed.notify_all()


def source_files(spec: dict[str, Any]) -> Iterator[Path]:
    """The Python files of a pipeline's libraries, by name."""
    root = Path(spec.get("root_path") or ".")
    for library in spec.get("libraries") or []:
        include = (library.get("glob") or {}).get("include")
        path = (library.get("file") or library.get("notebook") or {}).get("path")
        if path is not None:
            yield root / path
        if include is not None:
            yield from _globbed(root, include)


def _globbed(root: Path, include: str) -> Iterator[Path]:
    pattern = str(root / include)
    fixed = Path(pattern.split("*", 1)[0].rsplit("/", 1)[0] or "/")
    relative = pattern[len(str(fixed)) :].lstrip("/")
    found = fixed.rglob("*.py") if relative.endswith("**") else fixed.glob(relative)
    yield from sorted(path for path in found if path.suffix == ".py" and "__pycache__" not in path.parts)


class _modules:  # noqa: N801 - a context manager
    """While a source is loaded: `dlt` and `pyspark.pipelines` are the recording module, its own modules are fresh."""

    names = ("dlt", "pyspark.pipelines")
    lock = threading.Lock()

    def __init__(self, spec: dict[str, Any], module: Any) -> None:  # noqa: ANN401 - a module
        self.spec, self.module = spec, module
        self.path = _source_path(spec)

    def __enter__(self) -> None:
        self.lock.acquire()
        _forget_modules(self.spec)
        self.before = {name: sys.modules.get(name) for name in self.names}
        self.attribute = getattr(pyspark, "pipelines", None)
        for name in self.names:
            sys.modules[name] = self.module
        pyspark.pipelines = self.module  # what `from pyspark import pipelines` finds
        self.path.__enter__()

    def __exit__(self, *_: object) -> None:
        self.path.__exit__()
        for name, module in self.before.items():
            if module is None:
                sys.modules.pop(name, None)
            else:
                sys.modules[name] = module
        if self.attribute is None:
            del pyspark.pipelines
        else:
            pyspark.pipelines = self.attribute
        self.lock.release()


class _source_path:  # noqa: N801 - a context manager
    """The pipeline's root on `sys.path`, for imports at the top of its files and inside its functions."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self.root = str(Path(spec["root_path"]).absolute()) if spec.get("root_path") else None

    def __enter__(self) -> None:
        if self.root:
            sys.path.insert(0, self.root)
            importlib.invalidate_caches()

    def __exit__(self, *_: object) -> None:
        if self.root and self.root in sys.path:
            sys.path.remove(self.root)


def _forget_modules(spec: dict[str, Any]) -> None:
    """Modules under the root are imported again, so that an update runs the source as it is now."""
    if not spec.get("root_path"):
        return
    root = str(Path(spec["root_path"]).absolute()) + "/"
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None) or "").startswith(root):
            del sys.modules[name]


def _without_metadata(frame: DataFrame) -> DataFrame:
    """`_metadata` is hidden on Databricks: a query's `*` does not contain it."""
    return frame.drop(autoloader.METADATA) if autoloader.METADATA in frame.columns else frame


def _in_order(frame: DataFrame, schema: StructType) -> DataFrame:
    """The declared columns, by name, with their comments; a column that is missing is Spark's error."""
    return frame.select(*(F.col(sqltext.quote_name(f.name)).alias(f.name, metadata=f.metadata) for f in schema))


class _Spark:
    """The global `spark` of a source: the session of whichever flow uses it."""

    def __init__(self, current: Callable[[], PipelineSession]) -> None:
        self.__current = current

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever a session has
        return getattr(self.__current(), name)


def _static(frame: DataFrame) -> DataFrame:
    """An empty batch of a stream's columns."""
    return frame.sparkSession.createDataFrame([], frame.schema)


def _is_empty(path: Path) -> bool:
    return deltalog.versions(path) == [0]


def _file_name(label: str) -> str:
    return "".join(char if char.isalnum() or char in "._-" else f"%{ord(char):x}" for char in label)


def remove_state(folder: Path) -> None:
    """Forget what a pipeline's streams have read."""
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
