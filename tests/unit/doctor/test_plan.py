"""From evidence to a diagnosis: the first cause in the chain, its effects, and the command that mends it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest

from ecomm_pipeline.check.plan import DEPENDENCIES
from ecomm_pipeline.contract import CONTRACT
from ecomm_pipeline.dates import BusinessDate
from ecomm_pipeline.doctor.plan import (
    KINDS,
    SECTIONS,
    SERVICES,
    Balance,
    Evidence,
    Extract,
    diagnose,
    findings,
    lines,
)
from ecomm_pipeline.errors import (
    FAILURE_CLASSES,
    BadDataError,
    CredentialsError,
    UnavailableError,
    UpstreamFailedError,
)
from ecomm_pipeline.ledger import Record
from ecomm_pipeline.manifest import Column, ExtractFile, Manifest, ManifestWindow
from ecomm_pipeline.reconciler.amounts import Amount
from ecomm_pipeline.reconciler.plan import Day
from ecomm_pipeline.reconciler.sales import SalesDay

TZ = ZoneInfo("Asia/Ho_Chi_Minh")
DATE = BusinessDate(date(2026, 1, 2))
STARTS = datetime(2026, 1, 2, 18, tzinfo=UTC)
GATE = datetime(2026, 1, 2, 22, tzinfo=UTC)
NOW = datetime(2026, 1, 3, 2, tzinfo=UTC)
TABLES = tuple(CONTRACT)
RUN = "20260102T180000Z-aaaa"


def record(stage, minutes, *, table=None, outcome="succeeded", error=None, begun=STARTS, **fields):
    """A stage that began so many minutes after the night did, and took five."""
    began = begun + timedelta(minutes=minutes)
    return Record(
        stage=stage,
        table=table,
        first_date=DATE.day,
        last_date=DATE.day,
        run_id=RUN,
        started_at=began,
        tried_at=began,
        ended_at=None if outcome == "running" else began + timedelta(minutes=5),
        outcome=outcome,
        error=error.message if error else None,
        next_step=error.next_step if error else None,
        failure_class=error.failure.name if error else None,
        **fields,
    )


def manifest(table, *, rows=100, columns=None):
    kinds = CONTRACT[table].columns if columns is None else columns
    return Manifest(
        table=table,
        date=str(DATE),
        run_id=RUN,
        window=ManifestWindow(since=STARTS - timedelta(hours=27), until=STARTS - timedelta(hours=1)),
        snapshot="1:1:",
        snapshot_at=STARTS,
        rows=rows,
        bytes=rows,
        files=(ExtractFile(name="part-00000.csv", rows=rows, bytes=1, uncompressed_bytes=1, sha256=""),),
        columns=tuple(Column(name=name, type=kind) for name, kind in kinds.items()),
        max_updated_at=STARTS,
    )


def day(table, **figures):
    """A table of which every hop holds the same."""
    amount = Amount(100, Decimal(0) if CONTRACT[table].money else None)
    same = dict.fromkeys(("source", "extracted", "bronze", "kept"), amount)
    return Day(table, DATE, manifest(table), **{**same, "source_checksum": 1, "checksum": 1, **figures})


MEASURES = {
    name: Decimal(1)
    for name in ("orders", "cancelled_orders", "customers", "units", "gross_revenue", "refunds", "net_revenue")
}


def sales(*without, **changed):
    """A sales date on which every table says the same, but for tables that lack it or say something else."""
    names = ("silver", "sales_analytics", "agg_daily_sales", "agg_sales_kpi", "agg_product_kpi")
    lines_ = {"lines": Decimal(1)}
    return SalesDay(
        str(DATE), {name: {**MEASURES, **lines_, **changed.get(name, {})} for name in names if name not in without}
    )


def balance(days=None, of_sales=None):
    return Balance([*(days or map(day, TABLES))], [of_sales or sales()], ({}, {}), "kpi")


RECORDS = (
    *(record("extractor", 0, table=table) for table in TABLES),
    record("dlt-trigger", 10),
    record("reconciler", 20, through="gold"),
    record("dbt-runner", 240),
    record("tableau-refresher", 250),
    record("reconciler", 260, through="kpi"),
)
GOOD = Evidence(
    date=DATE,
    now=NOW,
    tz=TZ,
    tables=TABLES,
    starts=STARTS,
    gate=GATE,
    limits={stage: timedelta(hours=3) for stage in ("extractor", "dlt-trigger", "dbt-runner", "tableau-refresher")},
    records=RECORDS,
    usual=dict.fromkeys(TABLES, 100),
    manifests={table: manifest(table) for table in TABLES},
    balance=balance(),
    extracts=[Extract("agg_sales_kpi", STARTS + timedelta(minutes=255), STARTS + timedelta(minutes=245))],
)


def told(**changes):
    return diagnose(replace(GOOD, **changes))


def until(stage, last=None):
    """The records up to a stage, of which `last` takes the place."""
    names = [one.stage for one in RECORDS]
    kept = RECORDS[: names.index(stage)]
    return (*kept, last) if last else kept


def test_with_everything_right_it_says_so_in_a_line():
    diagnosis = told()
    assert (diagnosis.exit_code, diagnosis.priority) == (0, None)
    (line,) = lines(diagnosis)
    assert line.startswith("2026-01-02 is all right: 400 rows of 4 tables, every hop adds up to the cent, ")
    assert line.endswith("Tableau refreshed 2026-01-03 05:15 +07")


def test_a_date_that_is_not_due_is_all_right():
    diagnosis = told(records=(), manifests={}, balance=None, extracts=(), now=STARTS)
    assert diagnosis.exit_code == 0
    assert list(lines(diagnosis)) == ["2026-01-02 is not due before 2026-01-03 01:00 +07; nothing is wrong"]


def test_a_night_that_did_not_begin_is_done_whole():
    diagnosis = told(records=(), manifests={}, balance=None, extracts=())
    assert diagnosis.cause.kind == "nightly_not_started"
    assert (diagnosis.cause.command, diagnosis.priority) == ("ecomm backfill 2026-01-02..2026-01-02 --all", "P1")
    assert diagnosis.exit_code == 75


def test_what_a_failed_extraction_keeps_from_running_follows_from_it():
    error = UnavailableError("cannot reach Postgres at db:5432", next_step="check that it is up")
    failed = [record("extractor", 0, table=table, outcome="failed", error=error) for table in TABLES]
    diagnosis = told(
        records=failed, manifests={}, balance=None, down={"postgres": error}, extracts=(), now=NOW + timedelta(hours=1)
    )
    assert (diagnosis.cause.section, diagnosis.cause.kind) == ("A", "unreachable")
    assert diagnosis.cause.since == STARTS + timedelta(minutes=5)
    assert [(one.section, one.kind) for one in diagnosis.follows] == [
        ("A", "stage_failed"),
        ("B", "stage_missing"),
        ("E", "stage_missing"),
        ("F", "stage_missing"),
    ]
    text = "\n".join(lines(diagnosis))
    assert text.startswith("2026-01-02  P1  A extraction: unreachable\n  what     cannot reach Postgres at db:5432")
    assert "  since    2026-01-03 01:05 +07 (8 h 55 min ago)" in text
    assert "  repair   ecomm backfill 2026-01-02..2026-01-02 --all" in text


def test_a_service_that_is_down_beside_a_complete_date_asks_for_no_repair_of_the_date():
    diagnosis = told(
        down={"tableau": CredentialsError("the token is revoked", next_step="make a new one")}, extracts=()
    )
    assert (diagnosis.cause.kind, diagnosis.cause.command) == ("unreachable", "ecomm check")
    assert "2026-01-02 is complete, the next run will fail" in diagnosis.cause.message
    assert diagnosis.exit_code == 77


def test_a_failed_update_tells_its_error_and_is_run_again_with_all_behind_it():
    error = UpstreamFailedError("update u1 failed: silver.dim_orders: boom", next_step="mend the cause")
    diagnosis = told(records=until("dlt-trigger", record("dlt-trigger", 10, outcome="failed", error=error)))
    assert (diagnosis.cause.section, diagnosis.cause.kind) == ("B", "stage_failed")
    assert "silver.dim_orders: boom" in diagnosis.cause.message
    assert diagnosis.cause.command == "ecomm rerun dlt 2026-01-02 --onwards"
    assert diagnosis.exit_code == 70


@pytest.mark.parametrize(
    ("nodes", "command"),
    [
        (
            {"agg_sales_kpi": {"kind": "model", "status": "error"}, "agg_product_kpi": {"status": "success"}},
            "ecomm rerun dbt 2026-01-02 --select agg_sales_kpi+ --onwards",
        ),
        ({"unique_agg_sales_kpi": {"kind": "test", "status": "fail"}}, "ecomm rerun dbt 2026-01-02 --onwards"),
    ],
)
def test_of_a_failed_build_the_model_that_failed_is_built_again(nodes, command):
    failed = record("dbt-runner", 240, outcome="failed", error=BadDataError("dbt: it failed"), figures={"nodes": nodes})
    diagnosis = told(records=until("dbt-runner", failed))
    assert (diagnosis.cause.section, diagnosis.cause.command) == ("E", command)
    assert [one.kind for one in diagnosis.follows] == ["stage_missing"]


def test_a_stage_that_says_it_runs_for_longer_than_it_may_is_lost():
    lost = record("dlt-trigger", 10, outcome="running")
    diagnosis = told(records=until("dlt-trigger", lost), update="update u1 is WAITING_FOR_RESOURCES")
    assert diagnosis.cause.kind == "stage_lost"
    assert "update u1 is WAITING_FOR_RESOURCES" in diagnosis.cause.message
    assert FAILURE_CLASSES[diagnosis.cause.failure_class].name == "lost"


def test_what_a_run_that_goes_on_has_not_come_to_is_not_missing():
    going_on = record("dlt-trigger", 10, outcome="running")
    unloaded = [day(table, bronze=Amount(0), kept=Amount(0)) for table in TABLES]
    diagnosis = told(
        records=until("dlt-trigger", going_on), now=STARTS + timedelta(minutes=20), balance=balance(unloaded)
    )
    assert diagnosis.exit_code == 0
    assert "is going on, and all is right so far: dlt-trigger since 2026-01-03 01:10 +07" in next(lines(diagnosis))


def test_before_the_gate_dbt_is_not_missing_and_after_it_is():
    assert told(records=until("dbt-runner"), now=GATE, balance=balance(of_sales=sales("agg_sales_kpi"))).cause is None
    late = told(records=until("dbt-runner"), now=GATE + timedelta(hours=1))
    assert [one.section for one in (late.cause, *late.follows)] == ["E", "F"]


def test_a_run_that_takes_longer_than_expected_is_noted_and_a_range_may_take_longer():
    now, expected = STARTS + timedelta(minutes=70), {"dlt-trigger": timedelta(minutes=50)}
    going_on = record("dlt-trigger", 10, outcome="running")
    diagnosis = told(records=until("dlt-trigger", going_on), now=now, expected=expected)
    assert (diagnosis.exit_code, [note.kind for note in diagnosis.notes]) == (0, ["stage_slow"])
    assert "runs for 1 h 0 min; expected are 50 min at most" in diagnosis.notes[0].message
    two = going_on.model_copy(update={"first_date": going_on.first_date - timedelta(days=1)})
    assert not told(records=until("dlt-trigger", two), now=now, expected=expected).notes


@pytest.mark.parametrize(
    ("changes", "section", "kind", "command"),
    [
        (
            {"manifests": {t: manifest(t) for t in TABLES if t != "orders"}},
            "A",
            "extract_missing",
            "ecomm backfill 2026-01-02..2026-01-02 --all",
        ),
        (
            {"lost": {"orders": ["landing/orders/part-00000.csv"]}, "balance": None},
            "A",
            "extract_damaged",
            "ecomm backfill 2026-01-02..2026-01-02 --all",
        ),
        (
            {"manifests": {t: manifest(t, rows=0 if t == "orders" else 100) for t in TABLES}},
            "A",
            "extract_empty",
            "ecomm backfill 2026-01-02..2026-01-02 --all",
        ),
        (
            {"balance": balance([*map(day, TABLES[1:]), day("orders", damaged=("it is not what was written",))])},
            "A",
            "extract_damaged",
            "ecomm backfill 2026-01-02..2026-01-02 --all",
        ),
        (
            {"balance": balance([*map(day, TABLES[1:]), day("orders", bronze=Amount(0), kept=Amount(0))])},
            "B",
            "bronze_differs",
            "ecomm rerun dlt 2026-01-02 --onwards",
        ),
        (
            {"balance": balance([*map(day, TABLES[1:]), day("orders", kept=Amount(97), lost=Amount(3))])},
            "C",
            "silver_differs",
            "ecomm rerun dlt 2026-01-02 --onwards",
        ),
        (
            {
                "balance": balance(
                    [
                        *map(day, TABLES[1:]),
                        day("orders", kept=Amount(97), quarantined={"status: missing": Amount(3)}, in_quarantine=3),
                    ]
                )
            },
            "C",
            "rows_quarantined",
            "ecomm backfill 2026-01-02..2026-01-02 --all",
        ),
        (
            {"balance": balance(of_sales=sales(agg_daily_sales={"net_revenue": Decimal(3)}))},
            "D",
            "gold_differs",
            "ecomm rerun dlt 2026-01-02 --onwards",
        ),
        (
            {"balance": balance(of_sales=sales("agg_daily_sales", "agg_sales_kpi", "agg_product_kpi"))},
            "D",
            "gold_missing",
            "ecomm rerun dlt 2026-01-02 --onwards",
        ),
        (
            {"balance": None, "absent": ["gold.sales_analytics"]},
            "D",
            "tables_missing",
            "ecomm rerun dlt 2026-01-02 --onwards",
        ),
        (
            {"balance": balance(of_sales=sales("agg_sales_kpi"))},
            "E",
            "kpi_missing",
            "ecomm rerun dbt 2026-01-02 --onwards",
        ),
        (
            {"balance": balance(of_sales=sales(agg_sales_kpi={"orders": Decimal(3)}))},
            "E",
            "kpi_differs",
            "ecomm rerun dbt 2026-01-02 --onwards",
        ),
        (
            {"extracts": [Extract("agg_sales_kpi", STARTS, STARTS + timedelta(minutes=245))]},
            "F",
            "dashboard_stale",
            "ecomm rerun tableau 2026-01-02 --onwards",
        ),
        (
            {
                "records": (
                    *RECORDS[:-1],
                    record("reconciler", 260, outcome="failed", error=BadDataError("3 rows fewer")),
                )
            },
            "F",
            "verdict_stale",
            "ecomm rerun reconcile 2026-01-02",
        ),
    ],
)
def test_what_the_data_say_is_found_where_the_runbook_treats_it(changes, section, kind, command):
    diagnosis = told(**changes)
    assert (diagnosis.cause.section, diagnosis.cause.kind, diagnosis.cause.command) == (section, kind, command)
    assert diagnosis.exit_code


def test_the_first_in_the_chain_is_the_cause_and_its_effects_follow():
    lost = [*map(day, TABLES[1:]), day("orders", kept=Amount(97), lost=Amount(3))]
    diagnosis = told(
        balance=balance(lost, sales(agg_daily_sales={"orders": Decimal(3)})),
        extracts=[Extract("agg_sales_kpi", None, STARTS)],
    )
    assert diagnosis.cause.kind == "silver_differs"
    assert [one.kind for one in diagnosis.follows] == ["gold_differs", "kpi_differs", "dashboard_stale"]
    assert diagnosis.priority == "P1", "the worst of all: no fresh dashboard"


@pytest.mark.parametrize(
    "evidence",
    [
        {"balance": None, "absent": ["gold.agg_daily_sales"]},
        {"balance": balance(of_sales=sales(agg_daily_sales={"net_revenue": Decimal(3)}))},
    ],
)
def test_a_stage_that_failed_at_broken_data_follows_from_what_is_wrong_before_it(evidence):
    failed = record("dbt-runner", 240, outcome="failed", error=BadDataError("dbt: a test fails"))
    diagnosis = told(records=until("dbt-runner", failed), **evidence)
    assert (diagnosis.cause.section, diagnosis.cause.command) == ("D", "ecomm rerun dlt 2026-01-02 --onwards")
    assert "stage_failed" in [one.kind for one in diagnosis.follows]
    assert diagnosis.others == []


def test_a_failed_refresh_is_no_cause_of_a_kpi_that_differs():
    failed = record("tableau-refresher", 250, outcome="failed", error=UpstreamFailedError("job 1 failed"))
    wrong = balance(of_sales=sales(agg_sales_kpi={"orders": Decimal(3)}))
    diagnosis = told(records=until("tableau-refresher", failed), balance=wrong)
    assert diagnosis.cause.kind == "kpi_differs"
    assert [one.kind for one in diagnosis.others] == ["stage_failed"]


def test_tables_that_failed_alike_are_told_together_and_others_apart():
    refused, broken = CredentialsError("orders: refused", next_step="grant it"), BadDataError("products: no updated_at")
    failed = [
        record("extractor", 0, table="orders", outcome="failed", error=refused),
        record("extractor", 1, table="order_items", outcome="failed", error=refused),
        record("extractor", 2, table="products", outcome="failed", error=broken),
    ]
    diagnosis = told(records=failed, manifests={}, balance=None, extracts=())
    assert diagnosis.cause.message == "extractor of orders, order_items failed: orders: refused"
    assert [one.tables for one in diagnosis.others] == [("products",)]


def test_what_a_failed_stage_did_not_bring_is_its_effect_and_refused_rows_are_not():
    error = UpstreamFailedError("update u1 failed")
    quarantined = day("products", kept=Amount(97), quarantined={"key: missing": Amount(3)}, in_quarantine=3)
    days = [*map(day, TABLES[2:]), day("orders", kept=Amount(90), lost=Amount(10)), quarantined]
    failed = until("dlt-trigger", record("dlt-trigger", 10, outcome="failed", error=error))
    diagnosis = told(records=failed, balance=balance(days))
    assert diagnosis.cause.kind == "stage_failed"
    assert [one.kind for one in diagnosis.others] == ["rows_quarantined"]
    assert "silver_differs" in [one.kind for one in diagnosis.follows]


def test_two_services_that_refuse_alike_are_one_cause():
    refused = CredentialsError("the token was refused")
    diagnosis = told(down={"databricks": refused, "warehouse": refused}, balance=None, extracts=())
    assert (diagnosis.cause.section, diagnosis.others) == ("B", [])
    assert [one.section for one in diagnosis.follows] == ["E"]


def test_without_the_bucket_nobody_knows_more_and_it_is_to_be_asked_again():
    gone = UnavailableError("cannot list s3://ecomm")
    diagnosis = told(down={"s3": gone}, records=(), manifests={}, balance=None, extracts=())
    assert diagnosis.cause.command == "ecomm doctor 2026-01-02"


def test_a_second_cause_is_told_with_its_own_command():
    quarantined = day("orders", kept=Amount(97), quarantined={"status: missing": Amount(3)}, in_quarantine=3)
    diagnosis = told(
        balance=balance([*map(day, TABLES[1:]), quarantined]),
        manifests={t: manifest(t, rows=0 if t == "products" else 100) for t in TABLES},
    )
    assert (diagnosis.cause.kind, [one.kind for one in diagnosis.others]) == ("extract_empty", ["rows_quarantined"])


def test_drift_is_a_note_and_no_alarm():
    columns = {**CONTRACT["orders"].columns, "channel": "text"}
    manifests = {t: manifest(t, columns=columns if t == "orders" else None) for t in TABLES}
    diagnosis = told(manifests=manifests)
    assert (diagnosis.exit_code, diagnosis.cause) == (0, None)
    assert list(lines(diagnosis))[1:] == ["note  P3  A extraction (orders): orders.channel is new (text)"]
    (note,) = diagnosis.notes
    assert note.do_first.startswith(f"see what changed: ecomm diff {DATE.plus(-1)} {DATE}; take it back")
    assert note.command == f"ecomm backfill {DATE}..{DATE} --all"


@pytest.mark.parametrize(
    ("rows", "usual", "is_found"), [(9, 100, True), (10, 100, False), (0, None, False), (0, 0, False)]
)
def test_an_extract_far_below_its_usual_is_as_good_as_empty_unless_there_is_no_usual(rows, usual, is_found):
    manifests = {t: manifest(t, rows=rows if t == "orders" else 100) for t in TABLES}
    usually = {t: figure for t, figure in {**dict.fromkeys(TABLES, 100), "orders": usual}.items() if figure is not None}
    cause = told(manifests=manifests, usual=usually).cause
    assert (cause is not None and cause.kind == "extract_empty") is is_found
    if cause:
        assert cause.message.startswith("orders has 9 rows, usual are 100: so many have an updated_at in its window")


def test_a_service_that_a_stage_failed_for_hides_the_stage_behind_it():
    error = CredentialsError("the warehouse refused the token")
    diagnosis = told(
        records=until("dbt-runner", record("dbt-runner", 240, outcome="failed", error=error)),
        balance=None,
        down={"warehouse": error},
        extracts=(),
    )
    assert (diagnosis.cause.kind, diagnosis.cause.section) == ("unreachable", "E")
    assert diagnosis.cause.command == "ecomm rerun dbt 2026-01-02 --onwards"


def judged(verdict, **fields):
    rows = [{"kpi": kpi, "held": verdict == "held"} for kpi in ("net_revenue", "orders")]
    finding = {"priority": "P2", "kind": "kpi_held", "message": "net_revenue of 2026-01-02 is 1"}
    found = [finding] if verdict == "held" else []
    command = "argo resume -n ecomm batch-1" if found else None
    figures = {"verdict": verdict, "kpis": rows}
    return record("kpi-gate", 265, figures=figures, findings=found, **fields).model_copy(update={"next_step": command})


def test_a_date_that_is_held_names_the_kpi_and_the_command_that_goes_on_and_dashboards_may_be_old():
    old = Extract("sales", STARTS, NOW)
    diagnosis = told(records=until("tableau-refresher", judged("held")), extracts=[old])
    assert (diagnosis.cause.kind, diagnosis.cause.section, diagnosis.priority) == ("kpi_held", "E", "P2")
    assert diagnosis.cause.message == "net_revenue of 2026-01-02 is 1"
    assert diagnosis.cause.command == "argo resume -n ecomm batch-1"
    assert diagnosis.cause.do_first.startswith("see whether it is right: ecomm explain 2026-01-02 net_revenue")
    assert not [*diagnosis.follows, *diagnosis.others]


def test_a_date_is_held_no_more_once_tableau_was_refreshed_and_never_when_its_kpis_passed():
    after = record("tableau-refresher", 300)
    assert told(records=[*until("tableau-refresher", judged("held")), after]).cause is None
    assert told(records=until("tableau-refresher", judged("passed"))).cause.kind == "stage_missing"


def test_a_kpi_that_is_held_follows_from_what_is_wrong_before_it():
    manifests = {**GOOD.manifests, "orders": manifest("orders", rows=0)}
    diagnosis = told(records=until("tableau-refresher", judged("held")), manifests=manifests)
    assert diagnosis.cause.section == "A"
    assert [one.kind for one in diagnosis.follows if one.section > "D"] == ["kpi_held"]


def test_a_gate_that_failed_is_told_as_a_stage_is():
    failed = judged("passed", outcome="failed", error=UnavailableError("no warehouse", next_step="wait"))
    assert told(records=until("tableau-refresher", failed)).cause.message == "kpi-gate failed: no warehouse"


def test_json_tells_the_same(tmp_path):
    told_ = told(balance=balance(of_sales=sales("agg_sales_kpi"))).as_dict()
    assert (told_["ok"], told_["exit_code"], told_["priority"]) == (False, 65, "P2")
    assert told_["cause"]["kind"] == "kpi_missing"
    assert told_["cause"]["runbook"] == "kpi-missing"
    assert told_["cause"]["tables"] == ["agg_sales_kpi"]


def test_every_kind_has_a_class_or_brings_one_and_every_service_is_one_of_check():
    assert {kind.failure_class for kind in KINDS.values()} - FAILURE_CLASSES.keys() == {None}
    assert SERVICES.keys() == DEPENDENCIES.keys()
    assert set(SERVICES.values()) <= SECTIONS.keys()


def test_findings_come_in_the_order_of_the_chain():
    found = list(
        findings(
            replace(
                GOOD,
                down={"tableau": UnavailableError("no answer"), "s3": UnavailableError("no answer")},
                balance=balance(of_sales=sales("agg_sales_kpi")),
            )
        )
    )
    assert [one.section for one in found] == sorted(one.section for one in found)
