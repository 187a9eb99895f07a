"""Checks the load for `doctor`: the libraries, the load directory, and each destination.

1. Only where `[load]` is set. `init` writes the table with its defaults: where nothing in it was changed and DuckDB is
   not installed, that is no fault.
2. Each destination is reached once, and logged into, without changing anything. With `--offline`, only the DuckDB file
   is looked at.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from asyncexport.config import Settings
from asyncexport.config.load_model import LoadSettings
from asyncexport.config.presence import existing_place, exists, is_directory
from asyncexport.core.access import Access
from asyncexport.core.diagnosis import (
    MONTH_DAYS,
    Check,
    Level,
    failed,
    level_of_load,
    passed,
    room_for_load,
    warned,
)
from asyncexport.core.exits import Exit, exit_of
from asyncexport.core.warehouse.choices import SinkName
from asyncexport.core.warehouse.places import SPILL
from asyncexport.display import show_bytes
from asyncexport.errors import ConfigError, SinkError
from asyncexport.ledger import load_holder
from asyncexport.ledger.lock import LOAD_LOCK_NAME
from asyncexport.run.disk_diagnosis import free_bytes, is_writable, recent_bytes
from asyncexport.run.load_exports import check_load_settings
from asyncexport.run.load_place import workers_of
from asyncexport.run.load_sinks import LoadSinks, SinkThread, check_sink, with_parquet

LOCAL = (SinkName.PARQUET, SinkName.DUCKDB)
"""Destinations on this machine."""

NOT_USED = "not in use: `[load]` has its defaults, and DuckDB is not installed"

ELSEWHERE = "choose another [load] directory"

CHECK_DESTINATION = "check its table in the configuration, and the network"


@dataclass(frozen=True, slots=True)
class LoadFaults:
    """What would end a load before it begins: a setting, or a library that is missing.

    Attributes:
        errors: The faults, each once.
        has_place: Whether the load directory may be where it is.
        ready: The destinations that need nothing more on this machine.
    """

    errors: tuple[ConfigError, ...]
    has_place: bool
    ready: tuple[SinkName, ...]


def load_faults(settings: Settings) -> LoadFaults:
    """Check the settings and the libraries of a load."""
    errors: dict[str, ConfigError] = {}
    ready: list[SinkName] = []
    place = _error_of(check_load_settings, settings)
    if place is not None:
        errors[str(place)] = place
    for name in with_parquet(settings.load.to):
        error = _error_of(partial(check_sink, name=name), settings)
        if error is None:
            ready.append(name)
        else:
            # What lacks DuckDB, lacks it for the Parquet files as well.
            errors.setdefault(error.hint or str(error), error)
    # All others are loaded from the Parquet files.
    names = ready if SinkName.PARQUET in ready else []
    return LoadFaults(tuple(errors.values()), place is None, tuple(one for one in names if one in settings.load.to))


def _error_of(check: Callable[[Settings], None], settings: Settings) -> ConfigError | None:
    try:
        check(settings)
    except ConfigError as error:
        return error
    return None


def is_set(settings: Settings) -> bool:
    """Whether the file, the environment or a flag has the table `[load]`."""
    return "load" in settings.model_fields_set


def is_unused(settings: Settings, faults: LoadFaults) -> bool:
    """Whether nothing shows that days are loaded (rule 1)."""
    return bool(faults.errors) and settings.load == LoadSettings() and not exists(settings.load.directory)


async def load_checks(settings: Settings, faults: LoadFaults, *, offline: bool) -> AsyncGenerator[Check, None]:
    """Yield the checks of the load directory and of the destinations, as far as they have no faults."""
    if not faults.has_place:
        return
    for check in await asyncio.to_thread(lambda: list(_directory(settings))):
        yield check
    names = [one for one in faults.ready if one is not SinkName.PARQUET]
    if not names:
        return
    asked = [one for one in names if one in LOCAL or not offline]
    if left := [one.value for one in names if one not in asked]:
        yield passed("destination", f"{', '.join(left)}: not asked, because of --offline")
    sinks = await asyncio.to_thread(_sinks, settings, asked)
    try:
        for sink in sinks.chosen:
            yield await _destination(sink)
    finally:
        await sinks.close()


def _sinks(settings: Settings, names: Sequence[SinkName]) -> LoadSinks:
    """Make the destinations. No connection is opened before their first use."""
    scratch = settings.load.directory.absolute() / SPILL
    return LoadSinks.make(settings, names, access=Access.PRIVATE, scratch=scratch, report=lambda _text: None)


async def _destination(sink: SinkThread) -> Check:
    try:
        await sink.call(sink.sink.reach)
    except SinkError as error:
        return failed("destination", str(error), error.hint or CHECK_DESTINATION, code=exit_of(error))
    said = "the file can be opened, or made" if sink.name in LOCAL else "can be reached, and accepts the login"
    return passed("destination", f"{sink.name}: {said}")


def _directory(settings: Settings) -> Iterator[Check]:
    directory = settings.load.directory.absolute()
    place = existing_place(directory)
    if not is_directory(place):
        yield failed("load", f"{directory} cannot be used: {place} is a file", ELSEWHERE, code=Exit.DISK)
        return
    lock = directory / LOAD_LOCK_NAME
    if refused := [path for path in (place, lock) if exists(path) and not is_writable(path)]:
        advice = f"check its owner, its mode (`ls -ld {refused[0]}`) and that its file system is not read-only"
        yield failed("load", f"{refused[0]} cannot be written", advice, code=Exit.DISK)
        return
    if holder := load_holder(directory):
        yield warned("load", f"another load uses {directory}: {holder}", "wait until it has ended")
    else:
        yield passed("load", f"{directory} {'can be written' if place == directory else 'can be created'}")
    yield _room(settings, directory)


def _room(settings: Settings, directory: Path) -> Check:
    free = free_bytes("load", directory)
    if isinstance(free, Check):
        return free
    recent, workers = recent_bytes(settings), workers_of(settings)
    needs = room_for_load(recent.month, recent.largest_day, workers=workers)
    month = f"a load of the last {MONTH_DAYS} days needs up to {show_bytes(needs)}"
    message = f"{show_bytes(free)} free; {month if needs else 'nothing was stored in the last month'}"
    match level_of_load(free=free, needs=needs, largest_day=recent.largest_day):
        case Level.OK:
            return passed("load", message)
        case Level.WARN:
            return warned("load", message, "free some space, or lower [load] workers")
        case Level.FAIL:
            return failed("load", message, f"free some space, or {ELSEWHERE}", code=Exit.DISK)
