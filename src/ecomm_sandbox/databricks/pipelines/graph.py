"""What a pipeline's source declares: the modules `pyspark.pipelines` and `dlt`, recording into a graph.

https://docs.databricks.com/ldp/developer/python-ref
"""

from __future__ import annotations

import types
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any

from ecomm_sandbox.databricks.errors import SandboxError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pyspark.sql import Column, DataFrame
    from pyspark.sql.types import StructType

    Query = Callable[[], DataFrame]

Name = tuple[str, str]  # schema and table, lower case; views have the schema ""


class PipelineSourceError(SandboxError):
    """Raised when a pipeline's source declares something that cannot be."""


class Action(Enum):
    """What happens to a row that does not meet an expectation."""

    WARN = "ALLOW"
    DROP = "DROP"
    FAIL = "FAIL"


@dataclass(frozen=True, slots=True)
class Expectation:
    """A named condition (SQL) on the rows of a dataset."""

    name: str
    condition: str
    action: Action


@dataclass(frozen=True, slots=True)
class Flow:
    """A query into a dataset; `once` ones run a single time."""

    name: str
    target: Name
    query: Query
    once: bool = False


@dataclass(frozen=True, slots=True)
class CdcFlow:
    """AUTO CDC, SCD type 1: the newest row of each key by `sequence_by`."""

    name: str
    target: Name
    source: str
    keys: tuple[str, ...]
    sequence_by: Column | str
    apply_as_deletes: Column | str | None
    column_list: tuple[str, ...] | None
    except_column_list: tuple[str, ...]
    ignore_null_updates: bool = False


@dataclass(slots=True)
class Dataset:
    """A table, a materialized view or a temporary view, with the flows into it."""

    name: Name
    kind: str  # TABLE (decided by its query), STREAMING_TABLE, MATERIALIZED_VIEW or VIEW
    comment: str | None = None
    schema: StructType | str | None = None
    properties: dict[str, str] = field(default_factory=dict)
    partition_by: tuple[str, ...] = ()
    expectations: list[Expectation] = field(default_factory=list)
    flows: list[Flow | CdcFlow] = field(default_factory=list)

    @property
    def label(self) -> str:
        """`schema.table`, or a view's name."""
        return ".".join(part for part in self.name if part)


class Graph:
    """All datasets of a pipeline, by name."""

    def __init__(self, catalog: str, schema: str) -> None:
        """`schema` is of names without one; `catalog` may stand before a schema."""
        self._catalog, self._schema = catalog, schema
        self.datasets: dict[Name, Dataset] = {}

    def resolve(self, name: str) -> Name:
        """The full name of a table."""
        parts = [part.strip("`").lower() for part in name.split(".")]
        if len(parts) == 3 and parts[0] in (self._catalog.lower(), "spark_catalog"):  # noqa: PLR2004 - catalog.schema.table
            parts = parts[1:]
        if len(parts) > 2:  # noqa: PLR2004 - as above
            message = f"{name}: this pipeline writes to catalog {self._catalog} only"
            raise PipelineSourceError(message)
        return (parts[0], parts[1]) if len(parts) == 2 else (self._schema.lower(), parts[0])  # noqa: PLR2004 - as above

    def find(self, name: str) -> Dataset | None:
        """The dataset that a read of `name` means: a view first, then a table."""
        try:
            return self.datasets.get(("", name.strip("`").lower())) or self.datasets.get(self.resolve(name))
        except PipelineSourceError:
            return None

    def add(self, dataset: Dataset) -> Dataset:
        """Enter a dataset; a second one of the same name is an error."""
        if dataset.name in self.datasets:
            message = f"[TABLE_ALREADY_DEFINED] {dataset.label} is declared twice"
            raise PipelineSourceError(message)
        self.datasets[dataset.name] = dataset
        return dataset

    def target(self, name: str) -> Dataset:
        """The streaming table a flow writes to."""
        dataset = self.datasets.get(self.resolve(name))
        if dataset is None:
            message = f"[TARGET_NOT_FOUND] {name} is the target of a flow but is not declared before it"
            raise PipelineSourceError(message)
        return dataset

    def tables(self) -> list[Dataset]:
        """The datasets that are stored, in the order of their declaration."""
        return [dataset for dataset in self.datasets.values() if dataset.kind != "VIEW"]


class Declarations:
    """The decorators and functions of `pyspark.pipelines` and `dlt`, bound to one graph."""

    def __init__(self, graph: Graph) -> None:
        """Record into `graph`."""
        self._graph = graph

    def module(self, name: str, read: Callable[[str], DataFrame], read_stream: Callable[[str], DataFrame]) -> Any:  # noqa: ANN401 - a module
        """A module object with everything a source file may use."""
        module = types.ModuleType(name)
        for public in (
            "table", "materialized_view", "temporary_view", "create_streaming_table", "append_flow",
            "create_auto_cdc_flow",
        ):  # fmt: skip
            setattr(module, public, getattr(self, public))
        aliases = {
            "view": self.temporary_view,
            "create_streaming_live_table": self.create_streaming_table,
            "apply_changes": self.create_auto_cdc_flow,
            "read": read,
            "read_stream": read_stream,
        }
        for alias, target in aliases.items():
            setattr(module, alias, target)
        for suffix, action in (("", Action.WARN), ("_or_drop", Action.DROP), ("_or_fail", Action.FAIL)):
            setattr(module, f"expect{suffix}", _expect_one(action))
            setattr(module, f"expect_all{suffix}", _expect_all(action))
        module.__path__ = []  # lets an import treat it as a package
        return module

    def table(self, query: Query | None = None, **options: Any) -> Any:  # noqa: ANN401 - a decorator, bare or called
        """`@dp.table`: a streaming table, or with a batch query (`dlt`) a materialized view."""
        return self._stored("TABLE", query, options)

    def materialized_view(self, query: Query | None = None, **options: Any) -> Any:  # noqa: ANN401 - as above
        """`@dp.materialized_view`."""
        return self._stored("MATERIALIZED_VIEW", query, options)

    def _stored(self, kind: str, query: Query | None, options: dict[str, Any]) -> Any:  # noqa: ANN401 - as above
        def declare(function: Query) -> Query:
            dataset = self._dataset(kind, options.get("name") or _name(function), options)
            dataset.expectations = _pending(function)
            dataset.flows.append(Flow(dataset.label, dataset.name, function))
            return function

        return declare(query) if query is not None else declare

    def _dataset(self, kind: str, name: str, options: Mapping[str, Any]) -> Dataset:
        return self._graph.add(
            Dataset(
                name=self._graph.resolve(name),
                kind=kind,
                comment=options.get("comment"),
                schema=options.get("schema"),
                properties={str(key): str(value) for key, value in (options.get("table_properties") or {}).items()},
                partition_by=tuple(options.get("partition_cols") or ()),
            )
        )

    def temporary_view(self, query: Query | None = None, **options: Any) -> Any:  # noqa: ANN401 - as above
        """`@dp.temporary_view`: a query that others read; nothing is stored."""

        def declare(function: Query) -> Query:
            name = ("", (options.get("name") or _name(function)).lower())
            view = self._graph.add(Dataset(name, "VIEW", options.get("comment"), expectations=_pending(function)))
            view.flows.append(Flow(view.label, name, function))
            return function

        return declare(query) if query is not None else declare

    def create_streaming_table(self, name: str, **options: Any) -> None:  # noqa: ANN401 - the public signature
        """`dp.create_streaming_table`: a target for append and AUTO CDC flows."""
        dataset = self._dataset("STREAMING_TABLE", name, options)
        for suffix, action in (("", Action.WARN), ("_or_drop", Action.DROP), ("_or_fail", Action.FAIL)):
            for label, condition in (options.get(f"expect_all{suffix}") or {}).items():
                dataset.expectations.append(Expectation(label, condition, action))

    def append_flow(self, query: Query | None = None, *, target: str, name: str | None = None, **options: Any) -> Any:  # noqa: ANN401 - as above
        """`@dp.append_flow(target=…)`."""

        def declare(function: Query) -> Query:
            dataset = self._graph.target(target)
            flow = Flow(name or _name(function), dataset.name, function, bool(options.get("once")))
            dataset.flows.append(flow)
            return function

        return declare(query) if query is not None else declare

    def create_auto_cdc_flow(  # noqa: PLR0913 - the public signature
        self,
        target: str,
        source: str,
        keys: list[str | Column],
        sequence_by: str | Column,
        *,
        apply_as_deletes: str | Column | None = None,
        column_list: list[str | Column] | None = None,
        except_column_list: list[str | Column] | None = None,
        stored_as_scd_type: str | int = 1,
        ignore_null_updates: bool = False,
        name: str | None = None,
        **unsupported: Any,  # noqa: ANN401 - whatever else a source passes
    ) -> None:
        """`dp.create_auto_cdc_flow`, SCD type 1."""
        given = sorted(key for key, value in unsupported.items() if value is not None)
        if str(stored_as_scd_type) != "1" or given:
            what = given[0] if given else f"stored_as_scd_type={stored_as_scd_type}"
            message = f"AUTO CDC into {target}: the sandbox does not know {what}"
            raise PipelineSourceError(message)
        dataset = self._graph.target(target)
        dataset.flows.append(
            CdcFlow(
                name=name or dataset.label,
                target=dataset.name,
                source=source,
                keys=tuple(map(_column_name, keys)),
                sequence_by=sequence_by,
                apply_as_deletes=apply_as_deletes,
                column_list=None if column_list is None else tuple(map(_column_name, column_list)),
                except_column_list=tuple(map(_column_name, except_column_list or ())),
                ignore_null_updates=ignore_null_updates,
            )
        )


_EXPECTATIONS = "__sandbox_expectations__"


def _expect_one(action: Action) -> Callable[[str, str], Callable[[Query], Query]]:
    return lambda name, condition: _expecting([Expectation(name, condition, action)])


def _expect_all(action: Action) -> Callable[[Mapping[str, str]], Callable[[Query], Query]]:
    return lambda items: _expecting([Expectation(name, condition, action) for name, condition in items.items()])


def _expecting(expectations: list[Expectation]) -> Callable[[Query], Query]:
    def decorate(function: Query) -> Query:
        known: list[Expectation] = function.__dict__.setdefault(_EXPECTATIONS, [])
        known[:0] = expectations  # the list is shared with a dataset that is declared already
        return function

    return decorate


def _pending(function: Query) -> list[Expectation]:
    """The function's list of expectations, shared so that a decorator above the dataset's still counts."""
    known: list[Expectation] = function.__dict__.setdefault(_EXPECTATIONS, [])
    return known


def _name(function: Query) -> str:
    return function.__name__


def _column_name(column: Any) -> str:  # noqa: ANN401 - a name or a Column
    if isinstance(column, str):
        return column
    return str(column._jc.toString()).strip("`")  # noqa: SLF001 - the only way to a Column's name
