"""The list of operations: reading it, and learning what it can be used for.

1. Nothing is known of the list beforehand: whether its items have ids, whether the newest come first, how far back it
   goes (reference section 3.3). That is learned while using it.
2. A poll reads at most ⌈in flight / 100⌉ + 1 pages. Where polls cost and the newest come first, it reads no page that
   is not worth its token. Operations that lie further back are polled individually.
3. Where operations are missing from the pages that should show them, the list of pending operations is used instead:
   what has vanished from it has finished, and is asked for individually. Where that fails too, and where items have no
   ids or the list is refused, every operation is polled individually. A list that was forbidden (403) is tried again
   half an hour later: it may have been a wall that is gone.
4. An operation that is missing has not failed for that.
"""

import logging
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from asyncexport.core.admission import Priority
from asyncexport.core.durations import Durations
from asyncexport.core.polling import (
    LIST_SIZE,
    OperationAge,
    PollingMode,
    PollingOutlook,
    PollingRules,
    list_is_due,
    page_is_due,
)
from asyncexport.core.service.refusals import ALL_EXPORTS
from asyncexport.core.service.resources import OperationsPage
from asyncexport.core.service.retrying import Action, Call, Facts, Failure, decide, failure_of
from asyncexport.engine.call_turns import CallTurns
from asyncexport.engine.calls import OperationCalls
from asyncexport.engine.individual_polls import IndividualPolls
from asyncexport.engine.operation_answers import OperationAnswers
from asyncexport.engine.watched_operations import WatchedOperation, WatchedOperations
from asyncexport.errors import ServiceError

log = logging.getLogger(__name__)

MOST_IN_A_ROW = 3
"""So many lists in a row that cannot be read, or that leave operations out, are no accident."""

AGAIN_AFTER_SECONDS = 1800.0
"""When a list that was forbidden is tried again."""

LONGEST_CREATE_SECONDS = 120.0
"""How long before the answer to its create an operation may have been made, by the service's count."""


@dataclass(slots=True)
class ListState:
    """What has been learned of the list.

    Attributes:
        mode: How it is used.
        read_at: When it was last read.
        newest_first: Whether it begins with the newest.
        unreadable: How many lists in a row could not be read.
        incomplete: How many in a row left out operations that they should have shown.
        forbidden_at: When it was last forbidden (403); None: it was not.
    """

    mode: PollingMode = PollingMode.LIST
    read_at: float = -math.inf
    newest_first: bool = True
    unreadable: int = 0
    incomplete: int = 0
    forbidden_at: float | None = None

    def fall_back(self, mode: PollingMode, why: str) -> None:
        """Find operations in another way from now on; the log says why."""
        if mode is not self.mode:
            log.info("%s: operations are now found by %s polls", why, mode.value)
            self.mode = mode

    def note_failure(self, error: ServiceError, *, now: float) -> None:
        """Do what the table says of a list that could not be had; an outage says nothing about the list.

        Raises:
            ServiceError: one that trying again does not help.
        """
        failure = failure_of(Call.LIST, error)
        match decide(Call.LIST, failure, Facts()):
            case Action.STOP_RUN | Action.CHECK_KEY:
                raise error
            case Action.POLL_SINGLY:
                self.fall_back(PollingMode.INDIVIDUAL, f"the list of operations is refused ({error})")
                self.forbidden_at = now if failure in (Failure.FORBIDDEN, Failure.BLOCKED) else None
            case Action.RETRY:
                self.unreadable += 1
                if self.unreadable >= MOST_IN_A_ROW:
                    self.fall_back(PollingMode.INDIVIDUAL, f"the list of operations cannot be read ({error})")

    def forgive_in_time(self, now: float) -> None:
        """Try a list again that was forbidden half an hour ago."""
        if self.forbidden_at is not None and now - self.forbidden_at >= AGAIN_AFTER_SECONDS:
            self.mode, self.forbidden_at, self.read_at = PollingMode.LIST, None, -math.inf


@dataclass(slots=True)
class ListScan:
    """How far the list was read in one poll.

    Attributes:
        unseen: Operations that were on none of its pages so far, by id.
        pages: How many pages were read.
        token: That of the next page.
        tokens: All that were given.
        ended: Whether there are no further pages.
        newest_first: Whether no item was newer than one before it.
        oldest: When the oldest item was made, in seconds since 1970.
    """

    unseen: dict[str, WatchedOperation]
    pages: int = 0
    token: str = ""
    tokens: set[str] = field(default_factory=set)
    ended: bool = False
    newest_first: bool = True
    oldest: float = math.inf

    def add(self, page: OperationsPage) -> None:
        """Note what a page says of the list's order and of its end; a token that is repeated is an end as well."""
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


class OperationListing:
    """Finds finished operations by the list.

    Args:
        service: What is asked.
        watched: The operations that are waited for.
        answers: Takes in what the list says of each.
        individual: Asks for those that have vanished from the list of pending ones.
        durations: How long operations take.
        rules: The settings.
        clock: Seconds since 1970 by the service's clock.
        call_turns: Told when the list could be had.
    """

    def __init__(
        self,
        service: OperationCalls,
        watched: WatchedOperations,
        answers: OperationAnswers,
        individual: IndividualPolls,
        *,
        durations: Durations,
        rules: PollingRules,
        clock: Callable[[], float],
        call_turns: CallTurns,
    ) -> None:
        self._call_turns = call_turns
        self._service = service
        self._watched = watched
        self._answers = answers
        self._individual = individual
        self._durations = durations
        self._rules = rules
        self._clock = clock
        self._state = ListState()

    @property
    def mode(self) -> PollingMode:
        """How finished operations are found at present."""
        return self._state.mode

    async def prime(self) -> None:
        """Read one page, again and again until the service answers.

        Raises:
            ServiceError: one that trying again does not help, and that is no refusal of the list.
        """
        answered = False
        while not answered:
            page = await self._read_page(state="", token="")
            answered = page is not None or self.mode is not PollingMode.LIST

    def is_due(self, outlook: PollingOutlook) -> bool:
        """Whether to read the list now."""
        self._state.forgive_in_time(self._clock())
        waited = self._clock() - self._state.read_at
        if self.mode is PollingMode.INDIVIDUAL or waited < self._rules.min_interval_seconds:
            return False
        if self._call_turns.wait_seconds(ALL_EXPORTS, Call.LIST) > 0:
            return False
        return list_is_due(self._pages(outlook), self._durations, outlook, waited_seconds=waited)

    async def poll(self, outlook: PollingOutlook) -> None:
        """Read the list as far as that is worth it, and take in what it says.

        Raises:
            ServiceError: as for `prime`.
        """
        expected = {one.operation_id: one for one in self._watched.listed}
        asked_at = self._state.read_at = self._clock()
        scan = await self._scan(dict(expected), outlook)
        if scan is None:
            return
        missing = [one for one in scan.unseen.values() if one.asked_at < asked_at and one.waiters]
        if self.mode is PollingMode.PENDING:
            await self._ask_for_vanished(missing, whole=scan.ended)
        elif self.mode is PollingMode.LIST:
            self._note_missing(missing, scan, found=len(expected) - len(scan.unseen))
        self._answers.update_estimate()

    def _pages(self, outlook: PollingOutlook) -> list[list[OperationAge]]:
        """The operations that each page should show: those added later come before, if the newest come first."""
        now, listed = self._clock(), self._watched.listed
        if not (outlook.polls_cost and self.mode is PollingMode.LIST and self._state.newest_first):
            return [_ages(listed, now)]
        pages: list[list[OperationAge]] = [[] for _ in range(_most_pages(len(listed)))]
        for one in listed:
            page = self._watched.newer_than(one) // LIST_SIZE
            pages[page if page < len(pages) else -1].append(one.age_at(now))
        return pages

    async def _scan(self, unseen: dict[str, WatchedOperation], outlook: PollingOutlook) -> ListScan | None:
        """Read as many pages as are worth it, or until all were seen; None where the list cannot be had."""
        scan = ListScan(unseen)
        state = "PENDING" if self.mode is PollingMode.PENDING else ""
        most = _most_pages(len(unseen))
        while True:
            page = await self._read_page(state=state, token=scan.token)
            if page is None:
                return None
            for operation in page.operations:
                one = unseen.pop(operation.id or "", None)
                if one is not None:
                    self._answers.settle(one, operation)
            scan.add(page)
            self._state.newest_first = scan.newest_first
            if scan.ended or not unseen or scan.pages >= most:
                return scan
            chooses_pages = not state and scan.newest_first
            if chooses_pages and not page_is_due(_ages(unseen.values(), self._clock()), self._durations, outlook):
                return scan

    async def _read_page(self, *, state: str, token: str) -> OperationsPage | None:
        """One page; None where there is none to be had, and what that means has been noted."""
        try:
            page = await self._service.operations(state=state, token=token, priority=Priority.POLL)
        except ServiceError as error:
            self._state.note_failure(error, now=self._clock())
            return None
        self._state.unreadable, self._state.forbidden_at = 0, None
        self._call_turns.note_success(ALL_EXPORTS, Call.LIST)
        if any(operation.id is None for operation in page.operations):
            self._state.fall_back(PollingMode.INDIVIDUAL, "the list of operations has no ids")
            return None
        return page

    def _note_missing(self, missing: list[WatchedOperation], scan: ListScan, *, found: int) -> None:
        """Rules 2 and 3: a list that leaves operations out cannot be relied on."""
        left_out = [one for one in missing if not scan.lies_further_back(one.asked_at)]
        self._state.incomplete = self._state.incomplete + 1 if left_out else 0
        if left_out and (not found or self._state.incomplete >= MOST_IN_A_ROW):
            self._state.fall_back(PollingMode.PENDING, "running operations are not on the first pages of the list")
        elif scan.pages >= _most_pages(found + len(missing)):
            read = scan.pages * LIST_SIZE
            reach = _most_pages(len(self._watched.listed)) * LIST_SIZE
            for one in missing:
                # Where many operations were created meanwhile and it lies behind them, the next poll reaches it.
                one.listed = read <= self._watched.newer_than(one) < reach

    async def _ask_for_vanished(self, missing: list[WatchedOperation], *, whole: bool) -> None:
        if not whole:
            self._state.fall_back(PollingMode.INDIVIDUAL, "the list of pending operations is too long")
        elif await self._individual.count_running(missing) > len(missing) / 2:
            self._state.fall_back(PollingMode.INDIVIDUAL, "the list of pending operations leaves out running ones")


def _ages(operations: Iterable[WatchedOperation], now: float) -> list[OperationAge]:
    return [one.age_at(now) for one in operations]


def _most_pages(operations: int) -> int:
    """How many pages of the list a poll reads at most, for so many operations."""
    return math.ceil(operations / LIST_SIZE) + 1
