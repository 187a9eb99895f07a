"""What the user wants: an export, and the definition that makes its data what it is.

A definition is what the service is asked for; two runs whose definitions differ would mix different data in one
folder, so a ledger remembers it. Bundle width and settle time say only how and when it is asked, and may change.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from enum import StrEnum
from typing import Any, Self

from asyncexport.errors import Problem


class Type(StrEnum):
    """What a row is (reference section 3.1)."""

    EVENT = "event"
    INDIVIDUAL = "individual"


class Format(StrEnum):
    """The container of the rows (reference section 8); the value is the middle of the file's name, too."""

    NDJSON = "ndjson"
    CSV = "csv"
    JSON = "json"


@dataclass(frozen=True, slots=True)
class Definition:
    """What the service is asked for, range apart."""

    segment: str = "everyone"
    type: Type = Type.EVENT
    format: Format = Format.NDJSON
    fields: tuple[str, ...] = ()
    scope: str = ""
    timezone: str = ""

    def to_dict(self) -> dict[str, Any]:
        """As the ledger and `.export.json` keep it."""
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
    """A named stream of bundles: what to ask for, in pieces how wide, and how long after the fact."""

    name: str
    definition: Definition = Definition()
    bundle_seconds: int = 1800
    settle_seconds: int = 26 * 3600


def unknown_names(names: Iterable[str], known: Sequence[str], *, place: str) -> Iterator[Problem]:
    """A problem for each name that no export has; `place` is the option or the argument that names them."""
    for name in names:
        if name not in known:
            nearest = get_close_matches(name, known, n=1)
            told = f"did you mean {nearest[0]}?" if nearest else f"known: {', '.join(known)}"
            yield Problem(place, f"there is no export {name!r} ({told})")
