"""The first requests of a run: the list of operations, and then as many as are needed to know the service's time.

1. Usually that is one request: the answer with the list contains the service's time, and this host's clock agrees.
2. If the times differ, other calls are made until three answers agree or one confirms this host's clock. Calls that
   fail are skipped: the run continues with the time it has.
3. If the list is refused or has no date, one other call is made. If its answer has no time either and the list was
   refused, the first bundle is exported before all others, because its answers contain the time.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from asyncexport.client.clock import ServiceClock
from asyncexport.core.admission import Priority
from asyncexport.core.polling import PollingMode
from asyncexport.core.service_time import APART_SECONDS
from asyncexport.engine.poller import OperationPoller
from asyncexport.errors import ConfigError, GoneError, Problem, RefusedError, ServiceError, UnauthorizedError

if TYPE_CHECKING:
    from asyncexport.client.api import ApiClient

HINT = 'correct this machine\'s clock, or choose which clock to trust with [api] clock = "service" or "host"'


async def first_contact(poller: OperationPoller, service: "ApiClient", clock: ServiceClock) -> None:
    """Read the list of operations and find out the service's time.

    Raises:
        ConfigError: this host's clock and the service's are more than a day apart, and `[api] clock` is not set.
        UnauthorizedError: the key was refused.
        UnavailableError: the service could not be reached for `[retry] outage`.
    """
    await poller.prime()
    if not clock.is_known and not clock.in_doubt:
        await _try(service.me)
    # The pauses matter if only one kind of call is answered: its answers must be some time apart.
    for pause_seconds, ask in (
        (0.0, service.me),
        (0.0, service.operations),
        (0.0, service.me),
        (0.0, lambda: _one_page(service)),
        (APART_SECONDS / 2, service.operations),
        (APART_SECONDS / 2, service.operations),
        (0.0, service.me),
    ):
        if not clock.in_doubt or clock.conflict is not None:
            break
        await asyncio.sleep(pause_seconds)
        await _try(ask)
    check_clocks(clock)


def time_is_unknown(poller: OperationPoller, clock: ServiceClock) -> bool:
    """Return whether the time is still unknown, so that the first bundle has to tell it (rule 3)."""
    return not clock.is_known and poller.mode is PollingMode.INDIVIDUAL


def check_clocks(clock: ServiceClock) -> None:
    """Check that this host's clock and the service's are not more than a day apart.

    Raises:
        ConfigError: they are; the message has both times.
    """
    if clock.conflict is not None:
        raise ConfigError([Problem("api.clock", str(clock.conflict))], hint=HINT)


async def _try(ask: Callable[[], Awaitable[object]]) -> None:
    """Make one call; a call that is refused or fails is ignored, because it tells no time."""
    try:
        await ask()
    except UnauthorizedError:
        raise
    except ServiceError as error:
        if not error.transient and not isinstance(error, RefusedError | GoneError):
            raise


async def _one_page(service: "ApiClient") -> None:
    async for _ in service.segments(priority=Priority.REST):
        break
