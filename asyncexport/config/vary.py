"""Settings with one key changed, for simulations that compare settings.

1. Only keys that affect the pace of a run may be changed. The others would change what is exported, or where to.
2. A value is read like one from a variable or a flag, with the rules of its field and its table.
3. Exports of individuals keep bundles of a day.
"""

from collections.abc import Mapping
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any

from pydantic import BaseModel, ValidationError

from asyncexport.config.durations import write_duration
from asyncexport.config.fault_messages import problem
from asyncexport.config.fields import TextValue
from asyncexport.config.layers import SettingsLayer, short_name
from asyncexport.config.model import Settings
from asyncexport.core.exports import Type
from asyncexport.errors import ConfigError, Problem

KEYS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "bundle": ("export", "bundle"),
        "concurrency.operations": ("concurrency", "operations"),
        "concurrency.downloads": ("concurrency", "downloads"),
        "polling.prefer": ("polling", "prefer"),
        "polling.min_interval": ("polling", "min_interval"),
        "polling.expected": ("polling", "expected"),
        "budget.requests_per_minute": ("budget", "requests_per_minute"),
        "budget.burst": ("budget", "burst"),
        "budget.scope": ("budget", "scope"),
    }
)
"""The keys that may be varied, each with its table and key in the settings."""

ALSO = {"export.bundle": "bundle"}
"""Alternative names of these keys."""


def varied(settings: Settings, key: str, value: str, *, place: str) -> Settings:
    """Return the settings with one key changed; `place` names the origin of the value in messages.

    Raises:
        ConfigError: the key may not be varied, or the value is not valid for it.
    """
    if ALSO.get(key, key) not in KEYS:
        raise ConfigError([Problem(place, _unknown_key(key))])
    table, name = KEYS[ALSO.get(key, key)]
    if table == "export":
        return _with_bundles(
            settings, _settings_from({"export": [{"bundle": TextValue(value)}]}, place).tables[0].bundle_seconds
        )
    written = {**_as_written(getattr(settings, table)), name: TextValue(value)}
    return settings.model_copy(update={table: getattr(_settings_from({table: written}, place), table)})


def _with_bundles(settings: Settings, seconds: float) -> Settings:
    tables = (
        one if one.type is Type.INDIVIDUAL else one.model_copy(update={"bundle_seconds": seconds})
        for one in settings.tables
    )
    return settings.model_copy(update={"tables": tuple(tables)})


def _as_written(table: BaseModel) -> dict[str, Any]:
    """Return a table with its keys and durations as written in the file."""
    return {
        info.alias or name: write_duration(getattr(table, name)) if name.endswith("_seconds") else getattr(table, name)
        for name, info in type(table).model_fields.items()
    }


def _settings_from(values: dict[str, Any], place: str) -> Settings:
    try:
        return Settings.from_layers(values)
    except ValidationError as error:
        found = [problem(one, [SettingsLayer(values)]) for one in error.errors(include_url=False)]
        raise ConfigError([Problem(place, _message(one, values)) for one in found]) from None


def _message(found: Problem, values: dict[str, Any]) -> str:
    """Return the message of a problem, with the name of the key if it is not the one that was varied."""
    (table,) = values
    if table == "export":
        return found.message
    _, _, name = found.place.partition(".")
    return found.message if isinstance(values[table].get(name), TextValue) else f"[{table}] {name} {found.message}"


def _unknown_key(key: str) -> str:
    nearest = get_close_matches(key, KEYS, n=1)
    suggestion = f" (did you mean {nearest[0]}?)" if nearest else ""
    return f"{short_name(key)!r} cannot be varied{suggestion}; these can: {', '.join(KEYS)}"
