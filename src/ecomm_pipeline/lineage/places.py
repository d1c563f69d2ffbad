"""The names of data sets, by what the settings say of where they are.

Upstream: https://openlineage.io/docs/spec/naming/#dataset-naming.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, TypeVar, cast
from urllib.parse import urlsplit

from ecomm_pipeline.layout import Layout
from ecomm_pipeline.settings import Business, Databricks, Postgres, Reconciler, Store, Tableau

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Name", "Places"]

Name = tuple[str, str]
"""A data set's namespace and name."""
_Group = TypeVar("_Group")


@dataclass(frozen=True, slots=True)
class Places:
    """Where data sets are: the groups of a stage's settings, which has those of the services that it talks to."""

    groups: Mapping[type, Any]

    @classmethod
    def of(cls, settings: Any) -> Places:  # noqa: ANN401 (each stage's own settings: a dataclass of groups)
        """Take the groups out of a stage's settings."""
        groups = [getattr(settings, field.name) for field in fields(settings)]
        return cls({type(group): group for group in groups})

    def _get(self, kind: type[_Group]) -> _Group:
        return cast("_Group", self.groups[kind])

    @property
    def tables(self) -> tuple[str, ...]:
        """The source tables."""
        return self._get(Business).tables

    @property
    def source_is_asked_again(self) -> bool:
        """Whether a reconciliation reads the source."""
        return self._get(Reconciler).check_source

    def source(self, table: str) -> Name:
        """Name a source table."""
        from openlineage.client.naming import dataset

        at = self._get(Postgres)
        named = dataset.Postgres(at.host, str(at.port), at.database, at.db_schema, table)
        return named.get_namespace(), named.get_name()

    def extracts(self, table: str) -> Name:
        """Name the folder of all extracts of a table: those of one date would be another data set each day."""
        from openlineage.client.naming import dataset

        at = self._get(Store)
        named = dataset.S3(at.bucket, Layout(at.prefix).extracts_of(table))
        return named.get_namespace(), named.get_name()

    def lakehouse(self, name: str) -> Name:
        """Name `schema.table` of Unity Catalog, for which the client has no helper."""
        at = self._get(Databricks)
        return f"unitycatalog://{_authority(at.host)}", f"{at.catalog}.{name}"

    def tableau(self, item: str) -> Name:
        """Name what Tableau refreshes; the specification has no name for it, so its general rule makes one."""
        at = self._get(Tableau)
        return f"tableau://{_authority(at.server)}", f"{at.site or 'default'}/{item}"


def _authority(url: str) -> str:
    """Give host and port of a URL; a host may be written without a scheme."""
    return urlsplit(url if "//" in url else f"//{url}").netloc
