"""The settings as a model: every table and key, its default, and what may stand in it.

1. Names in the file are those of the design; durations are written "10s" there and are `…_seconds` here.
2. Nothing is read behind the caller's back: `Settings.from_layers` takes what `load_settings` found, the strongest
   first.
3. Values are as the rest of the program uses them: paths, members of enums, seconds. The exception is a relative date,
   such as "90d": it is read against a clock, which settings do not have.
"""

from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from asyncexport.config.durations import write_duration
from asyncexport.config.fields import (
    AccessName,
    Ages,
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
    PreferName,
    PresentFile,
    Proxy,
    ScopeName,
    Size,
    SomeTime,
    Text,
    Timezone,
    TypeName,
    WholeSeconds,
    Width,
)
from asyncexport.core.access import Access
from asyncexport.core.admission import BudgetScope, Prefer
from asyncexport.core.bundles import DAY, read_moment
from asyncexport.core.exports import Definition, Export, Format, Type
from asyncexport.core.service_time import ClockTrust


def _at_least_one(tables: tuple[Any, ...]) -> tuple[Any, ...]:
    if not tables:
        raise ValueError("must contain at least one export; leave it out for the default, everyone-events")
    return tables


def _not_shorter(seconds: float, info: ValidationInfo, *, than: str) -> float:
    """Of two keys of a table, the later one; told even where a third is at fault, and where only the first is set."""
    least = info.data.get(f"{than}_seconds", 0.0)
    if seconds < least:
        raise ValueError(f"must not be shorter than {than} ({write_duration(least)})")
    return seconds


def _default(written: str) -> Any:
    """As it stands in the file; it is read like any other value."""
    return written


class _Table(BaseModel):
    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        validate_default=True,
        alias_generator=lambda name: name.removesuffix("_seconds"),
    )


class ApiSettings(_Table):
    """`[api]`: where the service is, and the way to it."""

    base_url: BaseUrl = "auto"
    api_key_file: KeyFile = Field(default=_default(""), repr=False)
    connect_timeout_seconds: SomeTime = _default("10s")
    read_timeout_seconds: SomeTime = _default("60s")
    proxy: Proxy = Field(default="", repr=False)
    ca_file: PresentFile = _default("")
    headers: Headers = Field(default={}, repr=False)
    clock: ClockName = ClockTrust.NEITHER


class BudgetSettings(_Table):
    """`[budget]`: the requests the service grants."""

    requests_per_minute: Number = 2.0
    burst: Count = 50
    scope: ScopeName = BudgetScope.AUTO


class ConcurrencySettings(_Table):
    """`[concurrency]`: how much at once."""

    operations: Count = 100
    downloads: Count = 4


class PollingSettings(_Table):
    """`[polling]`: how running operations are watched."""

    min_interval_seconds: SomeTime = _default("10s")
    expected_seconds: SomeTime = _default("5m")
    operation_deadline_seconds: SomeTime = _default("24h")
    prefer: PreferName = Prefer.THROUGHPUT

    @field_validator("operation_deadline_seconds")
    @classmethod
    def _beyond_what_is_expected(cls, seconds: float, info: ValidationInfo) -> float:
        return _not_shorter(seconds, info, than="expected")


class RetrySettings(_Table):
    """`[retry]`: what is tried again, and for how long."""

    attempts: Count = 5
    backoff_initial_seconds: SomeTime = _default("1s")
    backoff_max_seconds: SomeTime = _default("5m")
    outage_seconds: Duration = _default("6h")
    first_contact_seconds: SomeTime = _default("1m")

    @field_validator("backoff_max_seconds")
    @classmethod
    def _beyond_the_first(cls, seconds: float, info: ValidationInfo) -> float:
        return _not_shorter(seconds, info, than="backoff_initial")


class DownloadSettings(_Table):
    """`[download]`: when a transfer counts as stalled, which rows are told, when a file without any is believed."""

    min_rate: Number = 1024.0
    max_row: Size = _default("64MiB")
    second_look_seconds: Duration = _default("60s")


class OutputSettings(_Table):
    """`[output]`: where archives go, who may read them, and how a run stops."""

    directory: Directory = Path("exports")
    access: AccessName = Access.PRIVATE
    grace_seconds: Duration = _default("30s")

    @property
    def chosen_access(self) -> Access | None:
        """`access`, where somebody chose it; None: it is left out."""
        return self.access if "access" in self.model_fields_set else None


class NightlySettings(_Table):
    """`[nightly]`: what `nightly` covers."""

    since: Date = ""
    refresh_seconds: Ages = _default("0h")

    def since_at(self, now: float) -> int | None:
        """`since` as it reads at a moment, both in seconds since 1970; None where it is left empty."""
        return read_moment(self.since, now=now) if self.since else None


class ExportSettings(_Table):
    """One `[[export]]`."""

    name: Name = "everyone-events"
    segment: Filled = "everyone"
    type: TypeName = Type.EVENT
    format: FormatName = Format.NDJSON
    bundle_seconds: Width = _default("30m")
    settle_seconds: WholeSeconds = _default("26h")
    fields: Fields = ()
    scope: Text = ""
    timezone: Timezone = ""

    @model_validator(mode="before")
    @classmethod
    def _individuals_come_by_the_day(cls, table: Any) -> Any:
        if isinstance(table, dict) and table.get("type") == Type.INDIVIDUAL:
            return {"bundle": "24h", **table}
        return table

    @field_validator("bundle_seconds")
    @classmethod
    def _whole_days_of_individuals(cls, seconds: float, info: ValidationInfo) -> float:
        """Their rows are totals as of the export: a narrower bundle would say the same many times (reference 8)."""
        if info.data.get("type") is Type.INDIVIDUAL and seconds != DAY:
            raise ValueError("must be 24h for individuals, because their rows are totals")
        return seconds

    @field_validator("scope")
    @classmethod
    def _scope_of_events(cls, scope: str, info: ValidationInfo) -> str:
        """The service knows it for events alone (reference 3.1)."""
        if info.data.get("type") is Type.INDIVIDUAL and scope:
            raise ValueError("must not be set for individuals")
        return scope

    def to_export(self) -> Export:
        """As the rest of the program knows it."""
        return Export(
            name=self.name,
            definition=Definition(self.segment, self.type, self.format, self.fields, self.scope, self.timezone),
            bundle_seconds=int(self.bundle_seconds),
            settle_seconds=int(self.settle_seconds),
        )


class _LayerSource(PydanticBaseSettingsSource):
    """What one source says, as it stands."""

    def __init__(self, settings_class: type[BaseSettings], values: dict[str, Any]) -> None:
        super().__init__(settings_class)
        self._values = values

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:  # noqa: ARG002 - its signature
        """Not asked for: the values are given as a whole."""
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        return self._values


class Settings(BaseSettings):
    """Everything that can be set; the API key is not among it.

    Attributes:
        tables: `[[export]]` as it is written; `exports` is what to use.
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
    tables: Annotated[tuple[ExportSettings, ...], Field(strict=False), AfterValidator(_at_least_one)] = Field(
        default=(ExportSettings(),), alias="export"
    )

    @classmethod
    def from_layers(cls, *layers: dict[str, Any]) -> Self:
        """Settings from nested dicts, the strongest first.

        Raises:
            pydantic.ValidationError: something in them does not fit; `load_settings` turns it into our words.
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
        """The layers in place of pydantic's own sources, which skip a misspelt variable without a word."""
        layers = init_settings().get("_layers")
        return (init_settings,) if layers is None else tuple(_LayerSource(settings_cls, values) for values in layers)

    @property
    def exports(self) -> tuple[Export, ...]:
        """What to export, in the order of the file."""
        return tuple(table.to_export() for table in self.tables)
