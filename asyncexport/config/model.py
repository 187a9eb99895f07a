"""The settings as a model: every table and key, with its default and its type.

1. A duration is written "10s" in the file; its attribute here has the suffix `_seconds`.
2. Pydantic reads no source by itself: `Settings.from_layers` takes the layers that `load_settings` found, the highest
   precedence first.
3. Values have the types that the rest of the program uses: paths, enum members, seconds. The exception is a relative
   date such as "90d", which stays text because settings have no clock.
"""

from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from asyncexport.config.durations import write_duration
from asyncexport.config.fields import (
    AccessName,
    Ages,
    Amount,
    BaseUrl,
    ClockName,
    Count,
    Date,
    Directory,
    Duration,
    Fields,
    Filled,
    FormatName,
    Headers,
    KeyFile,
    Name,
    Number,
    OrderName,
    OutputFile,
    PingUrl,
    PositiveDuration,
    PreferName,
    PresentFile,
    Proxy,
    ScopeName,
    Size,
    SplitWidth,
    Switch,
    Text,
    Timezone,
    TypeName,
    WholeSeconds,
    Width,
)
from asyncexport.config.load_fields import Mirror
from asyncexport.config.load_model import LoadSettings
from asyncexport.config.table import Table, default
from asyncexport.core.access import Access
from asyncexport.core.admission import BudgetScope, Prefer
from asyncexport.core.bundles import DAY, read_moment
from asyncexport.core.exports import Definition, Export, Format, Type
from asyncexport.core.listen_address import ListenAddress
from asyncexport.core.old_order import OldOrder
from asyncexport.core.service_time import ClockTrust


def _at_least_one(tables: tuple[Any, ...]) -> tuple[Any, ...]:
    if not tables:
        raise ValueError("must contain at least one export; leave it out for the default, everyone-events")
    return tables


def _not_shorter(seconds: float, info: ValidationInfo, *, than: str) -> float:
    """Check that a duration is not shorter than an earlier key of its table, whichever of the two is set."""
    least = info.data.get(f"{than}_seconds", 0.0)
    if seconds < least:
        raise ValueError(f"must not be shorter than {than} ({write_duration(least)})")
    return seconds


class ApiSettings(Table):
    """`[api]`: the service and the connection to it."""

    base_url: BaseUrl = "auto"
    api_key_file: KeyFile = Field(default=default(""), repr=False)
    connect_timeout_seconds: PositiveDuration = default("10s")
    read_timeout_seconds: PositiveDuration = default("60s")
    proxy: Proxy = Field(default="", repr=False)
    ca_file: PresentFile = default("")
    headers: Headers = Field(default={}, repr=False)
    clock: ClockName = ClockTrust.NEITHER


class BudgetSettings(Table):
    """`[budget]`: the requests that the service grants."""

    requests_per_minute: Number = 2.0
    burst: Count = 50
    scope: ScopeName = BudgetScope.AUTO


class ConcurrencySettings(Table):
    """`[concurrency]`: how much runs at the same time."""

    operations: Count = 100
    downloads: Count = 4


class PollingSettings(Table):
    """`[polling]`: how running operations are polled."""

    min_interval_seconds: PositiveDuration = default("10s")
    expected_seconds: PositiveDuration = default("5m")
    operation_deadline_seconds: PositiveDuration = default("24h")
    prefer: PreferName = Prefer.THROUGHPUT

    @field_validator("operation_deadline_seconds")
    @classmethod
    def _not_below_expected(cls, seconds: float, info: ValidationInfo) -> float:
        return _not_shorter(seconds, info, than="expected")


class RetrySettings(Table):
    """`[retry]`: what is retried, and for how long."""

    attempts: Count = 5
    before_split: Count = 2
    split_to_seconds: SplitWidth = default("5m")
    backoff_initial_seconds: PositiveDuration = default("1s")
    backoff_max_seconds: PositiveDuration = default("5m")
    outage_seconds: Duration = default("6h")
    first_contact_seconds: PositiveDuration = default("1m")

    @field_validator("backoff_max_seconds")
    @classmethod
    def _not_below_initial(cls, seconds: float, info: ValidationInfo) -> float:
        return _not_shorter(seconds, info, than="backoff_initial")


class DownloadSettings(Table):
    """`[download]`: limits for transfers and rows, and the second check of empty files."""

    min_rate: Number = 1024.0
    max_row: Size = default("64MiB")
    second_look_seconds: Duration = default("60s")


class OutputSettings(Table):
    """`[output]`: where archives go, who may read them, and how long a run takes to stop."""

    directory: Directory = Path("exports")
    access: AccessName = Access.PRIVATE
    grace_seconds: Duration = default("30s")
    mirror: Mirror = ""

    @property
    def chosen_access(self) -> Access | None:
        """`access` if it is set, else None."""
        return self.access if "access" in self.model_fields_set else None


class NightlySettings(Table):
    """`[nightly]`: the range, the refreshes and the audits of `nightly`."""

    since: Date = ""
    refresh_seconds: Ages = default("0h")
    order: OrderName = OldOrder.NEWEST
    audit: Amount = 0

    def since_at(self, now: float) -> int | None:
        """Return the time that `since` means at the time `now`, both in seconds since 1970; None if it is empty."""
        return read_moment(self.since, now=now) if self.since else None


class SentinelSettings(Table):
    """`[sentinel]`: warnings about stored time with far fewer rows than usual."""

    enabled: Switch = True
    fail: Switch = False


class _ListenSettings(Table):
    """A table with an address that a run may serve something at.

    Attributes:
        table: The name of the table, for messages.
        served: What is served, for messages.
        example: An address, for messages.
    """

    table: ClassVar[str]
    served: ClassVar[str]
    example: ClassVar[str]
    public: Switch = False
    listen: Text = ""

    @property
    def address(self) -> ListenAddress | None:
        """The address to listen on; None if nothing is served."""
        return ListenAddress.read(self.listen) if self.listen else None

    @field_validator("listen")
    @classmethod
    def _require_consent(cls, listen: str, info: ValidationInfo) -> str:
        if not listen:
            return listen
        if ListenAddress.read(listen, example=cls.example).is_public and not info.data.get("public"):
            raise ValueError(
                f"lets other machines read the {cls.served}: choose a host such as 127.0.0.1,"
                f" or set [{cls.table}] public = true"
            )
        return listen


class MetricsSettings(_ListenSettings):
    """`[metrics]`: metrics for Prometheus."""

    table = "metrics"
    served = "metrics"
    example = "127.0.0.1:9464"
    textfile: OutputFile = default("")


class DashboardSettings(_ListenSettings):
    """`[dashboard]`: the status page that runs serve."""

    table = "dashboard"
    served = "page"
    example = "127.0.0.1:8766"


class PingSettings(Table):
    """`[ping]`: the monitoring service that runs report to."""

    url: PingUrl = Field(default="", repr=False)
    timeout_seconds: PositiveDuration = default("10s")


class ExportSettings(Table):
    """One `[[export]]`."""

    name: Name = "everyone-events"
    segment: Filled = "everyone"
    type: TypeName = Type.EVENT
    format: FormatName = Format.NDJSON
    bundle_seconds: Width = default("30m")
    settle_seconds: WholeSeconds = default("26h")
    fields: Fields = ()
    scope: Text = ""
    timezone: Timezone = ""

    @model_validator(mode="before")
    @classmethod
    def _default_to_whole_days(cls, table: Any) -> Any:
        if isinstance(table, dict) and table.get("type") == Type.INDIVIDUAL:
            return {"bundle": "24h", **table}
        return table

    @field_validator("bundle_seconds")
    @classmethod
    def _require_whole_days(cls, seconds: float, info: ValidationInfo) -> float:
        """Require bundles of a day: the rows are totals at the time of the export (API reference, section 8)."""
        if info.data.get("type") is Type.INDIVIDUAL and seconds != DAY:
            raise ValueError("must be 24h for individuals, because their rows are totals")
        return seconds

    @field_validator("scope")
    @classmethod
    def _require_events(cls, scope: str, info: ValidationInfo) -> str:
        """Refuse a scope for individuals: the service knows it for events only (API reference, section 3.1)."""
        if info.data.get("type") is Type.INDIVIDUAL and scope:
            raise ValueError("must not be set for individuals")
        return scope

    def to_export(self) -> Export:
        """Convert to the type that the rest of the program uses."""
        return Export(
            name=self.name,
            definition=Definition(self.segment, self.type, self.format, self.fields, self.scope, self.timezone),
            bundle_seconds=int(self.bundle_seconds),
            settle_seconds=int(self.settle_seconds),
        )


class _LayerSource(PydanticBaseSettingsSource):
    """A settings source with the unchanged values of one layer."""

    def __init__(self, settings_class: type[BaseSettings], values: dict[str, Any]) -> None:
        super().__init__(settings_class)
        self._values = values

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:  # noqa: ARG002 - its signature
        """Return nothing, because all values are given by `__call__`."""
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        return self._values


class Settings(BaseSettings):
    """All settings; the API key is not one of them.

    Attributes:
        tables: The `[[export]]` tables as written; use `exports` instead.
    """

    model_config = SettingsConfigDict(frozen=True, extra="forbid", strict=True)

    api: ApiSettings = ApiSettings()
    budget: BudgetSettings = BudgetSettings()
    concurrency: ConcurrencySettings = ConcurrencySettings()
    polling: PollingSettings = PollingSettings()
    retry: RetrySettings = RetrySettings()
    download: DownloadSettings = DownloadSettings()
    output: OutputSettings = OutputSettings()
    nightly: NightlySettings = NightlySettings()
    sentinel: SentinelSettings = SentinelSettings()
    metrics: MetricsSettings = MetricsSettings()
    dashboard: DashboardSettings = DashboardSettings()
    ping: PingSettings = PingSettings()
    load: LoadSettings = LoadSettings()
    tables: Annotated[tuple[ExportSettings, ...], Field(strict=False), AfterValidator(_at_least_one)] = Field(
        default=(ExportSettings(),), alias="export"
    )

    @classmethod
    def from_layers(cls, *layers: dict[str, Any]) -> Self:
        """Make settings from nested dicts, the highest precedence first.

        Raises:
            pydantic.ValidationError: a value is not valid; `load_settings` turns the error into messages for users.
        """
        given: dict[str, Any] = {"_layers": layers}
        return cls(**given)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - pydantic's signature
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Use the layers in place of pydantic's own sources, which silently ignore a misspelt variable."""
        layers = init_settings().get("_layers")
        return (init_settings,) if layers is None else tuple(_LayerSource(settings_cls, values) for values in layers)

    @property
    def exports(self) -> tuple[Export, ...]:
        """The exports, in the order of the file."""
        return tuple(table.to_export() for table in self.tables)
