"""Reads the list of operations, and learns what it can be used for.

1. Nothing is known about the list beforehand: whether its items have ids, whether the newest come first, how far back
   it reaches (API reference, section 3.3). This is learned from its pages.
2. A poll reads at most ⌈in flight / 100⌉ + 1 pages. If polls cost tokens and the newest come first, it reads only pages
   that are worth their token. Operations further back are polled individually.
3. If operations are missing from the pages that should show them, the list of pending operations is used instead:
   operations that have vanished from it have finished, and are polled individually. If that fails as well, or items
   have no ids, or the list is refused, every operation is polled individually. A list that was forbidden (403) is tried
   again half an hour later: the block may be gone by then.
4. An operation that is missing from the list has not failed because of that.
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
    urgent_is_due,
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
"""Number of unreadable or incomplete lists in a row after which the list is no longer relied on."""

FORBIDDEN_SECONDS = 1800.0
"""Seconds after which a list that was forbidden is tried again."""

URGENT_GAP_SECONDS = 1800.0
"""Least seconds since the last list before one is read for urgent operations. With the default budget that is one token
in sixty, and bundles that settle every half hour are on disk within an hour."""

LONGEST_CREATE_SECONDS = 120.0
"""How long an operation's `createdAt` may be before the answer to its create."""


@dataclass(slots=True)
class ListState:
    """What has been learned about the list.

    Attributes:
        mode: How it is used.
        read_at: When it was last read.
        newest_first: Whether it starts with the newest operations.
        unreadable: Number of lists in a row that could not be read.
        incomplete: Number of lists in a row that left out operations which they should have shown.
        forbidden_at: When it was last forbidden (403); None if it was not.
    """

    mode: PollingMode = PollingMode.LIST
    read_at: float = -math.inf
    newest_first: bool = True
    unreadable: int = 0
    incomplete: int = 0
    forbidden_at: float | None = None

    def fall_back(self, mode: PollingMode, why: str) -> None:
        """Find operations in another way from now on, and log why."""
        if mode is not self.mode:
            log.info("%s: finished operations are now found with %s polls", why, mode.value)
            self.mode = mode

    def note_failure(self, error: ServiceError, *, now: float) -> None:
        """Do what the table says after a failed list request; an outage says nothing about the list.

        Raises:
            ServiceError: an error that a retry does not help.
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

    def allow_after_a_while(self, now: float) -> None:
        """Use the list again half an hour after it was forbidden."""
        if self.forbidden_at is not None and now - self.forbidden_at >= FORBIDDEN_SECONDS:
            self.mode, self.forbidden_at, self.read_at = PollingMode.LIST, None, -math.inf


@dataclass(slots=True)
class ListScan:
    """The progress of one poll through the list.

    Attributes:
        unseen: Operations that were on none of the pages so far, by id.
        pages: Number of pages read.
        token: The token of the next page.
        tokens: All tokens so far.
        ended: Whether there are no further pages.
        newest_first: Whether no item was newer than the one before it.
        oldest: When the oldest item was created, in seconds since 1970.
    """

    unseen: dict[str, WatchedOperation]
    pages: int = 0
    token: str = ""
    tokens: set[str] = field(default_factory=set)
    ended: bool = False
    newest_first: bool = True
    oldest: float = math.inf

    def add(self, page: OperationsPage) -> None:
        """Note the order and the end of the list that a page shows; a repeated token counts as the end."""
        for operation in page.operations:
            if operation.created_at is not None:
                self.newest_first &= operation.created_at <= self.oldest
                self.oldest = min(self.oldest, operation.created_at)
        self.pages += 1
        self.token = page.next_token
        self.ended = not self.token or self.token in self.tokens
        self.tokens.add(self.token)

    def may_be_further_back(self, asked_at: float) -> bool:
        """Whether an operation may be on a later page: the list starts with the newest, and this one may be older."""
        return self.newest_first and not self.ended and asked_at - LONGEST_CREATE_SECONDS < self.oldest


class OperationListing:
    """Finds finished operations with the list.

    Args:
        service: Makes the calls.
        watched: The watched operations.
        answers: Processes what the list says about each.
        individual: Polls operations that have vanished from the list of pending ones.
        durations: The distribution of operation durations.
        rules: The settings.
        clock: Seconds since 1970 by the service's clock.
        call_turns: What is known about refused calls.
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
        """How finished operations are currently found."""
        return self._state.mode

    async def prime(self) -> None:
        """Read one page, and retry until the service answers.

        Raises:
            ServiceError: an error that a retry does not help, other than a refusal of the list.
        """
        answered = False
        while not answered:
            page = await self._read_page(state="", token="", priority=Priority.POLL)
            answered = page is not None or self.mode is not PollingMode.LIST

    def is_due(self, outlook: PollingOutlook) -> bool:
        """Whether to read the list now."""
        self._state.allow_after_a_while(self._clock())
        waited = self._clock() - self._state.read_at
        if self.mode is PollingMode.INDIVIDUAL or waited < self._rules.min_interval_seconds:
            return False
        if self._call_turns.wait_seconds(ALL_EXPORTS, Call.LIST) > 0:
            return False
        return list_is_due(self._pages(outlook), self._durations, outlook, waited_seconds=waited)

    def urgent_is_due(self) -> bool:
        """Whether an urgent operation is likely to be done, and the list, if it shows it, was read long enough ago."""
        now, by_list = self._clock(), self.mode is not PollingMode.INDIVIDUAL
        waits = by_list and now - self._state.read_at < URGENT_GAP_SECONDS
        return not waits and urgent_is_due(self._watched.urgent_ages(now, listed=by_list), self._durations)

    async def poll(self, outlook: PollingOutlook) -> None:
        """Read the list as far as its pages are worth their tokens, and process what it says.

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
        """Return the operations that each page should show, assuming that the newest come first."""
        now, listed = self._clock(), self._watched.listed
        if not (outlook.polls_cost and self.mode is PollingMode.LIST and self._state.newest_first):
            return [_ages(listed, now)]
        pages: list[list[OperationAge]] = [[] for _ in range(_most_pages(len(listed)))]
        for one in listed:
            page = self._watched.newer_than(one) // LIST_SIZE
            pages[page if page < len(pages) else -1].append(one.age_at(now))
        return pages

    async def _scan(self, unseen: dict[str, WatchedOperation], outlook: PollingOutlook) -> ListScan | None:
        """Read pages until all operations were seen or no page is worth it; None if the list is unavailable."""
        scan = ListScan(unseen)
        state = "PENDING" if self.mode is PollingMode.PENDING else ""
        most = _most_pages(len(unseen))
        while True:
            page = await self._read_page(state=state, token=scan.token, priority=outlook.priority)
            if page is None:
                return None
            for operation in page.operations:
                if (one := unseen.pop(operation.id or "", None)) is not None:
                    self._answers.settle(one, operation)
            scan.add(page)
            self._state.newest_first = scan.newest_first
            if scan.ended or not unseen or scan.pages >= most:
                return scan
            chooses_pages = not state and scan.newest_first
            if chooses_pages and not page_is_due(_ages(unseen.values(), self._clock()), self._durations, outlook):
                return scan

    async def _read_page(self, *, state: str, token: str, priority: Priority) -> OperationsPage | None:
        """Read one page; None if it is unavailable or of no use, which has been noted in the list's state."""
        begun_at = self._call_turns.now()
        try:
            page = await self._service.operations(state=state, token=token, priority=priority)
        except ServiceError as error:
            self._state.note_failure(error, now=self._clock())
            return None
        self._state.unreadable, self._state.forbidden_at = 0, None
        self._call_turns.note_success(ALL_EXPORTS, Call.LIST, begun_at=begun_at)
        if any(operation.id is None for operation in page.operations):
            self._state.fall_back(PollingMode.INDIVIDUAL, "items in the list of operations have no ids")
            return None
        return page

    def _note_missing(self, missing: list[WatchedOperation], scan: ListScan, *, found: int) -> None:
        """Stop relying on a list that leaves operations out (rules 2 and 3)."""
        left_out = [one for one in missing if not scan.may_be_further_back(one.asked_at)]
        self._state.incomplete = self._state.incomplete + 1 if left_out else 0
        if left_out and (not found or self._state.incomplete >= MOST_IN_A_ROW):
            self._state.fall_back(PollingMode.PENDING, "running operations are not on the first pages of the list")
        elif scan.pages >= _most_pages(found + len(missing)):
            read = scan.pages * LIST_SIZE
            reach = _most_pages(len(self._watched.listed)) * LIST_SIZE
            for one in missing:
                # If it is only behind operations that were created meanwhile, the next poll reaches it.
                one.listed = read <= self._watched.newer_than(one) < reach

    async def _ask_for_vanished(self, missing: list[WatchedOperation], *, whole: bool) -> None:
        if not whole:
            self._state.fall_back(PollingMode.INDIVIDUAL, "the list of pending operations is too long")
        elif await self._individual.count_running(missing) > len(missing) / 2:
            self._state.fall_back(PollingMode.INDIVIDUAL, "the list of pending operations leaves out running ones")


def _ages(operations: Iterable[WatchedOperation], now: float) -> list[OperationAge]:
    return [one.age_at(now) for one in operations]


def _most_pages(operations: int) -> int:
    """Return the greatest number of pages that a poll reads for this many operations."""
    return math.ceil(operations / LIST_SIZE) + 1
