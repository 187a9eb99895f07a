"""The destinations of a load: made from the settings, and each used in a thread of its own.

1. A destination that needs a library which is not installed is reported before anything is written, with the command
   that installs it.
2. After `MOST_FAILURES` failures in a row a destination is given up for the rest of the load, so that a server that is
   down does not hold up every day. A destination whose receipts cannot be read is given up at once.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from asyncexport.config import Settings, load_dsn, load_snowflake
from asyncexport.core.access import Access
from asyncexport.core.warehouse.choices import SinkName
from asyncexport.core.warehouse.snowflake_sql import SnowflakeSchema, name_of_setting
from asyncexport.errors import ConfigError, Problem, SinkError, StorageError
from asyncexport.storage.threads import until_over
from asyncexport.warehouse.sinks.sink import Sink

if TYPE_CHECKING:
    from asyncexport.warehouse.sinks.parquet import ParquetSink

log = logging.getLogger(__name__)

T = TypeVar("T")

BUG = "this is a bug in asyncexport: please report it with the output of the same command with -vv"

THREADS = "load-"
"""What the names of the threads of destinations begin with."""

MOST_FAILURES = 3
"""A destination that failed for this many days in a row is given up."""

EXTRAS: Mapping[SinkName, tuple[str, str]] = {
    SinkName.PARQUET: ("duckdb", "load"),
    SinkName.DUCKDB: ("duckdb", "load"),
    SinkName.POSTGRES: ("psycopg", "load,postgres"),
    SinkName.BIGQUERY: ("google.cloud.bigquery", "load,bigquery"),
    SinkName.SNOWFLAKE: ("snowflake.connector", "load,snowflake"),
}
"""The library that each destination needs, and the extra that installs it."""


def _parquet(settings: Settings, access: Access, scratch: Path) -> "ParquetSink":
    """Return the Parquet files."""
    from asyncexport.warehouse.sinks.parquet import ParquetSink  # noqa: PLC0415 - duckdb may not be installed

    directory = settings.load.directory.absolute()
    return ParquetSink(directory, scratch=scratch, folder_mode=access.folder_mode, file_mode=access.file_mode)


@dataclass(frozen=True, slots=True)
class SinkPlace:
    """What a destination is made from.

    Attributes:
        settings: The settings.
        access: Who may read new files.
        scratch: A folder for temporary files.
        parquet: The Parquet files.
        report: Called with messages for the user, in any thread.
    """

    settings: Settings
    access: Access
    scratch: Path
    parquet: "ParquetSink"
    report: Callable[[str], None]


def _duckdb(place: SinkPlace) -> Sink:
    from asyncexport.warehouse.sinks.duckdb import DuckDbTables, DuckDbViews  # noqa: PLC0415 - may not be installed
    from asyncexport.warehouse.sinks.duckdb_file import DuckDbFile  # noqa: PLC0415

    load = place.settings.load
    directory = load.directory.absolute()
    file = DuckDbFile(directory / load.duckdb.path, scratch=place.scratch, memory=load.memory, access=place.access)
    return DuckDbTables(file) if load.duckdb.tables else DuckDbViews(file, directory=directory, parquet=place.parquet)


def _postgres(place: SinkPlace) -> Sink:
    from asyncexport.warehouse.sinks.postgres import PostgresSink  # noqa: PLC0415 - psycopg may not be installed
    from asyncexport.warehouse.sinks.postgres_connection import PostgresConnection  # noqa: PLC0415

    load = place.settings.load
    return PostgresSink(
        PostgresConnection(load_dsn(load.postgres)),
        schema=load.postgres.schema_name,
        report=place.report,
        memory=load.memory,
    )


def _bigquery(place: SinkPlace) -> Sink:
    from asyncexport.warehouse.sinks.bigquery import BigQueryPlace, BigQuerySink  # noqa: PLC0415 - may not be installed
    from asyncexport.warehouse.sinks.bigquery_connection import BigQueryConnection, default_client  # noqa: PLC0415

    load, given = place.settings.load, place.settings.load.bigquery
    return BigQuerySink(
        BigQueryConnection(partial(default_client, given.project, given.location)),
        BigQueryPlace(given.dataset, given.location, place.scratch, load.memory),
        report=place.report,
    )


def _snowflake(place: SinkPlace) -> Sink:
    from asyncexport.warehouse.sinks.snowflake import SnowflakeSink  # noqa: PLC0415 - the library may not be installed
    from asyncexport.warehouse.sinks.snowflake_connection import SnowflakeConnection  # noqa: PLC0415

    load = place.settings.load
    login = load_snowflake(load.snowflake)
    schema = SnowflakeSchema(login.database, name_of_setting(load.snowflake.schema_name))
    return SnowflakeSink(SnowflakeConnection(login), schema=schema, memory=load.memory)


MAKERS: dict[SinkName, Callable[[SinkPlace], Sink]] = {
    SinkName.PARQUET: lambda place: place.parquet,
    SinkName.DUCKDB: _duckdb,
    SinkName.POSTGRES: _postgres,
    SinkName.BIGQUERY: _bigquery,
    SinkName.SNOWFLAKE: _snowflake,
}
"""How each destination is made. Nothing is written and no connection is opened before its first use."""


def chosen_sinks(settings: Settings, names: Sequence[str], *, place: str = "--to") -> tuple[SinkName, ...]:
    """Return the destinations to load: those named, or else those of the settings.

    Raises:
        ConfigError: a name is unknown, or a library or a setting is missing.
    """
    known = [one.value for one in SinkName]
    problems = [
        Problem(place, f"there is no destination {name!r} (known: {', '.join(known)})")
        for name in names
        if name not in known
    ]
    if problems:
        raise ConfigError(problems)
    chosen = tuple(dict.fromkeys(map(SinkName, names))) or settings.load.to
    for name in with_parquet(chosen):
        check_sink(settings, name)
    return chosen


def with_parquet(chosen: Sequence[SinkName]) -> tuple[SinkName, ...]:
    """Return these destinations and the Parquet files, which all others are loaded from; they come first."""
    return tuple(dict.fromkeys((SinkName.PARQUET, *chosen)))


def check_sink(settings: Settings, name: SinkName) -> None:
    """Check what a destination needs on this machine.

    Raises:
        ConfigError: a library or a setting is missing.
    """
    library, extra = EXTRAS[name]
    if not _is_installed(library):
        problem = Problem("load.to", f"{name.value} needs a library that is not installed: {library}")
        raise ConfigError([problem], hint=f"pip install 'asyncexport[{extra}]'")
    match name:
        case SinkName.PARQUET:
            _check_path("load.directory", settings.load.directory.absolute(), refused="")
        case SinkName.DUCKDB:
            # DuckDB takes a backslash for a slash, and what follows a question mark for options.
            path = (settings.load.directory / settings.load.duckdb.path).absolute()
            _check_path("load.duckdb.path", path, refused="?\\")
        case SinkName.POSTGRES:
            load_dsn(settings.load.postgres)
        case SinkName.SNOWFLAKE:
            load_snowflake(settings.load.snowflake)
        case _:
            pass


def _check_path(key: str, path: Path, *, refused: str) -> None:
    """Check whether DuckDB can write to a path.

    Raises:
        ConfigError: it has one of these characters, or bytes that are not UTF-8.
    """
    text = str(path)
    for one in refused:
        if one in text:
            raise ConfigError([Problem(key, f'must have no "{one}", also in its directory: DuckDB cannot write it')])
    if any("\ud800" <= one <= "\udfff" for one in text):
        raise ConfigError(
            [Problem(key, "must be UTF-8, also in the folders above it: DuckDB can write no other names")]
        )


def _is_installed(library: str) -> bool:
    try:
        return find_spec(library) is not None
    except ModuleNotFoundError:  # a package above it is missing
        return False


class SinkThread:
    """A destination, used in a thread of its own.

    Args:
        sink: The destination.
        is_remote: Whether it is a server, which may keep the thread waiting for any time.

    Attributes:
        sink: The destination.
        name: Its name.
        given_up: Why it is not used any more; None while it is.
    """

    def __init__(self, sink: Sink, *, is_remote: bool = False) -> None:
        self.sink = sink
        self._is_remote = is_remote
        self._doing: asyncio.Future[Any] | None = None
        self._left_alone = asyncio.Event()
        self.name = sink.name
        self.given_up: SinkError | None = None
        self._failures = 0
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"{THREADS}{sink.name}")

    async def call(self, method: Callable[..., T], *arguments: object) -> T:
        """Call a method in the thread; if cancelled, wait for its end, unless it is left alone.

        Raises:
            SinkError: the destination failed, or was given up before.
            StorageError: the disk of the load directory failed.
        """
        if self.given_up is not None:
            raise self.given_up
        work = partial(copy_context().run, method, *arguments)
        doing = asyncio.get_running_loop().run_in_executor(self._thread, work)
        self._doing = doing
        try:
            found = await asyncio.shield(doing)
        except asyncio.CancelledError:
            await self._until_over(doing)
            raise
        except SinkError as error:
            self._count(error)
            raise
        except StorageError:
            raise
        except Exception as error:
            # A bug in one destination does not stop the others. Its text may contain customers' data.
            log.debug("traceback of the bug", exc_info=error)
            failure = SinkError(f"unexpected {type(error).__name__} in {self.name}", sink=self.name, hint=BUG)
            self._count(failure)
            raise failure from error
        self._failures = 0
        return found

    def _count(self, error: SinkError) -> None:
        self._failures += 1
        if self._failures >= MOST_FAILURES:
            self.give_up(error)

    def give_up(self, error: SinkError) -> None:
        """Do not use the destination any more."""
        self.given_up = error

    def leave_alone(self) -> None:
        """Wait no longer for what the thread does, if it is a server that it waits for.

        The process has to end then, as if it was killed: the server undoes what was not complete.
        """
        if self._is_remote and self._doing is not None and not self._doing.done():
            self._left_alone.set()

    async def _until_over(self, doing: "asyncio.Future[Any]") -> None:
        leaving = asyncio.create_task(self._left_alone.wait())
        either = asyncio.create_task(asyncio.wait([doing, leaving], return_when=asyncio.FIRST_COMPLETED))
        await until_over(either)
        leaving.cancel()
        if doing.done():
            await until_over(doing)

    async def close(self) -> None:
        """Close the destination and end the thread."""
        if self._left_alone.is_set():
            self._thread.shutdown(wait=False, cancel_futures=True)
            return
        await asyncio.get_running_loop().run_in_executor(self._thread, self.sink.close)
        await asyncio.to_thread(self._thread.shutdown)


@dataclass(frozen=True, slots=True)
class LoadSinks:
    """The destinations of a load.

    Attributes:
        files: The Parquet files.
        parquet: Their thread.
        chosen: The destinations that were chosen, in order; the Parquet files may not be among them.
    """

    files: "ParquetSink"
    parquet: SinkThread
    chosen: tuple[SinkThread, ...]

    @classmethod
    def make(
        cls,
        settings: Settings,
        names: Sequence[SinkName],
        *,
        access: Access,
        scratch: Path,
        report: Callable[[str], None],
    ) -> "LoadSinks":
        """Make the destinations; see `MAKERS` and `SinkPlace`."""
        files = _parquet(settings, access, scratch)
        place = SinkPlace(settings, access, scratch, files, report)
        parquet = SinkThread(files)
        chosen = (
            parquet
            if name is SinkName.PARQUET
            else SinkThread(MAKERS[name](place), is_remote=name is not SinkName.DUCKDB)
            for name in names
        )
        return cls(files, parquet, tuple(chosen))

    @property
    def every(self) -> list[SinkThread]:
        """The Parquet files, and the chosen destinations."""
        return list(dict.fromkeys((self.parquet, *self.chosen)))

    def leave_alone(self) -> None:
        """Wait no longer for servers (`SinkThread.leave_alone`)."""
        for one in self.chosen:
            one.leave_alone()

    async def close(self) -> None:
        """Close all destinations."""
        for one in self.every:
            await one.close()
