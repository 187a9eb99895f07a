"""Which rows of an archive are sampled, and the interface that checks them.

1. The first, the last and every 1,000th row are parsed and passed to a `RowRules`, each once and in order. Without
   rules nothing is parsed.
2. A row that is longer than `PARSED_BYTES`, or that cannot be parsed, is not passed on: it proves nothing.
"""

import csv
from collections.abc import Iterable, Mapping
from typing import Any, Protocol, Self

import orjson

SAMPLED_ROWS = 1000
"""One row in this many is sampled."""

PARSED_BYTES = 1 << 20
"""A longer row is never parsed, only scanned for its end."""


class RowRules(Protocol):
    """What the rows of one archive are checked against. Its methods are called in a thread."""

    def add(self, row: Mapping[str, Any]) -> None:
        """Check a row: a mapping of fields to values; for a CSV, the values are texts.

        Raises:
            CorruptError: it cannot be a row of this export.
        """
        ...

    def add_names(self, names: Iterable[str]) -> None:
        """Check the field names in the header of a CSV without rows.

        Raises:
            CorruptError: it cannot be the header of an export.
        """
        ...

    def close(self) -> None:
        """Note that all rows were seen, and that the file is complete otherwise.

        Raises:
            CorruptError: it is not the export that was requested.
        """
        ...

    def fresh(self) -> Self:
        """Return the same rules for another archive of the same bundle."""
        ...


class RowSample:
    """Passes the sampled rows to the rules.

    Attributes:
        due: The number of the next row to sample, counted from 1. 0 if there are no rules.
    """

    def __init__(self, rules: RowRules | None) -> None:
        self._rules = rules
        self._number = 0
        self.due = 1 if rules else 0

    def take(self, number: int, row: bytes, *, header: bytes | None = None) -> None:
        """Take row `number`, which is due or the last; "" stands for a long one, `header` is that of a CSV."""
        if self._rules is None or number <= self._number:
            return
        self._number, self.due = number, (number - 1) // SAMPLED_ROWS * SAMPLED_ROWS + SAMPLED_ROWS + 1
        if len(row) > PARSED_BYTES:
            return
        parsed = parsed_object(row) if header is None else parsed_record(header, row)
        if parsed is not None:
            self._rules.add(parsed)

    def take_header(self, header: bytes) -> None:
        """Take the header of a CSV without rows."""
        names = _values(header)
        if self._rules and names:
            self._rules.add_names(names)

    def close(self) -> None:
        """Note that all rows were seen."""
        if self._rules:
            self._rules.close()


def parsed_object(row: bytes) -> dict[str, Any] | None:
    """Parse a row of NDJSON or JSON. None if it is not valid JSON."""
    try:
        found = orjson.loads(row)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def parsed_record(header: bytes, record: bytes) -> dict[str, str] | None:
    """Parse a record of a CSV. None if it does not fit its header."""
    names, values = _values(header), _values(record)
    if names is None or values is None or len(names) != len(values):
        return None
    return dict(zip(names, values, strict=True))


def _values(record: bytes) -> list[str] | None:
    """Parse the values of one record. None if it is not valid CSV, or if a value is too long for Python's reader."""
    try:
        return next(csv.reader([record.decode("utf-8", "replace").rstrip("\r\n")], strict=True), None)
    except csv.Error:
        return None
