"""A sandbox comes up, stays up, comes back and goes away. Without Databricks, which takes a while to start."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys

import pytest

from ecomm_sandbox.sandbox import Sandbox
from ecomm_sandbox.state import Home, PortInUseError, SandboxError, pick_port

LIGHT = ("postgres", "s3", "tableau")


@pytest.fixture(scope="module")
def light(tmp_path_factory):
    made = Sandbox(tmp_path_factory.mktemp("light"))
    made.up(LIGHT)
    yield made
    made.down()


def running(sandbox):
    return {one.name: one.pid for one in sandbox.status() if one.state == "running"}


def count_orders(sandbox):
    connection = sandbox.connect()
    with connection, connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM orders")
        (count,) = cursor.fetchone()
    connection.close()
    return count


def cli(sandbox, *args):
    command = [sys.executable, "-m", "ecomm_sandbox.cli", *args, "--home", str(sandbox.home.folder)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def test_up_again_leaves_everything_as_it_is(light):
    before = running(light)
    assert set(before) == {*LIGHT, "proxy"}
    light.up(LIGHT)
    assert running(light) == before


@pytest.mark.parametrize("service", ["postgres", "s3", "proxy", "tableau"])
def test_a_killed_service_comes_back_with_its_data(light, service):
    store, bucket = light.s3(), light.env()["ECOMM_STORE_BUCKET"]
    store.put_object(Bucket=bucket, Key=f"kept/{service}", Body=b"x" * 100_000)
    connection = light.connect()
    with connection, connection.cursor() as cursor:
        cursor.execute("INSERT INTO products VALUES (%s, NULL, 1, now(), now())", (f"kept-{service}",))
    before = running(light)
    os.kill(before[service], signal.SIGKILL)
    connection.close()
    light.up(LIGHT)
    after = running(light)
    assert after.pop(service) != before.pop(service)
    assert after == before
    assert store.get_object(Bucket=bucket, Key=f"kept/{service}")["Body"].read() == b"x" * 100_000
    connection = light.connect()
    with connection, connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM products WHERE product_id = %s", (f"kept-{service}",))
        assert cursor.fetchone() == (1,)
    connection.close()


def test_a_service_on_demand_is_up_only_between_its_own_up_and_down(light):
    before = running(light)
    assert "dbt-cloud" not in {one.name for one in light.status()}
    light.up(["dbt-cloud"])
    assert set(running(light)) == {*before, "dbt-cloud"}
    assert "ECOMM_DBT_CLOUD_JOB_ID" in light.env()
    light.down(["dbt-cloud"])
    assert running(light) == before
    assert "ECOMM_DBT_CLOUD_JOB_ID" not in light.env()
    with pytest.raises(SandboxError, match="no service is called 'dbt'"):
        light.down(["dbt"])


def test_another_home_runs_beside_and_down_leaves_no_process(light, tmp_path):
    other = Sandbox(tmp_path / "with space")
    other.up(["postgres"])
    try:
        assert set(running(other)) == {"postgres", "proxy"}
        assert not set(other.state.ports.values()) & set(light.state.ports.values())
        assert count_orders(other) == 0
    finally:
        other.down(purge=True)
    assert not other.home.folder.exists()
    assert processes_of(other.home) == []
    assert set(running(light)) == {*LIGHT, "proxy"}


def test_down_ends_processes_even_when_the_state_is_lost(tmp_path):
    made = Sandbox(tmp_path / "home")
    made.up(["tableau"])
    (made.home / "state.json").unlink()
    made.down()
    assert processes_of(made.home) == []


def processes_of(home: Home):
    from ecomm_sandbox import processes
    from ecomm_sandbox.sandbox import services

    return [one for service in services() for one in processes.leftovers(f"{home.folder}:{service.name}")]


def test_a_port_that_is_taken_is_named(light, tmp_path):
    taken = light.state.ports["tableau"]
    other = Sandbox(tmp_path)
    with pytest.raises(PortInUseError, match=f"port {taken} .* tableau"):
        other.up(["tableau"], ports={"tableau": taken})
    port = pick_port(set())
    try:
        other.up(["tableau"], ports={"tableau": port})
        assert other.env()["ECOMM_TABLEAU_SERVER"] == f"http://127.0.0.1:{port}"
    finally:
        other.down()


def test_a_service_that_does_not_start_is_an_error_with_the_end_of_its_log(tmp_path):
    made = Sandbox(tmp_path)
    made.up(["postgres"])
    made.down()
    (tmp_path / "postgres" / "data" / "postgresql.conf").write_text("no_such_setting = 1\n")
    try:
        with pytest.raises(SandboxError, match=r"postgres ended while it started.*\n.*no_such_setting"):
            made.up(["postgres"])
    finally:
        made.down()


def test_env_serves_official_clients_and_the_reader_may_only_read(light):
    import psycopg2
    from psycopg2.errors import InsufficientPrivilege, ReadOnlySqlTransaction

    env = json.loads(cli(light, "env", "--format", "json").stdout)
    connection = psycopg2.connect(
        host=env["PGHOST"], port=env["PGPORT"], dbname=env["PGDATABASE"], user=env["PGUSER"], password=env["PGPASSWORD"]
    )
    with connection, connection.cursor() as cursor:
        cursor.execute("SHOW default_transaction_read_only")
        assert cursor.fetchone() == ("on",)
        cursor.execute("SHOW timezone")
        assert cursor.fetchone() == ("UTC",)
    for statement, refused in (
        ("DELETE FROM orders", ReadOnlySqlTransaction),
        ("SET TRANSACTION READ WRITE; DELETE FROM orders", InsufficientPrivilege),
    ):
        with pytest.raises(refused), connection, connection.cursor() as cursor:
            cursor.execute(statement)
    connection.close()
    wrong = {"host": env["PGHOST"], "port": env["PGPORT"], "dbname": env["PGDATABASE"], "user": env["PGUSER"]}
    with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
        psycopg2.connect(**wrong, password="wrong")


def test_env_is_read_by_a_shell(light):
    text = cli(light, "env").stdout
    shown = subprocess.check_output(["sh", "-c", f'{text}\nprintf %s "$ECOMM_POSTGRES_PASSWORD"'], text=True)
    assert shown == light.env()["ECOMM_POSTGRES_PASSWORD"]


def test_each_table_has_its_key_and_an_index_on_updated_at(light):
    connection = light.connect()
    with connection, connection.cursor() as cursor:
        cursor.execute("SELECT tablename, indexdef FROM pg_indexes WHERE schemaname = 'public'")
        indexes = cursor.fetchall()
    connection.close()
    for table in ("customers", "products", "orders", "order_items"):
        definitions = [text for name, text in indexes if name == table]
        assert any(text.endswith("(updated_at)") for text in definitions)
        assert any("UNIQUE" in text for text in definitions)


def test_status_tells_what_does_not_run(light):
    done = cli(light, "status")
    assert done.returncode == 1
    assert "databricks stopped" in " ".join(done.stdout.split())
    assert "postgres   running" in done.stdout


def test_without_a_sandbox_the_next_step_is_told(tmp_path):
    done = cli(Sandbox(tmp_path / "none"), "env")
    assert done.returncode == 1
    assert "ecomm-sandbox up" in done.stderr
    assert not (tmp_path / "none").exists()


def test_in_the_foreground_an_exposed_sandbox_starts_again_what_ends_and_goes_with_its_command(tmp_path):
    home = tmp_path / "exposed"
    command = [sys.executable, "-m", "ecomm_sandbox.cli", "up", "tableau", "--home", str(home)]
    process = subprocess.Popen([*command, "--foreground", "--expose", "here"], stderr=subprocess.PIPE, text=True)
    made = Sandbox(home)
    try:
        until(process, "tableau: up after")
        before = running(made)["tableau"]
        port = made.state.ports["tableau"]
        with socket.create_connection(("127.0.0.2", port), timeout=5):  # where only a server of all addresses listens
            pass
        assert made.env()["ECOMM_TABLEAU_SERVER"] == f"http://here:{port}"
        os.kill(before, signal.SIGKILL)
        until(process, "tableau: ended by itself")
        until(process, "tableau: up after")
        assert running(made)["tableau"] != before
    finally:
        process.terminate()
        process.communicate(timeout=60)
    assert process.returncode == 0
    assert running(made) == {}
    assert not (home / "healthy").exists()


def until(process, wanted):
    for line in process.stderr:
        if line.startswith(wanted):
            return
    pytest.fail(f"it ended without {wanted!r}")
