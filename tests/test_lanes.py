"""The order of bundles in a run that follows the present."""

from itertools import groupby, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncexport.core.bundles import DAY, HOUR, Bundle, Range, cut
from asyncexport.core.coverage import ExportPlan, RecordedRange, in_order
from asyncexport.core.exports import Export
from asyncexport.core.lanes import FRESH_SECONDS, Lane, LaneOrder, in_lanes, lane_of
from asyncexport.core.old_order import OldOrder
from asyncexport.core.states import BundleRecord, Created, Failed, FewerRows, Overdue, Planned, Ready, State, Stored
from asyncexport.core.work_queue import WorkQueue

SETTLE = 26 * HOUR
DAYS = 6
NOW = DAYS * DAY + SETTLE
NAMES = ("a", "b")


def archive(at: float) -> Stored:
    """Return an archive that was exported at a time."""
    return Stored("p", 1, 1, "s", exported_at=at, settle_seconds=SETTLE)


@st.composite
def plans(draw) -> list[ExportPlan]:
    """Draw the plans of two exports with bundles in any state, of different widths."""
    return [draw(plan_of(name)) for name in NAMES]


@st.composite
def plan_of(draw, name: str) -> ExportPlan:
    """Draw the plan of one export over six days up to what is settled."""
    width = draw(st.sampled_from([6 * HOUR, 12 * HOUR, DAY]))
    unfinished, covered, refresh = [], [], []
    for piece in cut(Range(0, DAYS * DAY), draw(st.sampled_from([6 * HOUR, 12 * HOUR]))):
        bundle, stored = Bundle(name, piece), archive(draw(st.sampled_from([0.0, float(NOW)])))
        match draw(
            st.sampled_from(["gap", "gap", "in progress", "parked", "planned", "stored", "refresh", "reopened"])
        ):
            case "in progress":
                unfinished.append(
                    BundleRecord(bundle, 0, draw(st.sampled_from([Created(1, 0.0, "o"), Ready(1, 0.0, "x")])))
                )
            case "parked":
                state: State = draw(st.sampled_from([Failed("why"), Overdue(1, 0.0, "o")]))
                unfinished.append(BundleRecord(bundle, 0, state))
            case "planned":
                unfinished.append(BundleRecord(bundle, 0, Planned(2)))
            case "reopened":
                unfinished.append(BundleRecord(bundle, 1, draw(st.sampled_from([Planned(2), Failed("why")])), stored))
                covered.append(piece)
            case "refresh":
                refresh.append(BundleRecord(bundle, 0, stored, stored))
                covered.append(piece)
            case "stored":
                covered.append(piece)
    recorded = RecordedRange(tuple(unfinished), tuple(covered), len(covered))
    export = Export(name, bundle_seconds=width, settle_seconds=SETTLE)
    return ExportPlan(export, Range(0, DAYS * DAY), recorded, tuple(refresh))


orders = st.builds(LaneOrder, st.just(float(NOW)), st.sampled_from(OldOrder))


@given(plans(), orders)
def test_lanes_change_only_the_order(works, order):
    """A run in lanes starts exactly the bundles that it would start in order of time, as recorded, each once."""
    found = list(in_lanes(works, order))
    assert len({one.bundle for one in found}) == len(found) == sum(work.count for work in works)
    assert sorted(found, key=lambda one: one.bundle) == sorted(in_order(works), key=lambda one: one.bundle)


@given(plans(), orders)
def test_bundles_are_started_lane_by_lane(works, order):
    """Bundles in progress come first, then fresh ones, then refreshes, then old ones; each lane is in its order."""
    found = [(lane_of(one, settle_seconds=SETTLE, now=order.now), one) for one in in_lanes(works, order)]
    assert [lane for lane, _ in found] == sorted(lane for lane, _ in found)
    for lane, ones in groupby(found, key=lambda one: one[0]):
        starts = [one.bundle.range.start for _, one in ones]
        if lane is not Lane.IN_PROGRESS:
            is_reversed = lane is Lane.OLD and order.old is OldOrder.NEWEST
            assert starts == sorted(starts, reverse=is_reversed), lane


@given(plans(), orders, st.lists(st.sampled_from(["next", *NAMES]), max_size=20))
def test_a_queue_in_lanes_gives_each_bundle_once(works, order, steps):
    """Each bundle is given exactly once, whether in its lane or as the newest of its export."""
    work = WorkQueue(works, order)
    going, given_out = iter(work), []
    for step in steps:
        record = next(going, None) if step == "next" else work.newest(step)
        if record is not None:
            given_out.append(record.bundle)
    given_out += [record.bundle for record in going]
    assert len(given_out) == len(set(given_out)) == sum(plan.count for plan in works)
    assert all(map(work.has_given, given_out))


@given(plans())
def test_newest_first_is_the_reverse_of_the_order_of_time(works):
    """The bundles of a plan are the same in both directions."""
    for work in works:
        forwards = list(work.unclaimed())
        assert list(work.unclaimed(newest_first=True)) == forwards[::-1]
        assert all(one.bundle.range <= other.bundle.range for one, other in pairwise(forwards))


FRESH_FROM = NOW - FRESH_SECONDS - SETTLE
"""The end of the newest bundle that is no longer fresh."""


@pytest.mark.parametrize(
    ("end", "state", "stored", "lane"),
    [
        (FRESH_FROM, Planned(), None, Lane.OLD),
        (FRESH_FROM + 1, Planned(), None, Lane.FRESH),
        (FRESH_FROM + 1, Failed("why"), None, Lane.FRESH),
        (FRESH_FROM, Created(1, 0.0, "o"), None, Lane.IN_PROGRESS),
        (FRESH_FROM + 1, Planned(), archive(NOW), Lane.REFRESH),
        (FRESH_FROM, Planned(), archive(NOW), Lane.REFRESH),
        (FRESH_FROM, FewerRows(rows_before=9, rows_found=0), archive(NOW), Lane.REFRESH),
        (FRESH_FROM + 1, Planned(), archive(FRESH_FROM), Lane.FRESH),
        (FRESH_FROM, Planned(), archive(FRESH_FROM), Lane.OLD),
    ],
)
def test_lane_of_a_bundle(end, state, stored, lane):
    """A bundle is fresh for 48 hours after it settled; an archive that was exported before that does not count."""
    record = BundleRecord(Bundle("a", Range(end - 1800, end)), 0, state, stored)
    assert lane_of(record, settle_seconds=SETTLE, now=NOW) is lane
