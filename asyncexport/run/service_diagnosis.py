"""Asks the service for `doctor`: whether it can be reached, accepts the key, agrees on the time, and has the segments.

At most two requests are sent, each of them once: `/me`, and one about segments.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from asyncexport.client.clock import ServiceClock
from asyncexport.config import ApiKey, Settings
from asyncexport.core.diagnosis import Check, failed, passed, warned
from asyncexport.core.exits import Exit, exit_of
from asyncexport.core.organisation import DirectoryOrganisation
from asyncexport.core.service.requests import Kind
from asyncexport.core.service.resources import Me
from asyncexport.core.service.urls import is_loopback
from asyncexport.core.service_time import FAR_SECONDS, WORTH_A_WARNING_SECONDS, ClockTrust
from asyncexport.core.text import show_duration
from asyncexport.errors import (
    ConfigError,
    ExportError,
    GoneError,
    RateLimitedError,
    RefusedError,
    ReplyError,
    ServiceError,
    UnauthorizedError,
    UnavailableError,
)
from asyncexport.ledger import LedgerReader, present
from asyncexport.run.first_contact import HINT
from asyncexport.run.organisation import ORGANISATION
from asyncexport.run.outside_runs import client_outside_runs

if TYPE_CHECKING:
    from asyncexport.client.api import ApiClient

EVERYONE = "everyone"
"""The segment that every account has."""

NETWORK = "check the host ([api] base_url), the proxy ([api] proxy) and the network connection"


async def service_checks(
    settings: Settings, key: ApiKey, *, sent: Callable[[str], None]
) -> AsyncGenerator[Check, None]:
    """Yield the checks that need the service; after one that fails, the next ones make no sense."""
    host = urlsplit(key.base_url(settings.api.base_url)).hostname or ""
    clock = _FirstDate()
    try:
        async with client_outside_runs(settings, key, command="doctor", sent=sent, clock=clock) as client:
            try:
                me = await client.me()
            except ExportError as error:
                for check in _of_failure(error, host, settings):
                    yield check
                return
            yield passed("host", f"{host} answers")
            yield _way(settings, host)
            yield await asyncio.to_thread(_key, settings, me)
            yield _clock(clock.ahead_seconds, settings.api.clock)
            async with aclosing(_segments(settings, client)) as checks:
                async for check in checks:
                    yield check
    except ConfigError as error:
        # A proxy of the environment, a CA file or SSLKEYLOGFILE cannot be used.
        yield failed("TLS and proxy", str(error.problems[0]), error.hint, code=Exit.USAGE)
    except ExportError as error:
        yield failed("ledger", str(error), error.hint, code=exit_of(error))


class _FirstDate(ServiceClock):
    """A clock that remembers how far the first date of the service was ahead of this host's clock."""

    ahead_seconds: float | None = None

    def hear(self, kind: Kind, date: float) -> None:  # noqa: ARG002 - its signature
        """Remember the first date; warnings of the clock would only repeat the check."""
        if self.ahead_seconds is None:
            self.ahead_seconds = date - time.time()


def _of_failure(error: ExportError, host: str, settings: Settings) -> Iterator[Check]:
    """Yield the checks that follow from the failure of the first request."""
    code, message = exit_of(error), str(error)
    match error:
        case UnauthorizedError() | RefusedError(status=403):
            yield passed("host", f"{host} answers")
            yield _way(settings, host)
            yield failed("key", message, error.hint, code=code)
        case RateLimitedError(retry_after=seconds):
            yield passed("host", f"{host} answers")
            yield _way(settings, host)
            pause = "later" if seconds is None else f"in {show_duration(seconds)}"
            yield warned("key", f"not checked: {message}", f"ask again {pause}; a run waits by itself")
        case UnavailableError() | RefusedError() | ReplyError():
            yield failed("host", message, error.hint or NETWORK, code=code)
        case ServiceError():
            yield failed("TLS and proxy", message, error.hint or NETWORK, code=code)
        case _:
            yield failed("host", message, error.hint or NETWORK, code=code)


def _way(settings: Settings, host: str) -> Check:
    if settings.api.proxy == "environment":
        proxy = "through the proxies of the environment"
    else:
        proxy = "through [api] proxy" if settings.api.proxy else "without a proxy"
    if is_loopback(host):
        return passed("TLS and proxy", f"connected on this machine, {proxy}")
    trusted = "the system's and [api] ca_file's" if settings.api.ca_file else "the system's"
    return passed("TLS and proxy", f"connected {proxy}; the certificate is trusted by {trusted} authorities")


def _key(settings: Settings, me: Me) -> Check:
    """Check the key's organisation against that of the directory."""
    directory = settings.output.directory
    known = ""
    if present(directory):
        try:
            with LedgerReader(directory) as ledger:
                note = ledger.recall(ORGANISATION)
            known = DirectoryOrganisation.read(note, new_salt=bytes).id
        except ExportError:
            # The check of the ledger reports that.
            known = ""
    if known and me.org_id and known != me.org_id:
        return failed(
            "organisation",
            f"the key belongs to organisation {me.org_id}, but the directory contains data of {known}",
            f"use a key of {known}, or choose another [output] directory for {me.org_id}",
            code=Exit.LEDGER,
        )
    return passed("organisation", f"the service accepts the key; its organisation is {me.org_id or 'unknown'}")


def _clock(ahead: float | None, trust: ClockTrust) -> Check:
    if ahead is None:
        return warned("clock", "not checked: the answer of the service has no date")
    apart = f"this machine's clock is {show_duration(abs(ahead))} {'behind' if ahead > 0 else 'ahead of'} the service's"
    if abs(ahead) > FAR_SECONDS and trust is ClockTrust.NEITHER:
        return failed("clock", apart, HINT, code=Exit.USAGE)
    if abs(ahead) > WORTH_A_WARNING_SECONDS:
        is_hosts = abs(ahead) > FAR_SECONDS and trust is ClockTrust.HOST
        used = "this one, as [api] clock says" if is_hosts else "the service's"
        return warned("clock", apart, f"correct this machine's clock; runs use {used}")
    return passed("clock", "agrees with the service's")


async def _segments(settings: Settings, client: "ApiClient") -> AsyncGenerator[Check, None]:
    """Check the segments of all exports with one request: one by its id, several by the first page of the list."""
    wanted = list(
        dict.fromkeys(one.definition.segment for one in settings.exports if one.definition.segment != EVERYONE)
    )
    if not wanted:
        yield passed("segment", "every export uses everyone, which always exists")
        return
    try:
        found = await _found(client, wanted)
    except (RefusedError, GoneError) as error:
        yield failed("segment", f"{wanted[0]}: {error}", "`asyncexport segments` lists them", code=Exit.USAGE)
        return
    except ServiceError as error:
        yield warned("segment", f"not checked: {error}")
        return
    missing = [one for one in wanted if one not in found]
    if missing:
        names = ", ".join(missing)
        yield warned(
            "segment", f"not among the first {len(found)} of the account: {names}", "`asyncexport segments` lists all"
        )
    else:
        yield passed("segment", f"{', '.join(wanted)} {'exists' if len(wanted) == 1 else 'exist'}")


async def _found(client: "ApiClient", wanted: list[str]) -> set[str]:
    if len(wanted) == 1:
        return {(await client.segment(wanted[0])).id, wanted[0]}
    async with aclosing(client.segments(most_pages=1)) as segments:
        return {one.id async for one in segments}
