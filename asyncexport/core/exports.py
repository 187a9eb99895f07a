"""The exports the user wants, and the definition that determines an export's data.

A definition is what the service is asked for. Two runs with different definitions would mix different data in one
folder, so the ledger remembers it. Bundle width and settle time only say how and when the service is asked, and may
change.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from enum import StrEnum
from typing import Any, Self

from asyncexport.errors import Problem


class Type(StrEnum):
    """The kind of rows (API reference, section 3.1)."""

    EVENT = "event"
    INDIVIDUAL = "individual"


class Format(StrEnum):
    """The file format of the rows (API reference, section 8). The value is also part of the file's name."""

    NDJSON = "ndjson"
    CSV = "csv"
    JSON = "json"


@dataclass(frozen=True, slots=True)
class Definition:
    """What the service is asked for, apart from the range."""

    segment: str = "everyone"
    type: Type = Type.EVENT
    format: Format = Format.NDJSON
    fields: tuple[str, ...] = ()
    scope: str = ""
    timezone: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the definition as the ledger and `.export.json` store it."""
        return {
            "segment": self.segment,
            "type": self.type.value,
            "format": self.format.value,
            "fields": list(self.fields),
            "scope": self.scope,
            "timezone": self.timezone,
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Read what `to_dict` wrote.

        Raises:
            KeyError: a key is missing.
            ValueError: the type or the format is not known.
        """
        return cls(
            segment=data["segment"],
            type=Type(data["type"]),
            format=Format(data["format"]),
            fields=tuple(data["fields"]),
            scope=data["scope"],
            timezone=data["timezone"],
        )


@dataclass(frozen=True, slots=True)
class Export:
    """A named stream of bundles: its definition, the width of its bundles, and its settle time."""

    name: str
    definition: Definition = Definition()
    bundle_seconds: int = 1800
    settle_seconds: int = 26 * 3600


def unknown_names(names: Iterable[str], known: Sequence[str], *, place: str) -> Iterator[Problem]:
    """Yield a problem for each name that no export has. `place` is the option or argument that holds the names."""
    for name in names:
        if name not in known:
            nearest = get_close_matches(name, known, n=1)
            advice = f"did you mean {nearest[0]}?" if nearest else f"known: {', '.join(known)}"
            yield Problem(place, f"there is no export {name!r} ({advice})")
