"""Writes the canonical form of archives that are read row by row, and the quarantine file of a day.

1. The files are temporary. The statement that makes the day reads them beside the other archives.
2. The quarantine file is gzip NDJSON, and equal lines make equal bytes. Without lines there is no file.
"""

from collections.abc import Callable
from gzip import GzipFile
from pathlib import Path
from types import TracebackType
from typing import Self

from asyncexport.core.warehouse.days import SourceArchive
from asyncexport.core.warehouse.exact_reader import QuarantinedLine
from asyncexport.warehouse.day_maker import DayRequest
from asyncexport.warehouse.exact_path import ExactCount, read_exactly
from asyncexport.warehouse.inflated_files import check_hash, opened


class CanonicalFiles:
    """The canonical files of a day; a context manager.

    Args:
        request: The day.
        has_key: Whether events get an id.

    Attributes:
        files: The canonical files.
        longest: A number of bytes that no line in them exceeds.
        quarantined: Quarantined lines, by archive.
    """

    def __init__(self, request: DayRequest, *, has_key: bool) -> None:
        self.files: list[Path] = []
        self.longest = 0
        self.quarantined: dict[str, int] = {}
        self._request = request
        self._has_key = has_key
        self._quarantine = _QuarantineFile(request.quarantine)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._quarantine.close()

    def add(self, archive: SourceArchive) -> None:
        """Read an archive row by row.

        Raises:
            ChangedArchiveError: it is not what the ledger says.
        """
        target = self._request.scratch / f"canonical-{len(self.files)}.ndjson"
        with target.open("wb") as written:
            count = self._read(archive, written.write)
        check_hash(archive, count.sha256)
        if count.quarantined:
            self.quarantined[archive.path] = count.quarantined
        if count.rows:
            self.files.append(target)

    def _read(self, archive: SourceArchive, write: Callable[[bytes], object]) -> ExactCount:
        def write_all(rows: bytes) -> None:
            self.longest = max(self.longest, len(rows))
            write(rows)

        request = self._request
        with opened(request.output, archive) as file:
            return read_exactly(
                file,
                request.source.format,
                request.layout,
                archive=archive.path,
                max_row=request.max_row,
                has_key=self._has_key,
                write=write_all,
                quarantine=self._quarantine.add,
            )


class _QuarantineFile:
    """Quarantined lines; the file is created with the first one."""

    def __init__(self, target: Path) -> None:
        self._target = target
        self._file: GzipFile | None = None

    def add(self, line: QuarantinedLine) -> None:
        if self._file is None:
            self._file = GzipFile(self._target, "wb", mtime=0)
        self._file.write(line.to_json())

    def close(self) -> None:
        if self._file:
            self._file.close()
