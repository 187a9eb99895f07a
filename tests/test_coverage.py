"""The work of a run: every second exactly once, bundles in progress first, bundles made only when needed."""

import itertools
import time
import tracemalloc
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncexport.core.bundles import DAY, Bundle, Range, gaps, merged
from asyncexport.core.coverage import (
    ExportPlan,
    RecordedRange,
    in_order,
    is_exported_again,
    settles_at,
    was_settled,
)
from asyncexport.core.exports import Definition, Export, Type
from asyncexport.core.parking import pieces_of
from asyncexport.core.splitting import narrower
from asyncexport.core.states import (
    IN_PROGRESS,
    BundleRecord,
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
from tests.ledger_model import Model

WIDTHS = st.sampled_from([300, 900, 1800, 3600, 21_600, 86_400])
EVENTS = "events"
no_deadline = settings(deadline=None)  # the machine may be busy
ARCHIVE = Stored("p", 1, 1, "s", exported_at=0.0)
KEPT = FewerRows(rows_before=120, rows_found=0)
STATES: dict[str, tuple[State, ...]] = {
    "claimed": (Creating(1, 0.0), Created(2, 0.0, "op"), Ready(1, 0.0, "x")),
    "parked": (Failed("why"), Overdue(1, 0.0, "op")),
    "planned": (Planned(1), Planned(2), Planned(3)),
}


@st.composite
def ranges(draw, within=2 * DAY):
    """Draw a range with any start and end, to the second."""
    start = draw(st.integers(0, within - 1))
    return Range(start, draw(st.integers(start + 1, within)))


def record(start, end, state, *, stored=None, export=EVENTS):
    """Return a record of revision 0, or of revision 1 if it has an archive."""
    return BundleRecord(Bundle(export, Range(start, end)), int(stored is not None), state, stored)


@st.composite
def ledgers(draw):
    """Draw what a ledger may contain of one export.

    Adjacent bundles of any width and edge: stored, in progress, parked, stored and being exported again, or kept
    instead of fewer rows; some archives overlap, as after a rebuild; and planned bundles of any width anywhere.
    """
    model, at = Model(), 0
    for _ in range(draw(st.integers(0, 12))):
        at += draw(st.sampled_from([0, 0, 0, 1800, 3600, 701]))
        end = at + draw(st.sampled_from([300, 1800, 3600, 3601, 21_600]))
        kind = draw(st.sampled_from(["stored", "claimed", "parked", "reopened", "kept", "overlapping", "split"]))
        if kind in STATES:
            add(model, record(at, end, draw(st.sampled_from(STATES[kind]))))
        elif kind == "reopened":
            state = draw(st.sampled_from([*STATES["claimed"], *STATES["parked"], *STATES["planned"]]))
            add(model, record(at, end, state, stored=ARCHIVE))
        elif kind == "kept":
            add(model, record(at, end, KEPT, stored=ARCHIVE))
        elif kind == "split" and end - at > 300:
            split_in_pieces(model, Range(at, end), draw)
        elif kind != "split":
            add(model, record(at, end, ARCHIVE, stored=ARCHIVE))
        if kind == "overlapping":
            add(model, record(at + 100, end, ARCHIVE, stored=ARCHIVE))
        at = end
    for span in draw(st.lists(ranges(), max_size=3)):
        bundle = Bundle(EVENTS, span)
        if bundle not in model.records:
            add(model, BundleRecord(bundle, 0, draw(st.sampled_from(STATES["planned"]))))
    return model


def split_in_pieces(model, whole, draw):
    """Add a split bundle, and its pieces in any state, some of them split as well."""
    add(model, BundleRecord(Bundle(EVENTS, whole), 0, Split()))
    for piece in narrower(whole, split_to=300):
        kind = draw(st.sampled_from(["planned", "planned", "parked", "claimed", "stored", "split"]))
        if kind == "split" and piece.seconds > 300:
            split_in_pieces(model, piece, draw)
        elif kind == "stored":
            add(model, record(piece.start, piece.end, ARCHIVE, stored=ARCHIVE))
        else:
            add(model, record(piece.start, piece.end, draw(st.sampled_from(STATES.get(kind, STATES["planned"])))))


def add(model, one):
    model.records[one.bundle] = one


def work_of(model, span, width, **options):
    """Return the plan that a run makes from its ledger."""
    return ExportPlan(Export(EVENTS, bundle_seconds=width), span, model.recorded_range(EVENTS, span), **options)


def seconds_in(pieces, probes):
    """Return, for each probe, how many pieces contain it."""
    return [sum(piece.start <= at < piece.end for piece in pieces) for at in probes]


def probes_of(span, *pieces):
    """Return the times at and just before every edge within the span."""
    edges = {span.start, span.end, *(edge for one in itertools.chain(*pieces) for edge in (one.start, one.end))}
    return sorted(at for edge in edges for at in (edge - 1, edge) if span.start <= at < span.end)


@no_deadline
@given(ledgers(), ranges(), WIDTHS)
def test_planned_and_stored_ranges_tile_the_range(model, span, width):
    """Every second without an archive is in exactly one bundle, whatever the widths of earlier runs."""
    work = work_of(model, span, width)
    new = [one.bundle.range for one in in_order([work]) if one.stored is None]
    probes = probes_of(span, new, work.recorded.covered)
    covered = seconds_in(work.recorded.covered, probes)
    assert seconds_in(new, probes) == [1 - by for by in covered]


@no_deadline
@given(ledgers(), ranges(), WIDTHS, st.booleans(), st.data())
def test_the_count_equals_the_number_of_bundles(model, span, width, fills_gaps, data):
    """`plan` reports the number that a run processes, and no bundle occurs twice, with a refresh or without."""
    stored = model.stored(EVENTS, span)
    chosen = data.draw(st.lists(st.sampled_from(stored), max_size=5)) if stored else []
    work = work_of(model, span, width, refresh=tuple(chosen), fills_gaps=fills_gaps)
    found = list(in_order([work]))
    assert work.count == len(found)
    assert len({one.bundle for one in found}) == len(found)
    assert {one.bundle for one in chosen} <= {one.bundle for one in found}


@no_deadline
@given(ledgers(), ranges(), WIDTHS, st.booleans())
def test_bundles_in_progress_parked_or_reopened_keep_their_record(model, span, width, fills_gaps):
    """Each of them occurs once with its width and state, in a retry as well.

    A bundle that is split into narrower ones does not occur itself.
    """
    work = work_of(model, span, width, fills_gaps=fills_gaps)
    found = list(in_order([work]))
    for one in model.recorded_range(EVENTS, span).unfinished:
        if one.kept or one in work.splits:
            assert one not in found
        elif one.stored is not None or not isinstance(one.state, Planned):
            assert found.count(one) == 1
    for one in found:
        known = model.records.get(one.bundle)
        assert known == one if known else one == BundleRecord(one.bundle)


@no_deadline
@given(ledgers(), ranges(), WIDTHS)
def test_bundles_in_progress_come_first_and_the_others_in_order_of_time(model, span, width):
    """Their creates are paid for, and their exports may expire."""
    found = list(in_order([work_of(model, span, width)]))
    in_progress = [isinstance(one.state, IN_PROGRESS) for one in found]
    assert in_progress == sorted(in_progress, reverse=True)
    for part in (True, False):
        starts = [one.bundle.range for one, is_claimed in zip(found, in_progress, strict=True) if is_claimed is part]
        assert starts == sorted(starts)


@no_deadline
@given(ledgers(), ranges(), WIDTHS)
def test_new_bundles_keep_to_the_grid(model, span, width):
    """New bundles are cut at the grid lines of the present width; other edges come from the range or older bundles."""
    work = work_of(model, span, width)
    known = {one.bundle for one in model.records.values() if one.stored or not isinstance(one.state, Planned)}
    splits = [one.range for one in known if isinstance(model.records[one].state, Split)]
    pieces = {one for one in model.records if any(whole.start <= one.range.start < whole.end for whole in splits)}
    edges = {span.start, span.end, *(edge for one in known | pieces for edge in (one.range.start, one.range.end))}
    for one in in_order([work]):
        if one.bundle not in known:
            assert one.bundle.range.start // width == (one.bundle.range.end - 1) // width
            assert one.bundle.range.start % width == 0 or one.bundle.range.start in edges
            assert one.bundle.range.end % width == 0 or one.bundle.range.end in edges


@no_deadline
@given(ledgers(), ranges(), WIDTHS)
def test_a_retry_does_not_plan_new_ranges(model, span, width):
    """It covers exactly once the time of planned or split bundles that is neither stored nor in progress."""
    work = work_of(model, span, width, fills_gaps=False)
    unfinished = [one for one in work.recorded.unfinished if one not in work.splits]
    planned = [one.bundle.range for one in work.splits]
    planned += [one.bundle.range for one in unfinished if isinstance(one.state, Planned) and one.stored is None]
    others = [one.bundle.range for one in unfinished if not isinstance(one.state, Planned)]
    own = {one.bundle for one in unfinished if one.stored is not None or not isinstance(one.state, Planned)}
    pieces = [one.bundle.range for one in in_order([work]) if one.bundle not in own]
    probes = probes_of(span, planned, others, pieces, work.recorded.covered)
    taken = seconds_in([*others, *work.recorded.covered], probes)
    wanted = [int(by > 0 and not than) for by, than in zip(seconds_in(planned, probes), taken, strict=True)]
    assert seconds_in(pieces, probes) == wanted


@no_deadline
@given(
    st.lists(
        st.tuples(
            ranges(),
            WIDTHS,
            st.booleans(),
            st.booleans(),
            st.lists(
                st.sampled_from(["left", "claimed", "parked", "planned", "kept", "stored", "stored"]),
                min_size=1,
                max_size=7,
            ),
            st.integers(0, 3),
        ),
        max_size=6,
    ),
    WIDTHS,
    WIDTHS,
)
def test_runs_of_any_width_fetch_every_second_once(runs, width, other_width):
    """However runs end and widths change, all is stored in the end, and nothing was fetched twice or is left."""
    model, fetched = Model(), []
    last = (Range(0, 2 * DAY), width, True, False, ["stored"], 0)
    for span, a_width, fills_gaps, is_waiting, fates, refresh in [*runs, last]:
        again = tuple(model.stored(EVENTS, span)[:refresh])
        resting = [one.bundle for one in model.recorded_range(EVENTS, span).unfinished if isinstance(one.state, Failed)]
        options = {
            "fills_gaps": fills_gaps,
            "refresh": again,
            "paused_until": dict.fromkeys(resting, 9e9) if is_waiting else {},
        }
        work = work_of(model, span, a_width, **options)
        planned = [one.bundle for one in in_order([work])]
        assert not {one.bundle for one in work.paused} & set(planned)
        for one in work.splits:
            split(model, one, work)
        work = work_of(model, span, a_width, **options)
        assert (work.splits, [one.bundle for one in in_order([work])]) == ([], planned)
        for one, fate in zip(list(in_order([work])), itertools.cycle(fates), strict=False):
            fetched += process(model, one, fate)
    fetched.sort()
    assert all(a.end <= b.start for a, b in zip(fetched, fetched[1:], strict=False))
    assert list(merged((one.start, one.end) for one in fetched)) == [Range(0, 2 * DAY)]
    for a_width in (width, other_width):
        assert work_of(model, Range(0, 2 * DAY), a_width).count == 0
        assert all(one.kept for one in model.recorded_range(EVENTS, Range(0, 2 * DAY)).unfinished)


def split(model, one, work):
    """Split a bundle as the ledger does."""
    pieces = list(pieces_of(one.bundle.range, work.export, work.span))
    assert len(pieces) > 1
    assert list(merged((piece.start, piece.end) for piece in pieces)) == [one.bundle.range]
    add(model, replace(one, state=moved(one.state, Split())))
    for piece in pieces:
        bundle = Bundle(one.bundle.export, piece)
        model.records.setdefault(bundle, BundleRecord(bundle))


def process(model, one, fate):
    """Apply the outcome of a run to a bundle; return the ranges fetched for the first time."""
    known = model.records.get(one.bundle, BundleRecord(one.bundle))
    # The ledger would reject a lost or invented archive, or a revision that is not the next.
    assert known.stored == one.stored
    assert one.revision == known.revision + (isinstance(known.state, Stored | Split) or known.kept)
    if fate == "left":
        return []
    if fate == "kept" and one.stored:
        add(model, replace(one, state=KEPT))
        return []
    if fate == "kept":
        fate = "stored"
    if fate != "stored":
        add(model, replace(one, state=STATES[fate][1]))
        return []
    add(model, replace(one, state=ARCHIVE, stored=ARCHIVE))
    return [] if one.stored else [one.bundle.range]


def test_the_first_bundle_is_available_immediately():
    """Three thousand million bundles are counted and the first one returned without creating the others."""
    work = ExportPlan(Export(EVENTS, bundle_seconds=300), Range(0, 300 * 3 * 10**9), RecordedRange())
    assert work.count == 3 * 10**9
    assert next(in_order([work])) == BundleRecord(Bundle(EVENTS, Range(0, 300)))


def test_twenty_thousand_bundles_take_little_memory():
    """Iterating over the bundles keeps only a few in memory."""
    work = ExportPlan(Export(EVENTS), Range(0, 20_000 * 1800), RecordedRange())
    tracemalloc.start()
    try:
        assert sum(1 for _ in in_order([work])) == 20_000
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 64 * 1024


@pytest.mark.slow
def test_a_ledger_with_many_gaps_is_fast():
    """Fifty thousand gaps between as many archives are counted, and the first bundle is found, within seconds."""
    covered = tuple(Range(at, at + 1800) for at in range(0, 50_000 * 3600, 3600))
    parked = tuple(record(at, at + 900, Failed("why")) for at in range(1800, 10_000 * 3600, 3600))
    work = ExportPlan(Export(EVENTS), Range(0, 50_000 * 3600), RecordedRange(parked, covered, 50_000))
    began = time.process_time()
    assert work.count == 60_000
    assert next(in_order([work])) == parked[0]
    assert time.process_time() - began < 5.0


def test_bundles_in_progress_come_before_earlier_ones():
    """A bundle whose operation exists is processed before all others."""
    in_progress = record(7200, 9000, Ready(1, 0.0, "x"))
    work = ExportPlan(Export(EVENTS), Range(0, 9000), RecordedRange((in_progress,)))
    assert [one.bundle.range.start for one in in_order([work])] == [7200, 0, 1800, 3600, 5400]


@pytest.mark.parametrize("state", [Overdue(1, 0.0, "op"), Refused("403", Ready(1, 0.0, "x"))])
def test_a_parked_bundle_that_may_have_a_file_keeps_its_width(state):
    """A changed width or range does not cut it, since its operation is polled first."""
    parked = record(0, 21_600, state)
    work = ExportPlan(Export(EVENTS, bundle_seconds=1800), Range(3600, 23_400), RecordedRange((parked,)))
    assert [one.bundle.range for one in in_order([work])] == [Range(0, 21_600), Range(21_600, 23_400)]


def test_a_failed_bundle_is_split_into_narrower_ones():
    """It is cut at the grid lines of a narrower width and at the ends of the range, in a retry as well."""
    parked = record(0, 7200, Failed("why"))
    for fills_gaps in (True, False):
        work = ExportPlan(
            Export(EVENTS, bundle_seconds=1800), Range(2700, 6000), RecordedRange((parked,)), fills_gaps=fills_gaps
        )
        pieces = [Range(2700, 3600), Range(3600, 5400), Range(5400, 6000)]
        assert [one.bundle.range for one in in_order([work])] == pieces
        assert (work.splits, work.parked, work.count) == ([parked], [], 3)
        own = [Range(0, 1800), Range(1800, 2700), *pieces, Range(6000, 7200)]
        assert list(pieces_of(parked.bundle.range, work.export, work.span)) == own


@pytest.mark.parametrize(
    ("one", "export", "span"),
    [
        (record(0, 1800, Failed("why")), Export(EVENTS), Range(0, 1800)),
        (record(0, 1800, Failed("why")), Export(EVENTS, bundle_seconds=3600), Range(0, DAY)),
        (record(900, 2700, Failed("why")), Export(EVENTS), Range(0, DAY)),
        (record(0, 7200, Failed("why"), stored=ARCHIVE), Export(EVENTS), Range(0, DAY)),
        (record(0, DAY, Failed("why")), Export(EVENTS, Definition(type=Type.INDIVIDUAL), 1800), Range(0, DAY)),
        (record(0, DAY, Failed("why")), Export(EVENTS, Definition(type=Type.INDIVIDUAL), DAY), Range(1800, DAY)),
    ],
    ids=["same width", "wider", "off the grid", "archive", "individuals", "individuals in a narrower range"],
)
def test_a_failed_bundle_is_not_split_without_need(one, export, span):
    """A bundle that is not wider, has an archive or contains individuals is retried as it is."""
    work = ExportPlan(export, span, RecordedRange((one,)))
    assert (work.splits, work.parked) == ([], [one])


@pytest.mark.parametrize("width", [300, 900, 1800, 3600, 21_600])
def test_pieces_of_a_split_bundle_keep_their_width(width):
    """Whatever the current width, planned pieces are not merged again, and are cut only if it is narrower."""
    split = record(0, 3600, Split())
    planned = tuple(record(at, at + 1800, Planned(1)) for at in (0, 1800))
    work = ExportPlan(Export(EVENTS, bundle_seconds=width), Range(0, 3600), RecordedRange(planned, split=(split,)))
    assert {one.bundle.range.seconds for one in in_order([work])} == {min(width, 1800)}
    assert work.count == max(2, 3600 // width)


def test_a_range_that_ends_within_a_piece_cuts_it():
    """A run over half of a planned piece exports that half, and a later run the rest, so no row is stored twice."""
    pieces = tuple(record(at, at + 900, Planned(1)) for at in (0, 900))
    recorded = RecordedRange(pieces, split=(record(0, 1800, Split()),))
    work = ExportPlan(Export(EVENTS), Range(0, 1350), recorded)
    assert [one.bundle.range for one in in_order([work])] == [Range(0, 900), Range(900, 1350)]
    stored = RecordedRange(pieces[1:], (Range(0, 1350),), split=recorded.split)
    work = ExportPlan(Export(EVENTS), Range(0, 1800), stored)
    assert [one.bundle.range for one in in_order([work])] == [Range(1350, 1800)]


def test_a_split_bundle_whose_pieces_are_gone_is_a_new_revision():
    """The split bundle stays final, and its range is exported in a new revision."""
    split = record(0, 1800, Split())
    work = ExportPlan(Export(EVENTS), Range(0, 1800), RecordedRange(split=(split,)))
    assert list(in_order([work])) == [split.next_revision()]


def test_a_parked_bundle_that_is_not_due_keeps_its_range():
    """Neither the bundle nor its time is processed, and it is not split."""
    parked = record(0, 7200, Failed("why"))
    work = ExportPlan(Export(EVENTS), Range(0, 9000), RecordedRange((parked,)), paused_until={parked.bundle: 5.0})
    assert [one.bundle.range for one in in_order([work])] == [Range(7200, 9000)]
    assert (work.paused, work.splits, work.parked, work.count) == ([parked], [], [], 1)


def test_a_bundle_between_attempts_keeps_its_attempt():
    """An interrupted bundle continues at its attempt in the next run if the width is the same."""
    planned = record(0, 1800, Planned(3))
    for width, states in ((1800, [Planned(3), Planned(1)]), (3600, [Planned(1)])):
        work = ExportPlan(Export(EVENTS, bundle_seconds=width), Range(0, 3600), RecordedRange((planned,)))
        assert [one.state for one in in_order([work])] == states


def test_a_retry_resumes_what_an_earlier_one_had_planned():
    """A parked bundle whose retry was interrupted after a 429 is retried again."""
    planned = record(5400, 7200, Planned(1))
    work = ExportPlan(Export(EVENTS), Range(0, DAY), RecordedRange((planned,), (Range(0, 1800),), 1), fills_gaps=False)
    assert list(in_order([work])) == [planned]
    assert (work.count, work.stored_before) == (1, 0)


@pytest.mark.parametrize("state", [Planned(1), Planned(2), Creating(1, 0.0), Failed("why")])
def test_a_revision_in_progress_is_not_opened_again(state):
    """An interrupted repair or refresh is resumed."""
    in_progress = record(0, 1800, state, stored=ARCHIVE)
    stored = record(1800, 3600, ARCHIVE, stored=ARCHIVE)
    for fills_gaps in (True, False):
        work = ExportPlan(
            Export(EVENTS),
            Range(0, 5400 if fills_gaps else DAY),
            RecordedRange((in_progress,), (Range(0, 5400),), 2),
            (stored, in_progress, stored),
            fills_gaps=fills_gaps,
        )
        assert list(in_order([work])) == [in_progress, stored.next_revision()]
        assert (work.count, work.stored_before) == (2, 1 if fills_gaps else 0)


def test_a_kept_archive_counts_as_done_until_it_is_requested():
    """It then gets a new revision; the one that was parked is resumed only if the user accepts fewer rows."""
    kept = record(0, 1800, KEPT, stored=ARCHIVE)
    for fills_gaps, stored_before in ((True, 1), (False, 0)):
        work = ExportPlan(
            Export(EVENTS), Range(0, 1800), RecordedRange((kept,), (Range(0, 1800),), 1), fills_gaps=fills_gaps
        )
        assert (work.count, work.stored_before, work.parked, list(in_order([work]))) == (0, stored_before, [], [])
        asked = replace(work, refresh=(replace(kept, state=ARCHIVE), kept))
        assert (asked.count, asked.stored_before) == (1, 0)
        again = BundleRecord(kept.bundle, kept.revision + 1, Planned(), ARCHIVE)
        accepting = replace(asked, accepts_fewer=True)
        assert (list(in_order([asked])), list(in_order([accepting]))) == ([again], [kept])


def test_exports_are_processed_side_by_side():
    """Bundles of several exports are processed in order of time, and those in progress first."""
    in_progress = record(3600, 5400, Created(1, 0.0, "op"), export="b")
    works = [
        ExportPlan(Export("a"), Range(0, 3600), RecordedRange()),
        ExportPlan(Export("b"), Range(0, 5400), RecordedRange((in_progress,))),
    ]
    found = [(one.bundle.export, one.bundle.range.start) for one in in_order(works)]
    assert found == [("b", 3600), ("a", 0), ("b", 0), ("a", 1800), ("b", 1800)]


def archived(exported_at, settle=0.0, *, state=None):
    """Return half an hour exported at `exported_at` with this settle time."""
    archive = replace(ARCHIVE, exported_at=float(exported_at), settle_seconds=float(settle))
    return record(0, 1800, state or archive, stored=archive)


@pytest.mark.parametrize(
    ("exported_at", "settle", "settled"),
    [
        (1800 + DAY, DAY, True),
        (1800 + DAY - 300, DAY, True),
        (1800 + DAY - 301, DAY, False),
        (1800, DAY, False),
        (-(10**9), DAY, False),
        (1800, 0, True),  # from a ledger without settle times, or a rebuilt one
        (1500, 0, True),
        (1499, 0, False),  # before its end
    ],
)
def test_an_archive_was_settled_by_the_settle_time_of_its_export(exported_at, settle, settled):
    """Clocks may differ by five minutes."""
    assert was_settled(archived(exported_at, settle)) == settled


def test_a_bundle_without_an_archive_counts_as_settled():
    """It is to do anyway."""
    assert was_settled(record(0, 1800, Failed("why")))


@given(
    exported_at=st.integers(-DAY, 5 * DAY),
    then=st.integers(0, 3 * DAY),
    present=st.integers(0, 3 * DAY),
    now=st.integers(0, 9 * DAY),
    late=st.integers(-300, 5000),
)
def test_a_bundle_exported_too_early_is_exported_again_once(exported_at, then, present, now, late):
    """It is due when it has settled by the longer of both settings; a longer setting alone causes no export."""
    one = archived(exported_at, then)
    anew = is_exported_again(one, settle_seconds=present, ages=(), now=now)
    due = 1800 + max(then, present)
    assert settles_at(one, settle_seconds=present) == due
    assert anew == (exported_at < 1800 + then - 300 and due <= now)
    # The operation's `createdAt` may be up to five minutes before its request.
    again = archived(max(now, due) + late, present)
    assert not is_exported_again(again, settle_seconds=3 * DAY, ages=(), now=100 * DAY)


def test_a_kept_archive_is_not_exported_again_however_early_it_was():
    """It would be exported again every night; `core.refreshing.kept_is_due` has the rule for it."""
    assert not is_exported_again(archived(0, DAY, state=KEPT), settle_seconds=DAY, ages=(), now=9 * DAY)


def test_a_refresh_does_not_depend_on_being_settled():
    """Data that was settled when it was exported may have changed since; an age up to the settle time has no effect."""
    settled = archived(1800 + DAY, DAY)
    assert is_exported_again(settled, settle_seconds=DAY, ages=[2 * DAY], now=1800 + 2 * DAY)
    assert not is_exported_again(settled, settle_seconds=DAY, ages=[2 * DAY], now=1799 + 2 * DAY)
    assert not is_exported_again(settled, settle_seconds=2 * DAY, ages=[2 * DAY], now=9 * DAY)


def test_a_stored_range_is_nothing_to_do():
    """This also holds for archives that overlap or reach beyond the range."""
    covered = (Range(-600, 90_000),)
    work = ExportPlan(Export(EVENTS), Range(0, DAY), RecordedRange((), covered, 49))
    assert (work.count, work.stored_before, list(in_order([work])), list(gaps(work.span, covered))) == (0, 49, [], [])
