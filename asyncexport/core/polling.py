"""When to look for finished operations: a poll must earn what it costs.

What a poll is worth. It frees the room of the operations it finds done, and lets their files be fetched; it speeds
nothing up at the service. So a poll that comes later finds more for the same token, and what is lost by waiting is
only what the tokens could have done meanwhile. From that:

1. Where polls are not counted, they cost politeness only: look as soon as an operation is expected to be done, and
   sooner where creates wait for the room that it takes.
2. Where they are counted and `throughput` is preferred, no poll goes out while a result or a create waits for the
   token: those must be paid for in any case, and bring the end nearer; a poll then only gets dearer by coming early.
3. When neither waits, all room is taken. Now tokens gather, and nothing is lost by that until the bucket is full: what
   has gathered is spent at once on the results and creates that the next poll makes possible. So the poll is sent when
   the bucket is about to run over, or when nearly all are expected to be done and waiting finds no more. The more room
   there is, the more a poll finds: with room for a hundred, some 50 to 95, which is one or two hundredths of a request
   for each. That is why the room is not kept narrow here: the operations beyond those that run are the catch.
4. The bucket sets the pace by itself. Where the service is slow and room is what lacks, tokens are not used up, the
   bucket stays nearly full, and polls go out as fast as they pay anything.
5. With `latency`, a due poll goes before creates, so it must pay by itself: it is due when it is expected to find
   `PAYS_ITSELF` operations, which makes it a fourteenth of a request for each; waiting for fewer helps few.
6. At the end nothing is left to create. What the results still need is known, and so is, roughly, how long the last
   operation will go on. Tokens that come in until then and are not needed for results are free: they are shared out
   over the operations still running, so that the last ones are looked for often. Where none will be free, the end is
   set by the tokens, and rule 3 holds.
7. Without a list, one poll tells of one operation, and each must be polled once. What counts is not to ask in vain: the
   one likeliest to be done is asked first, and only when that is likely; how likely hangs on the same things.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from asyncexport.core.admission import Prefer
from asyncexport.core.durations import Durations

LIST_SIZE = 100
"""What one page of List Operations holds at most (reference section 3.3)."""

PAYS_ITSELF = 14.0
"""A list poll that finds this many adds a fourteenth of a request to each: 4 % of the two that they cost anyway."""

NEARLY_ALL = 0.95
"""Of the operations: the last few may take for ever, and waiting for them finds no more."""

ROOM_IN_BUCKET = 1.5
"""Tokens: with less room than this left, one that comes in before the next look is lost."""

SOON = 0.2
"""The last operation is done sooner than it is taken to be once in five times; then tokens counted on are missing."""

WORTH_A_LOOK = 2.0
"""So many must be expected to be done for a list poll that costs nothing but politeness, and frees no room in need."""

WORTH_A_TRY = 0.5
"""So many, where room is what lacks, or a token would be lost: one in two is in vain."""

LEAST_SHARE = 0.1
"""A poll that costs nothing is still not sent for less than this share of the operations: ten polls reap them all."""

TAKES_LONG = 0.75
"""What three in four do not take is long."""

RESTLESS = 0.01
"""Where all that runs takes long and a poll is free, it is sent after this share of the oldest one's age, whatever is
expected: what has taken ten hours may take ten more, and its end is not to be missed by more than some minutes."""

UNSEEN = 0.02
"""No more than this share of the oldest one's age passes between lists where polls are free: nobody knows how
long operations take before one was seen to end."""

LIKELY = 0.9
"""A single poll that must pay by itself is sent when it is in vain once in ten times."""

EVEN = 0.4
"""A single poll that costs nothing is sent when it is in vain three times in five."""

UNLIKELY = 0.1
"""The same where room is what lacks: it may be in vain nine times in ten."""

WORTH_A_PAGE = 7.0
"""A further page is read for so many that are expected to be done, or for half of what is left to see."""


class PollingMode(Enum):
    """How finished operations are found; each is the fall-back of the one before it."""

    LIST = "list"
    PENDING = "pending"  # the list of those still running: what has vanished from it is finished
    SINGLE = "single"


@dataclass(frozen=True, slots=True)
class FinishedOperation:
    """The operation is complete; `exported_at` is when the service made it, seconds since 1970."""

    export_id: str
    exported_at: float


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
        calm: Whether neither a result nor a create waits for a token.
        more_to_create: Whether bundles are left that have no operation yet.
        prefer: `[polling] prefer`.
    """

    tokens: int
    burst: int
    refill_seconds: float
    polls_cost: bool
    calm: bool
    more_to_create: bool
    prefer: Prefer

    @property
    def waits_for_calm(self) -> bool:
        """Whether a poll may not be sent before results and creates have had their tokens."""
        return self.polls_cost and self.prefer is Prefer.THROUGHPUT and not self.calm

    @property
    def runs_over(self) -> bool:
        """Whether the bucket is about to run over, so that a poll takes what would be lost."""
        return self.calm and self.tokens >= self.burst - ROOM_IN_BUCKET

    @property
    def lacks_room(self) -> bool:
        """Whether creates wait for room, or nobody waits for anything but operations; for latency, they always do."""
        return self.calm or self.prefer is Prefer.LATENCY

    @property
    def polls_are_free(self) -> bool:
        """Whether a poll costs nothing but politeness."""
        return not self.polls_cost or self.runs_over


def list_is_due(
    pages: Sequence[Sequence[OperationAge]], durations: Durations, outlook: PollingOutlook, *, waited_seconds: float
) -> bool:
    """Whether a list poll is worth what it costs, as things stand.

    `pages`: what each page of it would show; `waited_seconds`: since the last one.
    """
    running = [one for page in pages for one in page]
    if not running:
        return False
    if is_restless(running, durations, outlook, waited_seconds=waited_seconds):
        return True
    if outlook.polls_are_free and waited_seconds >= UNSEEN * max(one.age for one in running):
        return True
    enough = enough_for_a_list(running, durations, outlook)
    found = 0.0
    for read, page in enumerate(pages, start=1):
        found += durations.expected_done(page)
        if found / read >= enough:
            return True
    return False


def is_restless(
    running: Sequence[OperationAge], durations: Durations, outlook: PollingOutlook, *, waited_seconds: float
) -> bool:
    """Whether all that runs takes long, and so much time has passed that a free poll is sent whatever is expected."""
    if not outlook.polls_are_free:
        return False
    ages = [one.age for one in running]
    return waited_seconds >= RESTLESS * max(ages) and durations.done_by(min(ages)) >= TAKES_LONG


def page_is_due(running: Sequence[OperationAge], durations: Durations, outlook: PollingOutlook) -> bool:
    """Whether a further page is worth what it costs, for operations that lie further back than what was read."""
    if outlook.polls_are_free:
        return True
    enough = min(WORTH_A_PAGE, enough_for_a_list(running, durations, outlook))
    return durations.expected_done(running) >= min(enough, 0.5 * len(running))


def enough_for_a_list(running: Sequence[OperationAge], durations: Durations, outlook: PollingOutlook) -> float:
    """How many of these must be expected to be done for a list poll to be due."""
    count = len(running)
    if not outlook.polls_cost:
        return min(WORTH_A_TRY, LEAST_SHARE * count) if outlook.lacks_room else min(WORTH_A_LOOK, 0.5 * count)
    if outlook.runs_over:
        return min(WORTH_A_TRY, LEAST_SHARE * count)
    enough = NEARLY_ALL * count
    if outlook.prefer is Prefer.LATENCY:
        # While creates go on there will be more to find.
        enough = min(enough, PAYS_ITSELF) if outlook.calm or not outlook.more_to_create else PAYS_ITSELF
    if not outlook.more_to_create:
        free = free_tokens(running, durations, outlook, for_each=1)
        if free > 0:
            enough = min(enough, max(count / free, LEAST_SHARE * count))
    return enough


def free_tokens(
    running: Sequence[OperationAge], durations: Durations, outlook: PollingOutlook, *, for_each: int
) -> float:
    """Rule 6: what there will be, until the last is done, beyond `for_each` token that every operation still needs."""
    last = durations.rest_seconds([max(one.age, one.seen) for one in running], chance=SOON)
    return outlook.tokens + last / outlook.refill_seconds - for_each * len(running) - 1


def chance_for_a_single(running: Sequence[OperationAge], durations: Durations, outlook: PollingOutlook) -> float:
    """How likely an operation must be done for a single poll of it to be due, in steps of a twentieth."""
    if outlook.polls_are_free:
        return UNLIKELY if outlook.lacks_room else EVEN
    if outlook.more_to_create:
        return LIKELY
    free = free_tokens(running, durations, outlook, for_each=2)
    chance = len(running) / max(len(running) + free, 1.0)
    return round(20 * max(EVEN, min(LIKELY, chance))) / 20
