"""What a pipeline's source declares."""

from __future__ import annotations

from typing import Any

import pytest

from ecomm_sandbox.databricks.pipelines.graph import Action, CdcFlow, Declarations, Graph, PipelineSourceError


@pytest.fixture
def graph() -> Graph:
    return Graph("ecomm", "silver")


@pytest.fixture
def dp(graph: Graph) -> Any:
    def unused(_name: str) -> Any:
        raise AssertionError

    return Declarations(graph).module("dlt", unused, unused)


@pytest.mark.parametrize(
    ("name", "resolved"),
    [
        ("orders", ("silver", "orders")),
        ("bronze.Orders", ("bronze", "orders")),
        ("ecomm.bronze.orders", ("bronze", "orders")),
        ("`bronze`.`orders`", ("bronze", "orders")),
    ],
)
def test_names_are_of_the_pipelines_schema_unless_they_say_so(
    graph: Graph, name: str, resolved: tuple[str, str]
) -> None:
    assert graph.resolve(name) == resolved


def test_another_catalog_is_refused(graph: Graph) -> None:
    with pytest.raises(PipelineSourceError, match="catalog ecomm only"):
        graph.resolve("other.bronze.orders")


@pytest.mark.parametrize("place", ["above", "below"])
def test_expectations_count_above_and_below_the_dataset(graph: Graph, dp: Any, place: str) -> None:
    expect = dp.expect_all_or_drop({"a": "x > 0", "b": "y > 0"})
    if place == "above":

        @expect
        @dp.table(name="bronze.t")
        def query() -> None: ...
    else:

        @dp.table(name="bronze.t")
        @expect
        def query() -> None: ...

    found = graph.datasets["bronze", "t"].expectations
    assert [(e.name, e.action) for e in found] == [("a", Action.DROP), ("b", Action.DROP)]


def test_a_function_gives_its_name(graph: Graph, dp: Any) -> None:
    @dp.materialized_view
    def daily() -> None: ...

    assert graph.datasets["silver", "daily"].kind == "MATERIALIZED_VIEW"


def test_several_flows_append_to_one_table(graph: Graph, dp: Any) -> None:
    dp.create_streaming_table("silver.quarantine")
    for name in ("one", "two"):

        @dp.append_flow(target="silver.quarantine", name=name)
        def query() -> None: ...

    assert [flow.name for flow in graph.datasets["silver", "quarantine"].flows] == ["one", "two"]


def test_auto_cdc_is_a_flow(graph: Graph, dp: Any) -> None:
    dp.create_streaming_table("silver.dim")
    dp.create_auto_cdc_flow(
        target="silver.dim", source="typed", keys=["k"], sequence_by="v", except_column_list=["v"], stored_as_scd_type=1
    )
    (flow,) = graph.datasets["silver", "dim"].flows
    assert isinstance(flow, CdcFlow)
    assert (flow.source, flow.keys, flow.except_column_list) == ("typed", ("k",), ("v",))


def test_history_is_refused(dp: Any) -> None:
    dp.create_streaming_table("silver.dim")
    with pytest.raises(PipelineSourceError, match="stored_as_scd_type=2"):
        dp.create_auto_cdc_flow("silver.dim", "typed", ["k"], "v", stored_as_scd_type=2)


def test_a_flow_without_its_target_is_refused(dp: Any) -> None:
    with pytest.raises(PipelineSourceError, match=r"silver\.nowhere"):
        dp.append_flow(lambda: None, target="silver.nowhere", name="f")


def test_a_table_declared_twice_is_refused(dp: Any) -> None:
    dp.create_streaming_table("silver.t")
    with pytest.raises(PipelineSourceError, match="declared twice"):
        dp.create_streaming_table("ecomm.silver.t")
