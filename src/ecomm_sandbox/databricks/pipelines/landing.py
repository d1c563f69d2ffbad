"""The files that Auto Loader reads: in S3, by obstore, or in a local folder."""

from __future__ import annotations

import fnmatch
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ecomm_sandbox.databricks.errors import SandboxError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from ecomm_sandbox.databricks.config import Config

_GLOB = re.compile(r"[*?\[{]")


@dataclass(frozen=True, slots=True)
class File:
    """A file that is complete: `url` is what `_metadata.file_path` shows."""

    url: str
    key: str
    size: int
    modified: datetime


class Landing:
    """Lists and reads files by URL: `s3://bucket/…`, `file:/…` or a path."""

    def __init__(self, config: Config) -> None:
        """Endpoint and credentials for `s3://` come from `config`."""
        self._config = config
        self._stores: dict[str, Any] = {}

    def files(self, url: str, name_glob: str | None) -> list[File]:
        """All files under a folder or a glob, by name; hidden ones (`_…`, `.…`) left out, as Spark does."""
        scheme, bucket, path = _split(url)
        fixed, pattern = _prefix(path)
        root = f"{scheme}://{bucket}/" if scheme else "file://"
        found = [
            File(root + key if scheme else f"file://{key}", key, size, modified)
            for key, size, modified in self._list(scheme, bucket, fixed)
            if _visible(key[len(fixed) :])
            and (pattern is None or pattern.match(key))
            and (name_glob is None or fnmatch.fnmatchcase(key.rsplit("/", 1)[-1], name_glob))
        ]
        return sorted(found, key=lambda file: file.key)

    def read(self, url: str, file: File) -> bytes:
        """The file's bytes; `url` is the one it was listed under."""
        scheme, bucket, _ = _split(url)
        if not scheme:
            return Path(file.key).read_bytes()
        return bytes(self._store(bucket).get(file.key).bytes())

    def _list(self, scheme: str, bucket: str, prefix: str) -> Iterator[tuple[str, int, datetime]]:
        if not scheme:
            yield from _local(Path(prefix))
            return
        for page in self._store(bucket).list(prefix or None):
            for item in page:
                yield item["path"], item["size"], item["last_modified"]

    def _store(self, bucket: str) -> Any:  # noqa: ANN401 - obstore's stores share no base class
        if bucket not in self._stores:
            self._stores[bucket] = self._open(bucket)
        return self._stores[bucket]

    def _open(self, bucket: str) -> Any:  # noqa: ANN401 - as above
        from obstore.store import S3Store

        config = self._config
        options: dict[str, Any] = {"region": config.landing_region}
        if config.landing_endpoint:
            options |= {"endpoint": config.landing_endpoint, "virtual_hosted_style_request": False}
        if config.landing_access_key:
            options |= {
                "access_key_id": config.landing_access_key,
                "secret_access_key": config.landing_secret_key,
            }
        else:
            import boto3
            from obstore.auth.boto3 import Boto3CredentialProvider

            options["credential_provider"] = Boto3CredentialProvider(boto3.Session(region_name=config.landing_region))
        return S3Store(bucket, client_options={"allow_http": True, "timeout": "60s"}, **options)


def _split(url: str) -> tuple[str, str, str]:
    """Scheme ("" for local), bucket and path."""
    parts = urlsplit(url)
    if parts.scheme in ("s3", "s3a", "s3n"):
        return "s3", parts.netloc, parts.path.lstrip("/") + (f"?{parts.query}" if parts.query else "")
    if parts.scheme in ("", "file"):
        return "", "", parts.path if parts.scheme else url
    message = f"cannot read {url}: the sandbox's Auto Loader knows s3:// and local paths"
    raise SandboxError(message)


def _prefix(path: str) -> tuple[str, re.Pattern[str] | None]:
    """The folder before the first glob character, and the pattern of the whole path if it has one."""
    found = _GLOB.search(path)
    if found is None:
        return path.rstrip("/") + "/", None
    fixed = path[: path.rfind("/", 0, found.start()) + 1]
    translated = fnmatch.translate(path.rstrip("/")).replace(".*", "[^/]*")
    return fixed, re.compile(translated.removesuffix(r"\z").removesuffix(r"\Z") + r"(?:/.*)?\Z")


def _visible(relative: str) -> bool:
    parts = relative.split("/")
    return not any(part.startswith((".", "_")) and "=" not in part for part in parts)


def _local(folder: Path) -> Iterator[tuple[str, int, datetime]]:
    from datetime import UTC, datetime

    if not folder.is_dir():
        return
    for path in folder.rglob("*"):
        if path.is_file():
            state = path.stat()
            yield str(path), state.st_size, datetime.fromtimestamp(state.st_mtime, tz=UTC)
