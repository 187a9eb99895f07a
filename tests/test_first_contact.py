"""The first requests of a run, and how many of them are needed to know the time; on a virtual clock."""

import asyncio
import time
from contextlib import suppress
from typing import Any

import pytest

from asyncexport.client.clock import ServiceClock
from asyncexport.core.bundles import DAY
from asyncexport.core.service.requests import Kind
from asyncexport.core.service_time import ClockTrust
from asyncexport.errors import (
    ConfigError,
    GoneError,
    RefusedError,
    ReplyError,
    UnauthorizedError,
    UnavailableError,
)
from asyncexport.run.first_contact import first_contact
from tests.virtual_time import on_virtual_time

REFUSED = RefusedError("403", status=403)


class Service:
    """Takes the place of the poller and the service, and records the calls.

    Args:
        clock: The clock that receives the date of each answer.
        ahead: Seconds by which the dates are ahead of this host's clock, one per answer; the last one is repeated. None
            for an answer without a date.
        refusals: The errors to raise instead of an answer, by call.
    """

    def __init__(self, clock: ServiceClock, *ahead: float | None, **refusals: Exception) -> None:
        self.clock, self.ahead, self.refusals = clock, list(ahead), refusals
        self.began = asyncio.get_running_loop().time()
        self.asked: list[str] = []

    def answer(self, call: str, kind: Kind) -> None:
        """Record the call and answer it."""
        self.asked.append(call)
        if call in self.refusals:
            raise self.refusals[call]
        ahead = self.ahead.pop(0) if len(self.ahead) > 1 else self.ahead[0]
        if ahead is not None:
            self.clock.hear(kind, time.time() + asyncio.get_running_loop().time() - self.began + ahead)

    async def prime(self) -> None:
        """List operations; a refusal is ignored."""
        with suppress(RefusedError):
            self.answer("list", Kind.LIST)

    async def operations(self) -> None:
        """List operations."""
        self.answer("list", Kind.LIST)

    async def me(self) -> None:
        """Ask whom the key belongs to."""
        self.answer("me", Kind.OTHER)

    async def segments(self, **_: Any) -> Any:
        """List one page of segments."""
        self.answer("segments", Kind.OTHER)
        yield None


@pytest.mark.parametrize(
    ("ahead", "asked"),
    [
        ([0.0], ["list"]),
        ([200.0], ["list"]),
        ([3600.0], ["list", "me", "list"]),
        ([-20 * 3600.0], ["list", "me", "list"]),
        ([3600.0, 0.0], ["list", "me"]),
        ([1e9, 0.0], ["list", "me"]),
        ([3600.0, -3600.0, 0.0], ["list", "me", "list"]),
        ([None], ["list", "me"]),
        ([None, 0.0], ["list", "me"]),
        ([None, 3600.0], ["list", "me", "me", "list"]),
    ],
)
def test_as_many_requests_are_sent_as_are_needed(ahead, asked):
    """One if the clocks agree, another one if a single date is wrong, and three if this host's clock is."""

    @on_virtual_time
    async def contact():
        clock = ServiceClock()
        service: Any = Service(clock, *ahead)
        await first_contact(service, service, clock)
        assert service.asked == asked
        assert clock.is_known == (ahead != [None])
        assert abs(clock.now() - time.time() - service_time(ahead)) < 400

    contact()


def service_time(ahead: list[float | None]) -> float:
    """Return the time of the last date, if it is accepted."""
    return ahead[-1] or 0.0


@pytest.mark.parametrize(
    ("refusals", "asked"),
    [
        ({"me": REFUSED}, ["list", "me", "list", "me", "segments"]),
        ({"me": GoneError("404")}, ["list", "me", "list", "me", "segments"]),
        ({"me": UnavailableError("503")}, ["list", "me", "list", "me", "segments"]),
        ({"me": ReplyError("?"), "segments": REFUSED}, ["list", "me", "list", "me", "segments", "list", "list"]),
        ({"list": REFUSED}, ["list", "me", "me", "list", "me", "segments", "list", "list", "me"]),
    ],
    ids=["me refused", "me not found", "me unavailable", "only the list answers", "list refused"],
)
def test_a_call_that_fails_is_replaced_by_another(refusals, asked):
    """A different kind of call is used instead; if only one answers, it is sent again ten seconds later."""

    @on_virtual_time
    async def contact():
        clock = ServiceClock()
        service: Any = Service(clock, 3600.0, **refusals)
        await first_contact(service, service, clock)
        assert service.asked == asked
        assert clock.is_known
        assert clock.now() - time.time() == pytest.approx(3600.0, abs=30)

    contact()


@pytest.mark.parametrize("trust", list(ClockTrust))
def test_clocks_that_are_days_apart_end_the_run_unless_one_is_chosen(trust):
    """The error reports both times, and the hint names `[api] clock`."""

    @on_virtual_time
    async def contact():
        clock = ServiceClock(trust=trust)
        service: Any = Service(clock, 3.0 * DAY)
        if trust is not ClockTrust.NEITHER:
            await first_contact(service, service, clock)
            return
        with pytest.raises(ConfigError) as caught:
            await first_contact(service, service, clock)
        assert str(caught.value).startswith("api.clock: this machine's clock says 2")
        assert "3 d apart" in str(caught.value)
        assert "[api] clock" in caught.value.hint

    contact()


@pytest.mark.parametrize("error", [UnauthorizedError("401"), UnavailableError("down", lasting=True)])
def test_errors_that_concern_the_whole_run_are_raised(error):
    """A refused key and an unreachable service end the run."""

    @on_virtual_time
    async def contact():
        clock = ServiceClock()
        service: Any = Service(clock, 3600.0, me=error)
        with pytest.raises(type(error)):
            await first_contact(service, service, clock)

    contact()
