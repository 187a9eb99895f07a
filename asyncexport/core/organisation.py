"""Which organisation's data a directory holds: always one, whichever of its keys is used.

1. The first organisation that the service reports is the directory's. It never changes.
2. The service is asked once for each key which organisation it belongs to, and again if the key is used with another
   host: the sandbox and the real service may both accept it. Of the key only a short digest is kept, with a salt of the
   directory's own: enough to recognise the key, and too little to find it out.
3. A key of another organisation is rejected: two organisations' rows in one folder cannot be told apart afterwards.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Self

import orjson

KNOWN_KEYS = 32
"""The number of keys that are remembered, the newest ones. For a forgotten key the service is asked again."""


@dataclass(frozen=True, slots=True)
class DirectoryOrganisation:
    """What a directory's ledger remembers about its organisation.

    Attributes:
        salt: The salt for the digests of keys, in hex.
        id: The organisation's id; "" until the service has reported it.
        keys: The digests of its keys, in hex, the newest last.
        hosts: The host that confirmed a key, with its port, by the key's digest. Earlier versions did not record it.
    """

    salt: str
    id: str = ""
    keys: tuple[str, ...] = ()
    hosts: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, text: str | None, *, new_salt: Callable[[], bytes]) -> Self:
        """Read what `to_json` wrote; if that is missing or unreadable, return a new one with a new salt."""
        try:
            data = orjson.loads(text or "")
            found = cls(data["salt"], data["id"], tuple(data["keys"]), dict(data.get("hosts", {})))
            bytes.fromhex(found.salt)
        except (ValueError, KeyError, TypeError):
            return cls(new_salt().hex())
        return found

    def to_json(self) -> str:
        """Return it as the ledger stores it."""
        return orjson.dumps(
            {"salt": self.salt, "id": self.id, "keys": list(self.keys), "hosts": dict(self.hosts)}
        ).decode()

    def knows(self, key: str, *, host: str) -> bool:
        """Whether a key, by its digest, is known to belong to the organisation; if no host is recorded, at any host."""
        return bool(self.id) and key in self.keys and self.hosts.get(key, host) == host

    def knows_another(self, key: str) -> bool:
        """Whether other keys are known, but not this one."""
        return bool(self.keys) and key not in self.keys

    def is_other(self, reported: str) -> bool:
        """Whether the service reports another organisation for a key than the directory's."""
        return bool(self.id) and reported != self.id

    def with_key(self, key: str, *, host: str, reported: str) -> Self:
        """Return it with one more key, whose organisation this host has reported.

        Raises:
            ValueError: the key belongs to another organisation.
        """
        if self.is_other(reported):
            raise ValueError("a key of another organisation is never remembered")
        keys = (*(one for one in self.keys if one != key), key)[-KNOWN_KEYS:]
        hosts = {one: at for one, at in {**self.hosts, key: host}.items() if one in keys}
        return replace(self, id=reported, keys=keys, hosts=hosts)
