"""The bundles of a run in order, and the newest one ahead of its turn."""

from hypothesis import given
from hypothesis import strategies as st

from asyncexport.core.bundles import Range
from asyncexport.core.coverage import ExportPlan, RecordedRange
from asyncexport.core.exports import Export
from asyncexport.core.work_queue import WorkQueue

COUNT = 10


def plans(*names: str) -> list[ExportPlan]:
    """Return plans with ten bundles for each export."""
    return [ExportPlan(Export(name), Range(0, COUNT * 1800), RecordedRange()) for name in names]


@given(st.lists(st.sampled_from(["next", "a", "b"]), max_size=40))
def test_each_bundle_is_given_once(steps):
    """Each bundle is given exactly once, whether in order or as the newest of its export."""
    work = WorkQueue(plans("a", "b"))
    going, given_out = iter(work), []
    for step in steps:
        record = next(going, None) if step == "next" else work.newest(step)
        if record is not None:
            given_out.append(record.bundle)
    given_out += [record.bundle for record in going]
    assert len(given_out) == len(set(given_out)) == 2 * COUNT


def test_the_newest_bundle_is_the_last_one_not_given():
    """The newest bundles are given one after another from the end, until none is left."""
    work = WorkQueue(plans("a"))
    first = next(iter(work))
    starts = [record.bundle.range.start // 1800 for record in iter(lambda: work.newest("a"), None)]
    assert first.bundle.range.start == 0
    assert starts == list(range(COUNT - 1, 0, -1))
