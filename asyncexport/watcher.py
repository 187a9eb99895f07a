"""One poll for all running operations: who is done, who failed, who has vanished.

1. One List Operations request tells of up to 100 operations; nobody else uses it. When to send it is decided in
   `core.watching`.
2. What nobody knows of the list is learned while using it: whether its items have ids, whether the newest come first,
   how far back it goes (reference section 3.3). At most ⌈in flight / 100⌉ + 1 pages are read a poll.
3. Where ours are not on those pages, the list of the pending is tried: what has vanished from it is finished, and is
   asked for singly. Where that does not help either, and where items have no ids or the list is refused, every
   operation is polled singly.
4. Absence is never a failure. A single 404 is not one either, right after the create: it must be said twice, a minute
   apart.
5. An unknown state is running, said once in the log, under the same deadline as any other.
6. Ages go by the service's clock. Past its deadline an operation is asked once more; if it still runs, its waiter is
   told so, and it is no longer watched.
"""

import asyncio
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from asyncexport.core.durations import Durations
from asyncexport.core.pacing import Prefer, Priority
from asyncexport.core.watching import (
    LIST_SIZE,
    WORTH_A_PAGE,
    Finished,
    Mode,
    Outlook,
    Running,
    chance_for_a_single,
    list_due_seconds,
    single_due_seconds,
)
from asyncexport.core.wire import Completed, Ended, Operation, OperationsPage
from asyncexport.errors import GoneError, OperationFailedError, RefusedError, ReplyError, ServiceError

log = logging.getLogger(__name__)

GONE_AFTER_SECONDS = 60.0
"""How long an operation must have been said not to exist before that is believed."""

SINGLE_SPACING_SECONDS = 1.0
"""At most one single poll a second overall, whatever is due."""

MOST_BROKEN = 3
"""So many unreadable lists in a row are no accident."""

LEAST_NEWS = 0.02
"""Between polls of one operation, at least this share of its age passes: what took an hour is not asked each second."""


class Operations(Protocol):
    """What is asked of the service."""

    async def operation(self, operation_id: str, *, priority: Priority) -> Operation:
        """One operation."""
        ...

    async def operations(self, *, state: str = "", token: str = "", priority: Priority) -> OperationsPage:
        """One page of the list."""
        ...


class Purse(Protocol):
    """What is known of the budget; it is looked at, never touched."""

    @property
    def tokens(self) -> int:
        """How many requests could go out now."""
        ...

    @property
    def polls_cost(self) -> bool:
        """Whether polls take tokens."""
        ...

    @property
    def is_calm(self) -> bool:
        """Whether neither a result nor a create waits for a token."""
        ...

    async def calm(self) -> None:
        """Wait until that is so."""
        ...


@dataclass(frozen=True, slots=True)
class Polling:
    """`[polling]`, and how many tokens the bucket holds."""

    min_interval_seconds: float
    deadline_seconds: float
    prefer: Prefer
    burst: int
    refill_seconds: float


@dataclass(slots=True)
class _Watched:
    operation_id: str
    asked_at: float
    outcome: "asyncio.Future[Finished | None]"
    seen: float = 0.0
    looked_at: float = -math.inf
    listed: bool = True
    gone_since: float | None = None
    last_look: bool = False


@dataclass(slots=True)
class _Listing:
    """What has been learned of the list."""

    mode: Mode = Mode.LIST
    listed_at: float = -math.inf
    broken: int = 0
    missed: int = 0
    unknown_states: set[str] = field(default_factory=set)


@dataclass(slots=True)
class _Reading:
    """How far the list was read in one poll."""

    unseen: dict[str, _Watched]
    token: str = ""
    tokens: set[str] = field(default_factory=set)
    ended: bool = False
    newest_first: bool = True
    oldest: float = math.inf

    def turn(self, page: OperationsPage) -> None:
        """Note what a page says of the list's order and of its end; a repeated token is an end, too."""
        for operation in page.operations:
            if operation.created_at is not None:
                self.newest_first &= operation.created_at <= self.oldest
                self.oldest = min(self.oldest, operation.created_at)
        self.token = page.next_token
        self.ended = not self.token or self.token in self.tokens
        self.tokens.add(self.token)

    def lies_further_back(self, asked_at: float) -> bool:
        """Whether an operation is older than all that was read of a list that begins with the newest."""
        return self.newest_first and asked_at < self.oldest


class Watcher:
    """Watches operations until they are done.

    Args:
        service: What is asked.
        purse: What is known of the budget.
        durations: What is learned of how long operations take.
        polling: The settings.
        clock: Seconds since 1970 by the service's clock.
        more_to_create: Whether bundles are left that have no operation yet.
        learned: Told the duration of each finished operation: when it finished, and how many seconds it took.
    """

    def __init__(
        self,
        service: Operations,
        *,
        purse: Purse,
        durations: Durations,
        polling: Polling,
        clock: Callable[[], float],
        more_to_create: Callable[[], bool],
        learned: Callable[[float, float], None],
    ) -> None:
        self._service = service
        self._purse = purse
        self._durations = durations
        self._polling = polling
        self._clock = clock
        self._more_to_create = more_to_create
        self._learned = learned
        self._listing = _Listing()
        self._watched: dict[str, _Watched] = {}
        self._news = asyncio.Event()

    @property
    def mode(self) -> Mode:
        """How finished operations are found at present."""
        return self._listing.mode

    @property
    def ages(self) -> list[float]:
        """How long ago the operations that are watched were asked for, in seconds."""
        now = self._clock()
        return [max(0.0, now - one.asked_at) for one in self._watched.values()]

    async def prime(self) -> None:
        """Look at the list once before anything is created: its shape is learned, and the service's clock with it.

        Raises:
            UnauthorizedError: the key was refused.
            UnavailableError: the service could not be reached for as long as anybody is willing to wait.
        """
        answered = False
        while not answered:
            page = await self._read_page(state="", token="")
            answered = page is not None or self.mode is not Mode.LIST

    async def wait(self, operation_id: str, *, asked_at: float) -> Finished | None:
        """Wait until an operation is done; None when it still runs at its deadline.

        Raises:
            OperationFailedError: it ended as FAILED or ERROR.
            GoneError: the service does not know it (any more).
        """
        watched = _Watched(operation_id, asked_at, asyncio.get_running_loop().create_future())
        self._watched[operation_id] = watched
        self._news.set()
        try:
            return await watched.outcome
        finally:
            self._watched.pop(operation_id, None)

    async def ask(self, operation_id: str) -> Finished | None:
        """Ask for one operation now; None where it still runs.

        Raises:
            OperationFailedError, GoneError: as `wait` does.
            ServiceError: the request failed.
        """
        return self._judge(await self._service.operation(operation_id, priority=Priority.POLL), self._clock())

    async def run(self) -> None:
        """Poll whenever that is due, until cancelled.

        Raises:
            ServiceError: one that trying again does not help.
        """
        while True:
            outlook = self._outlook()
            if not self._watched:
                await self._until_news(None)
            elif outlook.waits_for_calm:
                await self._purse.calm()
                # Whoever was just served may ask for more at once: let it speak first.
                await asyncio.sleep(0)
                if not self._purse.is_calm:
                    continue
                await self._look_when_due(self._outlook())
            else:
                await self._look_when_due(outlook)

    async def _look_when_due(self, outlook: Outlook) -> None:
        listed = [one for one in self._watched.values() if one.listed and self.mode is not Mode.SINGLE]
        single, single_in = self._next_single(outlook, listed)
        list_in = self._list_due_in(listed, outlook)
        if single is not None and single_in <= min(0.0, list_in):
            await self._look_at(single)
        elif list_in <= 0:
            await self._look_at_list()
        else:
            await self._until_news(min(single_in, list_in, self._beat(outlook)))

    def _beat(self, outlook: Outlook) -> float:
        """How long a decision holds: tokens come in, and change it."""
        return self._polling.refill_seconds if outlook.polls_cost else math.inf

    def _outlook(self) -> Outlook:
        return Outlook(
            tokens=self._purse.tokens if self._purse.polls_cost else 0,
            burst=self._polling.burst,
            polls_cost=self._purse.polls_cost,
            calm=self._purse.is_calm,
            more_to_create=self._more_to_create(),
            prefer=self._polling.prefer,
        )

    def _running(self, one: _Watched, now: float) -> Running:
        return Running(age=now - one.asked_at, seen=one.seen)

    def _list_due_in(self, listed: list[_Watched], outlook: Outlook) -> float:
        if not listed:
            return math.inf
        now = self._clock()
        due = list_due_seconds([self._running(one, now) for one in listed], self._durations, outlook)
        return max(due, self._listing.listed_at + self._polling.min_interval_seconds - now)

    def _next_single(self, outlook: Outlook, listed: list[_Watched]) -> tuple[_Watched | None, float]:
        """Who is to be polled singly next, and in how many seconds."""
        now = self._clock()
        in_list = {one.operation_id for one in listed}
        chance = chance_for_a_single(len(self._watched), outlook)
        best: tuple[_Watched | None, float] = (None, math.inf)
        for one in self._watched.values():
            to_deadline = one.asked_at + self._polling.deadline_seconds - now
            due = to_deadline
            if one.operation_id not in in_list:
                wait = single_due_seconds(self._running(one, now), self._durations, chance=chance)
                due = min(due, max(wait, self._spacing(one, now)))
            one.last_look = to_deadline <= 0
            if due < best[1]:
                best = (one, due)
        return best

    def _spacing(self, one: _Watched, now: float) -> float:
        least = max(self._polling.min_interval_seconds, LEAST_NEWS * (now - one.asked_at))
        return one.looked_at + least - now

    async def _look_at(self, one: _Watched) -> None:
        one.looked_at = self._clock()
        try:
            operation = await self._service.operation(one.operation_id, priority=Priority.POLL)
        except (GoneError, RefusedError) as error:
            self._note_gone(one, error)
        except ServiceError as error:
            if not error.transient:
                raise
        else:
            one.gone_since = None
            self._settle(one, operation)
            self._weigh()
            if one.last_look and not one.outcome.done():
                one.outcome.set_result(None)
                self._forget(one)
        await self._until_news(min(SINGLE_SPACING_SECONDS, self._polling.min_interval_seconds), wake=False)

    def _note_gone(self, one: _Watched, error: ServiceError) -> None:
        """Rule 4."""
        now = self._clock()
        one.seen = max(one.seen, now - one.asked_at)
        if one.gone_since is None:
            one.gone_since = now
        elif now - one.gone_since >= min(GONE_AFTER_SECONDS, self._polling.deadline_seconds):
            self._fail(one, error)
        if one.last_look:
            self._fail(one, error)

    async def _look_at_list(self) -> None:
        ours = {key: one for key, one in self._watched.items() if one.listed}
        asked_at = self._listing.listed_at = self._clock()
        reading = await self._read(dict(ours))
        if reading is None:
            return
        missing = [one for one in reading.unseen.values() if one.asked_at < asked_at and not one.outcome.done()]
        if self.mode is Mode.PENDING:
            await self._ask_for_vanished(missing, whole=reading.ended)
        elif self.mode is Mode.LIST:
            self._note_missing(missing, reading, found=len(ours) - len(reading.unseen))
        self._weigh()

    async def _read(self, unseen: dict[str, _Watched]) -> "_Reading | None":
        """As many pages as it is worth, or until all of ours were seen; None where the list was not to be had."""
        reading = _Reading(unseen)
        state = "PENDING" if self.mode is Mode.PENDING else ""
        for _ in range(math.ceil(len(unseen) / LIST_SIZE) + 1):
            page = await self._read_page(state=state, token=reading.token)
            if page is None:
                return None
            for operation in page.operations:
                one = unseen.pop(operation.id or "", None)
                if one is not None:
                    self._settle(one, operation)
            reading.turn(page)
            few = state == "" and reading.newest_first and self._purse.polls_cost and len(unseen) < WORTH_A_PAGE
            if reading.ended or not unseen or few:
                break
        return reading

    async def _read_page(self, *, state: str, token: str) -> OperationsPage | None:
        """One page; None where there is none to be had, and what that means has been noted."""
        try:
            page = await self._service.operations(state=state, token=token, priority=Priority.POLL)
        except ServiceError as error:
            if error.transient:
                self._note_broken(error)
                return None
            if isinstance(error, RefusedError | GoneError):
                self._fall_back(Mode.SINGLE, f"the list of operations is refused ({error})")
                return None
            raise
        self._listing.broken = 0
        if any(operation.id is None for operation in page.operations):
            self._fall_back(Mode.SINGLE, "the list of operations has no ids")
            return None
        return page

    def _note_broken(self, error: ServiceError) -> None:
        if isinstance(error, ReplyError):
            self._listing.broken += 1
            if self._listing.broken >= MOST_BROKEN:
                self._fall_back(Mode.SINGLE, f"the list of operations cannot be read ({error})")

    def _note_missing(self, missing: list[_Watched], reading: "_Reading", *, found: int) -> None:
        """Rule 3. Those that lie further back are polled singly; where the list leaves ours out, it is of no use."""
        left_out = [one for one in missing if not reading.lies_further_back(one.asked_at)]
        self._listing.missed = self._listing.missed + 1 if left_out else 0
        if left_out and (not found or self._listing.missed >= MOST_BROKEN):
            self._fall_back(Mode.PENDING, "running operations are not on the first pages of the list")
            return
        for one in missing:
            one.listed = False

    async def _ask_for_vanished(self, missing: list[_Watched], *, whole: bool) -> None:
        if not whole:
            self._fall_back(Mode.SINGLE, "the list of pending operations is too long")
            return
        running = 0
        for one in missing:
            await self._look_at(one)
            running += not one.outcome.done()
        if running > len(missing) / 2:
            self._fall_back(Mode.SINGLE, "the list of pending operations leaves out running ones")

    def _fall_back(self, mode: Mode, why: str) -> None:
        if mode is not self._listing.mode:
            log.info("%s: operations are now found by %s polls", why, mode.value)
            self._listing.mode = mode

    def _settle(self, one: _Watched, operation: Operation) -> None:
        """Take in what was said of one operation."""
        now = self._clock()
        try:
            finished = self._judge(operation, now, one)
        except OperationFailedError as error:
            self._fail(one, error)
            return
        if finished is None:
            one.seen = max(one.seen, now - one.asked_at)
        elif not one.outcome.done():
            one.outcome.set_result(finished)
            self._forget(one)

    def _judge(self, operation: Operation, now: float, one: _Watched | None = None) -> Finished | None:
        match operation.progress:
            case Completed(export_id):
                created_at = operation.created_at or (one.asked_at if one else now)
                finished_at = operation.finished_at or now
                if one is not None or operation.finished_at:
                    self._durations.learn(finished_at - created_at)
                    self._learned(finished_at, finished_at - created_at)
                return Finished(export_id, created_at)
            case Ended(reason):
                raise OperationFailedError(reason)
            case running:
                self._note_state(running.state)
                return None

    def _note_state(self, state: str) -> None:
        if state != "PENDING" and state not in self._listing.unknown_states:
            self._listing.unknown_states.add(state)
            log.warning("an operation is in the unknown state %r: taken for running", state[:40])

    def _fail(self, one: _Watched, error: ServiceError) -> None:
        if not one.outcome.done():
            one.outcome.set_exception(error)
            self._forget(one)

    def _forget(self, one: _Watched) -> None:
        """No longer watched from this moment, though its waiter has not run yet."""
        self._watched.pop(one.operation_id, None)

    def _weigh(self) -> None:
        self._durations.weigh([one.seen for one in self._watched.values() if one.seen > 0])

    async def _until_news(self, seconds: float | None, *, wake: bool = True) -> None:
        """Sleep so long, or (with `wake`) until an operation is added."""
        if not wake:
            await asyncio.sleep(seconds or 0.0)
            return
        self._news.clear()
        try:
            async with asyncio.timeout(None if seconds is None or math.isinf(seconds) else seconds):
                await self._news.wait()
        except TimeoutError:
            return
