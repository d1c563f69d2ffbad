"""What `Store` relies on of S3: whole objects, streams that appear at their end, listings, ends of open uploads.

Under `contract-tests/` of the bucket; the objects are removed afterwards.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

import boto3
import pytest

from ecomm_pipeline.errors import MissingSourceError
from ecomm_pipeline.settings import Store as StoreSettings
from ecomm_pipeline.store import PART_SIZE, Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture(scope="module")
def store(settings: Callable[[type[Any]], Any], environment: dict[str, str]) -> Iterator[Store]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            if name.startswith("AWS_"):
                patch.setenv(name, value)
        yield Store(settings(StoreSettings))


@pytest.fixture(scope="module")
def client(store: Store) -> Any:
    return boto3.client("s3", endpoint_url=store.settings.endpoint, region_name=store.settings.region)


@pytest.fixture(scope="module")
def folder(store: Store, client: Any) -> Iterator[str]:
    name = "/".join(part for part in (store.settings.prefix, "contract-tests", uuid.uuid4().hex) if part)
    yield name
    keys = [{"Key": key} for key in store.keys(name)]
    for start in range(0, len(keys), 1000):
        client.delete_objects(Bucket=store.settings.bucket, Delete={"Objects": keys[start : start + 1000]})


def test_an_object_is_read_as_it_was_written_last(store, folder):
    key = f"{folder}/date=2026-01-02/run=20260102T180000Z-1f3a/part-00000.csv.gz"
    assert store.get(key) is None
    for content in (b"first", bytes(range(256)), b""):
        store.put(key, content)
        assert store.get(key) == content


def test_listings_show_what_was_just_written_sorted_and_more_than_a_page(store, folder):
    names = [f"{folder}/many/{number:04}.json" for number in range(1001)]
    store.put_all(dict.fromkeys(names, b"{}"))
    store.put(f"{folder}/many-more/0000.json", b"{}")
    assert store.keys(f"{folder}/many") == names
    assert store.folders(folder)[-2:] == ["many", "many-more"]
    assert store.keys(f"{folder}/none") == []


def test_a_stream_appears_whole_when_it_ends(store, folder):
    key, content = f"{folder}/stream", b"0123456789abcdef" * (2 * PART_SIZE // 16) + b"end"
    with store.writer(key) as writer:
        writer.write(content)
        assert store.get(key) is None
    assert b"".join(store.chunks(key)) == content


def write_and_fail(writer: Any) -> None:
    writer.write(b"x" * (PART_SIZE + 1))
    raise MemoryError


def test_a_stream_that_is_broken_off_never_appears(store, folder):
    key = f"{folder}/broken"
    with pytest.raises(MemoryError), store.writer(key) as writer:
        write_and_fail(writer)
    assert store.get(key) is None


def test_an_open_upload_is_listed_under_its_folder_and_can_be_ended(store, client, folder):
    bucket, key = store.settings.bucket, f"{folder}/open/part-00000.csv"
    upload = client.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"]
    client.upload_part(Bucket=bucket, Key=key, UploadId=upload, PartNumber=1, Body=b"x")
    assert store.abort_uploads(f"{folder}/elsewhere") == 0
    assert store.abort_uploads(f"{folder}/open") == 1
    assert store.abort_uploads(f"{folder}/open") == 0
    assert store.get(key) is None


def test_what_is_missing_is_told_from_a_bucket_that_is_missing(store, folder):
    with pytest.raises(MissingSourceError, match="none does not exist"):
        list(store.chunks(f"{folder}/none"))
    elsewhere = Store(store.settings.model_copy(update={"bucket": f"ecomm-contract-{uuid.uuid4().hex}"}))
    with pytest.raises(MissingSourceError, match="bucket"):
        elsewhere.get("x")
