"""Numbers, times and tables as text."""

import re
import textwrap
from collections.abc import Sequence

from asyncexport.core.bundles import show

TIME = re.compile(r"[0-9]{4}-([0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}) UTC")
"""A time in a cell of a table; the group is the part that a narrow terminal shows."""


def plain(text: str) -> str:
    """Make text of unknown origin printable: one line, without control characters.

    Bytes of a file name that cannot be decoded are shown in hexadecimal.
    """
    return text if text.isprintable() else "".join(map(_plain_letter, text))


def _plain_letter(letter: str) -> str:
    if "\udc80" <= letter <= "\udcff":
        return f"\\x{ord(letter) - 0xDC00:02x}"
    return letter if letter.isprintable() else " "


def show_count(number: int) -> str:
    """Format a count: `1,101`."""
    return f"{number:,}"


def show_rate(per_second: float) -> str:
    """Format a rate: `7,400`, or `0.4` with one decimal if it is small."""
    return f"{per_second:,.0f}" if per_second >= 9.95 or per_second == 0 else f"{per_second:.1f}"


def show_minute(moment: float) -> str:
    """Format a time to the minute: `2026-11-26 14:20 UTC`."""
    return f"{show(moment)[:16].replace('T', ' ')} UTC"


def count_of(number: int, one: str, many: str) -> str:
    """Format a count with its noun: `1 bundle`, `2 bundles`."""
    return f"{show_count(number)} {one if number == 1 else many}"


def table(rows: Sequence[Sequence[str]], *, right: frozenset[int] = frozenset()) -> list[str]:
    """Return rows as lines of aligned columns; columns in `right` are right-aligned, the others left-aligned."""
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))] if rows else []
    return ["  ".join(_cell(cell, widths[at], at in right) for at, cell in enumerate(row)).rstrip() for row in rows]


def wrapped(line: str, columns: int, *, hanging: int) -> list[str]:
    """Break a line at spaces so that it fits into this many columns; further lines are indented by `hanging`.

    A word that is longer than a line stays as it is.
    """
    return textwrap.wrap(
        line, columns, subsequent_indent=" " * hanging, break_long_words=False, break_on_hyphens=False
    ) or [""]


def fitted_table(
    rows: Sequence[Sequence[str]], *, right: frozenset[int], columns: int | None, spare: Sequence[int] = ()
) -> list[str]:
    """Return rows, the first of which are the heads, as lines that fit a terminal.

    Where the table is too wide, the first column of `spare` goes first, then times become shorter, then the other
    columns of `spare` go. If it is still too wide, there is a block for each row, with everything in it.

    Args:
        rows: The heads and the rows.
        right: The right-aligned columns; all before those of `spare`.
        columns: The width of the terminal. None: unlimited.
        spare: The columns that can be left out, in this order.
    """
    dated = [[TIME.sub(r"\1", cell) for cell in row] for row in rows]
    attempts = [(rows, ()), (rows, spare[:1]), *((dated, spare[:count]) for count in range(1, len(spare) + 1))]
    for shown, without in attempts if spare else [(rows, ()), (dated, ())]:
        lines = table([[cell for at, cell in enumerate(row) if at not in without] for row in shown], right=right)
        if columns is None or max(map(len, lines), default=0) <= columns:
            return lines
    heads, *rest = rows
    width = max(map(len, heads[1:]))
    blocks = [
        [f"  {row[0]}", *(f"    {head:{width}}  {cell}" for head, cell in zip(heads[1:], row[1:], strict=True))]
        for row in rest
    ]
    return [heads[0], *(line for block in blocks for line in block)]


def _cell(text: str, width: int, to_the_right: bool) -> str:  # noqa: FBT001 - one caller, above
    return text.rjust(width) if to_the_right else text.ljust(width)
