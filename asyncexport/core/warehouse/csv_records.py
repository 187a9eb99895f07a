r"""Reads the records of a CSV as RFC 4180 has them, by the names of the file's own header.

1. A record must be as wide as the header. A quoted value ends at its quote, and a line break outside quotes ends the
   record, so neither may be followed by anything else.
2. A quote within a value that does not begin with one is a character like any other: `x"y` is the text `x"y`.
3. Bytes that are not UTF-8 become U+FFFD. The value is then also kept as a JSON string in which they are `\xff`.
4. An empty value is absent, quoted or not: CSV cannot tell them apart.
"""

import csv
import re

from asyncexport.core.warehouse.json_text import encode_string
from asyncexport.core.warehouse.odd_json import Member, NotARowError, with_visible_bytes, without_surrogates

VALUE = re.compile(r'"(?P<quoted>(?:[^"]++|"")*+)"|(?P<plain>(?!")[^,\r\n]*+)')


class Header:
    """The header of a file. `is_plain` says whether no name comes twice and all are valid UTF-8.

    Raises:
        NotARowError: it is not a CSV record.
    """

    def __init__(self, record: bytes) -> None:
        self.names = values_of(record.decode("utf-8", "surrogateescape"))
        valid = all(name == without_surrogates(name) for name in self.names)
        self.is_plain = valid and len(set(self.names)) == len(self.names)

    def plain_cells(self, record: bytes) -> dict[str, str] | None:
        """Return the values by name without the empty ones, or None if the record or the header is odd.

        Raises:
            NotARowError: it is not a CSV record, or not as wide as the header.
        """
        if not self.is_plain:
            return None
        try:
            values = self._values(record.decode())
        except UnicodeDecodeError:
            return None
        return {name: value for name, value in zip(self.names, values, strict=True) if value}

    def members(self, record: bytes) -> list[Member]:
        """Return the fields in order, without the empty ones.

        Raises:
            NotARowError: it is not a CSV record, or not as wide as the header.
        """
        values = self._values(record.decode("utf-8", "surrogateescape"))
        return [_member(name, value) for name, value in zip(self.names, values, strict=True) if value]

    def _values(self, record: str) -> list[str]:
        values = values_of(record)
        if len(values) != len(self.names):
            raise NotARowError(f"the record has {len(values)} values, the header {len(self.names)}")
        return values


def values_of(record: str) -> list[str]:
    """Return the values of one record, which may end with carriage returns.

    Raises:
        NotARowError: it is not a CSV record.
    """
    record = record.rstrip("\r")
    try:
        return next(csv.reader([record], strict=True), [])
    except csv.Error:
        # It is wrong, or a value is longer than the process allows the library to read.
        return long_values_of(record)


def long_values_of(record: str) -> list[str]:
    """Return the same, with values of any length; this is slower, and says where the record is wrong."""
    values = []
    at = 0
    while True:
        found = VALUE.match(record, at)
        if found is None:
            raise NotARowError(f"the record is not valid CSV: a quote is not closed, at character {at + 1}")
        values.append(found["plain"] or "" if found["quoted"] is None else found["quoted"].replace('""', '"'))
        at = found.end()
        if at == len(record):
            return values
        if record[at] != ",":
            raise NotARowError(f"the record is not valid CSV, at character {at + 1}")
        at += 1


def _member(name: str, value: str) -> Member:
    title, text = without_surrogates(name), without_surrogates(value)
    rescued = None
    if title != name:
        rescued = with_visible_bytes(f"{encode_string(name)}:{encode_string(value)}")
    elif text != value:
        rescued = with_visible_bytes(encode_string(value))
    return Member(title, text, rescued)
