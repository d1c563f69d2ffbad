"""What the sandbox hands out, in the forms in which it is asked for."""

from __future__ import annotations

import json
from pathlib import Path

from ecomm_sandbox.databricks.spark import DELTA_COORDINATES
from ecomm_sandbox.environment import environment, exports, secret, values
from ecomm_sandbox.state import State

ROOT = Path(__file__).parents[3]
PORTS = {"postgres": 5432, "s3": 8333, "databricks": 8090, "tableau": 8080}
SECRETS = ("postgres-extractor", "postgres-shop", "s3-access-key", "s3-secret-key", "databricks-token", "tableau-token")


def state(host=""):
    return State(ports=PORTS, secrets={name: f"hidden {name}" for name in SECRETS}, host=host)


def test_a_sandbox_is_on_loopback_unless_it_is_exposed():
    assert state().bind == "127.0.0.1"
    assert environment(state())["ECOMM_POSTGRES_HOST"] == "127.0.0.1"


def test_an_exposed_sandbox_hands_out_the_name_by_which_others_reach_it():
    exposed = state("sandbox.there.svc")
    assert exposed.bind == "0.0.0.0"
    env = environment(exposed)
    assert env["ECOMM_POSTGRES_HOST"] == "sandbox.there.svc"
    assert env["ECOMM_STORE_ENDPOINT"] == "http://sandbox.there.svc:8333"
    assert env["ECOMM_DATABRICKS_HOST"] == "http://sandbox.there.svc:8090"
    assert env["ECOMM_TABLEAU_SERVER"] == "http://sandbox.there.svc:8080"
    assert "127.0.0.1" not in exports(env)


def test_a_service_that_was_never_up_is_left_out_though_the_proxy_keeps_its_port():
    ports = {name: PORTS[name] for name in ("postgres", "s3")}
    only_s3 = State(ports=ports, secrets={"s3-access-key": "a", "s3-secret-key": "b"})
    env = environment(only_s3)
    assert env["AWS_ACCESS_KEY_ID"] == "a"
    assert not [name for name in env if "POSTGRES" in name or name.startswith("PG")]


def test_dbt_cloud_is_named_only_while_it_is_up_so_that_dbt_runs_here_otherwise():
    known = {
        "ports": PORTS | {"dbt-cloud": 8070},
        "secrets": dict.fromkeys((*SECRETS, "dbt-cloud-token"), "hidden"),
    }
    down = environment(State(**known))
    up = environment(State(**known, processes={"dbt-cloud": (1, 1)}))
    assert {name: up[name] for name in up.keys() - down.keys()} == {
        "ECOMM_DBT_CLOUD_HOST": "http://127.0.0.1:8070",
        "ECOMM_DBT_CLOUD_TOKEN": "hidden",
        "ECOMM_DBT_CLOUD_ACCOUNT_ID": "10",
        "ECOMM_DBT_CLOUD_JOB_ID": "40",
    }
    assert "ECOMM_DBT_CLOUD_TOKEN" in json.loads(secret(up))["stringData"]


def test_the_charts_values_hold_every_setting_and_no_credential():
    text = values(environment(state("there")))
    written = json.loads(text)
    assert "hidden" not in text
    assert written["timezone"] == "Asia/Ho_Chi_Minh"
    assert written["settings"]["ECOMM_DATABRICKS_PIPELINE_ID"] == "ecomm"
    assert all(name.startswith("ECOMM_") for name in written["settings"])


def test_the_secret_holds_every_credential_that_a_stage_reads_and_nothing_else():
    written = json.loads(secret(environment(state("there"))))
    assert written["metadata"]["name"] == json.loads(values(environment(state())))["secret"]["existingSecret"]
    assert set(written["stringData"]) == {
        "ECOMM_POSTGRES_USER",
        "ECOMM_POSTGRES_PASSWORD",
        "ECOMM_DATABRICKS_TOKEN",
        "ECOMM_TABLEAU_TOKEN_NAME",
        "ECOMM_TABLEAU_TOKEN_VALUE",
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
    }


def test_the_image_holds_the_jars_that_the_sandbox_asks_for():
    group, name, version = DELTA_COORDINATES.split(":")
    jars = (ROOT / "images/sandbox/jars.txt").read_text()
    assert f"{group.replace('.', '/')}/{name}/{version}/{name}-{version}.jar" in jars
