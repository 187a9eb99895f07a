"""The ledger compared with a plain dict: it answers what was written, also after it is reopened."""
# ruff: noqa: D102 - the names of the rules say what they do

import asyncio
import math
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from asyncexport.core.bucket import SentRequest
from asyncexport.core.bundles import ALL_TIME, Bundle, Range
from asyncexport.core.states import (
    MOVES,
    BundleRecord,
    Counts,
    Created,
    Creating,
    Failed,
    FewerRows,
    Overdue,
    Planned,
    Ready,
    Refused,
    Split,
    State,
    Stored,
    moved,
)
from asyncexport.ledger import Ledger, LedgerReader
from tests.ledger_model import Model
from tests.ledger_rig import EXPORTS

pytestmark = pytest.mark.slow

RANGES = [Range(start * 900, (start + width) * 900) for start in (-2, 0, 1, 2, 4, 5, 8) for width in (1, 2, 4)]
BUNDLES = st.sampled_from([Bundle(export.name, span) for export in EXPORTS for span in RANGES])
SPANS = st.sampled_from([ALL_TIME, Range(0, 3600), Range(1799, 1800), Range(-900, 901), Range(86_400, 90_000)])
TIMES = st.floats(0, 4e9) | st.integers(0, 2**31).map(float)
NEW: dict[type[State], Callable[[int, float], State]] = {
    Planned: lambda attempt, _: Planned(attempt),
    Creating: lambda attempt, at: Creating(attempt, at, 3600.0),
    Created: lambda attempt, at: Created(attempt, at, f"operation {at}"),
    Ready: lambda attempt, at: Ready(attempt, at, f"export {at}"),
    Stored: lambda _, at: Stored(f"a/{at}.gz", int(at) % 1000, int(at) % 3, "ab" * 32, at),
    Failed: lambda _, at: Failed(f"at {at} it failed"),
    Overdue: lambda attempt, at: Overdue(attempt, at, f"operation {at}"),
    FewerRows: lambda _, at: FewerRows(int(at) % 1000, int(at) % 3),
    Refused: lambda _, at: Refused(f"at {at} it was refused", Ready(1, at, f"export {at}", at, 3600.0)),
    Split: lambda *_: Split(),
}


def next_states(state: State, at: float) -> list[State]:
    """Return all states that it may change to."""
    attempt = getattr(state, "attempt", 1)
    attempts = {Counts.SAME: attempt, Counts.NEXT: attempt + 1, Counts.FIRST: 1, Counts.NONE: 0}
    return [
        moved(state, NEW[new](attempts[counts], at))
        for (old, new), all_counts in MOVES.items()
        if old is type(state)
        for counts in all_counts
    ]


class LedgerMachine(RuleBasedStateMachine):
    """Many bundles and revisions, moved as the table allows, one by one and many together."""

    def __init__(self):
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="asyncexport-model-"))
        self.runner = asyncio.Runner()
        self.model = Model()
        self.ledger = self.run(Ledger.open(self.directory, lazy_seconds=3600.0))
        self.run(self.ledger.register(EXPORTS))

    def run(self, coroutine):
        return self.runner.run(coroutine)

    def write_all(self):
        """Run a query, so that unawaited writes are committed before its answer."""
        self.run(self.ledger.recall("a"))

    def step(self, bundle, chance, at):
        """Move a bundle to its next state, or start a new revision of a stored one, or of one that kept its archive."""
        now = self.model.records.get(bundle, BundleRecord(bundle))
        if isinstance(now.state, Stored | Split) or (now.kept and chance % 2):
            now = now.next_revision()
        # A bundle that has an archive is never split.
        options = [one for one in next_states(now.state, at) if now.stored is None or not isinstance(one, Split)]
        return self.write(now, options[chance % len(options)], at)

    def write(self, now, state, at):
        """Append a state to the ledger and to the model."""
        model, bundle = self.model, now.bundle
        after = replace(now, state=state, stored=state if isinstance(state, Stored) else now.stored)
        model.records[bundle] = after
        model.note_id(after)
        model.note_parked(after, at)
        model.last_at[bundle.export] = at
        return self.ledger.append(after, at=at)

    @rule(steps=st.lists(st.tuples(BUNDLES, st.integers(0, 5), TIMES), min_size=1, max_size=12))
    def move_many_together(self, steps):
        async def move_all():
            await asyncio.gather(*(self.step(*one) for one in steps))

        self.run(move_all())

    @rule(bundle=BUNDLES, chance=st.integers(0, 5), at=TIMES, times=st.integers(1, 6))
    def move_one_further(self, bundle, chance, at, times):
        for number in range(times):
            self.run(self.step(bundle, chance + number, at + number))

    @rule(bundle=BUNDLES, at=TIMES, times=st.integers(1, 3))
    def keep_an_archive(self, bundle, at, times):
        now = self.model.records.get(bundle, BundleRecord(bundle))
        if now.stored is None:
            self.run(self.write(now, NEW[Stored](1, at), at))
        for number in range(times):
            now = self.model.records[bundle].next_revision()
            self.run(self.write(now, NEW[FewerRows](1, at + number), at + number))

    @rule(at=TIMES, kind=st.sampled_from(["create", "list", "poll"]), status=st.sampled_from([None, 200, 429]))
    def send(self, at, kind, status):
        async def sent():
            return await self.ledger.send(kind, at=at)

        request = self.run(sent())
        assert request == len(self.model.requests) + 1
        self.model.requests.append(SentRequest(at, kind, status or 0))
        if status:
            self.ledger.answered(request, status=status)

    @rule(seconds=st.floats(0, 1e6))
    def learn(self, seconds):
        self.ledger.learn(finished_at=1.0, seconds=seconds)
        self.model.durations.append(seconds)

    @rule(key=st.sampled_from("ab"), value=st.text(st.characters(codec="utf-8"), max_size=20))
    def remember(self, key, value):
        self.ledger.remember(key, value)
        self.model.remarks[key] = value

    @rule()
    def reopen(self):
        self.run(self.ledger.close())
        with LedgerReader(self.directory) as reader:
            reader.check()
            self.compare(reader)
        self.ledger = self.run(Ledger.open(self.directory, lazy_seconds=3600.0))

    @rule()
    def continue_with_a_copy_of_the_files(self):
        self.write_all()
        copied = Path(tempfile.mkdtemp(prefix="asyncexport-model-"))
        shutil.copytree(self.directory, copied, dirs_exist_ok=True, ignore=lambda *_: ["ledger.sqlite3-shm"])
        self.run(self.ledger.close())
        shutil.rmtree(self.directory)
        self.directory = copied
        self.ledger = self.run(Ledger.open(self.directory, lazy_seconds=3600.0))

    @rule(span=SPANS)
    def compare_within_the_run(self, span):
        self.run(self.ledger._read(lambda queries: self.compare(queries, span)))

    @rule(span=SPANS)
    def compare_with_a_reader(self, span):
        self.write_all()
        with LedgerReader(self.directory) as reader:
            self.compare(reader, span)

    def compare(self, queries, span=ALL_TIME):
        model = self.model
        for export in EXPORTS:
            recorded = model.recorded_range(export.name, span)
            assert queries.recorded_range(export.name, span) == recorded
            assert queries.unfinished(export.name, span) == list(recorded.unfinished)
            assert queries.covered(export.name, span) == list(recorded.covered)
            assert queries.count_stored(export.name, span) == len(model.stored(export.name, span))
            for soon in (math.inf, 10_000.5):
                found = list(queries.stored(export.name, span, exported_within=soon))
                assert found == model.stored(export.name, span, soon)
        assert queries.requests_since(0.0) == model.requests
        assert queries.durations() == model.durations
        assert {key: queries.recall(key) for key in "ab"} == {key: model.remarks.get(key) for key in "ab"}
        hours = {(one.began, one.kind, one.status): one.requests for one in queries.hours()}
        assert hours == model.hours()
        for (kind, service_id), bundles in model.ids.items():
            ask = queries.bundles_of_operation if kind is Created else queries.bundles_of_export
            assert ask(service_id) == tuple(bundles)
        self.compare_overviews(queries.overviews())

    def compare_overviews(self, overviews):
        assert [one.name for one in overviews] == [export.name for export in EXPORTS]
        for one in overviews:
            recorded = self.model.recorded_range(one.name, ALL_TIME)
            archives = [record.stored for record in self.model.stored(one.name, ALL_TIME) if record.stored]
            assert (one.stored, one.empty) == (len(archives), sum(archive.rows == 0 for archive in archives))
            assert (one.rows, one.bytes) == (sum(a.rows for a in archives), sum(a.bytes for a in archives))
            assert (one.unfinished, one.covered) == (recorded.unfinished, recorded.covered)
            assert one.last_at == self.model.last_at.get(one.name)
            assert one.in_progress + len(one.parked) == sum(
                not isinstance(record.state, Planned) for record in one.unfinished
            )

    def teardown(self):
        try:
            self.reopen()
            self.run(self.ledger.close())
        finally:
            self.runner.close()
            shutil.rmtree(self.directory)


TestLedger = LedgerMachine.TestCase
TestLedger.settings = settings(max_examples=20, stateful_step_count=20, deadline=None)
