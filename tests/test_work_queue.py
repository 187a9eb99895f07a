"""The bundles of a run in their order, and the newest ahead of its turn."""

from hypothesis import given
from hypothesis import strategies as st

from asyncexport.core.bundles import Range
from asyncexport.core.coverage import ExportPlan, RecordedRange
from asyncexport.core.exports import Export
from asyncexport.core.work_queue import WorkQueue

COUNT = 10


def plans(*names: str) -> list[ExportPlan]:
    """Ten bundles of each."""
    return [ExportPlan(Export(name), Range(0, COUNT * 1800), RecordedRange()) for name in names]


@given(st.lists(st.sampled_from(["next", "a", "b"]), max_size=40))
def test_each_bundle_is_given_once(steps):
    """In order, or as the newest of its export; whatever is asked for in between."""
    work = WorkQueue(plans("a", "b"))
    going, given_out = iter(work), []
    for step in steps:
        record = next(going, None) if step == "next" else work.newest(step)
        if record is not None:
            given_out.append(record.bundle)
    given_out += [record.bundle for record in going]
    assert len(given_out) == len(set(given_out)) == 2 * COUNT


def test_the_newest_is_the_last_that_was_not_given():
    """One after another from the end, until none is left."""
    work = WorkQueue(plans("a"))
    first = next(iter(work))
    starts = [record.bundle.range.start // 1800 for record in iter(lambda: work.newest("a"), None)]
    assert first.bundle.range.start == 0
    assert starts == list(range(COUNT - 1, 0, -1))
