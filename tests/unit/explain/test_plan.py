"""What a KPI is made of, and whether every hop says the same."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest
import yaml

from ecomm_pipeline.dates import BusinessDate
from ecomm_pipeline.errors import ConfigurationError
from ecomm_pipeline.explain.derived import DERIVED, derived_tree
from ecomm_pipeline.explain.node import is_proven, lines
from ecomm_pipeline.explain.plan import (
    LIMIT,
    MEASURES,
    PRODUCT_HOPS,
    PRODUCT_MEASURES,
    Recount,
    Row,
    measure_of,
    parts,
    product_sql,
    rows_sql,
    total,
    tree,
)
from ecomm_pipeline.manifest import Manifest, ManifestWindow
from ecomm_pipeline.reconciler.sales import DAILY

NET, CUSTOMERS = MEASURES["net_revenue"], MEASURES["customers"]
NOON = datetime(2026, 1, 3, 12, tzinfo=UTC)
RUN = "20260102T180000Z-aaaa"


def row(order, value, *, file="part-00000.csv", date="2026-01-02", customer="1"):
    return Row((order, "1"), Decimal(value), customer, date, RUN, file)


def measures(**changed):
    value = {"net_revenue": Decimal(30), "orders": Decimal(2)}
    tables = {
        "agg_sales_kpi": value,
        "agg_product_kpi": value,
        "agg_daily_sales": value,
        "sales_analytics": {"net_revenue": Decimal(30), "lines": Decimal(2)},
        "silver": value,
    }
    return {name: {**figures, **changed.get(name, {})} for name, figures in tables.items()}


def recounts(rows, *, value=None, found=None, **more):
    return [
        Recount(
            part, part.value if value is None else Decimal(value), len(part.keys) if found is None else found, **more
        )
        for part in parts(NET, rows)
    ]


ROWS = [row("O1", 20), row("O2", 10, file="part-00001.csv", date="2026-01-05")]


def test_a_number_is_proven_down_to_its_files():
    node = tree(NET, measures(), ROWS, recounts(ROWS))
    assert is_proven(node)
    assert list(lines("net_revenue of 2026-01-02", node, money=True)) == [
        "net_revenue of 2026-01-02 is 30.00: proven down to its files",
        "kpi.agg_sales_kpi  30.00   the products of kpi.agg_product_kpi sum to 30.00",
        "└ gold.agg_daily_sales  30.00  =",
        "  └ gold.sales_analytics  30.00  =   over 2 lines",
        "    └ silver.fact_orders × silver.dim_orders  30.00  =   2 versions from 2 files",
        f"      ├ order_items/date=2026-01-02/run={RUN}/part-00000.csv  20.00  =   1 row; no manifest lists it",
        f"      └ order_items/date=2026-01-05/run={RUN}/part-00001.csv  10.00  =   1 row; no manifest lists it",
    ]


@pytest.mark.parametrize(
    ("changed", "place"),
    [
        ({"agg_daily_sales": {"net_revenue": Decimal(31)}}, "gold.agg_daily_sales"),
        ({"sales_analytics": {"net_revenue": Decimal(29)}}, "gold.sales_analytics"),
    ],
)
def test_the_place_that_differs_is_marked(changed, place):
    node = tree(NET, measures(**changed), ROWS, recounts(ROWS))
    assert not is_proven(node)
    drawn = list(lines("it", node, money=True))
    assert drawn[0].endswith("NOT PROVEN: see ≠ below")
    assert any(place in line and "≠ 30.00" in line for line in drawn)


def test_a_file_whose_money_or_rows_differ_is_marked():
    for wrong in ({"value": 7}, {"found": 0}, {"value": 7, "problem": "cannot be read: it ends early"}):
        node = tree(NET, measures(), ROWS[:1], recounts(ROWS[:1], **{"value": 0, **wrong}))
        assert not is_proven(node), wrong
    (told,) = [one for one in lines("it", node, money=True) if "part-00000" in one]
    assert "cannot be read: it ends early" in told


def test_a_table_without_a_row_says_nothing_and_is_not_proven():
    without = {name: figures for name, figures in measures().items() if name != "agg_daily_sales"}
    node = tree(NET, without, ROWS, recounts(ROWS))
    assert not is_proven(node)
    assert "gold.agg_daily_sales  nothing  ≠ 30.00" in "\n".join(lines("it", node, money=True))


def test_a_file_tells_when_and_from_which_rows_it_was_read():
    manifest = Manifest(
        table="order_items",
        date="2026-01-02",
        run_id=RUN,
        window=ManifestWindow(since=NOON, until=NOON),
        snapshot="1:1:",
        snapshot_at=NOON,
        rows=9,
        bytes=1,
        files=(),
        columns=(),
        max_updated_at=None,
    )
    node = tree(NET, measures(), ROWS[:1], recounts(ROWS[:1], manifest=manifest))
    assert "1 of its 9 rows; read 2026-01-03 12:00Z" in "\n".join(lines("it", node, money=True))


def test_customers_are_counted_once_wherever_they_ordered_and_not_summed_over_files():
    rows = [row("O1", 1), row("O2", 1, file="part-00001.csv"), row("O3", 1, customer=None)]
    assert total(CUSTOMERS, rows) == 1
    said = {name: {"customers": Decimal(1)} for name in ("agg_sales_kpi", "agg_daily_sales", "silver")}
    found = [Recount(part, None, len(part.keys)) for part in parts(CUSTOMERS, rows)]
    assert is_proven(tree(CUSTOMERS, said, rows, found))


def test_of_a_large_day_the_tree_ends_at_silver():
    rows = [row(str(number), 1) for number in range(LIMIT + 1)]
    node = tree(NET, measures(), rows, [])
    assert is_proven(node)
    assert "the files are not recounted" in "\n".join(lines("it", node, money=True))


def columns(model):
    """The columns of a KPI table, by its contract in the dbt project."""
    text = (Path(__file__).parents[3] / f"dbt/models/marts/{model}.yml").read_text()
    (found,) = yaml.safe_load(text)["models"]
    return {column["name"] for column in found["columns"]}


def test_every_figure_of_the_kpi_tables_is_explained_and_no_other():
    assert MEASURES.keys() == set(DAILY)
    assert {*MEASURES, *DERIVED} == columns("agg_sales_kpi") - {"sales_date", "processed_at"}
    assert set(PRODUCT_MEASURES) == columns("agg_product_kpi") - {"sales_date", "product_id", "orders", "revenue_rank"}
    assert measure_of("kpi.agg_sales_kpi.net_revenue") == (NET,)
    assert measure_of("agg_product_kpi.net_revenue", "P1") == (NET,)
    assert [one.name for one in measure_of("average_order_value")] == ["gross_revenue", "orders"]


@pytest.mark.parametrize(
    ("metric", "product", "hint"),
    [
        ("profit", None, "use one of orders, cancelled_orders,"),
        ("agg_product_kpi.units", None, "name the product with --product"),
        ("agg_customer_kpi.net_revenue", None, "kpi.agg_customer_kpi has no row a day"),
        ("average_order_value", "P1", "use one of units, gross_revenue, refunds, net_revenue"),
        ("agg_sales_kpi.units", "P1", "use one of units,"),
    ],
)
def test_a_metric_that_is_none_is_refused_with_what_can_be_asked(metric, product, hint):
    with pytest.raises(ConfigurationError, match=f"{metric!r} is not a metric") as refused:
        measure_of(metric, product)
    assert hint in refused.value.next_step


DAY = BusinessDate(NOON.date())


@pytest.mark.parametrize(
    ("name", "said", "proven"),
    [
        ("average_order_value", "6.6667", True),
        ("average_order_value", "6.6666", False),
        ("units_per_order", "2.3333", True),
        ("cancellation_rate", "0.250000", True),
        ("net_revenue_7d", "15", True),
        ("net_revenue_7d", "25", False),
        ("net_revenue_change_7d", "0.500000", True),
    ],
)
def test_what_dbt_works_out_is_worked_out_again(name, said, proven):
    day = {"gross_revenue": "20", "orders": "3", "units": "7", "cancelled_orders": "1"}
    weeks = {str(DAY): Decimal(5), str(DAY.plus(-6)): Decimal(10), str(DAY.plus(-7)): Decimal(10)}
    weeks[str(DAY.plus(-14))] = Decimal(1000)
    node = derived_tree(name, Decimal(said), {key: Decimal(value) for key, value in day.items()}, weeks, DAY)
    assert is_proven(node) is proven


def test_a_ratio_over_nothing_is_nothing_as_in_the_table():
    assert is_proven(derived_tree("average_order_value", None, {"gross_revenue": Decimal(0)}, {}, DAY))
    assert not is_proven(derived_tree("average_order_value", Decimal(1), {}, {}, DAY))


def test_a_week_shows_its_days_and_a_day_without_sales_counts_as_nothing():
    node = derived_tree("net_revenue_7d", Decimal(5), {}, {str(DAY): Decimal(5)}, DAY)
    drawn = list(lines("net_revenue_7d of 2026-01-03", node, money=True))
    assert drawn[2] == "└ net_revenue of the day and the 6 before it  5.00  ="
    assert drawn[3] == "  ├ 2025-12-28  nothing   no sales; counts as 0"
    assert drawn[-1] == "  └ 2026-01-03  5.00"


def test_a_product_has_no_daily_table_between_and_its_code_is_quoted():
    said = {"agg_product_kpi": {"net_revenue": Decimal(30)}, "sales_analytics": {"net_revenue": Decimal(30)}}
    node = tree(NET, said, ROWS, recounts(ROWS), PRODUCT_HOPS)
    assert is_proven(node)
    assert [node.label, node.children[0].label] == ["kpi.agg_product_kpi", "gold.sales_analytics"]
    for statement in (rows_sql(NET, DAY, "UTC", "O'Neil\\"), product_sql(DAY, "O'Neil\\")):
        assert r"'unknown') = 'O\'Neil\\'" in statement


@pytest.mark.parametrize("measure", MEASURES.values(), ids=MEASURES)
def test_silver_is_asked_for_the_orders_of_the_day_that_count(measure):
    sql = rows_sql(measure, BusinessDate(NOON.date()), "Asia/Ho_Chi_Minh")
    assert "DATE'2026-01-03'" in sql
    assert all(f"'{status}'" in sql for status in measure.statuses)
    assert ("silver.fact_orders" in sql) is (measure.of == "order_items")
