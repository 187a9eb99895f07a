"""Whose data a directory holds: one organisation's, whichever of its keys is used.

1. The first organisation that is heard of is the directory's. It is never changed.
2. The service is asked whose a key is, once a key. Of the key itself nothing is kept but a short digest under a salt
   of the directory's own: enough to know the key again, and too little to find it.
3. A key of another organisation is refused: two organisations' rows in one folder cannot be told apart afterwards.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Self

import orjson

KNOWN_KEYS = 32
"""So many keys are remembered, the newest; one that was forgotten is asked about once more."""


@dataclass(frozen=True, slots=True)
class DirectoryOrganisation:
    """What a directory's ledger remembers of its organisation.

    Attributes:
        salt: What the digests of keys are made with, in hex.
        id: The organisation's id; "" until the service has told it.
        keys: The digests of its keys, in hex, the newest last.
    """

    salt: str
    id: str = ""
    keys: tuple[str, ...] = ()

    @classmethod
    def read(cls, text: str | None, *, new_salt: Callable[[], bytes]) -> Self:
        """What `to_json` made; without anything, or where it cannot be read, a new one with a salt of its own."""
        try:
            data = orjson.loads(text or "")
            found = cls(data["salt"], data["id"], tuple(data["keys"]))
            bytes.fromhex(found.salt)
        except (ValueError, KeyError, TypeError):
            return cls(new_salt().hex())
        return found

    def to_json(self) -> str:
        """As the ledger remembers it."""
        return orjson.dumps({"salt": self.salt, "id": self.id, "keys": list(self.keys)}).decode()

    def knows(self, key: str) -> bool:
        """Whether a key is known to be one of the organisation's, by its digest."""
        return bool(self.id) and key in self.keys

    def knows_another(self, key: str) -> bool:
        """Whether other keys are known, and not this one."""
        return bool(self.keys) and key not in self.keys

    def is_other(self, heard: str) -> bool:
        """Whether what the service told of a key is another organisation than the directory's."""
        return bool(self.id) and heard != self.id

    def with_key(self, key: str, *, heard: str) -> Self:
        """The same once the service has told whose the key is: the directory's, or the first ever heard of.

        Raises:
            ValueError: it is another's.
        """
        if self.is_other(heard):
            raise ValueError("a key of another organisation is never remembered")
        others = [one for one in self.keys if one != key]
        return replace(self, id=heard, keys=(*others, key)[-KNOWN_KEYS:])
