"""The first requests of a run, and how many it takes to know the time; on a clock that jumps."""

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
    """Answers in the poller's place and in the service's, and writes down what was asked.

    Args:
        clock: Hears the date of each answer.
        ahead: How far the dates are ahead of this host's clock; the last holds for all that follow. None: no date.
        refusals: What is raised in place of an answer, by the call.
    """

    def __init__(self, clock: ServiceClock, *ahead: float | None, **refusals: Exception) -> None:
        self.clock, self.ahead, self.refusals = clock, list(ahead), refusals
        self.began = asyncio.get_running_loop().time()
        self.asked: list[str] = []

    def answer(self, call: str, kind: Kind) -> None:
        """Note the call, and answer it."""
        self.asked.append(call)
        if call in self.refusals:
            raise self.refusals[call]
        ahead = self.ahead.pop(0) if len(self.ahead) > 1 else self.ahead[0]
        if ahead is not None:
            self.clock.hear(kind, time.time() + asyncio.get_running_loop().time() - self.began + ahead)

    async def prime(self) -> None:
        """The list, which a refusal of it does not keep from going on."""
        with suppress(RefusedError):
            self.answer("list", Kind.LIST)

    async def operations(self) -> None:
        """The list once more."""
        self.answer("list", Kind.LIST)

    async def me(self) -> None:
        """Whose key it is."""
        self.answer("me", Kind.OTHER)

    async def segments(self, **_: Any) -> Any:
        """A page of segments."""
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
def test_as_many_are_asked_as_it_takes(ahead, asked):
    """One where the clocks agree; one more where a lone date is wrong; three where this host's clock is."""

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
    """What the last date says, where it is believed."""
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
    ids=["me refused", "me gone", "me in trouble", "nothing but the list", "no list"],
)
def test_whoever_does_not_answer_is_left_out(refusals, asked):
    """Another kind of call is asked in its place; where only one answers, ten seconds have to pass."""

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
def test_clocks_that_are_days_apart_end_the_run_unless_one_is_trusted(trust):
    """Both times are named, and what to do about it."""

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
def test_what_ends_a_run_ends_it(error):
    """A key that is refused, and a service that stays away."""

    @on_virtual_time
    async def contact():
        clock = ServiceClock()
        service: Any = Service(clock, 3600.0, me=error)
        with pytest.raises(type(error)):
            await first_contact(service, service, clock)

    contact()
