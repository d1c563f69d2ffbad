"""What the exporter makes of the ledger's records."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest

from ecomm_pipeline.exporter.metrics import LABELS, METRICS, WORDS
from ecomm_pipeline.exporter.plan import Calendar, samples
from ecomm_pipeline.layout import STAGES
from ecomm_pipeline.ledger import Record
from ecomm_pipeline.settings import DEFAULT_TABLES, Exporter, Nightly

TZ = ZoneInfo("Asia/Ho_Chi_Minh")
DAY = date(2026, 3, 4)
BEGAN = datetime(2026, 3, 4, 18, tzinfo=UTC)
"""01:00 of the day after, there: when the night of `DAY` begins."""
HOUR = timedelta(hours=1)


def calendar(now=BEGAN + 6 * HOUR, **settings):
    return Calendar(TZ, now, Nightly(starts=time(1), gate=time(5), due=time(6)), Exporter(**settings))


def record(stage, after=0.0, *, minutes=10.0, outcome="succeeded", day=DAY, last=None, trigger="cron", **fields):
    """A record that began `after` hours into the night of its date."""
    began = BEGAN + timedelta(days=(day - DAY).days, hours=after)
    return Record(
        stage=stage,
        first_date=day,
        last_date=last or day,
        run_id=fields.pop("run_id", f"{began:%Y%m%d}T180000Z-{trigger}"),
        trigger=trigger,
        started_at=began,
        ended_at=None if outcome == "running" else began + timedelta(minutes=minutes),
        outcome=outcome,
        **fields,
    )


def night(day=DAY, rows=100, **changes):
    """A night in which all went well; `changes` are fields by table."""
    return [
        *(
            record("extractor", n / 60, day=day, table=table, rows_out=rows, bytes=9, **changes.get(table, {}))
            for n, table in enumerate(DEFAULT_TABLES)
        ),
        record("dlt-trigger", 0.5, day=day, minutes=60, rows_out=4 * rows),
        record("reconciler", 2, day=day, through="gold", figures={"balanced": True}),
        record("dbt-runner", 4, day=day, figures={"nodes": {"agg_sales_kpi": node(rows=7), "unique": node("test")}}),
        record("tableau-refresher", 4.5, day=day),
        record("reconciler", 5, day=day, through="kpi", figures={"balanced": True, "through": "kpi"}),
    ]


def node(kind="model", status="success", **more):
    return {"kind": kind, "file": "x", "status": status, "seconds": 1.0, **more}


def told(records, when=None, tables=DEFAULT_TABLES):
    """Every sample: `{name: {labels: value}}`, labels as a tuple without empty ones."""
    found = {}
    for sample in samples(records, when or calendar(), tables):
        for label, word in zip(METRICS[sample.metric].labels, sample.labels, strict=True):
            assert word in ("", *WORDS.get(label, [word])), f"{sample.metric} has {label}={word}"
        labels = tuple(label for label in sample.labels if label)
        assert labels not in found.setdefault(sample.metric, {}), f"{sample.metric}{labels} is told twice"
        found[sample.metric][labels] = sample.value
    return found


D = str(DAY)


def test_every_metric_has_a_meaning_and_labels_that_are_explained():
    for metric in METRICS.values():
        assert metric.meaning.endswith(".")
        assert set(metric.labels) <= LABELS.keys()
    assert LABELS.keys() == {label for metric in METRICS.values() for label in metric.labels}


def test_a_night_that_went_well_is_told_whole():
    found = told(night())
    assert {labels[-1] for labels in found["stage_outcome"]} == {"succeeded"}
    assert {labels[1] for labels in found["stage_outcome"]} == set(STAGES)
    assert found["date_nightly"] == {(D,): 1}
    assert found["date_complete_timestamp_seconds"][D,] == (BEGAN + 4.5 * HOUR + timedelta(minutes=10)).timestamp()
    assert found["date_margin_seconds"][D,] == 20 * 60
    assert found["date_reconciled"] == {(D,): 1}
    assert found["extract_present"] == {(D, table): 1 for table in DEFAULT_TABLES}
    assert found["rows"][D, "orders", "extracted"] == 100
    assert found["stage_rows"][D, "extractor", "out"] == 400
    assert found["dbt_nodes"] == {(D, "model", "success"): 1, (D, "test", "success"): 1}
    assert found["kpi_rows"] == {("agg_sales_kpi",): 7}
    assert not {name for name in found if "failed" in name or "failure" in name or "forecast" in name}


def judged(verdict, after=4.3, day=DAY, **fields):
    rows = [
        {"date": str(day), "kpi": "orders", "bound": "0.3", "move": "-0.5000", "held": verdict == "held"},
        {"date": str(day), "kpi": "refunds", "bound": "2", "move": None, "held": False},
    ]
    finding = {"priority": "P2", "kind": "kpi_held", "message": "orders is 1"}
    more = {"findings": [finding], "next_step": "argo resume -n ecomm batch-1"} if verdict == "held" else {}
    figures = {"verdict": verdict, "kpis": rows}
    return record("kpi-gate", after, day=day, minutes=1, figures=figures, **more, **fields)


def test_how_far_kpis_moved_is_told_beside_their_bounds():
    found = told([*night(), judged("passed")])
    assert found["kpi_move_ratio"] == {(D, "orders"): -0.5}
    assert found["kpi_bound_ratio"] == {(D, "orders"): 0.3, (D, "refunds"): 2}
    assert "kpi_held_timestamp_seconds" not in found


def test_a_date_is_held_until_tableau_is_refreshed_and_tells_why_and_what_goes_on():
    before = [one for one in night() if one.stage != "tableau-refresher"]
    found = told([*before, judged("held")])
    assert found["kpi_held_timestamp_seconds"] == {(D,): (BEGAN + 4.3 * HOUR + timedelta(minutes=1)).timestamp()}
    assert found["kpi_held_info"] == {(D, "orders is 1", "argo resume -n ecomm batch-1"): 1}
    assert "kpi_held_info" not in told([*night(), judged("held")]), "Tableau was refreshed after it"


def test_a_range_is_held_once_and_one_of_long_ago_is_forgotten():
    week = DAY + timedelta(days=6)
    dates = {(f"{DAY}..{week}",)}
    held = judged("held", last=week, trigger="backfill")
    assert set(told([held])["kpi_held_timestamp_seconds"]) == dates
    later = calendar(BEGAN + timedelta(days=15))
    assert "kpi_held_timestamp_seconds" not in told([held], later)


def test_a_gate_that_failed_is_told_as_a_stage_is():
    failed = record("kpi-gate", 4.3, outcome="failed", failure_class="unavailable", error="no warehouse")
    assert (D, "kpi-gate", "cron", "unavailable", "P1") in told([*night(), failed])["stage_failed_timestamp_seconds"]


def test_nothing_at_all_is_a_night_that_did_not_start():
    found = told([])
    assert found["stage_outcome"] == {(D, stage, "missing"): 1 for stage in STAGES}
    assert found["date_scheduled_timestamp_seconds"] == {(D,): BEGAN.timestamp()}
    assert found["date_due_timestamp_seconds"] == {(D,): (BEGAN + 5 * HOUR).timestamp()}
    assert "date_started_timestamp_seconds" not in found
    assert found["extract_present"] == dict.fromkeys([(D, table) for table in DEFAULT_TABLES], 0)


def test_a_date_is_not_missed_before_its_night_begins():
    before = told([], calendar(BEGAN - HOUR / 2))
    assert list(before["date_nightly"]) == [(str(DAY - timedelta(days=1)),)]
    early = told([record("extractor", -0.5, table="orders", outcome="failed")], calendar(BEGAN - HOUR / 4))
    assert early["date_nightly"][D,] == 0
    assert (D, "extractor", "cron", "internal", "P1") in early["stage_failed_timestamp_seconds"]


def test_dates_before_the_schedule_s_first_night_are_nobody_s_fault():
    before = DAY - timedelta(days=2)
    dates = {(str(before + timedelta(days=n)),) for n in range(3)}
    assert set(told([*night(before), *night()])["date_nightly"]) == dates
    by_hand = [r.model_copy(update={"trigger": "manual"}) for r in night(before)]
    assert set(told([*by_hand, *night()])["date_nightly"]) == {(str(before),), (D,)}, "what there is of it is told"
    assert len(told([*night(date(2026, 1, 1)), *night()])["date_nightly"]) == 14


def test_the_worst_table_is_the_stage_s_outcome_and_the_failure_has_its_class_s_priority():
    failed = record(
        "extractor", 1, table="orders", outcome="failed", failure_class="bad_data", error="x\n" * 400, next_step="mend"
    )
    found = told([*night(), failed])
    assert found["stage_outcome"][D, "extractor", "cron", "failed"] == 1
    at = failed.ended_at.timestamp()
    assert found["stage_failed_timestamp_seconds"] == {(D, "extractor", "cron", "bad_data", "P2"): at}
    ((_, stage, error, step),) = found["stage_failure_info"]
    assert (stage, step) == ("extractor", "mend")
    assert error.startswith("orders: x x")
    assert len(error) == 300


def test_a_later_success_ends_a_failure():
    failed = record("dlt-trigger", 0.6, outcome="failed", failure_class="unavailable")
    again = record("dlt-trigger", 1, run_id="20260304T200000Z-b", trigger="manual")
    assert "stage_failed_timestamp_seconds" in told([failed])
    assert "stage_failed_timestamp_seconds" not in told([failed, again])
    assert told([failed, again])["stage_outcome"][D, "dlt-trigger", "manual", "succeeded"] == 1


def test_a_running_stage_gets_longer_with_the_clock_and_a_range_may_take_longer():
    running = record("dbt-runner", 4, outcome="running")
    assert told([running], calendar(BEGAN + 5 * HOUR))["stage_duration_seconds"] == {(D, "dbt-runner"): 3600}
    assert told([running], calendar(BEGAN + 6 * HOUR))["stage_duration_seconds"] == {(D, "dbt-runner"): 7200}
    assert told([running])["stage_expected_seconds"] == {(D, "dbt-runner"): 1200}
    ten = record("dbt-runner", day=DAY - timedelta(days=9), last=DAY)
    assert told([ten])["stage_expected_seconds"][D, "dbt-runner"] == 12_000


def test_a_refresh_before_dbt_built_the_date_does_not_complete_it():
    early = record("tableau-refresher", 1, run_id="20260304T190000Z-m")
    assert "date_complete_timestamp_seconds" not in told([early, record("dbt-runner", 4)])
    assert "date_complete_timestamp_seconds" in told([early, record("dbt-runner", 4), record("tableau-refresher", 5)])


def test_what_was_complete_stays_so_when_it_is_run_again():
    again = record("tableau-refresher", 30, run_id="20260305T180000Z-m", trigger="manual")
    at = told(night())["date_complete_timestamp_seconds"]
    assert told([*night(), again])["date_complete_timestamp_seconds"] == at


def test_the_forecast_waits_for_the_gate_and_counts_what_is_left():
    done = night()[:5]
    at_two = told(done, calendar(BEGAN + HOUR * 2))["date_forecast_timestamp_seconds"][D,]
    assert at_two == (BEGAN + 4 * HOUR).timestamp() + 1200 + 1800, "the reconciler fits before the gate"
    late = told(done, calendar(BEGAN + HOUR * 4.5))
    assert late["date_forecast_timestamp_seconds"][D,] == (BEGAN + 4.5 * HOUR).timestamp() + 900 + 1200 + 1800
    assert late["date_margin_seconds"][D,] == 1800 - 3900


def test_the_forecast_of_a_running_stage_is_what_is_left_of_it_and_never_past():
    running = [*night()[:4], record("dlt-trigger", 0.5, outcome="running")]
    slow = calendar(BEGAN + 0.5 * HOUR + timedelta(seconds=9000), dlt_trigger_expected=5400)
    forecast = told(running, slow)["date_forecast_timestamp_seconds"][D,]
    assert forecast == (BEGAN + 4 * HOUR).timestamp() + 3000
    assert forecast >= slow.now.timestamp()


def test_what_stages_usually_take_goes_before_what_is_expected():
    history = [r for n in range(1, 4) for r in night(DAY - timedelta(days=n))]
    forecast = told([*history, *night()[:5]], calendar(BEGAN + 4.5 * HOUR))["date_forecast_timestamp_seconds"][D,]
    assert forecast == (BEGAN + 4.5 * HOUR).timestamp() + 3 * 600


def test_what_is_usual_is_of_the_same_weekday():
    days = [DAY - timedelta(days=n) for n in range(1, 36)]
    shop = [r for day in days for r in night(day, rows=0 if day.weekday() == 5 else 100)]
    usual = told([*shop, *night()])["rows_usual"]
    saturday = next(day for day in days if day.weekday() == 5)
    assert usual[D, "orders", "extracted"] == 100
    assert usual[str(saturday), "orders", "extracted"] in (0, 100)
    assert usual[str(saturday), "orders", "extracted"] == 0


def test_two_days_make_no_usual_and_three_of_any_weekday_do():
    def of(days):
        return told([r for n in days for r in night(DAY - timedelta(days=n), rows=n)] + night())

    assert "rows_usual" not in of([1, 2])
    assert of([1, 2, 3])["rows_usual"][D, "orders", "extracted"] == 2


def test_the_watermark_is_the_newest_that_was_extracted_up_to_the_date():
    def at(hours):
        return {"figures": {"max_updated_at": (BEGAN - HOUR + hours * HOUR).isoformat()}}

    found = told(night(orders=at(-2)))["watermark_lag_seconds"]
    assert found[D, "orders"] == 2 * 3600, "the date ends at midnight there"
    empty = [*night(DAY - timedelta(days=1), orders=at(-27)), *night(orders={"figures": {"max_updated_at": None}})]
    assert told(empty)["watermark_lag_seconds"][D, "orders"] == 27 * 3600
    assert (D, "products") not in found


def sheet(table="orders", **hops):
    """Rows of a reconciler's sheet."""
    return [
        {"table": table, "date": D, "hop": hop, **(row if isinstance(row, dict) else {"rows": row})}
        for hop, row in hops.items()
    ]


def proof(rows, **figures):
    return record("reconciler", 3, figures={"sheet": rows, "sheet_key": "x", "balanced": False, **figures})


def test_a_sheet_becomes_rows_by_hop_and_what_nothing_explains():
    rows = sheet(source=104, extracted=100, late=5, deleted=1, bronze={"rows": 98, "rescued": 2}, kept=90, superseded=4,
                 quarantined=3)  # fmt: skip
    found = told([*night(), proof(rows)])
    assert found["rows"][D, "orders", "bronze"] == 98
    assert found["rows"][D, "orders", "rescued"] == 2
    assert found["rows"][D, "orders", "quarantined"] == 3
    assert found["rows_usual"][D, "orders", "quarantined"] == 0
    assert found["rows_unexplained"][D, "orders"] == 0 + 2 + 1
    assert found["date_reconciled"][D,] == 1, "the newest reconciliation balanced"


def test_explained_differences_are_not_unexplained():
    rows = sheet(source=7, extracted=6, late=2, moved=1, bronze=6, kept=4, superseded=1, quarantined=1)
    assert told([proof(rows)])["rows_unexplained"] == {(D, "orders"): 0}


@pytest.mark.parametrize(("through", "layers"), [("gold", {"gold"}), ("kpi", {"gold", "kpi"})])
def test_gold_and_kpis_are_missing_where_silver_has_sales_and_they_were_looked_at(through, layers):
    rows = sheet("sales", silver=9, sales_analytics=9)
    found = told([proof(rows, through=through)])["sales_present"]
    assert {layer for _, _, layer in found} == layers
    assert found[D, "sales_analytics", "gold"] == 1
    assert found[D, "agg_daily_sales", "gold"] == 0
    assert "sales_present" not in told([proof(sheet("sales"), through=through)]), "a day without sales"


def test_a_date_that_does_not_balance_is_told_until_it_does():
    assert told([proof([])])["date_reconciled"] == {(D,): 0}
    broken = record("reconciler", 4, outcome="failed", failure_class="credentials")
    assert told([proof([]), broken])["date_reconciled"] == {(D,): 0}, "it was not found out again"


def test_findings_are_counted_by_kind_and_failed_expectations_by_name():
    drift = {"priority": "P3", "kind": "schema_drift", "message": "m"}
    update = record("dlt-trigger", 1, figures={
        "expectations": [
            {"dataset": "silver.dim_orders", "name": "known_status", "passed": 5, "failed": 2},
            {"dataset": "silver.dim_orders", "name": "valid_key", "passed": 7, "failed": 0},
        ]
    })  # fmt: skip
    found = told([record("extractor", table="orders", findings=[drift, drift]), update])
    assert found["findings"] == {(D, "extractor", "orders", "schema_drift", "P3"): 2}
    assert found["expectation_failed_rows"] == {(D, "silver.dim_orders", "known_status"): 2}


def test_backfilling_an_old_date_does_not_look_fresh():
    found = told(night())
    end = (BEGAN - HOUR).timestamp()
    assert {labels[0] for labels in found["newest_date_timestamp_seconds"]} == {
        "landing", "gold", "kpi", "dashboard", "proof"
    }  # fmt: skip
    old = [
        r.model_copy(update={"trigger": "backfill", "run_id": "20260305T000000Z-b"}) for r in night(date(2025, 1, 1))
    ]
    moved = [r.model_copy(update={"started_at": BEGAN + 9 * HOUR, "ended_at": BEGAN + 10 * HOUR}) for r in old]
    after = told([*night(), *moved], calendar(BEGAN + 11 * HOUR))
    assert after["newest_date_timestamp_seconds"] == found["newest_date_timestamp_seconds"]
    assert after["newest_date_timestamp_seconds"]["dashboard",] == end
    assert after["last_success_timestamp_seconds"]["tableau-refresher",] == (BEGAN + 10 * HOUR).timestamp()


def test_dashboards_have_the_times_that_the_refresher_proved():
    def at(hour):
        return f"2026-03-04T{hour:02}:00:00.000Z"

    refreshed = {"sales": {"refreshed_at": at(22), "kpi_committed_at": at(21)}, "b": {"refreshed_at": None}}
    found = told([record("tableau-refresher", 4, figures={"targets": refreshed})])
    seconds = datetime(2026, 3, 4, 22, tzinfo=UTC).timestamp()
    assert found["dashboard_refreshed_timestamp_seconds"] == {("sales",): seconds}
    assert found["dashboard_kpi_committed_timestamp_seconds"] == {("sales",): seconds - 3600}


def test_a_backfill_is_told_whatever_its_dates_until_a_later_run_succeeds():
    old = date(2025, 5, 1)
    days = [old + timedelta(days=n) for n in range(3)]
    run = {"run_id": "20260304T230000Z-b", "trigger": "backfill"}
    failed = record("dlt-trigger", day=old, last=days[-1], outcome="failed", failure_class="timed_out", **run)
    extracts = [record("extractor", day=day, table="orders", **run) for day in days]
    found = told([*extracts, failed])
    assert list(found["backfill_failed_timestamp_seconds"]) == [("2025-05-01..2025-05-03", "dlt-trigger", "timed_out")]
    assert found["backfill_dates"] == {("done",): 0, ("running",): 0, ("failed",): 3}
    again = {"run_id": "20260305T230000Z-b", "trigger": "backfill"}
    repaired = [
        record(stage, 1, day=old, last=days[-1], **again)
        for stage in ("dlt-trigger", "dbt-runner", "tableau-refresher")
    ]
    found = told([*extracts, failed, *repaired])
    assert "backfill_failed_timestamp_seconds" not in found
    assert found["backfill_dates"] == {("done",): 3, ("running",): 0, ("failed",): 0}


def test_sixty_nights_make_few_series():
    records = [r for n in range(60) for r in night(DAY - timedelta(days=n))]
    found = samples(records, calendar(), DEFAULT_TABLES)
    assert len(found) < 1500
