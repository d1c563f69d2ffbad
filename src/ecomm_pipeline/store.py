"""The bucket: small objects whole, large ones as a stream, and every refusal in our own words.

Wraps obstore (https://developmentseed.org/obstore), with credentials from boto3's chain
(https://boto3.amazonaws.com/v1/documentation/api/latest/guide/credentials.html).
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from ecomm_pipeline.errors import (
    ConfigurationError,
    CredentialsError,
    EcommError,
    MissingSourceError,
    UnavailableError,
    translated,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager
    from datetime import datetime

    from obstore import WritableFile
    from obstore.auth.boto3 import Boto3CredentialProvider
    from obstore.store import S3Store

    from ecomm_pipeline.settings import Store as StoreSettings

__all__ = ["Listed", "Store"]

PART_SIZE: Final = 5 * 1024 * 1024
"""Bytes of a multipart upload's part: S3's least, so 10 000 parts bound an object at 52 GB (of gzip: 200 GB of CSV).

With `PARALLEL_PARTS` it bounds the memory of an upload.
"""
PARALLEL_PARTS: Final = 4
_GIVE_UP: Final = timedelta(seconds=60)
_PARALLEL_REQUESTS: Final = 16
_EXCERPT: Final = 300


@dataclass(frozen=True, slots=True)
class Listed:
    """An object as a listing shows it. `version` changes with its content."""

    key: str
    version: str
    modified: datetime


class Store:
    """A bucket, by keys. All methods raise `EcommError` of the class that fits, naming the key and the bucket.

    For `give_up` a request is tried again while the service cannot be reached or is busy.
    """

    def __init__(self, settings: StoreSettings, *, give_up: timedelta = _GIVE_UP) -> None:
        self.settings = settings
        self._s3 = _connect(settings, give_up)

    @property
    def url(self) -> str:
        """The bucket as `s3://bucket`."""
        return f"s3://{self.settings.bucket}"

    def get(self, key: str) -> bytes | None:
        """Read an object whole; None when there is none."""
        import obstore
        from obstore.exceptions import NotFoundError

        with self._errors("read", key):
            try:
                return obstore.get(self._s3, key).bytes().to_bytes()
            except (NotFoundError, FileNotFoundError) as error:
                self._refuse_missing_bucket(error)
                return None

    def get_all(self, keys: list[str]) -> list[bytes | None]:
        """Read many small objects at once, in the order of `keys`."""
        with ThreadPoolExecutor(_PARALLEL_REQUESTS) as pool:
            return list(pool.map(self.get, keys))

    def chunks(self, key: str) -> Iterator[bytes]:
        """Read an object as a stream of chunks of about 1 MiB. Raises `MissingSourceError` when there is none."""
        import obstore
        from obstore.exceptions import NotFoundError

        with self._errors("read", key):
            try:
                stream = obstore.get(self._s3, key).stream(min_chunk_size=1024 * 1024)
            except (NotFoundError, FileNotFoundError) as error:
                message = f"{self.url}/{key} does not exist"
                raise MissingSourceError(message, next_step="extract its date again") from error
            for chunk in stream:
                yield bytes(chunk)

    def put(self, key: str, content: bytes) -> None:
        """Write an object whole; it appears at once or not at all."""
        import obstore

        with self._errors("write", key):
            obstore.put(self._s3, key, content, use_multipart=False)

    def put_all(self, objects: dict[str, bytes]) -> None:
        """Write many small objects at once."""
        if len(objects) <= 1:
            for key, content in objects.items():
                self.put(key, content)
            return
        with ThreadPoolExecutor(_PARALLEL_REQUESTS) as pool:
            list(pool.map(self.put, objects, objects.values()))

    def keys(self, folder: str) -> list[str]:
        """List the keys under a folder, sorted; of an empty or absent folder there are none."""
        import obstore

        with self._errors("list", folder):
            return sorted(item["path"] for batch in obstore.list(self._s3, prefix=f"{folder}/") for item in batch)

    def listing(self, folder: str, *, after: str = "") -> list[Listed]:
        """List what is under a folder with each object's version, so that only what changed need be read again.

        A request gives a thousand keys, in order; with `after`, only keys that come after it are asked for.
        """
        import obstore

        with self._errors("list", folder):
            return [
                Listed(item["path"], str(item["e_tag"] or item["last_modified"]), item["last_modified"])
                for batch in obstore.list(self._s3, prefix=f"{folder}/", offset=after or None)
                for item in batch
            ]

    def folders(self, folder: str) -> list[str]:
        """List the names of the folders directly under a folder, sorted, with one request for a thousand of them."""
        import obstore

        with self._errors("list", folder):
            listed = obstore.list_with_delimiter(self._s3, prefix=f"{folder}/")
        return sorted(prefix.rstrip("/").rpartition("/")[2] for prefix in listed["common_prefixes"])

    @contextmanager
    def writer(self, key: str) -> Iterator[WritableFile]:
        """Open an object for streaming: it appears when the block ends, and never when the block raises.

        Memory is bounded by (`PARALLEL_PARTS` + 1) × `PART_SIZE`. Upstream:
        https://developmentseed.org/obstore/latest/api/file/#obstore.open_writer
        """
        import obstore

        with (
            self._errors("write", key),
            obstore.open_writer(self._s3, key, buffer_size=PART_SIZE, max_concurrency=PARALLEL_PARTS) as writer,
        ):
            yield writer

    def abort_uploads(self, folder: str, *, before: datetime | None = None) -> int:
        """End the multipart uploads under a folder that a killed process left open; gives how many there were.

        `before` spares those that were begun at that instant or later.
        """
        client = self._control()
        with self._errors("list uploads of", folder):
            pages = client.get_paginator("list_multipart_uploads").paginate(
                Bucket=self.settings.bucket, Prefix=f"{folder}/"
            )
            open_uploads = [
                upload
                for page in pages
                for upload in page.get("Uploads", [])
                if before is None or upload["Initiated"] < before
            ]
            for upload in open_uploads:
                client.abort_multipart_upload(
                    Bucket=self.settings.bucket, Key=upload["Key"], UploadId=upload["UploadId"]
                )
        return len(open_uploads)

    def _control(self) -> Any:  # noqa: ANN401 (botocore builds its clients at run time)
        import boto3
        from botocore.config import Config

        return boto3.client(
            "s3",
            endpoint_url=self.settings.endpoint,
            region_name=self.settings.region,
            config=Config(s3={"addressing_style": "path"} if self.settings.endpoint else {}),
        )

    def _refuse_missing_bucket(self, error: Exception) -> None:
        """Raise when it is the bucket that is missing: S3 answers 404 for both."""
        if "NoSuchBucket" in str(error):
            raise error

    def _errors(self, verb: str, key: str) -> AbstractContextManager[None]:
        return translated(lambda error: _translate(error, f"{self.settings.bucket}/{key}", verb, self.settings))


def _credentials(bucket: str) -> Boto3CredentialProvider | None:
    """Find the credentials by boto3's chain; None for keys in the environment, its first link, which obstore reads too.

    Importing boto3 costs 0.25 s and 25 MB of every command, so it is left to those who need the rest of the chain.
    """
    if os.environ.get("AWS_ACCESS_KEY_ID") and os.environ.get("AWS_SECRET_ACCESS_KEY"):
        return None
    from obstore.auth.boto3 import Boto3CredentialProvider

    try:
        return Boto3CredentialProvider()
    except ValueError as error:
        message = f"no AWS credentials were found for s3://{bucket}"
        raise CredentialsError(
            message, next_step="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile, or a role"
        ) from error
    except Exception as error:
        message = f"the AWS credentials for s3://{bucket} cannot be read: {error}"
        raise ConfigurationError(message, next_step="check AWS_PROFILE and ~/.aws") from error


def _connect(settings: StoreSettings, give_up: timedelta) -> S3Store:
    from obstore.store import S3Store

    endpoint: dict[str, Any] = {}
    if settings.endpoint:
        endpoint = {"endpoint": settings.endpoint, "virtual_hosted_style_request": False}
    return S3Store(
        settings.bucket,
        region=settings.region,
        unsigned_payload=True,  # TLS protects the body; hashing it would cost a third of an upload's CPU
        credential_provider=_credentials(settings.bucket),
        client_options={"allow_http": bool(settings.endpoint), "timeout": timedelta(minutes=5)},
        retry_config={"max_retries": 5, "retry_timeout": give_up},
        **endpoint,
    )


def _translate(error: Exception, place: str, verb: str, settings: StoreSettings) -> EcommError | None:
    """Put an error of obstore or botocore into our words; None when it is not of the store."""
    if isinstance(error, ValueError) and str(error).startswith("Could not parse path"):
        return ConfigurationError(
            f"{place!r} cannot be the name of an object: it has a control character, or a part that is empty, . or ..",
            next_step="check the name of the table (ECOMM_TABLES, --table) and ECOMM_STORE_PREFIX",
        )
    module = type(error).__module__
    if not module.startswith(("obstore", "botocore")) and not isinstance(error, OSError):
        return None
    text = " ".join(str(error).split())
    message = f"cannot {verb} s3://{place}: {text[:_EXCERPT]}"
    if "NoSuchBucket" in text:
        return MissingSourceError(
            f"the bucket {settings.bucket!r} does not exist", next_step="create it, or set ECOMM_STORE_BUCKET"
        )
    refused = ("PermissionDenied", "Unauthenticated", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch")
    if type(error).__name__.startswith(refused) or any(word in text for word in refused) or " 403" in text:
        return CredentialsError(message, next_step="check the AWS credentials and the bucket's policy")
    return UnavailableError(message, next_step="check the endpoint and the network; the same command may be run again")
