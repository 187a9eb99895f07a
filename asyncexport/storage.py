"""Archives on disk: written aside, checked, flushed, and only then given their name.

1. A file under its final name is complete, checked and durable: part file, check, fsync, rename, fsync of the folder,
   and of the folders above it where they were made for it.
2. A part file without a run is rubbish and removed at the start. Its name begins with a dot, so that no `*.gz` sees it.
3. A new take's file replaces the old one in one rename, and only where it differs.
4. Names come from the plan alone, never from the server; nothing is written outside of the output directory.
5. The event loop is never blocked: about a megabyte is gathered and then hashed, checked and written in one hop to a
   thread, while the next is gathered.
"""

import asyncio
import contextlib
import errno
import os
import re
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Self, TypeVar

import orjson
from aiofiles.os import wrap

from asyncexport.core.archive import Inspection, Inspector, WireHashes, inspect
from asyncexport.core.bundles import Bundle, Range, compact, day, read_moment
from asyncexport.core.exports import Definition, Export, Format
from asyncexport.errors import ExportError, StorageError

GATHER_BYTES = 1 << 20
"""What is handed to a thread at once."""

DEFINITION_NAME = ".export.json"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
ARCHIVE = re.compile(r"(\d{8}T\d{6}Z)_(\d{8}T\d{6}Z)\.(ndjson|csv|json)\.gz")

T = TypeVar("T")


def ignore(_name: str) -> None:
    """A boundary that nobody watches."""


@dataclass(frozen=True, slots=True)
class Kept:
    """An archive under its final name; `path` is relative to the output directory."""

    path: str
    inspection: Inspection


class Archives:
    """The output directory.

    Args:
        directory: Where.
        boundary: Told of every write to the disk, right before and after it, in the thread that writes.
    """

    def __init__(self, directory: Path, *, boundary: Callable[[str], None] = ignore) -> None:
        self._directory = directory
        self._boundary = boundary
        self._threads = ThreadPoolExecutor(max_workers=4, thread_name_prefix="storage")

    @staticmethod
    def path_of(bundle: Bundle, container: Format) -> str:
        """Where a bundle's archive lies, relative to the output directory."""
        span = bundle.range
        name = f"{compact(span.start)}_{compact(span.end)}.{container.value}.gz"
        return f"{bundle.export}/date={day(span.start)}/{name}"

    @staticmethod
    def span_of(path: str) -> Range | None:
        """The range that an archive's name tells; None where it is no archive of ours."""
        found = ARCHIVE.fullmatch(path.rpartition("/")[2])
        if not found:
            return None
        try:
            span = Range(read_moment(found[1], now=0), read_moment(found[2], now=0))
        except ValueError:
            return None
        return span if path.split("/")[-2] == f"date={day(span.start)}" else None

    async def prepare(self, exports: Sequence[Export]) -> None:
        """Make the folders, write the definitions beside them, remove what earlier runs left half-made.

        Raises:
            StorageError: the directory cannot be written.
        """
        await self.run(self._prepare, exports)

    async def draft(self, bundle: Bundle, container: Format, *, wire_hashes: WireHashes | None = None) -> "Draft":
        """Begin an archive.

        Raises:
            StorageError: it cannot be written.
        """
        draft = Draft(self, bundle, container, wire_hashes)
        await self.run(draft.begin)
        return draft

    def existing(self) -> bool:
        """Whether there is any archive of ours."""
        return any(ARCHIVE.fullmatch(path.name) for path in self._directory.glob("*/date=*/*.gz"))

    async def files(self, export: str) -> list[str]:
        """All files below an export's folder, in order, relative to the output directory."""
        return await self.run(self._files, export)

    async def definitions(self) -> list[Export]:
        """The exports whose definitions lie here.

        Raises:
            StorageError: one cannot be read.
        """
        return await self.run(self._definitions)

    async def check(self, path: str, container: Format) -> Inspection:
        """Read an archive to its end.

        Raises:
            FileNotFoundError: there is none.
            ArchiveError: it is not one whole export.
            StorageError: the disk cannot be read.
        """
        return await self.run(self._check, path, container)

    async def written_at(self, path: str) -> float:
        """When a file was written, in seconds since 1970."""
        return await self.run(lambda: (self._directory / path).stat().st_mtime)

    async def move_aside(self, path: str) -> str:
        """Give an archive that cannot be used another name; the new one."""

        def move() -> str:
            (self._directory / path).replace(self._directory / f"{path}.damaged")
            self.sync_folder((self._directory / path).parent)
            return f"{path}.damaged"

        return await self.run(move)

    async def run(self, work: Callable[..., T], *arguments: Any) -> T:
        """Do something with the disk, off the loop; what goes wrong there is told in plain words."""
        call: Callable[..., Awaitable[T]] = wrap(work)
        try:
            return await call(*arguments, executor=self._threads)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise _told(error, self._directory) from error

    def full(self, path: str) -> Path:
        """The path on this machine."""
        return self._directory / path

    def at(self, name: str) -> "Boundary":
        """A write to the disk, told of before and after."""
        return Boundary(self._boundary, name)

    def make_folder(self, folder: Path) -> None:
        """Make a folder and what is missing above it, each flushed into the one it lies in."""
        missing = []
        while not folder.is_dir():
            missing.append(folder)
            folder = folder.parent
        for one in reversed(missing):
            with self.at("folder"):
                one.mkdir(exist_ok=True)
            self.sync_folder(one.parent)

    def sync_folder(self, folder: Path) -> None:
        """Flush the names in a folder."""
        with self.at("folder.fsync"):
            handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)

    def _prepare(self, exports: Sequence[Export]) -> None:
        self.make_folder(self._directory)
        for export in exports:
            folder = self._directory / export.name
            if not NAME.fullmatch(export.name) or folder.is_symlink():
                raise StorageError(f"{folder} cannot be used: it would lie elsewhere", hint="choose another name")
            self.make_folder(folder)
            for part in (*folder.glob(".*.part"), *folder.glob("date=*/.*.part")):
                part.unlink(missing_ok=True)
            self._write_definition(folder, export)

    def _write_definition(self, folder: Path, export: Export) -> None:
        text = orjson.dumps({"name": export.name, **export.definition.to_dict()}, option=orjson.OPT_INDENT_2) + b"\n"
        path = folder / DEFINITION_NAME
        if path.exists() and path.read_bytes() == text:
            return
        aside = folder / f"{DEFINITION_NAME}.part"
        with self.at("definition.write"), aside.open("wb") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        with self.at("definition.rename"):
            aside.replace(path)
        self.sync_folder(folder)

    def _files(self, export: str) -> list[str]:
        folder = self._directory / export
        found = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".part")
        return sorted(str(path.relative_to(self._directory)) for path in found if path.name != DEFINITION_NAME)

    def _definitions(self) -> list[Export]:
        found = []
        for path in sorted(self._directory.glob(f"*/{DEFINITION_NAME}")):
            try:
                data = orjson.loads(path.read_bytes())
                found.append(Export(path.parent.name, Definition.from_dict(data)))
            except (ValueError, KeyError, TypeError) as error:
                raise StorageError(f"{path} cannot be read: it is no export's definition") from error
        return found

    def _check(self, path: str, container: Format) -> Inspection:
        with (self._directory / path).open("rb") as file:
            return inspect(_pieces(file), container)


class Boundary:
    """A write to the disk, told of right before and after; a context manager."""

    def __init__(self, tell: Callable[[str], None], name: str) -> None:
        self._tell = tell
        self._name = name

    def __enter__(self) -> None:
        self._tell(f"{self._name}:before")

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self._tell(f"{self._name}:after")


class Draft:
    """One archive being filled. `received` counts the bytes of the body that were taken in."""

    def __init__(self, archives: Archives, bundle: Bundle, container: Format, wire_hashes: WireHashes | None) -> None:
        self._archives = archives
        self._path = archives.path_of(bundle, container)
        self._inspector = Inspector(container, wire_hashes=wire_hashes)
        self._final = archives.full(self._path)
        self._part = self._final.with_name(f".{self._final.name}.part")
        self._file: BinaryIO | None = None
        self._gathered: list[bytes] = []
        self._size = 0
        self._writing: asyncio.Task[None] | None = None
        self.received = 0

    def begin(self) -> None:
        """Make the part file; in a thread."""
        self._archives.make_folder(self._final.parent)
        with self._archives.at("part.create"):
            self._file = self._part.open("wb")

    async def write(self, chunk: bytes) -> None:
        """Take in what came.

        Raises:
            CorruptError: it cannot be one whole export any more.
            StorageError: it cannot be written.
        """
        self._gathered.append(chunk)
        self._size += len(chunk)
        self.received += len(chunk)
        if self._size >= GATHER_BYTES:
            await self._drain()
            gathered, self._gathered, self._size = self._gathered, [], 0
            self._writing = asyncio.create_task(self._archives.run(self._take, gathered))

    async def commit(self, *, end_proved: bool) -> Kept:
        """Check the whole, make it durable, give it its final name.

        Raises:
            ArchiveError: it is not one whole export.
            StorageError: it cannot be made durable.
        """
        await self._drain()
        gathered, self._gathered = self._gathered, []
        finishing = asyncio.ensure_future(self._archives.run(self._finish, gathered, end_proved))
        try:
            return await asyncio.shield(finishing)
        except asyncio.CancelledError:
            # Once begun it is brought to its end, so that what lies on the disk is known.
            await asyncio.wait([finishing])
            raise

    async def discard(self) -> None:
        """Remove it; nothing happens to one that was committed."""
        with contextlib.suppress(ExportError):
            await self._drain()
        await self._archives.run(self._remove)

    async def __aenter__(self) -> Self:
        """As it is."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Remove it unless it was committed."""
        await self.discard()

    async def _drain(self) -> None:
        """Wait for the write under way; a cancel waits for it, too, since the file must not be closed beneath it."""
        writing, self._writing = self._writing, None
        if writing is None:
            return
        try:
            await asyncio.shield(writing)
        except asyncio.CancelledError:
            await asyncio.wait([writing])
            raise

    def _take(self, chunks: list[bytes]) -> None:
        file = self._open_file()
        pieces = self._inspector.feed(b"".join(chunks))
        with self._archives.at("part.write"):
            for piece in pieces:
                file.write(piece)

    def _finish(self, chunks: list[bytes], end_proved: bool) -> Kept:  # noqa: FBT001 - called through the pool
        if chunks:
            self._take(chunks)
        pieces, inspection = self._inspector.close(end_proved=end_proved)
        file = self._open_file()
        with self._archives.at("part.write"):
            for piece in pieces:
                file.write(piece)
            file.flush()
        with self._archives.at("part.fsync"):
            os.fsync(file.fileno())
        file.close()
        self._file = None
        if self._is_the_same(inspection):
            self._part.unlink()
        else:
            with self._archives.at("rename"):
                self._part.replace(self._final)
        self._archives.sync_folder(self._final.parent)
        return Kept(self._path, inspection)

    def _is_the_same(self, inspection: Inspection) -> bool:
        """Whether the file that stands under the name has the very bytes."""
        try:
            if self._final.stat().st_size != inspection.bytes:
                return False
        except FileNotFoundError:
            return False
        with self._final.open("rb") as old, self._part.open("rb") as new:
            return all(a == b for a, b in zip(_pieces(old), _pieces(new), strict=True))

    def _remove(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
            self._part.unlink(missing_ok=True)

    def _open_file(self) -> BinaryIO:
        if self._file is None:
            raise AssertionError("the draft is closed")
        return self._file


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    while piece := file.read(GATHER_BYTES):
        yield piece


def _told(error: OSError, directory: Path) -> StorageError:
    """What the disk said, in plain words."""
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT:
            return StorageError(
                f"the disk of {directory} is full",
                hint="free some space and run the same command again: what is stored is kept",
            )
        case errno.EACCES | errno.EPERM | errno.EROFS:
            return StorageError(
                f"{error.filename or directory} cannot be written: {error.strerror}",
                hint="check who owns the directory, or choose another by [output] directory",
            )
        case _:
            return StorageError(f"{error.filename or directory}: {error.strerror or error}")
