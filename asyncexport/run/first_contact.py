"""The first requests of a run: the list of operations, and then as many as it takes to know the time.

1. As a rule that is one request: the answer with the list bears the service's time, and this host's clock agrees.
2. Where the times differ, other kinds of call are asked, until three answers agree, or one confirms this host's clock.
   A call that is not answered is left out: the run goes on with the time that it has.
3. A list that is refused, or comes without a date, tells no time; then one other call is asked. If that does not tell
   it either, and the list was refused, the first bundle is exported before all others, since its answers do.
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
    """Read the list of operations, and find out what time it is.

    Raises:
        ConfigError: this host's clock and the service's are more than a day apart, and nobody said which counts.
        UnauthorizedError: the key was refused.
        UnavailableError: the service could not be reached for `[retry] outage`.
    """
    await poller.prime()
    if not clock.is_known and not clock.in_doubt:
        await _tried(service.me)
    # The pauses are for where only one kind of call is answered: then answers have to be apart.
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
        await _tried(ask)
    refuse_conflict(clock)


def tells_no_time(poller: OperationPoller, clock: ServiceClock) -> bool:
    """Whether only the answers to other calls can say what time it is (rule 3)."""
    return not clock.is_known and poller.mode is PollingMode.INDIVIDUAL


def refuse_conflict(clock: ServiceClock) -> None:
    """End a run whose host has another time than the service, by more than a day.

    Raises:
        ConfigError: with both times.
    """
    if clock.conflict is not None:
        raise ConfigError([Problem("api.clock", str(clock.conflict))], hint=HINT)


async def _tried(ask: Callable[[], Awaitable[object]]) -> None:
    """Ask once; a request that is refused or fails says nothing of the time."""
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
