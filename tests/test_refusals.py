"""Refused calls: which ones are refused, since when, and when one of them may be sent again."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncexport.core.bundles import Bundle, Range
from asyncexport.core.service.refusals import (
    ALL_EXPORTS,
    LASTING_SECONDS,
    MOST_PARKED,
    CreateRefusals,
    Refusals,
    RefusalTimes,
)
from asyncexport.core.service.retrying import Call

CREATE, RESULTS = Call.CREATE, Call.RESULTS
BUNDLES = [Bundle("e", Range(n * 1800, (n + 1) * 1800)) for n in range(5)]


def refusals(unit: float = 1.0) -> Refusals:
    """Return a record without refusals."""
    return Refusals(RefusalTimes(unit))


@pytest.mark.parametrize("unit", [1.0, 0.001])
def test_probes_are_sent_after_half_a_minute_then_one_two_four_and_eight(unit):
    """Each pause counts from the previous probe, and after a quarter of an hour the refusals are final."""
    record, now, moments = refusals(unit), 100.0, []
    record.begin("e", CREATE)
    record.refused("e", CREATE, now, is_probe=False)
    while not record.is_lasting("e", CREATE, now):
        now += record.wait_seconds("e", CREATE, now)
        moments.append((now - 100.0) / unit)
        assert record.begin("e", CREATE)
        assert record.wait_seconds("e", CREATE, now) == math.inf
        record.refused("e", CREATE, now, is_probe=True)
    assert moments == pytest.approx([30, 90, 210, 450, 930])


def test_a_call_in_flight_at_the_first_refusal_does_not_end_it():
    """Its success says nothing about what the service does now, only that such calls have worked."""
    record = refusals()
    record.refused("e", CREATE, 10.0, is_probe=False)
    record.succeeded("e", CREATE, 10.5, begun_at=9.5)
    assert record.wait_seconds("e", CREATE, 11.0) == 29.0
    assert record.successes.has_worked("e", CREATE)
    assert not record.successes.since("e", CREATE, 0.0)
    record.succeeded("e", CREATE, 41.0, begun_at=40.0)
    assert record.wait_seconds("e", CREATE, 41.0) == 0


def test_a_successful_probe_ends_the_refusal():
    """After a successful probe no call waits, and the next refusal starts its time from zero."""
    record = refusals()
    record.refused("e", CREATE, 0.0, is_probe=False)
    record.begin("e", CREATE)
    record.succeeded("e", CREATE, 31.0, begun_at=30.0)
    assert record.wait_seconds("e", CREATE, 31.0) == 0
    assert record.successes.since("e", CREATE, 30.0)
    record.refused("e", CREATE, 1000.0, is_probe=False)
    assert not record.is_lasting("e", CREATE, 1000.0 + LASTING_SECONDS - 1)


def test_refusals_of_calls_in_flight_count_once():
    """Fifty refusals of calls sent in one burst count as one refusal."""
    record = refusals()
    for _ in range(50):
        record.refused("e", CREATE, 0.0, is_probe=False)
    assert record.wait_seconds("e", CREATE, 0.0) == 30.0


def test_a_probe_without_a_result_is_followed_by_another():
    """If a probe ends in an outage or is cancelled, the next one may be sent immediately."""
    record = refusals()
    record.refused("e", CREATE, 0.0, is_probe=False)
    record.begin("e", CREATE)
    record.drop_probe("e", CREATE)
    assert record.wait_seconds("e", CREATE, 40.0) == 0


def test_a_refused_bundle_lets_others_probe_first():
    """A bundle that was refused waits a second longer, so that another bundle sends the next probe."""
    record = refusals()
    record.refused("e", CREATE, 0.0, is_probe=False)
    assert record.wait_seconds("e", CREATE, 30.0, lets_others_go=True) == 1.0
    assert record.wait_seconds("e", CREATE, 30.0) == 0.0


def test_refusals_are_counted_per_export_and_kind_of_call():
    """Refused creates of one export delay neither its results calls nor the creates of another export."""
    record = refusals()
    for export in ("a", "b"):
        record.begin(export, CREATE)
    record.refused("a", CREATE, 0.0, is_probe=False)
    assert record.wait_seconds("a", RESULTS, 0.0) == record.wait_seconds("b", CREATE, 0.0) == 0


def test_if_all_exports_are_refused_one_probes_for_all():
    """The export refused first sends the probe for all, and its success frees the others."""
    record = refusals()
    for export in ("a", "b"):
        record.begin(export, CREATE)
    record.refused("b", CREATE, 0.0, is_probe=False)
    record.refused("a", CREATE, 1.0, is_probe=False)
    assert record.wait_seconds("a", CREATE, 40.0) == 50.0
    assert record.wait_seconds("b", CREATE, 40.0) == 0.0
    assert record.begin("b", CREATE)
    assert record.wait_seconds("a", CREATE, 100.0) == math.inf
    record.succeeded("b", CREATE, 100.0, begun_at=90.0)
    assert record.wait_seconds("a", CREATE, 100.0) == 0.0


def test_a_stopped_export_does_not_probe_for_others():
    """Once the probing export is stopped, the other exports probe for themselves."""
    record = refusals()
    for number, export in enumerate(("a", "b")):
        record.begin(export, CREATE)
        record.refused(export, CREATE, float(number), is_probe=False)
    record.forget("a", CREATE)
    assert record.wait_seconds("b", CREATE, 100.0) == 0.0


def test_a_403_of_the_service_to_all_exports_pauses_all_calls():
    """While the key may be at fault only the probe is sent, until a call of another export is sent, too."""
    record = refusals()
    record.begin("a", CREATE)
    record.refused("a", CREATE, 0.0, is_probe=False, may_be_the_key=True)
    assert record.blocks_all_but("a", RESULTS)
    assert record.wait_seconds("a", RESULTS, 10.0) > 0
    assert record.wait_seconds(ALL_EXPORTS, Call.LIST, 10.0) > 0
    assert record.wait_seconds("a", CREATE, 30.0) == 0
    record.begin("b", CREATE)
    assert not record.blocks_all_but("a", RESULTS)
    assert record.wait_seconds("a", RESULTS, 10.0) == 0


def test_a_confirmed_key_pauses_no_other_calls():
    """Once `/me` confirms the key, other calls are sent, even if the next probe is answered with 403."""
    record = refusals()
    record.begin("a", RESULTS)
    record.refused("a", RESULTS, 0.0, is_probe=False, may_be_the_key=True, bundle=BUNDLES[0])
    assert record.blocks_all_but(ALL_EXPORTS, Call.POLL)
    record.key_is_good()
    assert not record.blocks_all_but(ALL_EXPORTS, Call.POLL)
    record.refused("a", RESULTS, 30.0, is_probe=True, may_be_the_key=True, bundle=BUNDLES[0])
    assert not record.blocks_all_but(ALL_EXPORTS, Call.POLL)
    doubt = record.ongoing("a", RESULTS)
    assert doubt is not None
    assert doubt.is_of(BUNDLES[0])
    record.refused("a", RESULTS, 90.0, is_probe=True, bundle=BUNDLES[1])
    assert not doubt.is_of(BUNDLES[0])


def test_a_probe_that_is_never_sent_delays_others_by_at_most_a_minute():
    """If a due probe is not sent within a minute, the other calls are sent without it."""
    record = refusals()
    record.begin(ALL_EXPORTS, Call.POLL)
    record.refused(ALL_EXPORTS, Call.POLL, 0.0, is_probe=False, may_be_the_key=True)
    assert record.wait_seconds("a", CREATE, 0.0) == 90.0
    assert record.wait_seconds("a", CREATE, 90.0) == 0.0


def test_an_export_without_bundles_left_delays_no_other():
    """If the probing export has no bundle left, the others probe for themselves a minute after the probe was due."""
    record = refusals()
    for number, export in enumerate(("a", "b")):
        record.begin(export, CREATE)
        record.refused(export, CREATE, float(number), is_probe=False)
    assert record.wait_seconds("b", CREATE, 31.0) == 59.0
    assert record.wait_seconds("b", CREATE, 90.0) == 0.0
    assert record.begin("b", CREATE)
    record.refused("b", CREATE, 90.0, is_probe=True)
    assert record.wait_seconds("b", CREATE, 90.0) == 60.0


def test_a_refusal_by_a_proxy_pauses_only_its_kind_of_call():
    """Creates refused by a proxy do not delay results calls."""
    record = refusals()
    record.begin("a", CREATE)
    record.refused("a", CREATE, 0.0, is_probe=False)
    assert record.wait_seconds("a", RESULTS, 0.0) == 0


# Creates of one export


def test_the_newest_bundle_is_tried_after_three_refusals_in_a_row():
    """The newest bundle is tried after three refused creates in a row, or earlier if no other bundle waits."""
    record = CreateRefusals()
    for number in range(2):
        record.refused(BUNDLES[number], "404")
        assert not record.needs_newest(others_wait=True)
        assert record.needs_newest(others_wait=False)
    record.refused(BUNDLES[2], "404")
    assert record.needs_newest(others_wait=True)


def test_an_accepted_create_blames_the_refused_bundles():
    """An accepted create shows that the refused bundles were at fault, and creates are no longer sent one by one."""
    record = CreateRefusals()
    record.refused(BUNDLES[0], "404")
    assert not record.is_open
    record.accepted(BUNDLES[1])
    assert (record.undecided, record.is_open, record.newest_accepted) == ({}, True, BUNDLES[1])


@given(st.lists(st.sampled_from(["refuse", "take"]), max_size=30))
def test_only_a_refusal_of_the_newest_bundle_stops_the_export(steps):
    """No number of refused creates stops an export until its newest bundle is refused, too."""
    record = CreateRefusals()
    for number, step in enumerate(steps):
        if step == "take":
            record.accepted(BUNDLES[0])
        else:
            record.refused(Bundle("e", Range(number * 1800, (number + 1) * 1800)), "404")
    assert not record.newest_refused
    record.newest = BUNDLES[4]
    record.refused(BUNDLES[4], "404")
    assert record.newest_refused


@pytest.mark.parametrize(
    ("taken", "refused", "is_exports"),
    [
        (None, [0], True),
        (0, [1], False),
        (0, [1, 2], False),
        (0, [1, 2, 3], True),
        (4, [1, 2, 3], False),
        (2, [0, 1, 3], True),
    ],
)
def test_without_bundles_left_the_accepted_creates_decide(taken, refused, is_exports):
    """The bundles are at fault if a newer create was accepted, or any while few were refused; else the export is."""
    record = CreateRefusals()
    if taken is not None:
        record.accepted(BUNDLES[taken])
    for number in refused:
        record.refused(BUNDLES[number], "404")
    record.no_bundle_left()
    assert record.newest_refused is is_exports
    assert bool(record.undecided) is is_exports


def test_bundles_older_than_an_accepted_one_are_parked_up_to_a_limit():
    """If new bundles come first, refused old ones are parked; the export stops after fifty without an accepted one."""
    old = [Bundle("e", Range(-n * 1800, (1 - n) * 1800)) for n in range(1, 4 * MOST_PARKED)]
    record, parked = CreateRefusals(), 0
    record.accepted(BUNDLES[4])
    for bundle in old:
        record.newest = bundle if record.needs_newest(others_wait=True) else None
        record.refused(bundle, "400")
        if record.newest_refused:
            break
        parked += 4 * (not record.undecided)
    assert MOST_PARKED - 4 < parked <= MOST_PARKED
    assert len(record.undecided) == 4
    record.accepted(BUNDLES[3])
    assert record.is_open
    assert not record.newest_refused
