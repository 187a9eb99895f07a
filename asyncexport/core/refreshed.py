"""Counts what changed in bundles that had an archive and were exported once more."""

from dataclasses import asdict, dataclass

from asyncexport.core.states import Stored


@dataclass(slots=True)
class Refreshed:
    """The results for bundles that had an archive and were exported once more: refreshes and repairs, not audits.

    Attributes:
        bundles: Bundles that were finished: stored, or parked with their archive kept.
        changed: Bundles of these whose archive was replaced by other bytes.
        rows_added, rows_removed: The differences in rows, added up over the bundles that have more and fewer.
        kept: Bundles whose archive was kept because the new export has far fewer rows.
    """

    bundles: int = 0
    changed: int = 0
    rows_added: int = 0
    rows_removed: int = 0
    kept: int = 0

    def stored(self, before: Stored, after: Stored) -> None:
        """Count a bundle that was stored again, with its archives before and after."""
        self.bundles += 1
        self.changed += before.sha256 != after.sha256
        self.rows_added += max(0, after.rows - before.rows)
        self.rows_removed += max(0, before.rows - after.rows)

    def count_kept(self) -> None:
        """Count a bundle whose archive was kept."""
        self.bundles += 1
        self.kept += 1

    def to_dict(self) -> dict[str, int]:
        """Return the counts under the keys of the summary."""
        return asdict(self)
