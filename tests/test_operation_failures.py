"""Whose trouble it is that operations fail."""

import math

from hypothesis import given
from hypothesis import strategies as st

from asyncexport.core.bundles import Bundle, Range
from asyncexport.core.service.operation_failures import (
    FAILED_IN_A_ROW,
    PROBED_SECONDS,
    Blame,
    FailedOperation,
    OperationFailures,
)

OUTAGE = 6 * 3600.0
MANY = [Bundle("e", Range(n * 1800, (n + 1) * 1800)) for n in range(60)]


def known() -> OperationFailures:
    """Nothing is known."""
    return OperationFailures(1.0, OUTAGE)


def fail(failures: OperationFailures, number: int, at: float, *, backoff: float = 10.0):
    """That bundle's operation failed."""
    return failures.failed(MANY[number], "no", now=at, backoff_seconds=backoff)


def in_trouble(at: float = 0.0) -> OperationFailures:
    """Five have failed."""
    failures = known()
    for number in range(FAILED_IN_A_ROW):
        fail(failures, number, at)
    return failures


def test_one_that_fails_while_others_complete_is_the_bundles_own():
    """It is known when the next one ends."""
    failures = known()
    failed = fail(failures, 0, 0.0)
    assert failed.blame is None
    failures.completed()
    assert failed.blame is Blame.BUNDLE


def test_five_in_a_row_are_the_services_trouble():
    """None of them counts, and creates stop but for one."""
    failures = known()
    all_failed = [fail(failures, number, float(number)) for number in range(FAILED_IN_A_ROW)]
    assert {failed.blame for failed in all_failed} == {Blame.SERVICE}
    assert failures.wait_seconds(MANY[9], 4.0) == 0
    failures.begin(MANY[9])
    assert failures.wait_seconds(MANY[10], 4.0) == math.inf
    assert failures.holds(MANY[10])


def test_the_same_bundle_five_times_is_not_the_services_trouble():
    """A bundle that cannot be exported fails as often as it is tried."""
    failures = known()
    blames = []
    for number in range(9):
        failed = fail(failures, 0, float(number))
        failures.expire(failed, now=float(number), others_run=False)
        blames.append(failed.blame)
    assert blames == [Blame.BUNDLE] * 9


def test_where_nothing_else_runs_it_is_the_bundles_own():
    """And so it is after half an hour without news."""
    failures = known()
    failed = fail(failures, 0, 0.0)
    failures.expire(failed, now=100.0, others_run=True)
    assert failed.blame is None
    failures.expire(failed, now=1800.0, others_run=True)
    assert failed.blame is Blame.BUNDLE


def test_one_that_completes_ends_the_trouble():
    """All may go at once."""
    failures = in_trouble()
    failures.begin(MANY[9])
    failures.completed()
    assert failures.wait_seconds(MANY[10], 0.0) == 0
    assert not failures.holds(MANY[10])
    assert fail(failures, 11, 1.0).blame is None


def test_each_probe_is_another_bundle_under_back_off():
    """Those that probed before wait a moment longer than those that did not."""
    failures = in_trouble()
    failures.begin(MANY[9])
    assert fail(failures, 9, 300.0, backoff=20.0).blame is Blame.SERVICE
    assert failures.wait_seconds(MANY[10], 300.0) == 20.0
    assert failures.wait_seconds(MANY[9], 300.0) == 21.0


def test_a_probe_that_comes_to_nothing_else_is_followed_by_another():
    """Its create was refused, or it ran past its deadline."""
    failures = in_trouble()
    failures.begin(MANY[9])
    failures.ended(MANY[9])
    assert failures.wait_seconds(MANY[10], 5.0) == 0


def probed(failures: OperationFailures, numbers: range, *, every: float) -> list[Blame | None]:
    """Probes of these bundles, one after another."""
    blames = []
    for step, number in enumerate(numbers, start=1):
        failures.begin(MANY[number])
        blames.append(fail(failures, number, step * every).blame)
    return blames


def test_three_bundles_over_half_an_hour_are_the_bundles_trouble():
    """Those that failed are parked, and so is each probe that fails from then on."""
    failures = in_trouble()
    assert probed(failures, range(9, 13), every=PROBED_SECONDS / 3) == [
        Blame.SERVICE,
        Blame.SERVICE,
        Blame.PARKED,
        Blame.PARKED,
    ]
    assert set(failures.parked) == {*MANY[:5], *MANY[9:11]}
    assert failures.holds(MANY[20])


def test_two_bundles_are_too_few_and_half_an_hour_is_needed():
    """One that cannot be exported must not blame all."""
    assert Blame.PARKED not in probed(in_trouble(), range(9, 11), every=PROBED_SECONDS)
    assert Blame.PARKED not in probed(in_trouble(), range(9, 30), every=PROBED_SECONDS / 30)


def test_after_an_outage_of_completed_operations_it_is_given_up():
    """With the last reason."""
    failures = in_trouble()
    probed(failures, range(9, 12), every=OUTAGE / 2)
    assert failures.given_up == "no"


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 59)), max_size=80))
def test_nobody_is_parked_while_operations_complete(steps):
    """Without half an hour of nothing but failures no bundle is given up, and none stays undecided behind a success."""
    failures = known()
    failed: list[FailedOperation] = []
    for completes, number in steps:
        if completes:
            failures.completed()
            assert all(one.blame is not None for one in failed)
        else:
            failures.begin(MANY[number])
            failed.append(fail(failures, number, 0.0))
    assert not failures.parked
    assert Blame.PARKED not in {one.blame for one in failed}
