"""Settings from everywhere they may stand, and every fault in them at once."""

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

HINT = "`asyncexport init` writes a file with every setting and its default"


def load_settings(
    *,
    file: Path | None,
    environ: Mapping[str, str],
    flags: Mapping[str, Any],
    working_directory: Path,
    file_argument: str = "-c",
    flags_place: str = "on the command line",
) -> Settings:
    """The settings: flag before environment before file before default.

    Args:
        file: What `-c` names; None: `$ASYNCEXPORT_CONFIG`, else `asyncexport.toml` here, else no file.
        environ: The environment.
        flags: By dotted key ("output.directory"), as text or typed; None where a flag was not given.
        working_directory: Where "here" is.
        file_argument: What the caller calls `file`.
        flags_place: Where the caller has `flags` from.

    Raises:
        ConfigError: with a `Problem` for every fault.
    """
    problems: list[Problem] = []
    path, named_by = find_file(file, environ=environ, working_directory=working_directory, argument=file_argument)
    name = called(file, environ=environ)
    from_toml = SettingsLayer() if path is None else from_file(path, named_by=named_by, called=name, problems=problems)
    layers = (from_flags(flags, place=flags_place), from_environment(environ, problems=problems), from_toml)
    problems += _named_alike(from_toml.values.get("export"), file=from_toml.file)
    try:
        settings = Settings.from_layers(*(layer.values for layer in layers))
    except ValidationError as error:
        problems += [problem(one, layers) for one in error.errors(include_url=False)]
    else:
        problems += _ages_that_never_act(settings, layers)
    if problems:
        raise ConfigError(problems, hint=HINT)
    return settings


def _ages_that_never_act(settings: Settings, layers: Sequence[SettingsLayer]) -> Iterator[Problem]:
    """Warn about ages of `[nightly] refresh` that act on no export; that none acts on any is a problem."""
    ages, settle = settings.nightly.refresh_seconds, min(one.settle_seconds for one in settings.tables)
    idle = [age for age in ages if age not in acting_ages(ages, settle_seconds=settle)]
    if not idle:
        return
    if len(idle) == len(ages):
        message = f"refreshes nothing: no age is longer than settle ({write_duration(settle)})"
        yield problem_of(REFRESH, message, layers)
        return
    place = problem_of(REFRESH, "", layers).place
    for age in idle:
        log.warning("%s: the age %s never acts: settle is %s", place, write_duration(age), write_duration(settle))


def _named_alike(exports: Any, *, file: str) -> Iterator[Problem]:
    """Exports whose names, and so whose directories, are the same, be it only where case does not count.

    Checked here and not in the model, where a fault in one export would hide it.
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
