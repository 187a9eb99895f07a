"""One poll for all running operations: who is done, who failed, who has vanished.

1. One List Operations request tells of up to 100 operations; nobody else uses it. When to send it is decided in
   `core.watching`.
2. What nobody knows of the list is learned while using it: whether its items have ids, whether the newest come first,
   how far back it goes (reference section 3.3). At most ⌈in flight / 100⌉ + 1 pages are read a poll, and where polls
   cost and the newest come first, none that is not worth it. What lies further back than that is polled singly.
3. Where ours are missing from the pages where they should be, the list of the pending is tried: what has vanished from
   it is finished, and is asked for singly. Where that does not help either, and where items have no ids or the list is
   refused, every operation is polled singly.
4. Absence is never a failure. A single 404 is not one either, right after the create: it must be said twice, a minute
   apart.
5. An unknown state is running, said once in the log, under the same deadline as any other.
6. Ages go by the service's clock. Past a waiter's deadline its operation is asked once more; if it still runs, that
   waiter is told so. An operation is watched as long as it has waiters.
7. The service may answer two creates with the same operation id, as it may when their bodies are equal. That is one
   operation with several waiters: it has one place in the list, it is polled once for all, and its duration is learned
   once. Each waiter has a deadline of its own and may leave on its own; what becomes of the operation is told to all.
"""

import asyncio
import logging
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

from asyncexport.core.admission import Prefer, Priority
from asyncexport.core.durations import Durations
from asyncexport.core.polling import (
    LIST_SIZE,
    FinishedOperation,
    OperationAge,
    PollingMode,
    PollingOutlook,
    chance_for_a_single,
    is_restless,
    list_is_due,
    page_is_due,
)
from asyncexport.core.service.wire import Completed, Ended, Operation, OperationsPage
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

LONGEST_CREATE_SECONDS = 120.0
"""An operation may be so much older, by the service's count, than the moment its create was answered."""

LONG_PAST = 1.1
"""An operation that nobody could be asked for is given up at this much of its deadline."""

GROWN_BY = 0.05
"""Durations are estimated anew when what they rest on has grown by this share."""

NEVER_RECKONED = (-1, 0.0, 0.0)
"""Which estimate of durations, and which chance, a due age rests on, and that age: there is none yet."""


class OperationCalls(Protocol):
    """What is asked of the service."""

    async def operation(self, operation_id: str, *, priority: Priority) -> Operation:
        """One operation."""
        ...

    async def operations(self, *, state: str = "", token: str = "", priority: Priority) -> OperationsPage:
        """One page of the list."""
        ...


class BudgetView(Protocol):
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
class PollingRules:
    """`[polling]`, and how many tokens the bucket holds."""

    min_interval_seconds: float
    deadline_seconds: float
    prefer: Prefer
    burst: int
    refill_seconds: float


@dataclass(slots=True, eq=False)
class _Waiter:
    """One that waits for an operation; at `asked_at` its create was answered with the operation's id."""

    asked_at: float
    outcome: "asyncio.Future[FinishedOperation | None]"


@dataclass(slots=True, eq=False)
class _WatchedOperation:
    """An operation.

    Attributes:
        operation_id: Its id.
        number: How many operations were watched before it.
        asked_at: When the first create was answered with its id: its age counts from here.
        waiters: All that wait for it; empty once it is settled, or all have left.
        waiting_since: The earliest `asked_at` of its waiters: the next deadline counts from here.
        seen: The age at which it was last seen running.
        looked_at: When it was last polled singly.
        listed: Whether the list is expected to show it.
        gone_since: Since when the service has been saying that it does not exist.
        last_looks: How often it was polled past the deadline of its earliest waiter.
        due: See `NEVER_RECKONED`.
    """

    operation_id: str
    number: int
    asked_at: float
    waiters: list[_Waiter] = field(default_factory=list)
    waiting_since: float = math.inf
    seen: float = 0.0
    looked_at: float = -math.inf
    listed: bool = True
    gone_since: float | None = None
    last_looks: int = 0
    due: tuple[int, float, float] = NEVER_RECKONED

    def add(self, waiter: _Waiter) -> None:
        """One more waits for it; a create was answered with it, so an earlier 404 counts no more."""
        self.gone_since = None
        earlier = self.asked_at - waiter.asked_at
        if earlier > 0:
            self.asked_at = waiter.asked_at
            self.seen += earlier if self.seen > 0 else 0.0
        self.waiters.append(waiter)
        self._note_change()

    def drop(self, waiters: Iterable[_Waiter]) -> None:
        """These wait no longer."""
        for waiter in waiters:
            if waiter in self.waiters:
                self.waiters.remove(waiter)
        self._note_change()

    def overdue(self, now: float, deadline_seconds: float) -> list[_Waiter]:
        """The waiters whose deadline has passed."""
        return [waiter for waiter in self.waiters if now - waiter.asked_at >= deadline_seconds]

    def _note_change(self) -> None:
        """Reckon the next deadline anew."""
        since = min((waiter.asked_at for waiter in self.waiters), default=math.inf)
        if since != self.waiting_since:
            self.waiting_since, self.last_looks = since, 0
        self.due = NEVER_RECKONED


@dataclass(slots=True)
class _ListState:
    """What has been learned of the list."""

    mode: PollingMode = PollingMode.LIST
    listed_at: float = -math.inf
    newest_first: bool = True
    broken: int = 0
    missed: int = 0
    unknown_states: set[str] = field(default_factory=set)


@dataclass(slots=True)
class _ListScan:
    """How far the list was read in one poll."""

    unseen: dict[str, _WatchedOperation]
    pages: int = 0
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
        self.pages += 1
        self.token = page.next_token
        self.ended = not self.token or self.token in self.tokens
        self.tokens.add(self.token)

    def lies_further_back(self, asked_at: float) -> bool:
        """Whether an operation may be older than all that was read of a list that begins with the newest."""
        return self.newest_first and not self.ended and asked_at - LONGEST_CREATE_SECONDS < self.oldest


class OperationPoller:
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
        service: OperationCalls,
        *,
        purse: BudgetView,
        durations: Durations,
        polling: PollingRules,
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
        self._listing = _ListState()
        self._watched: dict[str, _WatchedOperation] = {}
        self._learned_of: set[str] = set()  # operations whose duration is known
        self._added = 0
        self._changes = 0
        self._single_at = -math.inf
        self._news = asyncio.Event()

    @property
    def mode(self) -> PollingMode:
        """How finished operations are found at present."""
        return self._listing.mode

    @property
    def ages(self) -> list[float]:
        """How long ago the operations that are watched were asked for, in seconds."""
        now = self._clock()
        return [max(0.0, now - one.asked_at) for one in self._watched.values()]

    @property
    def waiters(self) -> int:
        """How many wait for the operations that are watched: more than those are, where some share one."""
        return sum(len(one.waiters) for one in self._watched.values())

    async def prime(self) -> None:
        """Look at the list once before anything is created: its shape is learned, and the service's clock with it.

        Raises:
            UnauthorizedError: the key was refused.
            UnavailableError: the service could not be reached for as long as anybody is willing to wait.
        """
        answered = False
        while not answered:
            page = await self._read_page(state="", token="")
            answered = page is not None or self.mode is not PollingMode.LIST

    async def wait(self, operation_id: str, *, asked_at: float) -> FinishedOperation | None:
        """Wait until an operation is done; None when it still runs at its deadline, counted from `asked_at`.

        Several may wait for the same operation.

        Raises:
            OperationFailedError: it ended as FAILED or ERROR.
            GoneError: the service does not know it (any more).
        """
        watched = self._watched.get(operation_id)
        if watched is None:
            watched = self._watched[operation_id] = _WatchedOperation(operation_id, self._added, asked_at)
            self._added += 1
        waiter = _Waiter(asked_at, asyncio.get_running_loop().create_future())
        watched.add(waiter)
        self._news.set()
        try:
            return await waiter.outcome
        finally:
            self._let_go(watched, [waiter])

    async def ask(self, operation_id: str) -> FinishedOperation | None:
        """Ask for one operation now; None where it still runs.

        Raises:
            OperationFailedError, GoneError: as `wait` does.
            ServiceError: the request failed.
        """
        operation = await self._service.operation(operation_id, priority=Priority.POLL)
        return self._judge(operation_id, operation, self._clock())

    async def run(self) -> None:
        """Poll whenever that is due, until cancelled.

        Raises:
            ServiceError: one that trying again does not help.
        """
        while True:
            if not self._watched:
                self._news.clear()
                await self._news.wait()
                continue
            outlook = self._outlook()
            if outlook.waits_for_calm:
                await self._purse.calm()
                # Whoever was just served may ask for more at once: let it speak first.
                await asyncio.sleep(0)
            elif not await self._look(outlook):
                await asyncio.sleep(self._beat_seconds)

    @property
    def _beat_seconds(self) -> float:
        """How often it is asked whether a poll is due: tokens come in, and operations get older."""
        interval, refill = self._polling.min_interval_seconds, self._polling.refill_seconds
        return max(interval, refill / 2) if self._purse.polls_cost else interval

    async def _look(self, outlook: PollingOutlook) -> bool:
        """Look at what is due to be looked at; whether anything was."""
        if self._list_is_due(outlook):
            await self._look_at_list(outlook)
            return True
        singles = self._singles_due(outlook)
        for one in singles[:1] if outlook.polls_cost else singles:
            if one.waiters:
                await self._look_at(one)
                await asyncio.sleep(min(SINGLE_SPACING_SECONDS, self._polling.min_interval_seconds))
        return bool(singles)

    def _outlook(self) -> PollingOutlook:
        polls_cost, calm, more_to_create = self._purse.polls_cost, self._purse.is_calm, self._more_to_create()
        return PollingOutlook(
            # How many there are makes no difference while others wait for the next one.
            tokens=self._purse.tokens if polls_cost and (calm or not more_to_create) else 0,
            burst=self._polling.burst,
            refill_seconds=self._polling.refill_seconds,
            polls_cost=polls_cost,
            calm=calm,
            more_to_create=more_to_create,
            prefer=self._polling.prefer,
        )

    def _running(self, some: Iterable[_WatchedOperation]) -> list[OperationAge]:
        now = self._clock()
        return [OperationAge(now - one.asked_at, one.seen) for one in some]

    def _list_is_due(self, outlook: PollingOutlook) -> bool:
        waited = self._clock() - self._listing.listed_at
        if self.mode is PollingMode.SINGLE or waited < self._polling.min_interval_seconds:
            return False
        return list_is_due(self._pages(outlook), self._durations, outlook, waited_seconds=waited)

    def _pages(self, outlook: PollingOutlook) -> list[list[OperationAge]]:
        """What each page of the list should show; where it begins with the newest, what came later is before it."""
        listed = [one for one in self._watched.values() if one.listed]
        if not (outlook.polls_cost and self.mode is PollingMode.LIST and self._listing.newest_first):
            return [self._running(listed)]
        now, newest = self._clock(), self._added - 1
        pages: list[list[OperationAge]] = [[] for _ in range(_most_pages(len(listed)))]
        for one in listed:
            page = (newest - one.number) // LIST_SIZE
            pages[page if page < len(pages) else -1].append(OperationAge(now - one.asked_at, one.seen))
        return pages

    def _singles_due(self, outlook: PollingOutlook) -> list[_WatchedOperation]:
        """Who is to be polled singly, the likeliest to be done first."""
        now = self._clock()
        single = self.mode is PollingMode.SINGLE
        asked = [one for one in self._watched.values() if self._may_be_asked(one, now, single=single)]
        if not asked:
            return []
        running = self._running(self._watched.values())
        chance = chance_for_a_single(running, self._durations, outlook)
        due = [one for one in asked if now - one.asked_at >= self._due_age(one, chance)]
        restless = not due and is_restless(running, self._durations, outlook, waited_seconds=now - self._single_at)
        likeliest = sorted(
            asked if restless else due,
            key=lambda one: self._durations.done_since(one.seen, now - one.asked_at),
            reverse=True,
        )
        return likeliest[:1] if restless else likeliest

    def _may_be_asked(self, one: _WatchedOperation, now: float, *, single: bool) -> bool:
        """Whether it is to be found by single polls at all, and was not asked just now."""
        if now - one.waiting_since < self._polling.deadline_seconds:
            if one.listed and not single:
                return False
            if one.gone_since is not None:
                return now >= one.gone_since + GONE_AFTER_SECONDS
        age = min(now - one.asked_at, self._polling.deadline_seconds)
        least = max(self._polling.min_interval_seconds, LEAST_NEWS * age)
        return now >= one.looked_at + least

    def _due_age(self, one: _WatchedOperation, chance: float) -> float:
        """The age at which it is done with that chance, or must be asked in any case."""
        if one.gone_since is not None:
            return 0.0
        estimates, of, age = one.due
        if estimates != self._durations.estimates or of != chance:
            next_deadline = one.waiting_since - one.asked_at + self._polling.deadline_seconds
            age = min(self._durations.due_age_seconds(one.seen, chance), next_deadline)
            one.due = (self._durations.estimates, chance, age)
        return age

    async def _look_at(self, one: _WatchedOperation) -> None:
        now = one.looked_at = self._single_at = self._clock()
        overdue = one.overdue(now, self._polling.deadline_seconds)
        one.last_looks += bool(overdue)
        try:
            operation = await self._service.operation(one.operation_id, priority=Priority.POLL)
        except (GoneError, RefusedError) as error:
            self._note_gone(one, error, overdue=overdue)
        except ServiceError as error:
            if not error.transient:
                raise
            if one.last_looks >= MOST_BROKEN:
                # Nobody could be asked for so long that it makes no difference any more whether it still runs.
                self._tell(one, None, one.overdue(self._clock(), LONG_PAST * self._polling.deadline_seconds))
        else:
            one.gone_since = None
            self._settle(one, operation)
            self._refit()
            self._tell(one, None, overdue)

    def _note_gone(self, one: _WatchedOperation, error: ServiceError, *, overdue: list[_Waiter]) -> None:
        """Rule 4; past a deadline there is no time to ask again, so that waiter is told after the first time."""
        now = self._clock()
        one.seen = max(one.seen, now - one.asked_at)
        if one.gone_since is None:
            one.gone_since = now
        believed = now - one.gone_since >= GONE_AFTER_SECONDS
        self._tell(one, error, one.waiters if believed else overdue)

    async def _look_at_list(self, outlook: PollingOutlook) -> None:
        ours = {key: one for key, one in self._watched.items() if one.listed}
        asked_at = self._listing.listed_at = self._clock()
        reading = await self._read(dict(ours), outlook)
        if reading is None:
            return
        missing = [one for one in reading.unseen.values() if one.asked_at < asked_at and one.waiters]
        if self.mode is PollingMode.PENDING:
            await self._ask_for_vanished(missing, whole=reading.ended)
        elif self.mode is PollingMode.LIST:
            self._note_missing(missing, reading, found=len(ours) - len(reading.unseen))
        self._refit()

    async def _read(self, unseen: dict[str, _WatchedOperation], outlook: PollingOutlook) -> "_ListScan | None":
        """As many pages as it is worth, or until all of ours were seen; None where the list was not to be had."""
        reading = _ListScan(unseen)
        state = "PENDING" if self.mode is PollingMode.PENDING else ""
        most = _most_pages(len(unseen))
        while True:
            page = await self._read_page(state=state, token=reading.token)
            if page is None:
                return None
            for operation in page.operations:
                one = unseen.pop(operation.id or "", None)
                if one is not None:
                    self._settle(one, operation)
            reading.turn(page)
            self._listing.newest_first = reading.newest_first
            if reading.ended or not unseen or reading.pages >= most:
                return reading
            worth = (
                state
                or not reading.newest_first
                or page_is_due(self._running(unseen.values()), self._durations, outlook)
            )
            if not worth:
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
                self._fall_back(PollingMode.SINGLE, f"the list of operations is refused ({error})")
                return None
            raise
        self._listing.broken = 0
        if any(operation.id is None for operation in page.operations):
            self._fall_back(PollingMode.SINGLE, "the list of operations has no ids")
            return None
        return page

    def _note_broken(self, error: ServiceError) -> None:
        if isinstance(error, ReplyError):
            self._listing.broken += 1
            if self._listing.broken >= MOST_BROKEN:
                self._fall_back(PollingMode.SINGLE, f"the list of operations cannot be read ({error})")

    def _note_missing(self, missing: list[_WatchedOperation], reading: "_ListScan", *, found: int) -> None:
        """Rules 2 and 3. Where the list leaves ours out, it is of no use."""
        left_out = [one for one in missing if not reading.lies_further_back(one.asked_at)]
        self._listing.missed = self._listing.missed + 1 if left_out else 0
        if left_out and (not found or self._listing.missed >= MOST_BROKEN):
            self._fall_back(PollingMode.PENDING, "running operations are not on the first pages of the list")
        elif reading.pages >= _most_pages(found + len(missing)):
            read = reading.pages * LIST_SIZE
            reach = _most_pages(sum(one.listed for one in self._watched.values())) * LIST_SIZE
            for one in missing:
                # Where so many of ours were created meanwhile that it lies behind them, the next look reaches it.
                newer = self._added - 1 - one.number
                one.listed = read <= newer < reach

    async def _ask_for_vanished(self, missing: list[_WatchedOperation], *, whole: bool) -> None:
        if not whole:
            self._fall_back(PollingMode.SINGLE, "the list of pending operations is too long")
            return
        running = 0
        for one in missing:
            await self._look_at(one)
            await asyncio.sleep(min(SINGLE_SPACING_SECONDS, self._polling.min_interval_seconds))
            running += bool(one.waiters)
        if running > len(missing) / 2:
            self._fall_back(PollingMode.SINGLE, "the list of pending operations leaves out running ones")

    def _fall_back(self, mode: PollingMode, why: str) -> None:
        if mode is not self._listing.mode:
            log.info("%s: operations are now found by %s polls", why, mode.value)
            self._listing.mode = mode

    def _settle(self, one: _WatchedOperation, operation: Operation) -> None:
        """Take in what was said of one operation."""
        now = self._clock()
        try:
            finished = self._judge(one.operation_id, operation, now, one)
        except OperationFailedError as error:
            self._tell(one, error, one.waiters)
            return
        if finished is None:
            one.seen = max(one.seen, now - one.asked_at)
            one.due = NEVER_RECKONED
        else:
            self._tell(one, finished, one.waiters)

    def _judge(
        self, operation_id: str, operation: Operation, now: float, one: _WatchedOperation | None = None
    ) -> FinishedOperation | None:
        match operation.progress:
            case Completed(export_id):
                created_at = operation.created_at or (one.asked_at if one else now)
                finished_at = operation.finished_at or now
                if one is not None or operation.finished_at:
                    self._learn(operation_id, finished_at, finished_at - created_at)
                return FinishedOperation(export_id, created_at)
            case Ended(reason):
                raise OperationFailedError(reason)
            case running:
                self._note_state(running.state)
                return None

    def _learn(self, operation_id: str, finished_at: float, seconds: float) -> None:
        if operation_id in self._learned_of:
            return
        self._learned_of.add(operation_id)
        self._durations.learn(seconds)
        self._changes += 1
        self._learned(finished_at, seconds)

    def _note_state(self, state: str) -> None:
        if state != "PENDING" and state not in self._listing.unknown_states:
            self._listing.unknown_states.add(state)
            log.warning("an operation is in the unknown state %r: taken for running", state[:40])

    def _tell(
        self, one: _WatchedOperation, outcome: FinishedOperation | ServiceError | None, waiters: Iterable[_Waiter]
    ) -> None:
        """Tell these waiters what became of an operation: an error is raised for them, None is their deadline."""
        told = list(waiters)
        for waiter in told:
            if waiter.outcome.done():
                continue
            if isinstance(outcome, ServiceError):
                waiter.outcome.set_exception(outcome)
            else:
                waiter.outcome.set_result(outcome)
        self._let_go(one, told)

    def _let_go(self, one: _WatchedOperation, waiters: Iterable[_Waiter]) -> None:
        """These wait no longer, though they may not have run yet; what nobody waits for is not watched."""
        one.drop(waiters)
        if not one.waiters and self._watched.get(one.operation_id) is one:
            del self._watched[one.operation_id]

    def _refit(self) -> None:
        """Estimate durations anew, once there is enough news to make a difference."""
        self._changes += 1
        if self._changes >= GROWN_BY * self._durations.known:
            self._changes = 0
            self._durations.refit([one.seen for one in self._watched.values() if one.seen > 0])


def _most_pages(operations: int) -> int:
    """How many pages of the list are read a poll at the most, for so many operations."""
    return math.ceil(operations / LIST_SIZE) + 1
