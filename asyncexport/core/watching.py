"""When to look for finished operations: a poll must earn what it costs.

One list poll tells of up to 100 operations, so it is worth more the longer one waits; a single poll tells of one.
What waiting costs depends on what else a token could do:

1. Where polls are not counted by the service's limit, they cost politeness only: look as soon as one operation is
   expected to be done.
2. Where they are counted and `throughput` is preferred, a poll is sent only when no result and no create waits for
   the token: a token spent on those is never lost. Then tokens gather anyway, up to the burst, so one waits until a
   good share of the operations is expected to be done, or until the bucket is about to run over.
3. With `latency`, a due poll goes before creates, so it must pay by itself: it is due when enough operations are
   expected to be done that its share of their cost is small.
4. At the end, when nothing is left to create and there are more tokens than operations, tokens are plentiful: what
   counts then is not to leave the last operations waiting.
5. Without a list, operations are asked one by one: the one likeliest to be done first, and only when that is likely.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from asyncexport.core.durations import Durations
from asyncexport.core.pacing import Prefer

LIST_SIZE = 100
"""What one page of List Operations holds at most (reference section 3.3)."""

NEARLY_FULL = 0.7
"""A bucket this full is about to run over, and what runs over is lost."""

PAYS_ITSELF = 12.0
"""A list poll that finds this many adds a twelfth of a request to each: 4 % of the two that they cost anyway."""


class Mode(Enum):
    """How finished operations are found; each is the fall-back of the one before it."""

    LIST = "list"
    PENDING = "pending"  # the list of those still running: what has vanished from it is finished
    SINGLE = "single"


WORTH_A_PAGE = 10
"""A further page is read for so many operations; fewer are polled singly when they are due."""


@dataclass(frozen=True, slots=True)
class Finished:
    """The operation is complete; `exported_at` is when the service made it, seconds since 1970."""

    export_id: str
    exported_at: float


@dataclass(frozen=True, slots=True)
class Running:
    """An operation not known to be done: its age now, and the age at which it was last seen running, in seconds."""

    age: float
    seen: float


@dataclass(frozen=True, slots=True)
class Outlook:
    """What the decision to poll rests on.

    Attributes:
        tokens: How many requests could go out now.
        burst: How many the bucket holds when full.
        polls_cost: Whether polls take tokens at all.
        calm: Whether neither a result nor a create waits for a token.
        more_to_create: Whether bundles are left that have no operation yet.
        prefer: `[polling] prefer`.
    """

    tokens: int
    burst: int
    polls_cost: bool
    calm: bool
    more_to_create: bool
    prefer: Prefer

    @property
    def waits_for_calm(self) -> bool:
        """Whether a poll may not be sent before results and creates have had their tokens."""
        return self.polls_cost and self.prefer is Prefer.THROUGHPUT and not self.calm


def expected_done(running: Sequence[Running], durations: Durations, *, in_seconds: float = 0.0) -> float:
    """How many of the operations are expected to be done that far from now."""
    return sum(durations.done_since(one.seen, one.age + in_seconds) for one in running)


def enough_for_a_list(count: int, outlook: Outlook) -> float:
    """How many of `count` operations must be expected to be done for a list poll to be due."""
    if not outlook.polls_cost:
        return min(1.0, 0.1 * count)
    if not outlook.more_to_create and outlook.tokens > count:
        return _enough_when_plentiful(count, outlook.tokens - count)
    if outlook.tokens >= NEARLY_FULL * outlook.burst:
        return min(1.0, 0.5 * count)
    if outlook.prefer is Prefer.LATENCY:
        # While creates go on there will be more to find; once none is possible, these are all there are.
        return min(PAYS_ITSELF, 0.5 * count) if outlook.calm else PAYS_ITSELF
    return 0.5 * count if outlook.more_to_create else 0.75 * count


def _enough_when_plentiful(count: int, spare: int) -> float:
    chance = 0.5 if spare < 5 else 0.3 if spare < 15 else 0.15
    return max(chance, 0.1 * count)


def list_due_seconds(running: Sequence[Running], durations: Durations, outlook: Outlook) -> float:
    """How long until a list poll is due (0: now), as things stand; to be asked again when they change."""
    enough = enough_for_a_list(len(running), outlook)
    if expected_done(running, durations) >= enough:
        return 0.0
    soon, late = 0.0, 1.0
    while expected_done(running, durations, in_seconds=late) < enough:
        soon, late = late, late * 2
        if late > 86_400:
            return late
    while late - soon > 0.05 * late:
        middle = (soon + late) / 2
        done = expected_done(running, durations, in_seconds=middle)
        soon, late = (middle, late) if done < enough else (soon, middle)
    return late


def chance_for_a_single(count: int, outlook: Outlook) -> float:
    """How likely an operation must be done for a single poll of it to be due, `count` of them running."""
    if not outlook.polls_cost:
        return 0.1
    if not outlook.more_to_create and outlook.tokens > 2 * count:
        return 0.2 if outlook.tokens > 2 * count + 10 else 0.4
    if outlook.tokens >= NEARLY_FULL * outlook.burst:
        return 0.5
    return 0.9


def single_due_seconds(one: Running, durations: Durations, *, chance: float) -> float:
    """How long until an operation is done with this chance (0: it is already)."""
    return max(0.0, durations.due_age_seconds(one.seen, chance) - one.age)


def operations_allowed(durations: Durations, *, cap: int, creates_per_minute: float, burst: int) -> int:
    """How many operations to have running: as many as finish while the next are created, within `[concurrency]`.

    More would only make finished exports wait, and at worst expire; fewer would leave tokens unused. Not fewer than
    the burst, which would otherwise be wasted at the start.
    """
    wanted = durations.quantile_seconds(0.99) / 60 * creates_per_minute
    return max(1, min(cap, max(burst, int(wanted) + 1)))
