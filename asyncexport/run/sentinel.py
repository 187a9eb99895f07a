"""Looks for shortfalls during a run: stored time with far fewer rows than usual (`core.sentinel`).

1. A run judges what was stored since the last judgement, whichever run stored it. If nothing was, it only reads a note
   and the number of the newest row.
2. It reads sums over what it judges and over the history that this is compared with, so the cost does not grow with the
   age of the ledger.
3. A run judges every hour and at its end, so that a long backfill does not go on for days before it reports that all of
   its files are empty.
4. A new shortfall is reported once, as an event. All that are open in the range of the run are in its summary. They
   only fail the run with `[sentinel] fail`.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import NamedTuple

from asyncexport.client.clock import ServiceClock
from asyncexport.config import Settings
from asyncexport.core.bundles import ALL_TIME, DAY, Range, moment_of
from asyncexport.core.events import Listener, ShortfallFound
from asyncexport.core.sentinel.memory import NOTE, SentinelMemory
from asyncexport.core.sentinel.old_data import LEAST_SECONDS, empty_old_data
from asyncexport.core.sentinel.rules import HISTORY_SECONDS, short_pieces
from asyncexport.core.sentinel.shortfalls import (
    APART_SECONDS,
    Reconciled,
    Shortfall,
    ShortfallRule,
    not_accepted,
    reconciled,
    troubles,
)
from asyncexport.core.summary import Tally
from asyncexport.errors import ExportError
from asyncexport.ledger import AcceptedGap, Ledger, LedgerQueries
from asyncexport.run.spec import RunSpec, instructions

EVERY_SECONDS = 3600.0
"""How often a run looks for shortfalls."""

BEFORE_SECONDS = 14 * DAY
"""How long before the first new bundle judging begins, so that a trouble that goes on is seen from its beginning."""


class Judgement(NamedTuple):
    """What was found.

    Attributes:
        memory: What to remember.
        new: The shortfalls to report.
    """

    memory: SentinelMemory
    new: tuple[Shortfall, ...]


class _OldDataJudgement(NamedTuple):
    """The open and the new shortfall of old data, if any, and whether there was enough of it to judge."""

    open: tuple[Shortfall, ...]
    new: tuple[Shortfall, ...]
    is_judged: bool


@asynccontextmanager
async def sentinel(
    settings: Settings,
    spec: RunSpec,
    *,
    ledger: Ledger,
    clock: ServiceClock,
    tally: Tally,
    emit: Listener,
    every_seconds: float = EVERY_SECONDS,
) -> AsyncIterator[None]:
    """Look for shortfalls during the body of the `with` statement, and when it has ended without an error."""
    if not settings.sentinel.enabled:
        yield
        return
    regularly = asyncio.create_task(_look_regularly(ledger, spec, emit, every_seconds), name="sentinel")
    try:
        yield
    finally:
        regularly.cancel()
        await asyncio.wait({regularly})
    if not regularly.cancelled():
        # It only ends by itself because of a bug.
        regularly.result()
    memory = await _look(ledger, spec, emit)
    accepted = await ledger.query(LedgerQueries.accepted)
    tally.shortfalls = shortfalls_in_range(memory, accepted, spec, now=clock.now())
    tally.shortfalls_fail = settings.sentinel.fail


async def _look_regularly(ledger: Ledger, spec: RunSpec, emit: Listener, seconds: float) -> None:
    while True:
        await asyncio.sleep(seconds)
        # A ledger that cannot be read ends the run elsewhere.
        with suppress(ExportError):
            await _look(ledger, spec, emit)


async def _look(ledger: Ledger, spec: RunSpec, emit: Listener) -> SentinelMemory:
    """Judge, remember what was found, and report what is new."""
    names = [export.name for export in spec.exports]
    known, found = await ledger.query(lambda queries: (read_memory(queries), judge(queries, names)))
    if found.memory != known:
        ledger.remember(NOTE, found.memory.to_text())
    for one in found.new:
        emit(ShortfallFound(one))
    return found.memory


def shortfalls_in_range(
    memory: SentinelMemory, accepted: Sequence[AcceptedGap], spec: RunSpec, *, now: float
) -> tuple[Shortfall, ...]:
    """Return the open shortfalls in the range of a run."""
    asked = instructions(spec)
    start = ALL_TIME.start if asked.start is None else moment_of(asked.start, now=now)
    end = ALL_TIME.end if asked.end is None else moment_of(asked.end, now=now)
    still_open = [one for export in spec.exports for one in open_shortfalls(memory, accepted, export.name)]
    return tuple(one for one in still_open if one.bundle.range.start < end and start < one.bundle.range.end)


def read_memory(queries: LedgerQueries) -> SentinelMemory:
    """Return what the ledger remembers of the sentinel."""
    return SentinelMemory.read(queries.recall(NOTE))


def open_shortfalls(memory: SentinelMemory, accepted: Sequence[AcceptedGap], export: str) -> list[Shortfall]:
    """Return the shortfalls of an export that are known and not accepted."""
    return list(not_accepted(memory.known_of(export), spans_of(accepted, export)))


def spans_of(accepted: Sequence[AcceptedGap], export: str) -> list[Range]:
    """Return the ranges that the user has accepted of an export."""
    return [one.bundle.range for one in accepted if one.bundle.export == export]


def judge(queries: LedgerQueries, exports: Sequence[str]) -> Judgement:
    """Judge what was stored of these exports since the last judgement."""
    made_at, last = queries.position()
    memory = read_memory(queries)
    if memory.ledger != made_at:
        memory = replace(memory, ledger=made_at, judged={})
    accepted, new = queries.accepted(), []
    for name in exports:
        after = memory.judged.get(name, 0)
        span = queries.newly_stored(name, after=after) if last > after else None
        if last > after:
            memory = replace(memory, judged={**memory.judged, name: last})
        if span is None:
            continue
        spans = spans_of(accepted, name)
        known = tuple(not_accepted(memory.known_of(name), spans))
        rows = _judge_rows(queries, name, span, known=known, accepted=spans)
        old = _judge_old_data(queries, name, known=known, is_judged=name in memory.old_judged)
        others = tuple(one for one in memory.known if one.bundle.export != name)
        memory = replace(
            memory,
            known=(*others, *rows.open, *old.open),
            old_judged=memory.old_judged | ({name} if old.is_judged else set()),
        )
        new += [*rows.new, *old.new]
    return Judgement(memory, tuple(new))


def _judge_rows(
    queries: LedgerQueries, name: str, stored: Range, *, known: Sequence[Shortfall], accepted: Sequence[Range]
) -> Reconciled:
    """Apply the rules to the new bundles, and to everything whose history they are."""
    known = [one for one in known if one.rule is not ShortfallRule.OLD_EMPTY]
    start = stored.start - BEFORE_SECONDS
    begun = [one.bundle.range.start for one in known if one.bundle.range.end > start - APART_SECONDS]
    start = min(start, *begun) // DAY * DAY if begun else start // DAY * DAY
    judged = Range(start, stored.end + HISTORY_SECONDS)
    counts = queries.row_counts(name, Range(judged.start - HISTORY_SECONDS, judged.end)).without(accepted)
    found = tuple(troubles(name, short_pieces(counts, judged)))
    return reconciled(known, found, judged=judged, accepted=accepted)


def _judge_old_data(
    queries: LedgerQueries, name: str, *, known: Sequence[Shortfall], is_judged: bool
) -> _OldDataJudgement:
    """Judge the old data, once; if it is known to be empty, see whether it still is."""
    if is_judged and not any(one.rule is ShortfallRule.OLD_EMPTY for one in known):
        return _OldDataJudgement((), (), is_judged)
    old = queries.old_data(name)
    shortfall = empty_old_data(name, old)
    found = () if shortfall is None else (shortfall,)
    return _OldDataJudgement(
        found, () if is_judged else found, is_judged or (old is not None and old.seconds >= LEAST_SECONDS)
    )
