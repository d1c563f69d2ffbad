"""Settings: from the environment, in groups; a stage reads only the groups it needs.

Each field's docstring gives its meaning, unit, default and why. The environment is read in `cli.py` only, by `load`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from datetime import time
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_type_hints

from pydantic import AfterValidator, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from ecomm_pipeline.errors import ConfigurationError

__all__ = [
    "GROUPS",
    "Business",
    "Databricks",
    "DbtCloud",
    "DbtRunner",
    "DbtRunnerSettings",
    "DltTrigger",
    "DltTriggerSettings",
    "Exporter",
    "ExporterSettings",
    "Extractor",
    "ExtractorSettings",
    "KpiGate",
    "KpiGateSettings",
    "Nightly",
    "Postgres",
    "Reconciler",
    "ReconcilerSettings",
    "Run",
    "Store",
    "Tableau",
    "TableauRefresherSettings",
    "load",
]

DEFAULT_TABLES = ("orders", "products", "customers", "order_items")


def _words(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _split(value: object) -> object:
    """Read `a, b` as a tuple, as people write lists in an environment."""
    return _words(value) if isinstance(value, str) else value


def _not_empty(value: tuple[str, ...]) -> tuple[str, ...]:
    if not value:
        message = "names nothing"
        raise ValueError(message)
    return value


def _shares(text: str) -> dict[str, Decimal]:
    """Read `net_revenue=50%, orders=40%` as shares by name. Raises `ValueError` for what is not of this form."""
    parts = [re.fullmatch(r"([a-z][a-z0-9_]*) *= *(\d+(?:\.\d+)?) *%", part) for part in _words(text)]
    if not all(parts) or len({part[1] for part in parts if part}) < len(parts):
        message = f"{text!r} does not name KPIs, each once, with their percentages, as net_revenue=50%,orders=40%"
        raise ValueError(message)
    return {part[1]: Decimal(part[2]) / 100 for part in parts if part}


def _shares_can_be_read(text: str) -> str:
    _shares(text)
    return text


def _group(prefix: str) -> SettingsConfigDict:
    return SettingsConfigDict(env_prefix=prefix, frozen=True, use_attribute_docstrings=True, extra="ignore")


class _Group(BaseSettings):
    @model_validator(mode="before")
    @classmethod
    def _empty_is_unset(cls, values: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in values.items() if value != ""}


class Business(_Group):
    """What the business is: its zone and its tables."""

    model_config = _group("ECOMM_")

    business_timezone: str = "Asia/Ho_Chi_Minh"
    """IANA zone in which a business date begins and ends. Default: where the company is."""
    tables: Annotated[tuple[str, ...], NoDecode, AfterValidator(_not_empty)] = DEFAULT_TABLES
    """Source tables, comma-separated. Default: the four of the contract."""

    @model_validator(mode="before")
    @classmethod
    def _split_tables(cls, values: dict[str, Any]) -> dict[str, Any]:
        return {**values, "tables": _split(values["tables"])} if values.get("tables") else values


class Run(_Group):
    """Which run this is part of."""

    model_config = _group("ECOMM_")

    run_id: str | None = None
    """Shared by the stages of a run and their retries; begins with a UTC second. Default: a new one."""
    trigger: Literal["cron", "manual", "backfill", "local"] = "manual"
    """What began the run."""


class Nightly(_Group):
    """When the night of a business date is: times of the day after it, in the business zone."""

    model_config = _group("ECOMM_NIGHTLY_")

    starts: time = time(1)
    """When the nightly run begins; as the CronWorkflow's schedule. Default: 01:00."""
    gate: time = time(5)
    """When dbt may begin. Default: 05:00."""
    due: time = time(6)
    """When dashboards should show the date. Default: 06:00, the gate and the runbook's times for dbt and Tableau."""


class Postgres(_Group):
    """The source database."""

    model_config = _group("ECOMM_POSTGRES_")

    host: str
    """Host name or address of the server."""
    port: int = Field(default=5432, ge=1, le=65535)
    """TCP port. Default: Postgres' own."""
    database: str
    """Database that holds the tables."""
    user: str
    """A role that may only read."""
    password: SecretStr
    """The role's password."""
    db_schema: str = Field(default="public", validation_alias="ECOMM_POSTGRES_SCHEMA")
    """Schema that holds the tables. Default: Postgres' own."""
    sslmode: Literal["disable", "allow", "prefer", "require", "verify-ca", "verify-full"] = "prefer"
    """libpq's sslmode. Use `verify-full` across a network you do not own."""
    connect_timeout: int = Field(default=10, ge=1)
    """Seconds until a connection attempt is given up. Default: 10, long enough for a failover's first answer."""


class Store(_Group):
    """The bucket. Credentials come from boto3's chain: AWS_… variables, profiles, IRSA, instance roles."""

    model_config = _group("ECOMM_STORE_")

    bucket: str
    """Bucket of extracts, ledger and artifacts."""
    prefix: str = ""
    """Folder in the bucket that everything is under. Default: none."""
    endpoint: str | None = None
    """URL of an S3-compatible service. Default: AWS itself."""
    region: str = "us-east-1"
    """Region of the bucket."""


class Databricks(_Group):
    """The workspace, and how to sign in: a token, or a service principal's client id and secret."""

    model_config = _group("ECOMM_DATABRICKS_")

    host: str
    """URL of the workspace."""
    token: SecretStr | None = None
    """Personal access token."""
    client_id: str | None = None
    """Application id of a service principal."""
    client_secret: SecretStr | None = None
    """OAuth secret of that service principal."""
    warehouse_id: str
    """SQL warehouse that queries and dbt run on."""
    catalog: str = "ecomm"
    """Unity Catalog catalog with the schemas bronze, silver, gold and kpi."""

    @model_validator(mode="after")
    def _one_way_to_sign_in(self) -> Databricks:
        if self.token is None and (self.client_id is None or self.client_secret is None):
            message = (
                "set ECOMM_DATABRICKS_TOKEN, or both ECOMM_DATABRICKS_CLIENT_ID and ECOMM_DATABRICKS_CLIENT_SECRET"
            )
            raise ValueError(message)
        return self


class Tableau(_Group):
    """The Tableau site."""

    model_config = _group("ECOMM_TABLEAU_")

    server: str
    """URL of the server."""
    site: str = ""
    """Content URL of the site. Default: the default site."""
    token_name: str
    """Name of a personal access token. A token holds one session: give each deployment its own."""
    token_value: SecretStr
    """That token's secret."""
    parallel: int = Field(default=2, ge=1)
    """Refreshes that run at once. Default: 2, a small server's number of backgrounders."""
    timeout: int = Field(default=1800, ge=1)
    """Seconds until waiting for all refreshes together is given up. Default: 30 min, the runbook's limit."""
    poll_interval: float = Field(default=5, gt=0)
    """Seconds between two looks at a job."""
    proof_timeout: float = Field(default=120, ge=0)
    """Seconds that Tableau may take to show an extract's new time after its job. Default: 120; its catalog lags."""
    datasources: Annotated[tuple[str, ...], NoDecode] = ()
    """Names to refresh, comma-separated. Default: those that the exposures of the dbt project name."""

    @model_validator(mode="before")
    @classmethod
    def _split_datasources(cls, values: dict[str, Any]) -> dict[str, Any]:
        return {**values, "datasources": _split(values["datasources"])} if values.get("datasources") else values


class Extractor(_Group):
    """How a table is read and written."""

    model_config = _group("ECOMM_EXTRACTOR_")

    lookback: int = Field(default=7200, ge=0, validation_alias="ECOMM_LOOKBACK_SECONDS")
    """Seconds by which a window begins early, for transactions that committed late. Default: 2 h."""
    compression: Literal["gzip", "none"] = "gzip"
    """`gzip` (level 1, by isal) or `none`. Default: gzip, faster than plain over any network."""
    statement_timeout: int = Field(default=7200, ge=1)
    """Seconds until Postgres ends the read. Default: 2 h, the runbook's expectation for extraction."""
    lock_timeout: int = Field(default=30, ge=1)
    """Seconds to wait for a lock (a migration holds one). Default: 30."""


class DltTrigger(_Group):
    """Which pipeline is updated, and how long that may take."""

    model_config = _group("ECOMM_DLT_")

    pipeline_id: str = Field(validation_alias="ECOMM_DATABRICKS_PIPELINE_ID")
    """Id of the declarative pipeline."""
    queue_timeout: int = Field(default=3600, ge=1)
    """Seconds until waiting for our turn and for compute is given up. Default: 1 h."""
    run_timeout: int = Field(default=9000, ge=1)
    """Seconds until a running update is given up. Default: 2.5 h, the runbook's limit."""
    retry_grace: float = Field(default=30, ge=0)
    """Seconds in which the platform may begin a retry of its own after an update failed. Default: 30."""
    poll_interval: float = Field(default=5, gt=0)
    """Seconds between two looks at the update."""


class DbtRunner(_Group):
    """The dbt project and its limits."""

    model_config = _group("ECOMM_DBT_")

    project_dir: Path = Field(default_factory=lambda: Path("dbt"))
    """Folder of the dbt project. Default: `dbt` here."""
    threads: int = Field(default=4, ge=1)
    """Models that dbt builds at once. Default: 4."""
    warmup_timeout: int = Field(default=600, ge=1)
    """Seconds until waiting for the SQL warehouse to start is given up. Default: 10 min."""
    timeout: int = Field(default=3600, ge=1)
    """Seconds until dbt is stopped. Default: 1 h, three times the runbook's expectation."""


class DbtCloud(_Group):
    """The job of dbt Cloud (the dbt platform) that builds the KPI tables, for those who keep it there."""

    model_config = _group("ECOMM_DBT_CLOUD_")

    job_id: int | None = Field(default=None, ge=1)
    """Id of the job; its page's URL ends in it. Default: none, dbt runs in the pod of dbt-runner."""
    account_id: int | None = Field(default=None, ge=1)
    """Id of the account that the job is in."""
    token: SecretStr | None = None
    """Service account token that may run jobs (permission set Job Admin), or a personal access token."""
    host: str = "cloud.getdbt.com"
    """Access URL of the account, such as ab123.us1.dbt.com. Default: that of accounts without one of their own."""
    queue_timeout: int = Field(default=1800, ge=1)
    """Seconds until waiting for the run to begin is given up. Default: 30 min."""
    run_timeout: int = Field(default=3600, ge=1)
    """Seconds until a running run is given up. Default: 1 h, three times the runbook's expectation."""
    poll_interval: float = Field(default=10, gt=0)
    """Seconds between two looks at the run. Default: 10; an account has 5000 requests a minute."""

    @model_validator(mode="after")
    def _whole(self) -> DbtCloud:
        if self.job_id is not None and (self.account_id is None or self.token is None):
            message = "set ECOMM_DBT_CLOUD_ACCOUNT_ID and ECOMM_DBT_CLOUD_TOKEN with ECOMM_DBT_CLOUD_JOB_ID"
            raise ValueError(message)
        return self


class Reconciler(_Group):
    """What counts as reconciled."""

    model_config = _group("ECOMM_RECONCILER_")

    check_source: bool = True
    """Whether Postgres is asked again. Default: yes; switch off where the source may only be read at night."""


class KpiGate(_Group):
    """How far a KPI may move before a person is asked, and dashboards wait."""

    model_config = _group("ECOMM_KPI_GATE_")

    bounds: Annotated[str, AfterValidator(_shares_can_be_read)] = ""
    """Columns of kpi.agg_sales_kpi and how far each may move, as `net_revenue=50%,orders=40%`. Default: no gate."""
    weeks: int = Field(default=5, ge=1, le=52)
    """Weeks before the date of which the same weekday tells what is expected, by its median. Default: 5."""
    weeks_needed: int = Field(default=3, ge=1)
    """How many of them must have the KPI; with fewer it is not judged. Default: 3."""

    @model_validator(mode="after")
    def _can_be_had(self) -> KpiGate:
        if self.weeks_needed > self.weeks:
            message = f"ECOMM_KPI_GATE_WEEKS_NEEDED is {self.weeks_needed}, and there are {self.weeks} weeks"
            raise ValueError(message)
        return self

    @property
    def shares(self) -> dict[str, Decimal]:
        """The bounds by KPI, as shares: 0.5 for 50 %."""
        return _shares(self.bounds)


class Exporter(_Group):
    """How far back metrics go, and what is expected of a stage. Seconds are of one date; a range may take as many."""

    model_config = _group("ECOMM_EXPORTER_")

    days: int = Field(default=14, ge=2, le=100)
    """Business dates that have metrics of their own, up to yesterday. Default: 14; each is about 60 series."""
    refresh_interval: float = Field(default=30, gt=0)
    """Seconds between two looks at the ledger. Default: 30, as often as Prometheus usually asks."""
    extractor_expected: int = Field(default=3600, ge=1)
    """Seconds that the extraction of a table should take at most. Default: 1 h of the runbook's 2.5 h."""
    dlt_trigger_expected: int = Field(default=5400, ge=1)
    """Seconds that Bronze, Silver and Gold should take at most. Default: 1.5 h of the runbook's 2.5 h."""
    reconciler_expected: int = Field(default=900, ge=1)
    """Seconds that a reconciliation should take at most. Default: 15 min."""
    dbt_runner_expected: int = Field(default=1200, ge=1)
    """Seconds that dbt should take at most. Default: 20 min, as the runbook says."""
    tableau_refresher_expected: int = Field(default=1800, ge=1)
    """Seconds that the Tableau refreshes should take at most. Default: 30 min, as the runbook says."""

    def expected(self, stage: str) -> int:
        """Seconds that a stage should take at most for one date."""
        return int(getattr(self, f"{stage.replace('-', '_')}_expected"))


@dataclass(frozen=True, slots=True)
class ExtractorSettings:
    """What the extractor reads of the environment."""

    business: Business
    run: Run
    postgres: Postgres
    store: Store
    extractor: Extractor


@dataclass(frozen=True, slots=True)
class DltTriggerSettings:
    """What dlt-trigger reads of the environment."""

    business: Business
    run: Run
    store: Store
    databricks: Databricks
    dlt: DltTrigger


@dataclass(frozen=True, slots=True)
class DbtRunnerSettings:
    """What dbt-runner reads of the environment."""

    business: Business
    run: Run
    store: Store
    databricks: Databricks
    dbt: DbtRunner
    dbt_cloud: DbtCloud


@dataclass(frozen=True, slots=True)
class TableauRefresherSettings:
    """What tableau-refresher reads of the environment."""

    business: Business
    run: Run
    store: Store
    databricks: Databricks
    dbt: DbtRunner
    tableau: Tableau


@dataclass(frozen=True, slots=True)
class ReconcilerSettings:
    """What the reconciler reads of the environment."""

    business: Business
    run: Run
    postgres: Postgres
    store: Store
    databricks: Databricks
    extractor: Extractor
    reconciler: Reconciler


@dataclass(frozen=True, slots=True)
class KpiGateSettings:
    """What kpi-gate reads of the environment."""

    business: Business
    run: Run
    store: Store
    databricks: Databricks
    kpi_gate: KpiGate


@dataclass(frozen=True, slots=True)
class ExporterSettings:
    """What the exporter reads of the environment."""

    business: Business
    nightly: Nightly
    store: Store
    exporter: Exporter


GROUPS: tuple[type[BaseSettings], ...] = (
    Business,
    Nightly,
    Run,
    Postgres,
    Store,
    Databricks,
    Tableau,
    Extractor,
    DltTrigger,
    DbtRunner,
    DbtCloud,
    Reconciler,
    KpiGate,
    Exporter,
)
"""Every group, in the order of the documentation."""

T = TypeVar("T")


def load(kind: type[T]) -> T:
    """Read the groups that `kind` (a dataclass of groups, or one group) is made of from the environment.

    Raises `ConfigurationError` that lists every missing or wrong variable at once, by the name it was looked for under.
    """
    if issubclass(kind, BaseSettings):
        return _load_groups({"only": kind})["only"]  # type: ignore[no-any-return]
    hints = get_type_hints(kind)
    return kind(**_load_groups({field.name: hints[field.name] for field in fields(kind)}))  # type: ignore[arg-type]


def _load_groups(groups: dict[str, Any]) -> dict[str, Any]:
    loaded: dict[str, Any] = {}
    problems: list[str] = []
    for name, group in groups.items():
        try:
            loaded[name] = group()
        except ValidationError as error:
            problems += [_problem(group, detail) for detail in error.errors()]
    if problems:
        count = f"{len(problems)} setting{'s are' if len(problems) > 1 else ' is'} missing or wrong"
        message = f"{count}: {'; '.join(problems)}"
        raise ConfigurationError(message, next_step="set them in the environment; docs/settings.md tells each one")
    return loaded


def _problem(group: type[BaseSettings], detail: Any) -> str:  # noqa: ANN401 (pydantic's ErrorDetails)
    reason = str(detail["msg"]).removeprefix("Value error, ")
    if not detail["loc"]:
        return reason
    name = variable(group, str(detail["loc"][0]))
    return f"{name} is not set" if detail["type"] == "missing" else f"{name}: {reason}"


def variable(group: type[BaseSettings], field: str) -> str:
    """Give the name of the environment variable that a field of a group is read from."""
    info = group.model_fields.get(field)
    alias = info.validation_alias if info else None
    if alias:
        return str(alias)
    return field if field.startswith("ECOMM_") else f"{group.model_config.get('env_prefix', '')}{field}".upper()
