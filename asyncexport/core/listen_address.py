"""The address that a server of ours listens on, such as `127.0.0.1:9464`."""

import re
from dataclasses import dataclass
from typing import Self

from asyncexport.core.service.urls import is_loopback

MAX_PORT = 65_535


@dataclass(frozen=True, slots=True)
class ListenAddress:
    """A host and a port; port 0 stands for any free port."""

    host: str
    port: int

    @classmethod
    def read(cls, text: str, *, example: str = "127.0.0.1:9464") -> Self:
        """Read `host:port`; the host of an IPv6 address is in brackets.

        Args:
            text: The text.
            example: The address that the message of an error shows.

        Raises:
            ValueError: it is not an address of this form.
        """
        found = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+)):([0-9]{1,5})", text)
        if not found:
            raise ValueError(f'expected a host and a port, such as "{example}"')
        if int(found[3]) > MAX_PORT:
            raise ValueError(f"the port must be at most {MAX_PORT}")
        return cls(found[1] or found[2], int(found[3]))

    @property
    def is_public(self) -> bool:
        """Whether other machines may be able to connect."""
        return not is_loopback(self.host)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
