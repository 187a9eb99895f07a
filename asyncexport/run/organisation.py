"""Keeps a directory to one organisation: asks the service whose the key is, once a key (`core.organisation`).

1. It is asked when the service has answered the first request of a run and before anything is created. A run with
   nothing to do asks nothing.
2. A refused key ends the run. Any other answer that does not tell is told once and asked for again by the next run; it
   is never asked for again in the same run, and an answer that hangs is not waited for.
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from typing import Self

from asyncexport.config import ApiKey
from asyncexport.core.organisation import DirectoryOrganisation
from asyncexport.core.service.resources import Me
from asyncexport.errors import LedgerError, ServiceError, UnauthorizedError
from asyncexport.ledger import Ledger

ORGANISATION = "organisation"
"""The key of the remark in the ledger."""

SALT_BYTES = 16

PATIENCE_SECONDS = 45.0
"""How long the answer may take: the time of one request at the service's limit, and of an answer."""


class OrganisationCheck:
    """What is known of the key and the directory, before the service is asked; made by `begin`."""

    def __init__(self, ledger: Ledger, known: DirectoryOrganisation, key: str, *, is_old: bool) -> None:
        """`key` is the digest; `is_old`: the ledger holds bundles, and never heard of an organisation."""
        self._ledger = ledger
        self._known = known
        self._key = key
        self._is_old = is_old

    @classmethod
    async def begin(cls, ledger: Ledger, key: ApiKey) -> Self:
        """Look the key up in the ledger."""
        known = DirectoryOrganisation.read(
            await ledger.recall(ORGANISATION), new_salt=lambda: secrets.token_bytes(SALT_BYTES)
        )
        digest = await asyncio.to_thread(key.fingerprint, bytes.fromhex(known.salt))
        return cls(ledger, known, digest.hex(), is_old=not known.id and await ledger.has_states())

    @property
    def key_is_new(self) -> bool:
        """Whether the directory knows other keys, and not this one."""
        return self._known.knows_another(self._key)

    async def finish(
        self,
        me: Callable[[], Awaitable[Me]],
        tell: Callable[[str], None],
        *,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        """Ask the service, unless the key is known.

        Args:
            me: Asks whose the key is.
            tell: Told what the user should know.
            patience_seconds: How long the answer may take.

        Raises:
            UnauthorizedError: the key was refused.
            LedgerError: it is another organisation's.
        """
        if self._known.knows(self._key):
            return
        try:
            async with asyncio.timeout(patience_seconds):
                heard = (await me()).org_id
        except UnauthorizedError:
            raise
        except TimeoutError:
            tell(
                "could not check which organisation the API key belongs to: no answer in time; the next run asks again"
            )
            return
        except ServiceError as error:
            tell(f"could not check which organisation the API key belongs to: {error}; the next run asks again")
            return
        if not heard:
            tell("the service did not say which organisation the API key belongs to; the next run asks again")
            return
        if self._known.is_other(heard):
            raise LedgerError(
                f"the API key belongs to organisation {heard}, but the directory contains data of {self._known.id}",
                hint=f"use a key of {self._known.id}, or choose another [output] directory for {heard}",
            )
        if self._is_old:
            tell(f"the directory's data is assumed to belong to organisation {heard}, as the API key does")
        self._ledger.remember(ORGANISATION, self._known.with_key(self._key, reported=heard).to_json())
