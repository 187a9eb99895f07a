"""The package as a library: one function for each kind of run, for programs such as Airflow, Dagster and notebooks.

1. Each function does what the command of the same name does, with the same lock and the same clock. It prints nothing,
   installs no signal handlers, and does not manage the event loop.
2. Mistakes of the caller are raised before anything starts, as `ConfigError` or `UnauthorizedError`. How a run ended is
   in its summary, whose `exit_code` is that of the command.
3. Cancelling the task ends a run immediately, and `Stop` ends it cleanly. In both cases stored archives stay stored,
   and the next run resumes from there.
"""

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any, TypeVar

from asyncexport.config import ApiKey, Settings, clean_key, load_key
from asyncexport.config import load_settings as load_from
from asyncexport.core.auditing import DEFAULT_AGE_SECONDS, DEFAULT_SAMPLE
from asyncexport.core.events import Listener
from asyncexport.core.exits import Exit, exit_of
from asyncexport.core.exports import Export, unknown_names
from asyncexport.core.summary import Summary
from asyncexport.engine.scheduler import Stop
from asyncexport.errors import ConfigError, ExportError, Problem
from asyncexport.ledger import LedgerReader
from asyncexport.run.beside import with_all
from asyncexport.run.check_result import CheckResult, repair_of
from asyncexport.run.dashboard import Dashboard
from asyncexport.run.findings import Finding
from asyncexport.run.joining import export_or_join
from asyncexport.run.load_exports import check_load_settings
from asyncexport.run.load_lane import LoadLane
from asyncexport.run.mirror_lane import MirrorLane
from asyncexport.run.moments import MaxDuration, Moment, read_range, read_seconds
from asyncexport.run.monitored import monitored, report_unstarted
from asyncexport.run.run import Watch, export, watch_nothing
from asyncexport.run.spec import Audit, Backfill, Nightly, Retry, RunSpec, nightly_sample, random_sample
from asyncexport.run.verify import verify as check_archives

log = logging.getLogger(__name__)

T = TypeVar("T")


def load_settings(
    file: str | Path | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    flags: Mapping[str, Any] | None = None,
    working_directory: str | Path | None = None,
) -> Settings:
    """Load the settings: `flags` before environment before file before defaults.

    Args:
        file: The TOML file. None: `$ASYNCEXPORT_CONFIG`, else `asyncexport.toml` in the working directory, else none.
        environ: The environment. None: that of this process.
        flags: Settings by dotted key, such as `{"output.directory": "exports"}`, as text or typed.
        working_directory: What relative paths start from. None: that of this process.

    Raises:
        ConfigError: with a `Problem` for every fault.
    """
    return load_from(
        file=None if file is None else Path(file),
        environ=os.environ if environ is None else environ,
        flags=flags or {},
        working_directory=Path.cwd() if working_directory is None else Path(working_directory),
        file_argument="file",
        flags_place="in flags",
    )


async def backfill(
    settings: Settings | None = None,
    *,
    start: Moment,
    end: Moment | None = None,
    require_end: bool = False,
    exports: Sequence[str] = (),
    max_duration: MaxDuration = None,
    load: bool = False,
    key: ApiKey | str | None = None,
    stop: Stop | None = None,
    listeners: Sequence[Listener] = (),
    watch: Watch = watch_nothing,
) -> Summary:
    """Export everything in a range that is not stored yet; called again, it resumes.

    Args:
        settings: The settings. None: those that `load_settings()` finds.
        start: The start of the range.
        end: The end of the range, exclusive. None: everything old enough to be settled.
        require_end: Whether to end with `Exit.TIME_UP`, after exporting what is settled, if `end` is not settled yet.
        exports: Names of exports in the settings. Empty: all of them.
        max_duration: Stop the run after this long.
        load: Whether to load days into tables as well; the summary's `load` says how that ended.
        key: The API key. None: from `$FULLSTORY_API_KEY` or `[api] api_key_file`.
        stop: Stops the run cleanly when its `ask` is called in the event loop.
        listeners: Called with each event of the run. A listener that raises is not called again.
        watch: A coroutine function that runs alongside the run and gets a function that returns a `Snapshot`.

    Raises:
        ConfigError: the settings or the arguments are wrong; it holds every problem.
        UnauthorizedError: there is no API key, or the text found cannot be one.
    """
    asked = await _read(settings, exports, start=start, end=end, require_end=require_end, max_duration=max_duration)
    spec = Backfill(asked.exports, asked.start, asked.end, asked.max_duration_seconds, require_end=require_end)
    return await _run(asked.settings, spec, key, stop=stop, listeners=listeners, watch=watch, loads=load)


async def nightly(
    settings: Settings | None = None,
    *,
    end: Moment | None = None,
    require_end: bool = False,
    exports: Sequence[str] = (),
    max_duration: MaxDuration = None,
    load: bool = False,
    join: bool = True,
    key: ApiKey | str | None = None,
    stop: Stop | None = None,
    listeners: Sequence[Listener] = (),
    watch: Watch = watch_nothing,
) -> Summary:
    """Export what is new since `[nightly] since`, refresh what is due, and retry parked bundles that are due.

    If another run holds the output directory, this one waits until that run has stored or parked everything it would
    have exported, or until it can do so itself. `Joining` events say how far the other run is. `join=False`: it ends
    with `Exit.LOCKED` instead. The other arguments and the errors are those of `backfill`.
    """
    asked = await _read(settings, exports, end=end, require_end=require_end, max_duration=max_duration)
    spec = Nightly(
        asked.exports,
        asked.end,
        asked.settings.nightly.refresh_seconds,
        asked.max_duration_seconds,
        require_end=require_end,
        old_order=asked.settings.nightly.order,
        audit=nightly_sample(asked.settings.nightly.audit),
    )
    return await _run(asked.settings, spec, key, stop=stop, listeners=listeners, watch=watch, waits=join, loads=load)


async def retry(
    settings: Settings | None = None,
    *,
    start: Moment = 0,
    end: Moment | None = None,
    accept_fewer: bool = False,
    exports: Sequence[str] = (),
    max_duration: MaxDuration = None,
    key: ApiKey | str | None = None,
    stop: Stop | None = None,
    listeners: Sequence[Listener] = (),
    watch: Watch = watch_nothing,
) -> Summary:
    """Retry parked bundles immediately, and finish those in progress.

    `accept_fewer` also exports the bundles again whose archive was kept because far fewer rows came, and stores the new
    export. The other arguments and the errors are those of `backfill`.
    """
    asked = await _read(settings, exports, start=start, end=end, max_duration=max_duration)
    spec = Retry(asked.exports, asked.start, asked.end, accept_fewer, asked.max_duration_seconds)
    return await _run(asked.settings, spec, key, stop=stop, listeners=listeners, watch=watch)


async def audit(
    settings: Settings | None = None,
    *,
    sample: int = DEFAULT_SAMPLE,
    older_than: MaxDuration = None,
    wait: bool = False,
    exports: Sequence[str] = (),
    key: ApiKey | str | None = None,
    stop: Stop | None = None,
    listeners: Sequence[Listener] = (),
    watch: Watch = watch_nothing,
) -> Summary:
    """Export a random sample of stored bundles again and replace those whose rows differ.

    The result is in `summary.tally.audit`: the comparisons, and the share of all bundles that differ at most.

    Args:
        settings: The settings. None: those that `load_settings()` finds.
        sample: How many bundles to choose, at random from exports of events.
        older_than: The least age of these bundles, counted from their end. None: two days.
        wait: Whether to wait while another run holds the output directory, instead of ending with `Exit.LOCKED`.
        exports: Names of exports in the settings. Empty: all of them.
        key: The API key, as in `backfill`.
        stop: Stops the run or the wait, as in `backfill`.
        listeners: The listeners, as in `backfill`.
        watch: Watches the run, as in `backfill`.

    Raises:
        ConfigError: the settings or the arguments are wrong.
        UnauthorizedError: there is no API key.
    """
    asked = await _read(settings, exports)
    problems = [] if sample >= 1 else [Problem("sample", "must be at least 1")]
    age = read_seconds(older_than, problems, place="older_than")
    if problems:
        raise ConfigError(problems)
    spec = Audit(asked.exports, random_sample(sample, older_than_seconds=DEFAULT_AGE_SECONDS if age is None else age))
    return await _run(asked.settings, spec, key, stop=stop, listeners=listeners, watch=watch, waits=wait)


async def verify(
    settings: Settings | None = None,
    *,
    exports: Sequence[str] = (),
    repair: bool = False,
    on_finding: Callable[[Finding], object] | None = None,
    key: ApiKey | str | None = None,
    stop: Stop | None = None,
    listeners: Sequence[Listener] = (),
    watch: Watch = watch_nothing,
) -> Summary:
    """Compare every archive with the ledger; intact archives count as stored before, missing and broken ones as failed.

    Args:
        settings: The settings. None: those that `load_settings()` finds.
        exports: Names of exports in the ledger. Empty: all of them.
        repair: Whether to export missing and broken archives again, as a run of its own whose summary is returned.
        on_finding: Called with each `Finding`. An exception that it raises ends the check.
        key: The API key for a repair, as in `backfill`. A check alone needs no key.
        stop: Stops a repair, as in `backfill`.
        listeners: The listeners of a repair, as in `backfill`.
        watch: Watches a repair, as in `backfill`.

    Raises:
        ConfigError: the settings or the arguments are wrong.
        UnauthorizedError: there is no API key for a repair.
    """
    began, found = time.monotonic(), CheckResult()
    if settings is None:
        settings = await asyncio.to_thread(load_settings)
    api_key = await asyncio.to_thread(_key_of, settings, key) if repair else None
    where, error = settings.output.directory, None
    try:
        names = await asyncio.to_thread(_known_names, where, _names(exports))
        async with aclosing(check_archives(where, exports=names)) as findings:
            async for finding in findings:
                found.count(finding)
                if on_finding is not None:
                    on_finding(finding)
        if api_key is not None and found.faulty:
            spec = await asyncio.to_thread(repair_of, settings, found.faulty)
            return await _run(settings, spec, api_key, stop=stop, listeners=listeners, watch=watch)
    except ConfigError:
        raise
    except ExportError as failure:
        error = failure
    code = exit_of(error) if error is not None else Exit.DONE if found.is_well else Exit.PARTIAL
    requests = dict.fromkeys(("create", "poll", "list", "results", "other"), 0)
    return Summary("verify", code, time.monotonic() - began, found.tally, requests, 0, str(where), error)


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run one of these functions in a program without an event loop: `run(backfill(start="30d"))`.

    Raises:
        RuntimeError: an event loop is running in this thread, as in a notebook.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    work.close()
    raise RuntimeError("an event loop is running in this thread: await the function instead of using asyncexport.run")


class _Asked:
    """The arguments of a run, checked and converted.

    Raises:
        ConfigError: some are wrong; it holds every problem.
    """

    def __init__(
        self,
        settings: Settings,
        names: Sequence[str],
        *,
        start: Moment,
        end: Moment | None,
        require_end: bool,
        max_duration: MaxDuration,
    ) -> None:
        problems = [Problem("require_end", "needs an end")] if require_end and end is None else []
        known = [one.name for one in settings.exports]
        problems += unknown_names(names, known, place="exports")
        self.settings = settings
        self.exports: tuple[Export, ...] = tuple(one for one in settings.exports if not names or one.name in names)
        self.start, self.end = read_range(start, end, problems)
        self.max_duration_seconds = read_seconds(max_duration, problems)
        if problems:
            raise ConfigError(problems)


async def settings_or_found(settings: Settings | None) -> Settings:
    """Return the settings of a caller of `load` or `mirror_archives`. None: those that `load_settings()` finds.

    Raises:
        ConfigError: they are something else, or cannot be loaded.
    """
    if settings is None:
        return await asyncio.to_thread(load_settings)
    if not isinstance(settings, Settings):
        raise ConfigError([Problem("settings", "expected the result of load_settings()")])
    return settings


async def _read(
    settings: Settings | None,
    exports: Sequence[str],
    *,
    start: Moment = 0,
    end: Moment | None = None,
    require_end: bool = False,
    max_duration: MaxDuration = None,
) -> _Asked:
    if settings is None:
        settings = await asyncio.to_thread(load_settings)
    return _Asked(settings, _names(exports), start=start, end=end, require_end=require_end, max_duration=max_duration)


async def _run(
    settings: Settings,
    spec: RunSpec,
    key: ApiKey | str | None,
    *,
    stop: Stop | None,
    listeners: Sequence[Listener],
    watch: Watch,
    waits: bool = False,
    loads: bool = False,
) -> Summary:
    stop = Stop() if stop is None else stop
    lane = _lane(settings, spec) if loads else None
    mirror = await asyncio.to_thread(MirrorLane, settings) if settings.output.mirror else None
    # A key file may be a pipe, and reading it must not block the event loop.
    try:
        api_key = await asyncio.to_thread(_key_of, settings, key)
    except ExportError as error:
        await report_unstarted(settings, spec, error)
        raise

    dashboard = Dashboard(settings, key=api_key)
    listeners, watch = (*listeners, *dashboard.listeners), dashboard.watched(watch)
    all_beside: list[LoadLane | MirrorLane] = [one for one in (mirror, lane) if one is not None]
    listeners = (*listeners, *(one.on_event for one in all_beside))

    def run_alone() -> Coroutine[Any, Any, Summary]:
        if waits and isinstance(spec, Nightly):
            return export_or_join(settings, spec, key=api_key, stop=stop, listeners=listeners, watch=watch)
        return export(settings, spec, key=api_key, stop=stop, listeners=listeners, watch=watch, waits=waits)

    def work() -> Awaitable[Summary]:
        return with_all(run_alone(), stop, all_beside)

    return await monitored(settings, spec, work, key=api_key, dashboard=dashboard)


def _lane(settings: Settings, spec: RunSpec) -> LoadLane:
    check_load_settings(settings)
    return LoadLane(settings, tuple(one.name for one in spec.exports))


def _key_of(settings: Settings, key: ApiKey | str | None) -> ApiKey:
    if isinstance(key, str):
        return clean_key(key, place="key")
    key = load_key(os.environ, file=settings.api.api_key_file) if key is None else key
    for note in key.notes:
        log.warning("%s", note)
    return key


def _names(exports: Sequence[str]) -> Sequence[str]:
    """Accept a single name, which would otherwise be a sequence of letters."""
    return [exports] if isinstance(exports, str) else exports


def _known_names(directory: Path, names: Sequence[str]) -> Sequence[str]:
    if names:
        with LedgerReader(directory) as ledger:
            problems = list(unknown_names(names, list(ledger.exports()), place="exports"))
        if problems:
            raise ConfigError(problems)
    return names


__all__ = ["audit", "backfill", "load_settings", "nightly", "retry", "run", "verify"]
