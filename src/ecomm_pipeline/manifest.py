"""The manifest of an extract: what its files are, and the proof of what they hold."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from ecomm_pipeline.errors import BadDataError

if TYPE_CHECKING:
    import builtins

__all__ = ["Column", "ExtractFile", "Manifest", "ManifestWindow"]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Column(_Strict):
    """A column as Postgres declares it; `type` as `format_type` writes it, such as `numeric(12,4)`."""

    name: str
    type: str


class ExtractFile(_Strict):
    """One object of an extract; `bytes` and `sha256` are of the object as stored, `uncompressed_bytes` of the CSV."""

    name: str
    rows: int
    bytes: int
    uncompressed_bytes: int
    sha256: str


class ManifestWindow(_Strict):
    """The half-open window of `updated_at` that was read."""

    since: datetime
    until: datetime


class Manifest(_Strict):
    """What one run extracted of one table for one date.

    `snapshot` is `pg_current_snapshot()` of the transaction that read it, `snapshot_at` its start. `max_updated_at`
    is None for an empty window. Written last: files that no manifest lists do not exist.
    """

    version: Literal[1] = 1
    table: str
    date: str
    run_id: str
    window: ManifestWindow
    snapshot: str
    snapshot_at: datetime
    rows: int
    bytes: int
    files: tuple[ExtractFile, ...]
    columns: tuple[Column, ...]
    max_updated_at: datetime | None

    def to_json(self) -> builtins.bytes:
        """Write it, indented for people."""
        return self.model_dump_json(indent=1).encode()

    @classmethod
    def from_json(cls, content: builtins.bytes, *, key: str) -> Manifest:
        """Read it. Raises `BadDataError`, naming `key`, when it is not a manifest of this version."""
        try:
            return cls.model_validate_json(content)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            message = f"{key} is not a manifest: {where or 'it'}: {first['msg']}"
            raise BadDataError(
                message, next_step="extract the date again; the new run's manifest replaces it"
            ) from error
