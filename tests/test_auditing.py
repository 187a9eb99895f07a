"""Which bundles an audit chooses, and what follows from their comparisons."""

from collections import Counter
from dataclasses import replace
from itertools import pairwise
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncexport.core.auditing import STEPS, AuditCandidate, AuditResult, Comparison, choose, is_audited
from asyncexport.core.bundles import DAY, HOUR, Bundle, Range
from asyncexport.core.exports import Definition, Export, Type
from asyncexport.core.states import Creating, FewerRows, Stored
from asyncexport.display.audit_text import audit_lines, show_limit
from asyncexport.ledger import Ledger, LedgerQueries
from tests.ledger_rig import EXPORTS, creating, stored
from tests.ledger_rig import archive as archive_of

DRAWS = st.lists(st.floats(0, 1, exclude_max=True), max_size=30)


def candidates(count: int, *, export: str = "a", lately: frozenset[int] = frozenset()) -> list[AuditCandidate]:
    """Return half hours of an export; those with these numbers were compared lately."""
    return [AuditCandidate(export, n * 1800, (n + 1) * 1800, n in lately) for n in range(count)]


def archive(rows: int, *, exported_at: float = 0.0, sha256: str = "0") -> Stored:
    """Return an archive."""
    return Stored("file.gz", 9, rows, sha256, exported_at)


def half_hour(number: int, export: str = "a") -> Bundle:
    """Return a half hour of an export."""
    return Bundle(export, Range(number * 1800, (number + 1) * 1800))


def compared(number: int, *, age: float = 26.0 * HOUR, before: int = 10, found: int = 10) -> Comparison:
    """Return the comparison of a half hour whose archive had been exported at this age."""
    return Comparison(half_hour(number), age, before, found, differs=before != found)


def result(*comparisons: Comparison, more: int = 0) -> AuditResult:
    """Return the result of an audit with these comparisons, and with `more` bundles that could not be compared."""
    sample = {one.bundle: archive(one.rows_before) for one in comparisons}
    sample |= {half_hour(n, "missing"): archive(1) for n in range(more)}
    return AuditResult(sample, list(comparisons))


LATE_ROWS = (
    "rows came after these bundles were exported: a later age in [nightly] refresh, or a longer settle in [[export]], "
    "includes them"
)

# The choice


@given(st.integers(0, 60), DRAWS, st.frozensets(st.integers(0, 59)))
def test_the_sample_has_the_requested_size_and_no_bundle_twice(count, draws, lately):
    """As many different bundles are chosen as there are draws, or all if there are fewer."""
    found = choose(candidates(count, lately=lately), draws)
    assert len(found) == len(set(found)) == min(count, len(draws))
    assert set(found) <= {one.bundle for one in candidates(count)}


@given(st.integers(1, 60), DRAWS.filter(bool), st.frozensets(st.integers(0, 59)))
def test_bundles_compared_lately_are_chosen_only_if_there_are_too_few_others(count, draws, lately):
    """No bundle that was compared lately is chosen while another one is left."""
    found = set(choose(candidates(count, lately=lately), draws))
    others = {half_hour(n) for n in range(count) if n not in lately}
    assert found <= others or others <= found


@given(st.integers(1, 60), DRAWS.filter(bool))
def test_the_sample_is_spread_over_time(count, draws):
    """Between two chosen bundles there are fewer candidates than two parts hold."""
    found = [one.range.start // 1800 for one in choose(candidates(count), draws)]
    part = ceil(count / len(draws))
    assert found == sorted(found)
    assert all(later - earlier < 2 * part for earlier, later in pairwise([-1, *found, count]))


def test_the_sample_is_spread_over_exports():
    """Each export gets as many of the sample as corresponds to its share of the bundles."""
    every = [*candidates(300, export="a"), *candidates(100, export="b")]
    found = Counter(one.export for one in choose(every, [0.99] * 20))
    assert found == {"a": 15, "b": 5}


def test_every_bundle_has_the_same_chance():
    """With evenly spread draws, each bundle is chosen equally often."""
    draws = [(n + 0.5) / 10 for n in range(10)]
    found = Counter(one for draw in draws for one in choose(candidates(40), [draw] * 4))
    assert set(found.values()) == {1}
    assert len(found) == 40


def test_exports_of_individuals_are_not_audited():
    """Rows of individuals are totals at the time of the export, so only events can be audited."""
    assert is_audited(Export("a"))
    assert not is_audited(Export("a", Definition(type=Type.INDIVIDUAL)))


# The result


def test_an_archive_with_the_same_bytes_does_not_differ():
    """An archive that keeps its bytes has the same rows; other bytes mean other rows, even as many."""
    bundle, before = half_hour(0), archive(5, exported_at=1800 + 26 * HOUR)
    same = Comparison.of_stored(bundle, before, archive(5, exported_at=9e6))
    assert (same.differs, same.age_seconds, same.rows_before, same.rows_found) == (False, 26 * HOUR, 5, 5)
    assert Comparison.of_stored(bundle, before, archive(5, sha256="1")).differs
    assert Comparison.of_stored(bundle, before, archive(7, sha256="1")).rows_found == 7


def test_an_archive_that_was_kept_differs():
    """If the archive was kept because far fewer rows came, the bundle counts as differing and kept."""
    found = Comparison.of_kept(half_hour(0), archive(100), FewerRows(100, 3))
    assert (found.differs, found.kept, found.rows_before, found.rows_found) == (True, True, 100, 3)


def test_a_clean_audit_says_what_it_proves():
    """Without a difference, the text is one line with the limit."""
    audit = result(*map(compared, range(120)))
    assert audit_lines(audit) == ["audit: of 120 exported again 0 differ: fewer than 2.5 % do, at 95 %"]
    facts = audit.to_dict()
    assert (facts["sampled"], facts["compared"], facts["differ"], facts["kept"]) == (120, 120, 0, 0)
    assert (facts["share_below"], facts["confidence"]) == (0.024656, 0.95)


def test_differences_are_shown_by_the_age_at_the_export():
    """With differences, the text has the curve, the bundles that differ, and what to do."""
    audit = result(
        compared(0, age=25.5 * HOUR, found=12),
        compared(1, age=25.9 * HOUR),
        compared(2, age=27 * HOUR, found=9),
        compared(3, age=40 * DAY),
        compared(4, age=100 * DAY),
        more=1,
    )
    assert audit_lines(audit) == [
        "audit: of 5 exported again 2 differ: fewer than 82 % do, at 95 %",
        "audit: 1 bundle of the sample was not compared",
        "audit: exported 25 h to 26 h after their end: 1 of 2 differs; 2 of 22 rows came later, 0 removed",
        "audit: exported 26 h to 28 h after their end: 1 of 1 differs; 0 of 10 rows came later, 1 removed",
        "audit: exported 30 d to 90 d after their end: 0 of 1 differ",
        "audit: exported 90 d or more after their end: 0 of 1 differ",
        "differs: a 1970-01-01T00:00:00Z: 12 rows instead of 10, exported 25 h 30 min after its end",
        "differs: a 1970-01-01T01:00:00Z: 9 rows instead of 10, exported 27 h after its end",
        LATE_ROWS,
    ]


def test_nothing_follows_if_all_or_none_were_compared():
    """No limit is claimed if every bundle differs, or if no bundle was compared."""
    assert audit_lines(result(compared(0, found=11)))[0] == (
        "audit: of 1 exported again 1 differs, so nothing follows about the others"
    )
    assert audit_lines(result(more=2)) == [
        "audit: no bundle was exported again, so nothing follows",
        "audit: 2 bundles of the sample were not compared",
    ]
    assert audit_lines(result()) == []
    assert result(compared(0, found=11)).share_limit is None
    assert result(more=2).to_dict()["share_below"] is None


COMPARISONS = st.lists(
    st.builds(
        compared,
        st.integers(0, 50),
        age=st.floats(-DAY, 400 * DAY),
        before=st.integers(0, 30),
        found=st.integers(0, 30),
    ),
    unique_by=lambda one: one.bundle,
)


@given(COMPARISONS)
def test_the_curve_adds_up_to_the_totals(comparisons):
    """Each comparison is in one step, whose limits contain its age, and the steps are in order."""
    audit = result(*comparisons)
    facts, curve = audit.to_dict(), audit.curve()
    for key in ("differ", "rows", "rows_added", "rows_removed"):
        assert sum(getattr(step, key) for step in curve) == facts[key]
    assert sum(step.bundles for step in curve) == facts["compared"] == len(comparisons)
    limits = [(step.from_seconds, step.to_seconds) for step in curve]
    assert limits == sorted(limits, key=lambda one: one[0])
    assert set(limits) <= set(zip((0.0, *STEPS), (*STEPS, None), strict=True))
    for one in comparisons:
        age = max(0.0, one.age_seconds)
        assert any(start <= age and (end is None or age < end) for start, end in limits)


@pytest.mark.parametrize(
    ("share", "text"),
    [(0.024655, "2.5 %"), (0.025, "2.5 %"), (0.0251, "2.6 %"), (0.95, "95 %"), (0.999, "100 %"), (0.00029957, "0.03 %"),
     (0.136, "14 %"), (0.0999, "10 %")],
)  # fmt: skip
def test_a_limit_is_rounded_up(share, text):
    """A limit is shown with two digits and never lower than it is."""
    assert show_limit(share) == text


# The candidates


async def test_only_stored_bundles_without_an_unfinished_revision_are_candidates(tmp_path):
    """Candidates have ended by the given time; a bundle that was exported again lately is marked."""
    ledger = await Ledger.open(tmp_path)
    try:
        await ledger.register(EXPORTS)
        for number in range(5):
            await ledger.append(stored(number), at=1.7e9)
        again = stored(1).next_revision()
        newer = replace(archive_of(1), exported_at=1.8e9)
        await ledger.append(replace(again, state=newer, stored=newer), at=1.8e9)
        await ledger.append(replace(stored(2).next_revision(), state=Creating(1, 1.8e9)), at=1.8e9)
        await ledger.append(creating(5), at=1.8e9)

        def found(queries: LedgerQueries) -> list[list[AuditCandidate]]:
            return [
                queries.audit_candidates(name, Range(0, 9 * 1800), ended_by=4 * 1800, lately=1.75e9)
                for name in ("events", "people", "none")
            ]

        events, *others = await ledger.query(found)
    finally:
        await ledger.close()
    assert events == [AuditCandidate("events", n * 1800, n * 1800 + 1800, n == 1) for n in (0, 1, 3)]
    assert others == [[], []]
