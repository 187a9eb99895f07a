"""Where a destination differs from what the archives lead to, for `load --check`."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from asyncexport.core.warehouse.to_load import Have


@dataclass(frozen=True, slots=True)
class ExpectedDay:
    """What a destination should have of a day.

    Attributes:
        receipt: The receipt.
        rows: The number of rows; None if it is not known.
    """

    receipt: str
    rows: int | None


@dataclass(frozen=True, slots=True)
class Difference:
    """A day on which a destination differs.

    Attributes:
        sink: The destination.
        table: The table.
        date: The day.
        reason: How it differs, in words.
        is_recorded: Whether the destination's record says that it has the day. A load then does nothing about it unless
            it loads days again.
    """

    sink: str
    table: str
    date: str
    reason: str
    is_recorded: bool = False


def differences(
    sink: str, table: str, expected: Mapping[str, ExpectedDay], have: Have, counts: Mapping[str, int]
) -> Iterator[Difference]:
    """Yield the days of a table on which a destination differs.

    Args:
        sink: The destination.
        table: The table.
        expected: What it should have, by date. Other days should not be there, or be empty.
        have: The receipts that the destinations have.
        counts: The rows of each day, counted in the destination.
    """
    receipts = have.get(sink, {}).get(table, {})
    for date in sorted({*expected, *receipts, *counts}):
        wanted, receipt = expected.get(date), receipts.get(date)
        if reason := _reason(wanted, receipt, counts.get(date, 0)):
            yield Difference(sink, table, date, reason, wanted is not None and receipt == wanted.receipt)


def _reason(expected: ExpectedDay | None, receipt: str | None, rows: int) -> str:
    if expected is None:
        return f"{_count(rows)} of a day without archives" if rows else ""
    if not receipt:
        return "not loaded"
    if receipt != expected.receipt:
        return "loaded from other archives, with other settings, or by an earlier version"
    if expected.rows is not None and rows != expected.rows:
        return f"{_count(rows)} instead of {expected.rows}"
    return ""


def _count(rows: int) -> str:
    return "1 row" if rows == 1 else f"{rows} rows"
