"""The peers that the extractor is measured against: each reads a query from Postgres and writes CSV to the same bucket.

    python benchmarks/peers.py NAME SQL KEY

Each is written as its own documentation shows it, with the fastest way that it offers to CSV on S3. They connect by the
environment of the stages (`ECOMM_POSTGRES_…`, `ECOMM_STORE_…`, `AWS_…`). Their objects are not called `.csv` where that
can be chosen: SeaweedFS would spend CPU on compressing them.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from typing import Any

ENV = os.environ


def dsn() -> str:
    """Write the URL of the database."""
    where = "{ECOMM_POSTGRES_HOST}:{ECOMM_POSTGRES_PORT}/{ECOMM_POSTGRES_DATABASE}?sslmode=disable"
    return ("postgresql://{ECOMM_POSTGRES_USER}:{ECOMM_POSTGRES_PASSWORD}@" + where).format_map(ENV)


def open_object(key: str) -> Any:  # noqa: ANN401 (pyarrow has no types)
    """Open an object for streaming, with Arrow's own S3 client."""
    from pyarrow import fs

    s3 = fs.S3FileSystem(
        access_key=ENV["AWS_ACCESS_KEY_ID"],
        secret_key=ENV["AWS_SECRET_ACCESS_KEY"],
        endpoint_override=ENV["ECOMM_STORE_ENDPOINT"],
        region=ENV["ECOMM_STORE_REGION"],
    )
    return s3.open_output_stream(f"{ENV['ECOMM_STORE_BUCKET']}/{key}.out")


def write(batches: Any, schema: Any, key: str) -> None:  # noqa: ANN401 (pyarrow has no types)
    """Write Arrow batches as CSV; types that its writer does not know are written as the text they are kept in."""
    import pyarrow as pa
    from pyarrow import csv

    plain = pa.schema([(f.name, getattr(f.type, "storage_type", f.type)) for f in schema])
    with open_object(key) as sink, csv.CSVWriter(sink, plain) as writer:
        for batch in batches:
            columns = [getattr(column, "storage", column) for column in batch.columns]
            writer.write_batch(pa.record_batch(columns, schema=plain))


def adbc(sql: str, key: str) -> None:
    """https://arrow.apache.org/adbc/current/driver/postgresql.html."""
    from adbc_driver_postgresql import dbapi

    with dbapi.connect(dsn()) as connection, connection.cursor() as cursor:
        cursor.execute(sql)
        reader = cursor.fetch_record_batch()
        write(reader, reader.schema, key)


def connectorx(sql: str, key: str) -> None:
    """https://sfu-db.github.io/connector-x/api.html."""
    import connectorx as cx

    table = cx.read_sql(dsn(), sql, return_type="arrow")
    write(table.to_batches(), table.schema, key)


def dlt(sql: str, key: str) -> None:
    """https://dlthub.com/docs/dlt-ecosystem/verified-sources/sql_database, filesystem destination, CSV."""
    import connectorx as cx
    import dlt as dlthub

    with tempfile.TemporaryDirectory() as folder:
        credentials = {
            "aws_access_key_id": ENV["AWS_ACCESS_KEY_ID"],
            "aws_secret_access_key": ENV["AWS_SECRET_ACCESS_KEY"],
            "endpoint_url": ENV["ECOMM_STORE_ENDPOINT"],
        }
        bucket = f"s3://{ENV['ECOMM_STORE_BUCKET']}/{key}"
        pipeline = dlthub.pipeline(
            "bench",
            pipelines_dir=folder,
            destination=dlthub.destinations.filesystem(bucket, credentials=credentials),
            dataset_name="bench",
        )
        table = cx.read_sql(dsn(), sql, return_type="arrow")
        pipeline.run(table, table_name="order_items", loader_file_format="csv")


def sling(sql: str, key: str) -> None:
    """https://docs.slingdata.io/sling-cli/run; only where its binary is on the path."""
    target = {
        "type": "s3",
        "bucket": ENV["ECOMM_STORE_BUCKET"],
        "access_key_id": ENV["AWS_ACCESS_KEY_ID"],
        "secret_access_key": ENV["AWS_SECRET_ACCESS_KEY"],
        "endpoint": ENV["ECOMM_STORE_ENDPOINT"],
    }
    connections = {"SOURCE": dsn(), "TARGET": json.dumps(target), "SLING_DISABLE_TELEMETRY": "true"}
    url = f"s3://{ENV['ECOMM_STORE_BUCKET']}/{key}.csv"
    command = ["sling", "run", "--src-conn", "SOURCE", "--src-stream", sql, "--tgt-conn", "TARGET", "--tgt-object", url]
    subprocess.run(command, env={**ENV, **connections}, check=True)


PEERS = {peer.__name__: peer for peer in (adbc, connectorx, dlt, sling)}


def available() -> list[str]:
    """Name the peers that are installed here."""
    modules = {"adbc": "adbc_driver_postgresql", "connectorx": "connectorx", "dlt": "dlt"}
    here = [name for name, module in modules.items() if _installed(module)]
    return here + (["sling"] if shutil.which("sling") else [])


def _installed(module: str) -> bool:
    """Tell whether a module is installed; a folder of its name, such as our own dlt/, is not."""
    spec = find_spec(module)
    return spec is not None and spec.origin is not None


if __name__ == "__main__":
    PEERS[sys.argv[1]](*sys.argv[2:])
