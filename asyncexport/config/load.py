"""Loads the settings from all sources and reports all faults together."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from asyncexport.config.durations import write_duration
from asyncexport.config.fault_messages import problem, problem_of
from asyncexport.config.layers import SettingsLayer, called, find_file, from_environment, from_file, from_flags
from asyncexport.config.model import ExportSettings, Settings
from asyncexport.core.refreshing import acting_ages
from asyncexport.errors import ConfigError, Problem

log = logging.getLogger(__name__)

REFRESH = ("nightly", "refresh")

HINT = "`asyncexport init -c all-settings.toml` writes a file with every setting and its default, to compare with"


def load_settings(
    *,
    file: Path | None,
    environ: Mapping[str, str],
    flags: Mapping[str, Any],
    working_directory: Path,
    file_argument: str = "-c",
    flags_place: str = "on the command line",
) -> Settings:
    """Load the settings: flags before environment before file before defaults.

    Args:
        file: The file that `-c` names. None: `$ASYNCEXPORT_CONFIG`, else `asyncexport.toml` in the working directory,
            else no file.
        environ: The environment.
        flags: Values by dotted key ("output.directory"), as text or typed. None for a flag that was not given.
        working_directory: The directory that relative paths start from.
        file_argument: The name of the argument `file` in messages.
        flags_place: The origin of `flags` in messages.

    Raises:
        ConfigError: with a `Problem` for every fault.
    """
    problems: list[Problem] = []
    path, named_by = find_file(file, environ=environ, working_directory=working_directory, argument=file_argument)
    name = called(file, environ=environ)
    from_toml = SettingsLayer() if path is None else from_file(path, named_by=named_by, called=name, problems=problems)
    in_reading = len(problems)
    layers = (from_flags(flags, place=flags_place), from_environment(environ, problems=problems), from_toml)
    problems += _duplicate_names(from_toml.values.get("export"), file=from_toml.file)
    try:
        settings = Settings.from_layers(*(layer.values for layer in layers))
    except ValidationError as error:
        problems += [problem(one, layers) for one in error.errors(include_url=False)]
    else:
        problems += _refresh_problems(settings, layers)
    if problems:
        # A list of all settings does not help with a file that cannot be read.
        raise ConfigError(problems, hint=HINT if len(problems) > in_reading else "")
    return settings


def _refresh_problems(settings: Settings, layers: Sequence[SettingsLayer]) -> Iterator[Problem]:
    """Warn about ages in `[nightly] refresh` that have no effect; it is a problem if none has an effect."""
    ages, settle = settings.nightly.refresh_seconds, min(one.settle_seconds for one in settings.tables)
    idle = [age for age in ages if age not in acting_ages(ages, settle_seconds=settle)]
    if not idle:
        return
    if len(idle) == len(ages):
        message = f"has no effect: no age is longer than settle ({write_duration(settle)})"
        yield problem_of(REFRESH, message, layers)
        return
    place = problem_of(REFRESH, "", layers).place
    for age in idle:
        log.warning(
            "%s: the age %s has no effect, because settle is %s", place, write_duration(age), write_duration(settle)
        )


def _duplicate_names(exports: Any, *, file: str) -> Iterator[Problem]:
    """Report exports with the same name, and so the same directory; upper and lower case are considered equal.

    This is checked here and not in the model, where another fault in an export would hide it.
    """
    seen: dict[str, int] = {}
    for number, table in enumerate(exports if isinstance(exports, list) else (), 1):
        name = table.get("name", ExportSettings().name) if isinstance(table, dict) else None
        if not isinstance(name, str):
            continue
        first = seen.setdefault(name.casefold(), number)
        if first != number:
            message = f"is the same as that of export[{first}]; each export needs a directory of its own"
            yield Problem(f"export[{number}].name", message, file)
