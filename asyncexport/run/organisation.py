"""Keeps a directory to one organisation: asks the service whose key it is, once per key and host (`core.organisation`).

1. The request is sent after the service has answered the first request of a run and before anything is created. A run
   with nothing to do sends none.
2. A refused key ends the run. If the answer fails otherwise or takes too long, that is reported and the run continues;
   the next run asks again.
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from typing import Self
from urllib.parse import urlsplit

from asyncexport.config import ApiKey
from asyncexport.core.organisation import DirectoryOrganisation
from asyncexport.core.service.resources import Me
from asyncexport.errors import LedgerError, ServiceError, UnauthorizedError
from asyncexport.ledger import Ledger

ORGANISATION = "organisation"
"""The ledger's key for what it knows about the organisation."""

SALT_BYTES = 16

TIMEOUT_SECONDS = 45.0
"""How long the answer may take: the wait for one request at the service's rate limit, plus the answer itself."""


def known_organisation(text: str | None) -> str:
    """Return the organisation whose data a directory holds, from the ledger's note; "" if it is not known."""
    return DirectoryOrganisation.read(text, new_salt=bytes).id


class OrganisationCheck:
    """Checks the organisation of the key; made by `begin`."""

    def __init__(self, ledger: Ledger, known: DirectoryOrganisation, key: str, *, host: str, is_old: bool) -> None:
        """`key` is the hash of the key; `is_old` says that the ledger has bundles but no organisation yet."""
        self._ledger = ledger
        self._known = known
        self._key = key
        self._host = host
        self._is_old = is_old

    @classmethod
    async def begin(cls, ledger: Ledger, key: ApiKey, *, base_url: str) -> Self:
        """Look the key up in the ledger. `base_url`: the setting of that name."""
        known = DirectoryOrganisation.read(
            await ledger.recall(ORGANISATION), new_salt=lambda: secrets.token_bytes(SALT_BYTES)
        )
        digest = await asyncio.to_thread(key.fingerprint, bytes.fromhex(known.salt))
        host = urlsplit(key.base_url(base_url)).netloc.lower()
        return cls(ledger, known, digest.hex(), host=host, is_old=not known.id and await ledger.has_states())

    @property
    def key_is_new(self) -> bool:
        """Whether the directory knows other keys but not this one."""
        return self._known.knows_another(self._key)

    async def finish(
        self,
        me: Callable[[], Awaitable[Me]],
        report: Callable[[str], None],
        *,
        timeout_seconds: float = TIMEOUT_SECONDS,
    ) -> None:
        """Ask the service, unless the key is known at this host.

        Args:
            me: Asks the service whose key it is.
            report: Called with messages for the user.
            timeout_seconds: How long the answer may take.

        Raises:
            UnauthorizedError: the key was refused.
            LedgerError: the key belongs to another organisation than the directory.
        """
        if self._known.knows(self._key, host=self._host):
            if self._key not in self._known.hosts:
                self._remember(self._known.id)
            return
        try:
            async with asyncio.timeout(timeout_seconds):
                heard = (await me()).org_id
        except UnauthorizedError:
            raise
        except TimeoutError:
            report(
                "could not check which organisation the API key belongs to: no answer in time; the next run asks again"
            )
            return
        except ServiceError as error:
            report(f"could not check which organisation the API key belongs to: {error}; the next run asks again")
            return
        if not heard:
            report("the service did not say which organisation the API key belongs to; the next run asks again")
            return
        if self._known.is_other(heard):
            raise self._other(heard)
        if self._is_old:
            report(f"the directory's data is assumed to belong to organisation {heard}, as the API key does")
        self._remember(heard)

    def _remember(self, organisation: str) -> None:
        known = self._known.with_key(self._key, host=self._host, reported=organisation)
        self._ledger.remember(ORGANISATION, known.to_json())

    def _other(self, heard: str) -> LedgerError:
        """Return the error for a key of another organisation than the directory's."""
        known, before = self._known.id, self._known.hosts.get(self._key)
        choose = f"choose another [output] directory for {heard}"
        if before is None:
            text = f"the API key belongs to organisation {heard}, but the directory contains data of {known}"
            return LedgerError(text, hint=f"use a key of {known}, or {choose}")
        return LedgerError(
            f"at {self._host} the API key belongs to organisation {heard}, but the directory contains data of {known}, "
            f"exported from {before}",
            hint=f"set [api] base_url to the host of {known}, or {choose}",
        )
