"""When to poll for finished operations: a poll must be worth what it costs.

What a poll is worth: it frees the room of the operations that it finds done, and lets their files be fetched. It makes
nothing faster at the service. A later poll finds more for the same token. What is lost by waiting is only what the
tokens could have done meanwhile. From that:

1. Where polls do not count against the limit, they only load the service: poll as soon as an operation is expected to
   be done, and sooner where creates wait for the room that it takes.
2. Where polls count and `throughput` is preferred, no poll is sent while a result or a create waits for a token: those
   must be paid for in any case, and bring the end nearer. A poll that comes early only costs more for what it finds.
3. When neither waits, all room is taken. Then tokens gather, and nothing is lost by that until the bucket is full: what
   has gathered is spent at once on the results and creates that the next poll makes possible. So the poll is sent when
   the bucket is about to overflow, or when nearly all operations are expected to be done and waiting finds no more. The
   more room there is, the more a poll finds: with room for a hundred operations some 50 to 95, which is one or two
   hundredths of a request for each. That is why room is not kept scarce here.
4. The bucket sets the pace by itself. Where the service is slow and room is scarce, tokens are not used up, the bucket
   stays nearly full, and polls are sent as often as they find anything.
5. With `latency`, a due poll goes before creates, so it must be worth its token: it is due when it is expected to find
   `FOUND_FOR_LATENCY` operations. That adds a fourteenth of a request to each. Waiting for fewer would help few.
6. At the end nothing is left to create. How many tokens the results still need is known, and so is, roughly, how long
   the last operation will take. Tokens that come in until then and are not needed for results are free. They are shared
   out over the operations still running, so that the last ones are polled often. Where none will be free, the tokens
   decide when the run ends, and rule 3 holds.
7. Without a list, one poll tells of one operation, and each operation must be polled at least once. The aim is few
   polls in vain: the operation most likely to be done is polled first, and only when that is likely enough. How likely
   depends on the same things.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from asyncexport.core.admission import Prefer
from asyncexport.core.durations import Durations
from asyncexport.core.service_time import CLOCKS_APART_SECONDS

LIST_SIZE = 100
"""What one page of List Operations holds at most (reference section 3.3)."""

FOUND_FOR_LATENCY = 14.0
"""Operations that a list poll must be expected to find to go before creates: it then adds a fourteenth of a request to
each, 4 % of the two that it costs anyway (a create and a result)."""

NEARLY_ALL_SHARE = 0.95
"""Share of the running operations that counts as all: the last few may take very long, and waiting finds no more."""

OVERFLOW_TOKENS = 1.5
"""The bucket counts as full with room for fewer tokens than this: one that comes in before the next check is lost."""

EARLY_END_CHANCE = 0.2
"""The time left until the last operation is done is taken so short that it is shorter once in five times: tokens that
were counted on and do not come would be missing."""

FOUND_WHEN_FREE = 2.0
"""Operations that a list poll must be expected to find where it costs no token and nobody waits for room."""

FOUND_FOR_ROOM = 0.5
"""Operations that it must be expected to find where room is scarce or a token would be lost: one poll in two finds
nothing."""

LEAST_FOUND_SHARE = 0.1
"""Share of the running operations for which a poll that costs nothing is sent: about ten polls then find them all."""

LONG_DURATION_SHARE = 0.75
"""An operation takes long when it takes longer than this share of all operations."""

OVERDUE_AGE_SHARE = 0.01
"""Where all running operations take long and a poll is free, it is sent after this share of the oldest one's age,
whatever is expected: what has taken ten hours may take ten more, and its end is to be noticed within minutes."""

LONGEST_GAP_AGE_SHARE = 0.02
"""Lists that are free are no further apart than this share of the oldest operation's age: how long operations take is
not known before one was seen to end."""

CHANCE_WHEN_PAID = 0.9
"""How likely an operation must be done for an individual poll that takes a token from a create: one in ten is in vain.
"""

CHANCE_WHEN_FREE = 0.4
"""The same for an individual poll that costs nothing: three in five are in vain."""

CHANCE_FOR_ROOM = 0.05
"""The same where polls cost nothing and creates wait for room: nineteen in twenty may be in vain. Each minute that an
operation lies done and not asked for is then a minute of room."""

CHANCE_AT_REST = 0.1
"""The same where nothing is left to create, a token would be lost, or latency is preferred: nine in ten may be in vain.
"""

FOUND_FOR_A_PAGE = 7.0
"""Operations that a further page of the list must be expected to show as done; half of what is left to see is enough.
"""


@dataclass(frozen=True, slots=True)
class PollingRules:
    """`[polling]`, and the bucket that polls may have to be paid from.

    Attributes:
        min_interval_seconds: The least time between two lists, or two polls of one operation.
        deadline_seconds: How long anybody waits for an operation.
        prefer: What tokens are spent on first.
        burst: Tokens that the bucket holds when full.
        refill_seconds: How long one token takes to come back.
    """

    min_interval_seconds: float
    deadline_seconds: float
    prefer: Prefer
    burst: int
    refill_seconds: float


class PollingMode(Enum):
    """How finished operations are found; each is the fall-back of the one before it."""

    LIST = "list"
    PENDING = "pending"  # the list of those still running: what has vanished from it is finished
    INDIVIDUAL = "single"  # one request for each operation; the value is what the log says


@dataclass(frozen=True, slots=True)
class FinishedOperation:
    """The operation is complete; `exported_at` is its `createdAt` as the service says, in seconds since 1970."""

    export_id: str
    exported_at: float


def believed_start(created_at: float | None, *, asked_at: float, now: float) -> float:
    """When an operation began: its `createdAt`, if that can be; else the moment of asking, which is on record.

    It can be between the moment of asking and now. Five minutes before it are allowed for, since the two are told by
    different clocks, and the moment of asking is that of the answer. A moment of asking that lies ahead was noted by a
    clock that was wrong: then it is no later than now.

    All are in seconds since 1970; None: the service did not say.
    """
    asked_at = min(asked_at, now)
    if created_at is not None and asked_at - CLOCKS_APART_SECONDS <= created_at <= now:
        return created_at
    return asked_at


class OperationAge(NamedTuple):
    """An operation not known to be done: its age now, and the age at which it was last seen running, in seconds."""

    age: float
    seen: float


@dataclass(frozen=True, slots=True)
class PollingOutlook:
    """What the decision to poll rests on.

    Attributes:
        tokens: How many requests could go out now.
        burst: How many the bucket holds when full.
        refill_seconds: How long one takes to come back.
        polls_cost: Whether polls take tokens at all.
        uncontended: Whether neither a result nor a create waits for a token.
        more_to_create: Whether bundles are left that have no operation yet.
        prefer: `[polling] prefer`.
    """

    tokens: int
    burst: int
    refill_seconds: float
    polls_cost: bool
    uncontended: bool
    more_to_create: bool
    prefer: Prefer

    @property
    def gives_way(self) -> bool:
        """Whether a poll must let results and creates have their tokens first."""
        return self.polls_cost and self.prefer is Prefer.THROUGHPUT and not self.uncontended

    @property
    def overflows(self) -> bool:
        """Whether the bucket is about to overflow, so that a poll takes a token that would be lost."""
        return self.uncontended and self.tokens >= self.burst - OVERFLOW_TOKENS

    @property
    def room_is_scarce(self) -> bool:
        """Whether room is scarce: creates wait for it and not for tokens. Where latency is preferred it always is."""
        return self.uncontended or self.prefer is Prefer.LATENCY

    @property
    def polls_are_free(self) -> bool:
        """Whether a poll takes no token that anything else could use."""
        return not self.polls_cost or self.overflows


def list_is_due(
    pages: Sequence[Sequence[OperationAge]], durations: Durations, outlook: PollingOutlook, *, waited_seconds: float
) -> bool:
    """Whether a list poll is worth what it costs.

    `pages`: the operations that each page of the list should show; `waited_seconds`: how long ago the last one was.
    """
    running = [one for page in pages for one in page]
    if not running:
        return False
    if is_overdue(running, durations, outlook, waited_seconds=waited_seconds):
        return True
    if outlook.polls_are_free and waited_seconds >= LONGEST_GAP_AGE_SHARE * max(one.age for one in running):
        return True
    enough = enough_for_a_list(running, durations, outlook)
    found = 0.0
    for read, page in enumerate(pages, start=1):
        found += durations.expected_done(page)
        if found / read >= enough:
            return True
    return False


def is_overdue(
    running: Sequence[OperationAge], durations: Durations, outlook: PollingOutlook, *, waited_seconds: float
) -> bool:
    """Whether a free poll is sent whatever is expected: all that runs takes long, and the last poll was long ago."""
    if not outlook.polls_are_free:
        return False
    ages = [one.age for one in running]
    return waited_seconds >= OVERDUE_AGE_SHARE * max(ages) and durations.done_by(min(ages)) >= LONG_DURATION_SHARE


def page_is_due(running: Sequence[OperationAge], durations: Durations, outlook: PollingOutlook) -> bool:
    """Whether a further page of the list is worth what it costs; `running`: the operations not seen on it so far."""
    if outlook.polls_are_free:
        return True
    enough = min(FOUND_FOR_A_PAGE, enough_for_a_list(running, durations, outlook))
    return durations.expected_done(running) >= min(enough, 0.5 * len(running))


def enough_for_a_list(running: Sequence[OperationAge], durations: Durations, outlook: PollingOutlook) -> float:
    """How many of these must be expected to be done for a list poll to be due."""
    count = len(running)
    if not outlook.polls_cost:
        if not outlook.room_is_scarce:
            return min(FOUND_WHEN_FREE, 0.5 * count)
        return min(FOUND_FOR_ROOM, LEAST_FOUND_SHARE * count)
    if outlook.overflows:
        return min(FOUND_FOR_ROOM, LEAST_FOUND_SHARE * count)
    enough = NEARLY_ALL_SHARE * count
    if outlook.prefer is Prefer.LATENCY:
        # While creates go on there will be more to find.
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
    """Rule 6: the tokens until the last operation is done, without `for_each` tokens that each one still needs."""
    last = durations.rest_seconds([max(one.age, one.seen) for one in running], chance=EARLY_END_CHANCE)
    return outlook.tokens + last / outlook.refill_seconds - for_each * len(running) - 1


def chance_for_an_individual_poll(
    running: Sequence[OperationAge], durations: Durations, outlook: PollingOutlook
) -> float:
    """How likely an operation must be done for an individual poll of it to be due, in steps of a twentieth."""
    if not outlook.polls_cost and outlook.more_to_create and outlook.uncontended:
        return CHANCE_FOR_ROOM
    if outlook.polls_are_free:
        return CHANCE_AT_REST if outlook.room_is_scarce else CHANCE_WHEN_FREE
    if outlook.more_to_create:
        return CHANCE_WHEN_PAID
    free = free_tokens(running, durations, outlook, for_each=2)
    chance = len(running) / max(len(running) + free, 1.0)
    return round(20 * max(CHANCE_WHEN_FREE, min(CHANCE_WHEN_PAID, chance))) / 20
