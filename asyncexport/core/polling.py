"""Decides when to poll for finished operations: a poll must be worth what it costs.

The value of a poll: it frees the slots of the operations that it finds done, and lets their files be fetched. It makes
nothing faster at the service. A later poll finds more for the same token. The cost of waiting is only what the tokens
could have done in that time. This leads to the following rules:

1. If polls do not count against the limit, they only load the service: poll as soon as an operation is expected to be
   done, and sooner if creates wait for its slot.
2. If polls count and `throughput` is preferred, no poll is sent while a results call or a create waits for a token:
   those must be paid for in any case, and bring the end nearer. A poll that comes early only costs more for what it
   finds.
3. When neither waits, all slots are taken. Then tokens accumulate, and nothing is lost by that until the bucket is
   full: the accumulated tokens are spent immediately on the results and creates that the next poll makes possible. So
   the poll is sent when the bucket is about to overflow, or when nearly all operations are expected to be done and
   waiting finds no more. The more slots there are, the more a poll finds: with a hundred slots some 50 to 95
   operations, which is one or two hundredths of a request for each. That is why slots are not kept scarce here.
4. The bucket sets the pace by itself. If the service is slow and slots are scarce, tokens are not used up, the bucket
   stays nearly full, and polls are sent as often as they find anything.
5. With `latency`, a due poll is sent before creates, so it must be worth its token: it is due when it is expected to
   find `FOUND_FOR_LATENCY` operations. That adds a fourteenth of a request to each. Polling for fewer would make only a
   few files come sooner.
6. At the end no bundle is left to create. The number of tokens that the results calls still need is known, and so is,
   roughly, how long the last operation will take. Tokens that come in until then and are not needed for results are
   free. They are spread over the operations still running, so that the last ones are polled often. If none will be
   free, the tokens decide when the run ends, and rule 3 applies.
7. An operation is urgent if its bundle settled while the run goes on: the others are a backlog, and nobody waits for
   them. It is polled before all other requests when it is likely to be done, with a list twice an hour at most.
8. Without a list, one poll tells of one operation, and each operation must be polled at least once. The aim is few
   polls in vain: the operation most likely to be done is polled first, and only when that is likely enough. How likely
   depends on the same things.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from asyncexport.core.admission import Prefer, Priority
from asyncexport.core.durations import Durations
from asyncexport.core.service_time import CLOCKS_APART_SECONDS

LIST_SIZE = 100
"""The most operations that one page of List Operations holds (API reference, section 3.3)."""

FOUND_FOR_LATENCY = 14.0
"""Operations that a list must be expected to find to be sent before creates: it then adds a fourteenth of a request to
each, 4 % of the two that it costs anyway (a create and a results call)."""

NEARLY_ALL_SHARE = 0.95
"""Share of the running operations that counts as all: the last few may take very long, and waiting finds no more."""

OVERFLOW_TOKENS = 1.5
"""The bucket counts as full with room for fewer tokens than this: one that comes in before the next check is lost."""

EARLY_END_CHANCE = 0.2
"""The time left until the last operation is done is estimated so low that it is shorter only once in five times: free
tokens that were counted on and do not come would be missing."""

FOUND_WHEN_FREE = 2.0
"""Operations that a list must be expected to find if it costs no token and no create waits for a slot."""

FOUND_FOR_ROOM = 0.5
"""Operations that a list must be expected to find if slots are scarce or a token would be lost: one list in two finds
nothing."""

LEAST_FOUND_SHARE = 0.1
"""Share of the running operations that a free list must be expected to find: about ten lists then find them all."""

LONG_DURATION_SHARE = 0.75
"""An operation takes long when it takes longer than this share of all operations."""

OVERDUE_AGE_SHARE = 0.01
"""If all running operations take long and a list is free, it is sent after this share of the oldest one's age, whatever
is expected: what has taken ten hours may take ten more, and its end should be noticed within minutes."""

LONGEST_GAP_AGE_SHARE = 0.02
"""Free lists are no further apart than this share of the oldest operation's age: durations are unknown before an
operation was seen to end."""

LONGEST_GAP_WHILE_CREATING = 0.1
"""The same while creates wait for tokens: what a list finds then makes nothing faster except the download of the files.
Half as many lists find everything, and files come some seconds later."""

CHANCE_WHEN_PAID = 0.9
"""How likely an operation must be done for an individual poll that takes a token from a create: one in ten is in vain.
"""

CHANCE_WHEN_FREE = 0.4
"""The same for an individual poll that costs nothing: three in five are in vain."""

CHANCE_FOR_ROOM = 0.05
"""The same if polls cost nothing and creates wait for slots: nineteen in twenty may be in vain. Each minute that a
finished operation goes unnoticed is a minute of a slot."""

CHANCE_FOR_URGENT = 0.8
"""How likely an urgent operation must be done to be polled: one poll in five is in vain."""

CHANCE_AT_END = 0.1
"""The same if no bundle is left to create, a token would be lost, or latency is preferred: nine in ten may be in vain.
"""

FOUND_FOR_A_PAGE = 7.0
"""Operations that a further page of the list must be expected to show as done; half of those still unseen is enough."""


@dataclass(frozen=True, slots=True)
class PollingRules:
    """`[polling]`, and the bucket that pays for polls if they count.

    Attributes:
        min_interval_seconds: The least time between two lists, or two polls of one operation.
        deadline_seconds: The longest time to wait for an operation.
        prefer: What tokens are spent on first.
        burst: Tokens in a full bucket.
        refill_seconds: Seconds until one token has come back.
    """

    min_interval_seconds: float
    deadline_seconds: float
    prefer: Prefer
    burst: int
    refill_seconds: float


class PollingMode(Enum):
    """How finished operations are found. Each mode is the fallback of the one before."""

    LIST = "list"
    PENDING = "pending"  # the list of running operations: one that is no longer on it has finished
    INDIVIDUAL = "single"  # one request for each operation; the log shows the value


@dataclass(frozen=True, slots=True)
class FinishedOperation:
    """A completed operation. `exported_at` is its `createdAt` by the service, in seconds since 1970."""

    export_id: str
    exported_at: float


def operation_start(created_at: float | None, *, asked_at: float, now: float) -> float:
    """Return when an operation began: its `createdAt` if that is plausible, else the recorded time of the create.

    It is plausible between the time of the create and now. It may also be up to five minutes before the create, since
    the two times come from different clocks, and the recorded time is that of the answer. A create time in the future
    was recorded with a wrong clock: then it is taken as now.

    All times are in seconds since 1970. `created_at` is None if the service did not report it.
    """
    asked_at = min(asked_at, now)
    if created_at is not None and asked_at - CLOCKS_APART_SECONDS <= created_at <= now:
        return created_at
    return asked_at


class OperationAge(NamedTuple):
    """An operation not known to be done: its age, and the age at which it was last seen running, in seconds."""

    age: float
    seen: float


@dataclass(frozen=True, slots=True)
class PollingOutlook:
    """What the decision to poll is based on.

    Attributes:
        tokens: Requests that could be sent now.
        burst: Tokens in a full bucket.
        refill_seconds: Seconds until one token has come back.
        polls_cost: Whether polls take tokens.
        uncontended: Whether neither a results call nor a create waits for a token.
        more_to_create: Whether bundles are left that have no operation yet.
        prefer: `[polling] prefer`.
        urgent_is_due: Whether an urgent operation is to be polled now.
    """

    tokens: int
    burst: int
    refill_seconds: float
    polls_cost: bool
    uncontended: bool
    more_to_create: bool
    prefer: Prefer
    urgent_is_due: bool = False

    @property
    def priority(self) -> Priority:
        """The priority of a list."""
        return Priority.URGENT if self.urgent_is_due else Priority.POLL

    @property
    def gives_way(self) -> bool:
        """Whether a poll must let results calls and creates have their tokens first."""
        is_behind = self.prefer is Prefer.THROUGHPUT and not self.urgent_is_due
        return self.polls_cost and is_behind and not self.uncontended

    @property
    def overflows(self) -> bool:
        """Whether the bucket is about to overflow, so that a poll takes a token that would be lost."""
        return self.uncontended and self.tokens >= self.burst - OVERFLOW_TOKENS

    @property
    def room_is_scarce(self) -> bool:
        """Whether creates wait for slots and not for tokens; always assumed if latency is preferred."""
        return self.uncontended or self.prefer is Prefer.LATENCY

    @property
    def polls_are_free(self) -> bool:
        """Whether a poll takes no token that another request could use."""
        return not self.polls_cost or self.overflows


def list_is_due(
    pages: Sequence[Sequence[OperationAge]], durations: Durations, outlook: PollingOutlook, *, waited_seconds: float
) -> bool:
    """Whether a list is worth what it costs.

    `pages`: the operations that each page of the list should show; `waited_seconds`: how long ago the last list was
    sent.
    """
    running = [one for page in pages for one in page]
    if not running:
        return False
    if outlook.urgent_is_due:
        return True
    if is_overdue(running, durations, outlook, waited_seconds=waited_seconds):
        return True
    if outlook.polls_are_free and waited_seconds >= longest_gap_seconds(running, outlook):
        return True
    enough = enough_for_a_list(running, durations, outlook)
    found = 0.0
    for read, page in enumerate(pages, start=1):
        found += durations.expected_done(page)
        if found / read >= enough:
            return True
    return False


def longest_gap_seconds(running: Sequence[OperationAge], outlook: PollingOutlook) -> float:
    """Return the longest time between two free lists, whatever is expected."""
    only_files_wait = outlook.more_to_create and not outlook.room_is_scarce
    share = LONGEST_GAP_WHILE_CREATING if only_files_wait else LONGEST_GAP_AGE_SHARE
    return share * max(one.age for one in running)


def urgent_is_due(urgent: Sequence[OperationAge], durations: Durations) -> bool:
    """Whether one of the urgent operations is likely to be done (rule 7)."""
    return any(durations.done_since(one.seen, one.age) >= CHANCE_FOR_URGENT for one in urgent)


def is_overdue(
    running: Sequence[OperationAge], durations: Durations, outlook: PollingOutlook, *, waited_seconds: float
) -> bool:
    """Whether a free list is sent whatever is expected: all operations take long, and the last list was long ago."""
    if not outlook.polls_are_free:
        return False
    ages = [one.age for one in running]
    return waited_seconds >= OVERDUE_AGE_SHARE * max(ages) and durations.done_by(min(ages)) >= LONG_DURATION_SHARE


def page_is_due(running: Sequence[OperationAge], durations: Durations, outlook: PollingOutlook) -> bool:
    """Whether a further page of the list is worth what it costs. `running`: the operations not yet seen on it."""
    if outlook.polls_are_free:
        return True
    enough = min(FOUND_FOR_A_PAGE, enough_for_a_list(running, durations, outlook))
    return durations.expected_done(running) >= min(enough, 0.5 * len(running))


def enough_for_a_list(running: Sequence[OperationAge], durations: Durations, outlook: PollingOutlook) -> float:
    """Return how many operations must be expected to be done for a list to be due."""
    count = len(running)
    if not outlook.polls_cost:
        if not outlook.room_is_scarce:
            return min(FOUND_WHEN_FREE, 0.5 * count)
        return min(FOUND_FOR_ROOM, LEAST_FOUND_SHARE * count)
    if outlook.overflows:
        return min(FOUND_FOR_ROOM, LEAST_FOUND_SHARE * count)
    enough = NEARLY_ALL_SHARE * count
    if outlook.prefer is Prefer.LATENCY:
        # As long as creates are being sent, there will be more to find.
        goes_on = outlook.more_to_create and not outlook.uncontended
        enough = FOUND_FOR_LATENCY if goes_on else min(enough, FOUND_FOR_LATENCY)
    if not outlook.more_to_create:
        free = free_tokens(running, durations, outlook, for_each=1)
        if free > 0:
            enough = min(enough, max(count / free, LEAST_FOUND_SHARE * count))
    return enough


def free_tokens(
    running: Sequence[OperationAge], durations: Durations, outlook: PollingOutlook, *, for_each: int
) -> float:
    """Return the tokens until the last operation is done, minus those each operation still needs (rule 6)."""
    last = durations.remaining_seconds([max(one.age, one.seen) for one in running], chance=EARLY_END_CHANCE)
    return outlook.tokens + last / outlook.refill_seconds - for_each * len(running) - 1


def chance_for_an_individual_poll(
    running: Sequence[OperationAge], durations: Durations, outlook: PollingOutlook
) -> float:
    """Return how likely an operation must be done for an individual poll to be due, in twentieths."""
    if not outlook.polls_cost and outlook.more_to_create and outlook.uncontended:
        return CHANCE_FOR_ROOM
    if outlook.polls_are_free:
        return CHANCE_AT_END if outlook.room_is_scarce else CHANCE_WHEN_FREE
    if outlook.more_to_create:
        return CHANCE_WHEN_PAID
    free = free_tokens(running, durations, outlook, for_each=2)
    chance = len(running) / max(len(running) + free, 1.0)
    return round(20 * max(CHANCE_WHEN_FREE, min(CHANCE_WHEN_PAID, chance))) / 20
