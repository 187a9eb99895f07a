"""Reads the content of an archive row by row: each row becomes a canonical row, or it is quarantined. No row is lost.

1. A row is quarantined if it is not one JSON object, not a CSV record as wide as the header, or longer than `max_row`.
   If the header itself cannot be read, all records are.
2. A value that does not fit its column is no reason for that: it is kept in `_rescued` (`rows`).
3. The numbers of canonical and quarantined rows add up to the number of rows in the ledger (`raw_rows`).
"""

import json
from base64 import b64encode
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from asyncexport.core.exports import Format
from asyncexport.core.warehouse.columns import Layout
from asyncexport.core.warehouse.csv_records import Header
from asyncexport.core.warehouse.json_text import plain_cells
from asyncexport.core.warehouse.odd_json import NotARowError, members
from asyncexport.core.warehouse.raw_rows import RAW_ROWS, RawRow
from asyncexport.core.warehouse.rows import CanonicalRows


@dataclass(frozen=True, slots=True)
class QuarantinedLine:
    """A row that cannot be read.

    Attributes:
        archive: The path of the archive.
        row: The number of the row, counted from 1 without blank lines and the header.
        line: The number of the line that it begins in, counted from 1.
        reason: Why it cannot be read.
        data: Its bytes without the line break; of a row that is too long, only the first.
        size: The number of its bytes.
    """

    archive: str
    row: int
    line: int
    reason: str
    data: bytes
    size: int

    def to_json(self) -> bytes:
        """Return it as a line of the quarantine file. `bytes` is in base64."""
        record = {
            "archive": self.archive,
            "row": self.row,
            "line": self.line,
            "reason": self.reason,
            "size": self.size,
            "bytes": b64encode(self.data).decode("ascii"),
        }
        return json.dumps(record).encode("ascii") + b"\n"


class ExactReader:
    """Reads one archive.

    Args:
        container: The format of the archive.
        layout: The columns of the table.
        archive: The path of the archive.
        max_row: The longest row, in bytes.
        has_key: Whether rows get a `_key`, because all fields of the key were exported.
        quarantine: Called with each row that cannot be read.

    Attributes:
        rows: Canonical rows so far.
        quarantined: Quarantined rows so far.
    """

    def __init__(
        self,
        container: Format,
        layout: Layout,
        *,
        archive: str,
        max_row: int,
        has_key: bool,
        quarantine: Callable[[QuarantinedLine], object],
    ) -> None:
        self.rows = self.quarantined = 0
        self._archive = archive
        self._max_row = max_row
        self._quarantine = quarantine
        self._raw_rows = RAW_ROWS[container](max_row)
        self._canonical = CanonicalRows(layout, archive=archive, has_key=has_key)
        self._header: Header | str = ""
        self._read = self._from_record if container is Format.CSV else self._from_object

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the canonical rows that end in the next piece of the content; the first has no byte order mark."""
        return self._all(self._raw_rows.feed(data))

    def close(self) -> Iterator[bytes]:
        """Yield the last canonical row if nothing ended it."""
        return self._all(self._raw_rows.close())

    def _all(self, found: Iterator[RawRow]) -> Iterator[bytes]:
        for raw in found:
            try:
                canonical = self._canonical_row(raw)
            except NotARowError as error:
                self._refuse(raw, str(error))
                continue
            if canonical is not None:
                self.rows += 1
                yield canonical

    def _canonical_row(self, raw: RawRow) -> bytes | None:
        """Return the canonical row; None for the header."""
        if raw.size > self._max_row:
            raise NotARowError(f"the row is longer than max_row: {raw.size:,} bytes")
        if raw.row:
            return self._read(raw.data)
        self._header = Header(raw.data)
        return None

    def _refuse(self, raw: RawRow, reason: str) -> None:
        if not raw.row:
            self._header = f"the header of the file cannot be read: {reason}"
            return
        self.quarantined += 1
        self._quarantine(QuarantinedLine(self._archive, raw.row, raw.line, reason, raw.data, raw.size))

    def _from_object(self, data: bytes) -> bytes:
        data = data.rstrip()  # DuckDB ignores a form feed after a row, too
        cells = plain_cells(data)
        return self._canonical.odd(members(data)) if cells is None else self._canonical.plain(cells)

    def _from_record(self, data: bytes) -> bytes:
        if isinstance(self._header, str):
            raise NotARowError(self._header)
        cells = self._header.plain_cells(data)
        return self._canonical.odd(self._header.members(data)) if cells is None else self._canonical.plain(cells)
