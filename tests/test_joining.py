"""Which bundles a nightly run waits for while another run holds the directory."""

from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncexport.core.bundles import Bundle, Range, merged
from asyncexport.core.coverage import ExportPlan, RecordedRange
from asyncexport.core.exports import Export
from asyncexport.core.join_progress import JoinedRun, ShareProgress
from asyncexport.core.joining import Share, progress_of
from asyncexport.core.parking import ParkedTimes, next_try
from asyncexport.core.states import (
    BundleRecord,
    Created,
    Creating,
    Failed,
    FewerRows,
    Overdue,
    Planned,
    Ready,
    Refused,
    State,
    Stored,
)

EXPORT = Export("e", settle_seconds=86_400, bundle_seconds=1800)

ARCHIVE = Stored("e/a.gz", 9, 7, "", 0.0)

UNFINISHED: dict[str, State] = {
    "planned": Planned(2),
    "creating": Creating(1, 0.0),
    "created": Created(1, 0.0, "o"),
    "ready": Ready(1, 0.0, "x"),
    "failed": Failed("broken"),
    "overdue": Overdue(1, 0.0, "o"),
    "refused": Refused("no", Created(1, 0.0, "o")),
}

PARKED = {"failed", "overdue", "refused", "kept"}

TIMED = PARKED - {"refused"}


@dataclass(frozen=True)
class Cell:
    """What the ledger says of one bundle, and what the plan says of it.

    Attributes:
        kind: The state of the newest revision; "" if there is none.
        archive: Whether the bundle has an archive.
        times: How often it was parked.
        paused: Whether the pause after it was parked has not ended.
        refresh: Whether another export of its archive is due: a refresh, or because it was kept.
    """

    kind: str = ""
    archive: bool = False
    times: int = 1
    paused: bool = False
    refresh: bool = False

    @property
    def is_due(self) -> bool:
        """Whether a run would retry it."""
        return (self.kind in {"failed", "overdue", "refused"} and not self.paused) or (
            self.kind == "kept" and self.refresh
        )

    @property
    def is_exported_again(self) -> bool:
        """Whether a run would export it although it has an archive."""
        return self.archive and (self.refresh or self.is_due or (self.kind != "" and self.kind not in PARKED))


def is_left(start: Cell, now: Cell) -> bool:
    """Whether a run that began at `start` still waits for a bundle: the rules of `core.joining`, bundle by bundle."""
    if now.kind in PARKED:
        return start.is_due and (start.kind, start.archive, start.times) == (now.kind, now.archive, now.times)
    if not now.archive:
        return True
    return start.is_exported_again and (now.refresh or now.kind != "")


def cells() -> st.SearchStrategy[Cell]:
    """Generate every legal combination."""
    times = st.integers(1, 3)
    return (
        st.builds(Cell, st.sampled_from(["", *UNFINISHED]))
        | st.builds(Cell, st.sampled_from(["failed", "overdue"]), st.booleans(), times, st.booleans())
        | st.builds(Cell, st.sampled_from(["", *UNFINISHED]), st.just(value=True), refresh=st.booleans())
        | st.builds(Cell, st.just("kept"), st.just(value=True), times, refresh=st.booleans())
    )


def record_of(number: int, cell: Cell) -> BundleRecord:
    """Return the record of the bundle with this number."""
    bundle, archive = Bundle("e", Range(1800 * number, 1800 * (number + 1))), ARCHIVE if cell.archive else None
    if cell.kind == "kept":
        return BundleRecord(bundle, cell.times, FewerRows(rows_before=100, rows_found=0), archive)
    state = UNFINISHED.get(cell.kind) or archive or Planned()
    return BundleRecord(bundle, int(cell.archive and cell.kind != ""), state, archive)


def plan_of(row: list[Cell]) -> ExportPlan:
    """Return the plan for a range of bundles, as the planner makes it from the ledger."""
    records = [record_of(number, cell) for number, cell in enumerate(row)]
    unfinished = [(one, cell) for one, cell in zip(records, row, strict=True) if cell.kind]
    timed = {one.bundle: ParkedTimes(cell.times, 0.0) for one, cell in unfinished if cell.kind in TIMED}
    again = [one for one, _ in unfinished if one.stored is not None and not one.kept]
    recorded = RecordedRange(
        tuple(one for one, _ in unfinished),
        tuple(merged((one.bundle.range.start, one.bundle.range.end) for one in records if one.stored)),
        sum(cell.archive for cell in row) - len(again),
        parked=timed,
    )
    return ExportPlan(
        EXPORT,
        Range(0, 1800 * len(row)),
        recorded,
        tuple(one for one, cell in zip(records, row, strict=True) if cell.refresh),
        paused_until={one.bundle: 1.0 for one, cell in unfinished if cell.paused and one.bundle in timed},
    )


def progress(start: list[Cell], now: list[Cell]) -> ShareProgress:
    """Return the progress of a share that was worked out at `start`."""
    return progress_of(Share.of(plan_of(start)), plan_of(now))


ROWS = st.lists(cells(), min_size=1, max_size=12)


def as_planned(pair: tuple[Cell, Cell]) -> tuple[Cell, Cell]:
    """Make a kept archive that has not changed due both times or never: both plans are for the same time."""
    start, now = pair
    unchanged = (start.kind, now.kind) == ("kept", "kept") and start.times == now.times
    return start, replace(now, refresh=start.refresh) if unchanged else now


@given(st.lists(st.tuples(cells(), cells()).map(as_planned), min_size=1, max_size=12))
def test_each_bundle_is_stored_parked_or_left(pairs):
    """The counts are those of a decision for each bundle, for any change of the ledger."""
    start, now = [one for one, _ in pairs], [one for _, one in pairs]
    found = progress(start, now)
    left = [is_left(before, after) for before, after in pairs]
    parked = [
        after.kind in PARKED
        and not is_left(before, after)
        and (after.kind != "kept" or (before.is_exported_again and after.times == 1))
        for before, after in pairs
    ]
    assert found.left == sum(left)
    assert [one.bundle.range.start // 1800 for one in found.parked] == [at for at, one in enumerate(parked) if one]
    assert found.planned == len(pairs)


@given(ROWS)
def test_at_the_beginning_exactly_the_work_of_a_run_is_left(row):
    """What is left is what a run would do now, and what is parked is what it would leave alone."""
    plan = plan_of(row)
    found = progress(row, row)
    assert found.left == plan.count
    assert {one.bundle for one in found.parked} == {one.bundle for one in plan.paused}


@given(ROWS)
def test_a_range_that_is_stored_completely_leaves_nothing(row):
    """Once every bundle has an archive and no refresh is due, the share is done."""
    found = progress(row, [Cell(archive=True)] * len(row))
    assert (found.stored, found.left, found.parked) == (len(row), 0, ())


@given(ROWS, st.data())
def test_storing_or_parking_a_bundle_never_adds_to_what_is_left(row, data):
    """The share shrinks from reading to reading until nothing is left."""
    now, left = list(row), progress(row, row).left
    for at in data.draw(st.permutations(range(len(row)))):
        ends = [Cell(archive=True), Cell("failed", archive=now[at].archive, times=9)]
        now[at] = data.draw(st.sampled_from(ends))
        found = progress(row, now).left
        assert found <= left
        left = found
    assert left == 0


@pytest.mark.parametrize("kind", ["planned", "creating", "created", "ready"])
def test_a_new_revision_that_the_run_would_not_have_begun_is_ignored(kind):
    """If the other run exports a stored bundle again, its archive is enough."""
    found = progress([Cell(archive=True)], [Cell(kind, archive=True)])
    assert (found.stored, found.left) == (1, 0)


def test_a_parked_bundle_counts_once_it_was_retried():
    """A bundle that was due is waited for until it is parked again."""
    due = Cell("failed", times=1)
    assert progress([due], [due]).left == 1
    again = progress([due], [replace(due, times=2)])
    assert (again.left, [one.state for one in again.parked]) == (0, [Failed("broken")])
    (parked,) = again.parked
    assert dict(again.next_tries) == {parked.bundle: next_try(parked, ParkedTimes(2, 0.0))}


@pytest.mark.parametrize("kind", ["failed", "overdue", "refused"])
def test_an_accepted_gap_is_not_counted(kind):
    """The user knows that it is missing, so it is neither waited for nor a problem."""
    before = [Cell(archive=True), Cell(kind)]
    plan = plan_of(before)
    plan = replace(plan, accepted_gaps=frozenset(one.bundle for one in plan.recorded.unfinished))
    assert progress_of(Share.of(plan), plan) == ShareProgress(stored=1)


def test_a_refresh_whose_archive_was_kept_is_parked():
    """It counts as parked, as in the run that kept the archive, but not if the archive was kept before."""
    kept = Cell("kept", archive=True)
    assert len(progress([Cell(archive=True, refresh=True)], [kept]).parked) == 1
    assert progress([kept], [kept]) == ShareProgress(stored=1)


def test_a_kept_archive_that_is_due_is_waited_for():
    """The other run exports it again. If the archive is kept once more, that is no new problem."""
    due = Cell("kept", archive=True, refresh=True)
    assert progress([due], [due]) == ShareProgress(left=1)
    assert progress([due], [replace(due, times=2)]) == ShareProgress(stored=1)
    assert progress([due], [Cell(archive=True)]) == ShareProgress(stored=1)


def test_the_progress_of_exports_adds_up():
    """A run with several exports reports their sum."""
    one = progress(
        [Cell(archive=True), Cell("failed", paused=True), Cell()], [Cell(archive=True), Cell("failed"), Cell()]
    )
    assert ((one + one).planned, (one + one).left, len((one + one).next_tries)) == (6, 2, 2)


def test_the_other_run_is_described_in_one_line():
    """The text has the command, the process, the machine and the start."""
    run = JoinedRun("backfill", 7, "host", 1_767_225_600.0)
    assert str(run) == "backfill, process 7 on host, since 2026-01-01T00:00:00Z"
