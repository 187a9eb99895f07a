"""Which side is at fault when operations fail: the bundle or the service."""

import math

from hypothesis import given
from hypothesis import strategies as st

from asyncexport.core.bundles import Bundle, Range, cut
from asyncexport.core.service.operation_failures import (
    FAILED_IN_A_ROW,
    PROBED_SECONDS,
    Blame,
    FailedOperation,
    OperationFailures,
)

OUTAGE = 6 * 3600.0
MANY = [Bundle("e", Range(n * 1800, (n + 1) * 1800)) for n in range(60)]


def no_failures() -> OperationFailures:
    """Return a record without failures."""
    return OperationFailures(1.0, OUTAGE)


def pieces_of(bundle: Bundle) -> list[Bundle]:
    """Return the six pieces of five minutes of a bundle."""
    return [Bundle(bundle.export, piece) for piece in cut(bundle.range, 300)]


def fail(failures: OperationFailures, number: int, at: float, *, backoff: float = 10.0):
    """Let the operation of the numbered bundle fail."""
    return failures.failed(MANY[number], "no", now=at, backoff_seconds=backoff)


def five_failed(at: float = 0.0) -> OperationFailures:
    """Return a record in which five different bundles have failed in a row."""
    failures = no_failures()
    for number in range(FAILED_IN_A_ROW):
        fail(failures, number, at)
    return failures


def test_a_failure_while_others_complete_counts_against_the_bundle():
    """A failure counts against the bundle as soon as another operation completes."""
    failures = no_failures()
    failed = fail(failures, 0, 0.0)
    assert failed.blame is None
    failures.completed()
    assert failed.blame is Blame.BUNDLE


def test_five_failures_in_a_row_are_the_services_fault():
    """Five bundles that fail in a row are not blamed, and from then on only one create is sent at a time."""
    failures = no_failures()
    all_failed = [fail(failures, number, float(number)) for number in range(FAILED_IN_A_ROW)]
    assert {failed.blame for failed in all_failed} == {Blame.SERVICE}
    assert failures.wait_seconds(MANY[9], 4.0) == 0
    failures.begin(MANY[9])
    assert failures.wait_seconds(MANY[10], 4.0) == math.inf
    assert failures.holds(MANY[10])


def test_repeated_failures_of_one_bundle_are_not_the_services_fault():
    """However often one bundle fails, each failure counts against that bundle."""
    failures = no_failures()
    blames = []
    for number in range(9):
        failed = fail(failures, 0, float(number))
        failures.expire(failed, now=float(number), others_run=False)
        blames.append(failed.blame)
    assert blames == [Blame.BUNDLE] * 9


def test_the_pieces_of_a_bundle_count_as_that_bundle():
    """If all pieces of four bundles fail in a row, these bundles are at fault; a fifth bundle decides otherwise."""
    failures = no_failures()
    all_failed = []
    for whole in MANY[:4]:
        all_failed.append(failures.failed(whole, "no", now=0.0, backoff_seconds=10.0))
        all_failed += [
            failures.failed(piece, "no", now=0.0, backoff_seconds=10.0, whole=whole) for piece in pieces_of(whole)
        ]
    assert failures.since is None
    assert {failed.blame for failed in all_failed} == {None}
    (piece, *_) = pieces_of(MANY[4])
    failures.failed(piece, "no", now=1.0, backoff_seconds=10.0, whole=MANY[4])
    assert failures.since == 1.0
    assert {failed.blame for failed in all_failed} == {Blame.SERVICE}


def test_probes_of_pieces_count_as_probes_of_their_bundle():
    """Failed probes of many pieces park nothing until probes of two other bundles have failed as well."""
    failures = five_failed()
    probes = [(piece, MANY[9]) for piece in pieces_of(MANY[9])] + [(MANY[10], MANY[10]), (MANY[11], MANY[11])]
    blames = []
    for step, (bundle, whole) in enumerate(probes, start=1):
        failures.begin(bundle)
        failed = failures.failed(bundle, "no", now=step * PROBED_SECONDS, backoff_seconds=10.0, whole=whole)
        blames.append(failed.blame)
    assert blames == [Blame.SERVICE] * 7 + [Blame.PARKED]
    assert set(failures.parked) == {*MANY[:5], *pieces_of(MANY[9]), MANY[10]}


def test_a_failure_counts_when_no_other_operation_decides_it():
    """A failure counts against the bundle after half an hour in which no other operation has ended."""
    failures = no_failures()
    failed = fail(failures, 0, 0.0)
    failures.expire(failed, now=100.0, others_run=True)
    assert failed.blame is None
    failures.expire(failed, now=1800.0, others_run=True)
    assert failed.blame is Blame.BUNDLE


def test_a_completed_operation_ends_the_services_fault():
    """Once a probe completes, creates of all bundles may be sent again."""
    failures = five_failed()
    failures.begin(MANY[9])
    failures.completed()
    assert failures.wait_seconds(MANY[10], 0.0) == 0
    assert not failures.holds(MANY[10])
    assert fail(failures, 11, 1.0).blame is None


def test_each_probe_is_for_another_bundle_after_a_back_off():
    """After a failed probe the next one waits for the back-off, and bundles already probed wait a second longer."""
    failures = five_failed()
    failures.begin(MANY[9])
    assert fail(failures, 9, 300.0, backoff=20.0).blame is Blame.SERVICE
    assert failures.wait_seconds(MANY[10], 300.0) == 20.0
    assert failures.wait_seconds(MANY[9], 300.0) == 21.0


def test_a_probe_without_a_result_is_followed_by_another():
    """If a probe's create is refused or its deadline passes, the next probe may start immediately."""
    failures = five_failed()
    failures.begin(MANY[9])
    failures.ended(MANY[9])
    assert failures.wait_seconds(MANY[10], 5.0) == 0


def probed(failures: OperationFailures, numbers: range, *, every: float) -> list[Blame | None]:
    """Let probes of these bundles fail one after another, and return who was blamed for each."""
    blames = []
    for step, number in enumerate(numbers, start=1):
        failures.begin(MANY[number])
        blames.append(fail(failures, number, step * every).blame)
    return blames


def test_three_failed_probes_over_half_an_hour_are_the_bundles_fault():
    """The bundles that failed are parked, and so is the bundle of each probe that fails from then on."""
    failures = five_failed()
    assert probed(failures, range(9, 13), every=PROBED_SECONDS / 3) == [
        Blame.SERVICE,
        Blame.SERVICE,
        Blame.PARKED,
        Blame.PARKED,
    ]
    assert set(failures.parked) == {*MANY[:5], *MANY[9:11]}
    assert failures.holds(MANY[20])


def test_two_probes_or_less_than_half_an_hour_park_nothing():
    """Bundles are parked only after probes of three bundles have failed over at least half an hour."""
    assert Blame.PARKED not in probed(five_failed(), range(9, 11), every=PROBED_SECONDS)
    assert Blame.PARKED not in probed(five_failed(), range(9, 30), every=PROBED_SECONDS / 30)


def test_the_export_is_given_up_after_a_long_outage():
    """If no operation completes for the outage limit, the run gives up with the reason of the last failure."""
    failures = five_failed()
    probed(failures, range(9, 12), every=OUTAGE / 2)
    assert failures.given_up == "no"


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 59)), max_size=80))
def test_no_bundle_is_parked_while_operations_complete(steps):
    """Without half an hour of failures only, no bundle is parked, and each success decides all earlier failures."""
    failures = no_failures()
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
