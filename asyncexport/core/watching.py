"""When to look for finished operations: a poll must earn what it costs.

What a poll is worth. It frees the room of the operations it finds done, and lets their files be fetched; it speeds
nothing up at the service. So a poll that comes later finds more for the same token, and what is lost by waiting is
only what the tokens could have done meanwhile. From that:

1. Where polls are not counted, they cost politeness only: look as soon as one operation is expected to be done.
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

from asyncexport.core.durations import Durations
from asyncexport.core.pacing import Prefer

LIST_SIZE = 100
"""What one page of List Operations holds at most (reference section 3.3)."""

PAYS_ITSELF = 14.0
"""A list poll that finds this many adds a fourteenth of a request to each: 4 % of the two that they cost anyway."""

NEARLY_ALL = 0.95
"""Of the operations: the last few may take for ever, and waiting for them finds no more."""

ROOM_IN_BUCKET = 1.5
"""Tokens: with less room than this left, one that comes in before the next look is lost."""

WORTH_A_TRY = 0.5
"""So many must be expected to be done for a poll that costs nothing else: one in two is in vain."""

LEAST_SHARE = 0.1
"""A poll that costs nothing is still not sent for less than this share of the operations: ten polls reap them all."""

LIKELY = 0.9
"""A single poll that must pay by itself is sent when it is in vain once in ten times."""

UNLIKELY = 0.2
"""A single poll that costs nothing is sent when it is in vain four times in five."""

WORTH_A_PAGE = 7.0
"""A further page is read for so many that are expected to be done, or for half of what is left to see."""


class Mode(Enum):
    """How finished operations are found; each is the fall-back of the one before it."""

    LIST = "list"
    PENDING = "pending"  # the list of those still running: what has vanished from it is finished
    SINGLE = "single"


@dataclass(frozen=True, slots=True)
class Finished:
    """The operation is complete; `exported_at` is when the service made it, seconds since 1970."""

    export_id: str
    exported_at: float


class Running(NamedTuple):
    """An operation not known to be done: its age now, and the age at which it was last seen running, in seconds."""

    age: float
    seen: float


@dataclass(frozen=True, slots=True)
class Outlook:
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


def list_is_due(pages: Sequence[Sequence[Running]], durations: Durations, outlook: Outlook) -> bool:
    """Whether a list poll is worth what it costs, as things stand; `pages`: what each page of it would show."""
    running = [one for page in pages for one in page]
    if not running:
        return False
    enough = enough_for_a_list(running, durations, outlook)
    found = 0.0
    for read, page in enumerate(pages, start=1):
        found += durations.expected_done(page)
        if found / read >= enough:
            return True
    return False


def page_is_due(running: Sequence[Running], durations: Durations, outlook: Outlook) -> bool:
    """Whether a further page is worth what it costs, for operations that lie further back than what was read."""
    enough = min(WORTH_A_PAGE, enough_for_a_list(running, durations, outlook))
    return durations.expected_done(running) >= min(enough, 0.5 * len(running))


def enough_for_a_list(running: Sequence[Running], durations: Durations, outlook: Outlook) -> float:
    """How many of these must be expected to be done for a list poll to be due."""
    count = len(running)
    if not outlook.polls_cost:
        return min(1.0, LEAST_SHARE * count)
    if outlook.runs_over:
        return min(WORTH_A_TRY, LEAST_SHARE * count)
    enough = NEARLY_ALL * count
    if outlook.prefer is Prefer.LATENCY:
        enough = min(enough, PAYS_ITSELF)
    if not outlook.more_to_create:
        free = free_tokens(running, durations, outlook, for_each=1)
        if free > 0:
            enough = min(enough, max(count / free, LEAST_SHARE * count))
    return enough


def free_tokens(running: Sequence[Running], durations: Durations, outlook: Outlook, *, for_each: int) -> float:
    """Rule 6: what there will be, until the last is done, beyond `for_each` token that every operation still needs."""
    last = durations.rest_seconds([max(one.age, one.seen) for one in running])
    return outlook.tokens + last / outlook.refill_seconds - for_each * len(running) - 1


def chance_for_a_single(running: Sequence[Running], durations: Durations, outlook: Outlook) -> float:
    """How likely an operation must be done for a single poll of it to be due, in steps of a twentieth."""
    if not outlook.polls_cost or outlook.runs_over:
        return UNLIKELY
    chance = LIKELY
    if not outlook.more_to_create:
        free = free_tokens(running, durations, outlook, for_each=2)
        chance = len(running) / max(len(running) + free, 1.0)
    elif outlook.calm:
        # The fuller the bucket, the sooner something is lost.
        chance = LIKELY - (LIKELY - UNLIKELY) * max(0.0, 2 * outlook.tokens / outlook.burst - 1)
    return round(20 * max(UNLIKELY, min(LIKELY, chance))) / 20


def operations_allowed(
    durations: Durations, *, cap: int, requests_per_minute: float, burst: int, polls_cost: bool, prefer: Prefer
) -> int:
    """How many operations to have running, within `[concurrency]`: as many as finish while the next are created.

    More would only make finished exports wait, and at worst expire; fewer would leave tokens unused. Not fewer than
    the burst, which would otherwise be wasted at the start. Where polls cost and throughput is preferred, as many as
    one page of the list shows are added: what is done and not yet found (rule 3).

    A service that runs few at once and queues the rest makes every operation look long, the longer the more are
    running; what is learned from that must never lift the number beyond `[concurrency]`, which is the user's word.
    """
    creates_per_minute = requests_per_minute / (2 if polls_cost else 1)
    wanted = durations.quantile_seconds(0.99) / 60 * creates_per_minute + 1
    if polls_cost and prefer is Prefer.THROUGHPUT:
        wanted += LIST_SIZE
    return max(1, min(cap, max(burst, int(wanted))))
