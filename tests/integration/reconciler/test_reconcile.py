"""The balance sheet on real servers: one update of the pipeline, and then what can go wrong around it."""

from __future__ import annotations

import json
import secrets
import signal
import time
from contextlib import closing, contextmanager

import pytest
from tests.support.command import start_ecomm
from tests.support.shop import DATE, SHOP, Shop

RUN = f"20260302T180000Z-{secrets.token_hex(4)}"  # a sandbox that stays up remembers the update of an old one
LINE = (
    "INSERT INTO order_items (order_id, line_number, product_id, quantity, unit_price, created_at, updated_at) "
    "VALUES ('O1', {number}, 'P1', 2, 5, '{at}', '{at}')"
)


class ReconciledShop(Shop):
    """A shop whose dates are reconciled."""

    @contextmanager
    def reconciling(self):
        """A reconciler that waits for Postgres, since a migration holds a table; it is killed if it still runs."""
        with closing(self.sandbox.connect()) as connection, connection.cursor() as cursor:
            cursor.execute("LOCK TABLE orders IN ACCESS EXCLUSIVE MODE")
            env = {**self.env, "ECOMM_EXTRACTOR_LOCK_TIMEOUT": "300"}
            process = start_ecomm("reconciler", "--date", DATE, "--through", "gold", env=env)
            try:
                deadline = time.monotonic() + 60
                waiting = (
                    "SELECT count(*) FROM pg_locks AS l JOIN pg_stat_activity AS a USING (pid) WHERE NOT l.granted"
                )
                while not (cursor.execute(waiting), cursor.fetchone())[1][0]:
                    assert process.poll() is None, process.stderr.read()
                    assert time.monotonic() < deadline
                    time.sleep(0.1)
                yield process
            finally:
                process.kill()
                process.communicate()

    def reconcile(self, *, code=0, date=DATE, run_id=RUN, **env):
        """Reconcile through Gold; gives what was said, and the record in the ledger."""
        said = self.ecomm("reconciler", "--date", date, "--through", "gold", code=code, ECOMM_RUN_ID=run_id, **env)
        record = self.record("reconciler-gold", date, run_id)
        record["sheet"] = json.loads(self.sandbox.get(record["figures"]["sheet_key"]))
        return said, record


@pytest.fixture(scope="module")
def shop(sandbox):
    """A shop of one date, extracted and loaded once; the tests below add to it in their order of this file."""
    sandbox.reset()
    shop = ReconciledShop(sandbox, RUN)
    shop.sql(SHOP)
    shop.extract(DATE)
    shop.ecomm("dlt-trigger", "--date", DATE)
    return shop


@pytest.fixture
def again(shop):
    """The shop, brought back after a test to what was extracted."""
    yield shop
    shop.sql("TRUNCATE order_items, orders, products, customers CASCADE")
    shop.sql(SHOP)


def amounts(record, table):
    return {row["hop"]: (row["rows"], row.get("money")) for row in record["sheet"] if row["table"] == table}


def test_a_loaded_date_balances_to_the_cent_and_a_second_time_too(shop):
    for _ in range(2):
        _, record = shop.reconcile()
        assert record["figures"]["balanced"]
        assert record["findings"] == []
        assert amounts(record, "order_items") == dict.fromkeys(("source", "extracted", "bronze", "kept"), (3, "5.3333"))
        assert amounts(record, "orders") == dict.fromkeys(("source", "extracted", "bronze", "kept"), (2, None))
        assert amounts(record, "sales") == {
            "silver": (3, "5.3333"),
            "sales_analytics": (3, "5.3333"),
            "agg_daily_sales": (None, "5.3333"),
        }


def test_a_date_that_was_never_extracted_is_named_with_what_to_run(shop):
    said, _ = shop.reconcile(code=65, date="2026-03-09")
    assert "orders of 2026-03-09: there is no extract" in said
    assert "next:  ecomm extractor --table orders --date 2026-03-09" in said


def test_a_row_that_committed_late_and_nothing_covers_is_named(again):
    again.sql(LINE.format(number=7, at="2026-03-02 05:00Z"))
    said, record = again.reconcile(code=65)
    assert "1 row, 10.00 of money committed after the extract and no later window looks back on them: O1/7" in said
    assert "next:  ecomm extractor --table order_items --date 2026-03-02" in said
    assert record["failure_class"] == "not_reconciled"
    assert record["sheet"]


def test_a_late_row_that_the_next_window_looks_back_on_is_explained(again):
    again.sql(LINE.format(number=8, at="2026-03-02 16:30Z"))
    _, record = again.reconcile()
    assert [finding["kind"] for finding in record["findings"]] == ["committed_late"]


def test_a_late_row_is_noticed_where_another_left_the_window_and_rows_are_equal(again):
    again.sql("UPDATE orders SET updated_at = '2026-03-05Z' WHERE order_id = 'O2'")
    again.sql(
        "INSERT INTO orders (order_id, customer_id, status, ordered_at, created_at, updated_at) "
        "VALUES ('O8', 1, 'completed', '2026-03-02 05:00Z', '2026-03-02 05:00Z', '2026-03-02 05:00Z')"
    )
    said, record = again.reconcile(code=65)
    assert "1 row committed after the extract and no later window looks back on them: O8" in said
    assert record["failure_class"] == "not_reconciled"


def test_killed_while_it_waits_it_gives_the_same_verdict_when_it_is_run_again(shop):
    _, before = shop.reconcile()
    with shop.reconciling() as process:
        process.send_signal(signal.SIGKILL)
        assert process.wait(10) == -signal.SIGKILL
    _, after = shop.reconcile()
    assert (after["outcome"], after["sheet"], after["findings"]) == ("succeeded", before["sheet"], [])


def test_told_to_stop_it_does_so_while_it_waits_and_leaves_nothing_running_in_postgres(shop):
    with shop.reconciling() as process:
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=60)  # the table is held all the while: it did not wait for it
        assert process.returncode == 143, said
    sessions = "SELECT FROM pg_stat_activity WHERE application_name = 'ecomm-reconciler'"
    with closing(shop.sandbox.connect()) as connection, connection.cursor() as cursor:
        cursor.execute(sessions)
        assert cursor.rowcount == 0


def test_a_row_that_was_updated_or_deleted_since_is_explained(again):
    again.sql("DELETE FROM order_items WHERE order_id = 'O2'")
    again.sql("UPDATE order_items SET quantity = 9, updated_at = '2026-03-05Z' WHERE line_number = 2")
    _, record = again.reconcile()
    assert amounts(record, "order_items")["moved"] == (1, "0.3333")
    assert amounts(record, "order_items")["deleted"] == (1, "-2.50")
    assert [finding["kind"] for finding in record["findings"]] == ["deleted_in_source"]


def test_money_that_changed_behind_updated_at_is_named(again):
    again.sql("UPDATE order_items SET quantity = 4 WHERE order_id = 'O1' AND line_number = 1")
    said, _ = again.reconcile(code=65)
    assert "the money of O1/1 changed without a new updated_at" in said


def test_where_the_source_may_not_be_asked_it_is_left_out(again):
    again.sql("DELETE FROM order_items")
    _, record = again.reconcile(ECOMM_RECONCILER_CHECK_SOURCE="false")
    assert "source" not in amounts(record, "order_items")


def test_an_extract_that_bronze_has_not_loaded_is_named(shop):
    run_id = f"20260303T180000Z-{secrets.token_hex(4)}"
    shop.extract(DATE, ECOMM_RUN_ID=run_id)
    said, _ = shop.reconcile(code=65, run_id=run_id)
    assert "Bronze has not loaded the extract" in said
    assert "next:  ecomm dlt-trigger --date 2026-03-02" in said
    shop.reconcile()  # the run's own extract counts


def test_a_file_that_is_not_what_was_written_is_named(shop):
    (key,) = [key for key in shop.sandbox.keys("ecomm_db_extracts") if f"/orders/date={DATE}/run={RUN}/part" in key]
    content = shop.sandbox.get(key)
    bucket = shop.sandbox.env["ECOMM_STORE_BUCKET"]
    shop.sandbox.s3.put_object(Bucket=bucket, Key=key, Body=content[:-9])
    try:
        said, _ = shop.reconcile(code=65)
        assert f"{key} is not what was written" in said
    finally:
        shop.sandbox.s3.put_object(Bucket=bucket, Key=key, Body=content)
