"""Checks everything that a run needs, for `doctor`.

1. It changes nothing, except that the ledger counts its requests. It sends two requests at most: `/me`, and one about
   segments unless every export uses `everyone`.
2. Local checks come first, those of the service next, and none depends on another one's success unless that makes no
   sense. What could not be checked is a warning.
3. What works beside runs is checked where it is set: the mirror, the load and its destinations, the addresses to serve
   at. Neither sends requests to the service.
4. How a failure is judged is decided in `core.diagnosis` and by the exit codes of errors (`core.exits`).
"""

import asyncio
import importlib.util
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from pathlib import Path

from asyncexport.config import ApiKey, Settings
from asyncexport.config.presence import existing_place, exists, is_directory, is_file
from asyncexport.core.access import Access
from asyncexport.core.bundles import show
from asyncexport.core.diagnosis import MONTH_DAYS, SPARE_FACTOR, Check, Level, disk_level, failed, passed, warned
from asyncexport.core.exits import Exit, exit_of
from asyncexport.display import show_bytes
from asyncexport.errors import ConfigError, ExportError
from asyncexport.ledger import LedgerReader, lock_holder, present
from asyncexport.run.directory import check_ledger_not_lost
from asyncexport.run.disk_diagnosis import free_bytes, is_writable, recent_bytes
from asyncexport.run.listen_diagnosis import listen_checks
from asyncexport.run.load_diagnosis import NOT_USED, is_set, is_unused, load_checks, load_faults
from asyncexport.run.metrics import HOW_TO_INSTALL, MISSING_LIBRARY
from asyncexport.run.mirror_diagnosis import mirror_check
from asyncexport.run.service_diagnosis import service_checks
from asyncexport.run.unrecorded import check_recorded_in
from asyncexport.storage import has_open_archives


async def diagnose(
    settings: Settings, key: ApiKey | None, *, offline: bool, sent: Callable[[str], None]
) -> AsyncGenerator[Check, None]:
    """Yield the checks as they are made, but for those of the configuration and the key.

    Args:
        settings: The settings.
        key: The API key; None if there is none.
        offline: Whether to send no request.
        sent: Called with the kind of each request.
    """
    if key is not None and not offline:
        async with aclosing(service_checks(settings, key, sent=sent)) as checks:
            async for check in checks:
                yield check
    for look in (_lock, _ledger, _permissions, _disk):
        for check in await asyncio.to_thread(lambda look=look: list(look(settings))):  # type: ignore[misc]
            yield check
    async with aclosing(_beside(settings, offline=offline)) as checks:
        async for check in checks:
            yield check
    for check in await listen_checks(settings):
        yield check


def settings_check(settings: Settings, *, file: str, now: float) -> Check:
    """Return the check of a configuration that has been read without a fault."""
    since = settings.nightly.since_at(now)
    if since is not None and since > now:
        message = f"[nightly] since {show(since)} is in the future: `nightly` ends with {int(Exit.USAGE)}"
        return warned("configuration", message, "set it to the first day that nightly runs should export")
    names = ", ".join(export.name for export in settings.exports)
    wants_metrics = settings.metrics.textfile is not None or settings.metrics.listen
    if wants_metrics and importlib.util.find_spec("prometheus_client") is None:
        return warned("configuration", f"there will be no metrics: {MISSING_LIBRARY}", HOW_TO_INSTALL)
    return passed("configuration", f"{file or 'no file, so the defaults are used'}; exports: {names}")


def error_check(name: str, error: ExportError) -> Check:
    """Return the check that failed with this error."""
    message = str(error.problems[0]) if isinstance(error, ConfigError) and error.problems else str(error)
    return failed(name, message, error.hint, code=exit_of(error))


def _lock(settings: Settings) -> Iterator[Check]:
    found = lock_holder(settings.output.directory)
    if found is None:
        yield passed("lock", "no other run uses the directory")
    else:
        advice = "wait until it has ended; `nightly` waits by itself"
        yield failed("lock", f"another run uses the directory: {found}", advice, code=Exit.LOCKED)


def _ledger(settings: Settings) -> Iterator[Check]:
    directory = settings.output.directory
    try:
        check_ledger_not_lost(directory)
        if not present(directory):
            yield passed("ledger", "there is none yet; the first run creates it")
            return
        with LedgerReader(directory) as ledger:
            ledger.check_definitions(settings.exports)
            ledger.check_if_small()
            check_recorded_in(directory, settings.exports, ledger)
    except ExportError as error:
        yield error_check("ledger", error)
    else:
        yield passed("ledger", "can be read, and fits the configured exports")


def _permissions(settings: Settings) -> Iterator[Check]:
    directory = settings.output.directory.absolute()
    place = existing_place(directory)
    needed = [place]
    if place == directory:
        ledger = directory / ".asyncexport"
        folders = (directory / export.name for export in settings.exports)
        needed += [path for path in (ledger, ledger / "ledger.sqlite3", ledger / "lock", *folders) if exists(path)]
    if refused := [path for path in needed if not is_writable(path)]:
        advice = f"check its owner, its mode (`ls -ld {refused[0]}`) and that its file system is not read-only"
        yield failed("permissions", f"{refused[0]} cannot be written", advice, code=Exit.DISK)
        return
    textfile = settings.metrics.textfile
    if textfile is not None:
        yield from _textfile(textfile.absolute())
    if settings.output.chosen_access is Access.PRIVATE and has_open_archives(directory):
        advice = f"chmod -R go-rwx {directory}"
        yield warned("permissions", "older archives can be read by other users, though access is private", advice)
    what = "can be written" if place == directory else "can be created"
    yield passed("permissions", f"{directory} {what}")


def _textfile(path: Path) -> Iterator[Check]:
    """Check that the file of the metrics can be replaced: a run only warns about it, when it has ended."""
    message = f"[metrics] textfile {path} cannot be written"
    if exists(path) and not is_file(path):
        yield warned("permissions", f"{message}: it is not a regular file", "choose another name")
    elif not is_directory(path.parent):
        yield warned("permissions", message, f"create the folder {path.parent}, and let this user enter it")
    elif not is_writable(path.parent):
        advice = f"let this user write to the folder (`ls -ld {path.parent}`): the file is replaced, not changed"
        yield warned("permissions", message, advice)


def _disk(settings: Settings) -> Iterator[Check]:
    free = free_bytes("disk", settings.output.directory.absolute())
    if isinstance(free, Check):
        yield free
        return
    month = recent_bytes(settings).month
    needs = f"the last {MONTH_DAYS} days took {show_bytes(month)}" if month else "nothing was stored in the last month"
    message = f"{show_bytes(free)} free; {needs}"
    match disk_level(free=free, month=month):
        case Level.OK:
            yield passed("disk", message)
        case Level.WARN:
            days = free / month * MONTH_DAYS
            advice = f"this is enough for about {days:.0f} days; {show_bytes(month * SPARE_FACTOR)} would be safe"
            yield warned("disk", message, advice)
        case Level.FAIL:
            yield failed("disk", message, "free some space, or choose another [output] directory", code=Exit.DISK)


async def _beside(settings: Settings, *, offline: bool) -> AsyncGenerator[Check, None]:
    """Yield the checks of what works beside runs: the mirror and the load."""
    try:
        mirror = await mirror_check(settings, offline=offline)
    except ConfigError as error:
        mirror = error_check("configuration", error)
    if mirror is not None:
        yield mirror
    if not is_set(settings):
        return
    faults = await asyncio.to_thread(load_faults, settings)
    if is_unused(settings, faults):
        yield passed("load", NOT_USED)
        return
    for fault in faults.errors:
        yield error_check("configuration", fault)
    async with aclosing(load_checks(settings, faults, offline=offline)) as checks:
        async for check in checks:
            yield check
