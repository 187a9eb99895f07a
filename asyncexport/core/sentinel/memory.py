"""What the ledger remembers of the sentinel, as the text of a note.

1. For each export, the newest row of the ledger that was judged: a later run judges what was stored since. The numbers
   are valid for one ledger only; in a rebuilt one everything is judged again.
2. The open shortfalls, so that none is reported twice; at most 100, because the note is written with every commit.
3. The exports whose old data was judged: that is done once.
"""

from dataclasses import dataclass, field
from typing import Any, Self

import orjson

from asyncexport.core.bundles import Bundle, Range
from asyncexport.core.sentinel.shortfalls import Shortfall, ShortfallRule

NOTE = "sentinel"
"""The key of the note."""

MOST_KNOWN = 100


@dataclass(frozen=True, slots=True)
class SentinelMemory:
    """What the ledger remembers.

    Attributes:
        ledger: When the ledger was made for which the row numbers are valid.
        judged: The newest row of the ledger that was judged, by export.
        known: The open shortfalls of all exports.
        old_judged: The exports whose old data was judged.
    """

    ledger: float = 0.0
    judged: dict[str, int] = field(default_factory=dict)
    known: tuple[Shortfall, ...] = ()
    old_judged: frozenset[str] = frozenset()

    @classmethod
    def read(cls, text: str | None) -> Self:
        """Read a note. One that is missing or invalid remembers nothing."""
        try:
            data = orjson.loads(text or "")
            return cls(
                float(data["ledger"]),
                {str(name): int(row) for name, row in data["judged"].items()},
                tuple(_shortfall(one) for one in data["known"]),
                frozenset(map(str, data["old_judged"])),
            )
        except (ValueError, TypeError, KeyError, AttributeError):
            return cls()

    def to_text(self) -> str:
        """Return the text of the note."""
        newest = sorted(self.known, key=lambda one: one.bundle.range.end)[-MOST_KNOWN:]
        data = {
            "ledger": self.ledger,
            "judged": self.judged,
            "known": [
                [
                    one.bundle.export,
                    one.bundle.range.start,
                    one.bundle.range.end,
                    one.rule.value,
                    one.expected,
                    one.found,
                ]
                for one in newest
            ],
            "old_judged": sorted(self.old_judged),
        }
        return orjson.dumps(data).decode()

    def known_of(self, export: str) -> tuple[Shortfall, ...]:
        """Return the known shortfalls of an export."""
        return tuple(one for one in self.known if one.bundle.export == export)


def _shortfall(values: Any) -> Shortfall:
    export, start, end, rule, expected, found = values
    rows = None if expected is None else int(expected)
    return Shortfall(Bundle(str(export), Range(int(start), int(end))), ShortfallRule(rule), rows, int(found))
