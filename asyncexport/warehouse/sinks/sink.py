"""What every destination of loaded days offers: one operation that replaces one day of one table.

1. The destination's own record says which days it has. There is no second record beside it.
2. `replace` is one atomic step: afterwards the table holds exactly the new rows of the day and the new receipt, or it
   is as before. It may be repeated.
3. A day may have no rows any more. Then its old rows go, and the receipt stays.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from asyncexport.core.warehouse.columns import Column
from asyncexport.core.warehouse.views import TableFacts


class Sink(Protocol):
    """A destination. Its methods block; each sink is used from one thread at a time."""

    @property
    def name(self) -> str:
        """Its name in `[load] to`, in messages and in the summary."""
        ...

    def reach(self) -> None:
        """Make sure that the destination can be reached and logged into, in one cheap step that changes nothing.

        Raises:
            SinkError: it cannot.
        """
        ...

    def receipts(self, table: str) -> Mapping[str, str]:
        """Return the receipt of each day that the table has, by date (`2026-01-01`); empty if there is no table.

        Raises:
            SinkError: the destination cannot be reached or read.
        """
        ...

    def row_counts(self, table: str) -> Mapping[str, int]:
        """Return the number of rows of each day that has a receipt, counted in the table itself.

        Raises:
            SinkError: the destination cannot be reached or read.
        """
        ...

    def prepare(self, table: str, columns: Sequence[Column]) -> None:
        """Make sure that the table exists with at least these columns: create it, or add what it lacks.

        Raises:
            SinkError: this failed, or the table has a column of another type.
        """
        ...

    def replace(self, table: str, day: str, parquet: Path | None, receipt: str) -> int:
        """Replace the rows of a day with those of a Parquet file and record the receipt; return the number of rows.

        Args:
            table: The table.
            day: The date.
            parquet: The file with the rows; None if the day has no rows any more.
            receipt: What the day was made from.

        Raises:
            SinkError: this failed; the day is as before.
        """
        ...

    def finish(self, table: str, facts: TableFacts) -> None:
        """Bring the views of a table up to date, after its days; does nothing where a destination has no views.

        Raises:
            SinkError: this failed; the days are loaded all the same.
        """
        ...

    def close(self) -> None:
        """Close connections."""
        ...
