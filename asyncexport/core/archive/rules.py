"""Which rows of an archive are looked at, and by whom.

1. The first, the last and every 1,000th row are parsed and handed to a `RowRules`, each once and in order; nothing is
   parsed where there are no rules.
2. A row that is longer than `PARSED_BYTES`, or that cannot be parsed, is not handed on: it proves nothing.
"""

import csv
from collections.abc import Iterable, Mapping
from typing import Any, Protocol, Self

import orjson

SAMPLED_ROWS = 1000
"""Of so many rows one is looked at."""

PARSED_BYTES = 1 << 20
"""A longer row is never parsed, only scanned for its end."""


class RowRules(Protocol):
    """What is asked of the rows of one archive. Its methods are called in a thread."""

    def look(self, row: Mapping[str, Any]) -> None:
        """Look at a row: its members by their names; of a CSV, the values as texts by the names of the header.

        Raises:
            CorruptError: it can be no row of this export.
        """
        ...

    def look_at_names(self, names: Iterable[str]) -> None:
        """Look at the names in the header of a CSV without rows.

        Raises:
            CorruptError: it can be the header of no export.
        """
        ...

    def close(self) -> None:
        """All rows were seen, and the file is whole otherwise.

        Raises:
            CorruptError: it is not the export that was asked for.
        """
        ...

    def anew(self) -> Self:
        """The same rules for another archive of the same bundle."""
        ...


class RowSample:
    """Hands the rows that are looked at to the rules.

    Attributes:
        due: The number of the next row to be looked at, counted from 1; 0 where there are no rules.
    """

    def __init__(self, rules: RowRules | None) -> None:
        self._rules = rules
        self._number = 0
        self.due = 1 if rules else 0

    def take(self, number: int, row: bytes, *, header: bytes | None = None) -> None:
        """Row `number`, which is due, or the last one; "" stands for a long one, `header` is that of a CSV."""
        if self._rules is None or number <= self._number:
            return
        self._number, self.due = number, (number - 1) // SAMPLED_ROWS * SAMPLED_ROWS + SAMPLED_ROWS + 1
        if len(row) > PARSED_BYTES:
            return
        parsed = parsed_object(row) if header is None else parsed_record(header, row)
        if parsed is not None:
            self._rules.look(parsed)

    def take_header(self, header: bytes) -> None:
        """The header of a CSV without rows."""
        names = _values(header)
        if self._rules and names:
            self._rules.look_at_names(names)

    def close(self) -> None:
        """All rows were seen."""
        if self._rules:
            self._rules.close()


def parsed_object(row: bytes) -> dict[str, Any] | None:
    """A row of NDJSON or JSON; None where it is not quite JSON."""
    try:
        found = orjson.loads(row)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def parsed_record(header: bytes, record: bytes) -> dict[str, str] | None:
    """A record of a CSV; None where it does not fit its header."""
    names, values = _values(header), _values(record)
    if names is None or values is None or len(names) != len(values):
        return None
    return dict(zip(names, values, strict=True))


def _values(record: bytes) -> list[str] | None:
    """The values of one record; None where it is not quite CSV, or one of them is longer than Python's reader takes."""
    try:
        return next(csv.reader([record.decode("utf-8", "replace").rstrip("\r\n")], strict=True), None)
    except csv.Error:
        return None
