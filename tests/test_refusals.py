"""What is known of refusals: since when, of what, and when the same is asked again."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncexport.core.bundles import Bundle, Range
from asyncexport.core.service.refusals import ALL_EXPORTS, LASTING_SECONDS, CreateRefusals, Refusals, RefusalTimes
from asyncexport.core.service.retrying import Call

CREATE, RESULTS = Call.CREATE, Call.RESULTS
BUNDLES = [Bundle("e", Range(n * 1800, (n + 1) * 1800)) for n in range(5)]


def refusals(unit: float = 1.0) -> Refusals:
    """Nothing is known."""
    return Refusals(RefusalTimes(unit))


@pytest.mark.parametrize("unit", [1.0, 0.001])
def test_probes_go_after_half_a_minute_one_two_four_and_eight(unit):
    """Counted from the one before; what is refused then is believed, after a quarter of an hour."""
    known, now, moments = refusals(unit), 100.0, []
    known.begin("e", CREATE)
    known.refused("e", CREATE, now, is_probe=False)
    while not known.is_lasting("e", CREATE, now):
        now += known.wait_seconds("e", CREATE, now)
        moments.append((now - 100.0) / unit)
        assert known.begin("e", CREATE)
        assert known.wait_seconds("e", CREATE, now) == math.inf
        known.refused("e", CREATE, now, is_probe=True)
    assert moments == pytest.approx([30, 90, 210, 450, 930])


def test_a_probe_that_goes_well_sets_all_free():
    """Nobody waits any longer, and the next refusal begins anew."""
    known = refusals()
    known.refused("e", CREATE, 0.0, is_probe=False)
    known.begin("e", CREATE)
    known.succeeded("e", CREATE, 31.0)
    assert known.wait_seconds("e", CREATE, 31.0) == 0
    assert known.succeeded_since("e", CREATE, 30.0)
    known.refused("e", CREATE, 1000.0, is_probe=False)
    assert not known.is_lasting("e", CREATE, 1000.0 + LASTING_SECONDS - 1)


def test_what_was_under_way_says_nothing_new():
    """Fifty refusals of one burst are one refusal."""
    known = refusals()
    for _ in range(50):
        known.refused("e", CREATE, 0.0, is_probe=False)
    assert known.wait_seconds("e", CREATE, 0.0) == 30.0


def test_a_probe_that_says_nothing_is_followed_by_another():
    """An outage meanwhile, or a bundle that was cancelled."""
    known = refusals()
    known.refused("e", CREATE, 0.0, is_probe=False)
    known.begin("e", CREATE)
    known.drop_probe("e", CREATE)
    assert known.wait_seconds("e", CREATE, 40.0) == 0


def test_whoever_was_refused_lets_others_go_first():
    """So that one bundle's own trouble is found out."""
    known = refusals()
    known.refused("e", CREATE, 0.0, is_probe=False)
    assert known.wait_seconds("e", CREATE, 30.0, lets_others_go=True) == 1.0
    assert known.wait_seconds("e", CREATE, 30.0) == 0.0


def test_exports_and_kinds_of_calls_are_counted_apart():
    """Creates of one may be refused while its results, and another's creates, go on."""
    known = refusals()
    for export in ("a", "b"):
        known.begin(export, CREATE)
    known.refused("a", CREATE, 0.0, is_probe=False)
    assert known.wait_seconds("a", RESULTS, 0.0) == known.wait_seconds("b", CREATE, 0.0) == 0


def test_where_all_exports_are_refused_one_probes_for_all():
    """The first; when it goes on, so may the others."""
    known = refusals()
    for export in ("a", "b"):
        known.begin(export, CREATE)
    known.refused("b", CREATE, 0.0, is_probe=False)
    known.refused("a", CREATE, 1.0, is_probe=False)
    assert known.wait_seconds("a", CREATE, 40.0) == 50.0
    assert known.wait_seconds("b", CREATE, 40.0) == 0.0
    assert known.begin("b", CREATE)
    assert known.wait_seconds("a", CREATE, 100.0) == math.inf
    known.succeeded("b", CREATE, 100.0)
    assert known.wait_seconds("a", CREATE, 100.0) == 0.0


def test_a_stopped_export_is_nobodys_measure():
    """The others probe for themselves."""
    known = refusals()
    for number, export in enumerate(("a", "b")):
        known.begin(export, CREATE)
        known.refused(export, CREATE, float(number), is_probe=False)
    known.forget("a", CREATE)
    assert known.wait_seconds("b", CREATE, 100.0) == 0.0


def test_what_the_service_itself_forbids_to_all_holds_all_back():
    """It may be the key: nothing goes but the probe, until another export is seen to be free."""
    known = refusals()
    known.begin("a", CREATE)
    known.refused("a", CREATE, 0.0, is_probe=False, may_be_the_key=True)
    assert known.blocks_all_but("a", RESULTS)
    assert known.wait_seconds("a", RESULTS, 10.0) > 0
    assert known.wait_seconds(ALL_EXPORTS, Call.LIST, 10.0) > 0
    assert known.wait_seconds("a", CREATE, 30.0) == 0
    known.begin("b", CREATE)
    assert not known.blocks_all_but("a", RESULTS)
    assert known.wait_seconds("a", RESULTS, 10.0) == 0


def test_a_key_that_is_good_holds_back_nothing_else():
    """Once `/me` says so, other calls go, also after the next probe was forbidden."""
    known = refusals()
    known.begin("a", RESULTS)
    known.refused("a", RESULTS, 0.0, is_probe=False, may_be_the_key=True, bundle=BUNDLES[0])
    assert known.blocks_all_but(ALL_EXPORTS, Call.POLL)
    known.key_is_good()
    assert not known.blocks_all_but(ALL_EXPORTS, Call.POLL)
    known.refused("a", RESULTS, 30.0, is_probe=True, may_be_the_key=True, bundle=BUNDLES[0])
    assert not known.blocks_all_but(ALL_EXPORTS, Call.POLL)
    doubt = known.ongoing("a", RESULTS)
    assert doubt is not None
    assert doubt.is_of(BUNDLES[0])
    known.refused("a", RESULTS, 90.0, is_probe=True, bundle=BUNDLES[1])
    assert not doubt.is_of(BUNDLES[0])


def test_a_probe_that_nobody_makes_holds_nobody_up_for_ever():
    """Its bundles may be gone: a minute after it was due the others ask for themselves."""
    known = refusals()
    known.begin(ALL_EXPORTS, Call.POLL)
    known.refused(ALL_EXPORTS, Call.POLL, 0.0, is_probe=False, may_be_the_key=True)
    assert known.wait_seconds("a", CREATE, 0.0) == 90.0
    assert known.wait_seconds("a", CREATE, 90.0) == 0.0


def test_an_export_without_bundles_left_holds_no_other_up():
    """Where it was to probe for all, the others probe for themselves a minute after its time."""
    known = refusals()
    for number, export in enumerate(("a", "b")):
        known.begin(export, CREATE)
        known.refused(export, CREATE, float(number), is_probe=False)
    assert known.wait_seconds("b", CREATE, 31.0) == 59.0
    assert known.wait_seconds("b", CREATE, 90.0) == 0.0
    assert known.begin("b", CREATE)
    known.refused("b", CREATE, 90.0, is_probe=True)
    assert known.wait_seconds("b", CREATE, 90.0) == 60.0


def test_a_page_of_a_box_holds_back_its_own_kind_of_call_alone():
    """Creates may be blocked while results are had."""
    known = refusals()
    known.begin("a", CREATE)
    known.refused("a", CREATE, 0.0, is_probe=False)
    assert known.wait_seconds("a", RESULTS, 0.0) == 0


# Creates of one export


def test_the_newest_is_tried_after_three_in_a_row():
    """Or sooner, where no other is at hand."""
    known = CreateRefusals()
    for number in range(2):
        known.refused(BUNDLES[number], "404")
        assert not known.needs_newest(others_wait=True)
        assert known.needs_newest(others_wait=False)
    known.refused(BUNDLES[2], "404")
    assert known.needs_newest(others_wait=True)


def test_one_that_is_taken_blames_those_before_it():
    """They are no longer undecided, and creates go as they come."""
    known = CreateRefusals()
    known.refused(BUNDLES[0], "404")
    assert not known.is_open
    known.accepted(BUNDLES[1])
    assert (known.undecided, known.is_open, known.newest_accepted) == ({}, True, BUNDLES[1])


@given(st.lists(st.sampled_from(["refuse", "take"]), max_size=30))
def test_an_export_is_refused_only_by_its_newest(steps):
    """However creates come out, no number of refusals alone stops it."""
    known = CreateRefusals()
    for number, step in enumerate(steps):
        if step == "take":
            known.accepted(BUNDLES[0])
        else:
            known.refused(Bundle("e", Range(number * 1800, (number + 1) * 1800)), "404")
    assert not known.newest_refused
    known.newest = BUNDLES[4]
    known.refused(BUNDLES[4], "404")
    assert known.newest_refused


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
def test_where_none_is_left_what_was_taken_decides(taken, refused, is_exports):
    """A newer one that was taken in this run, or any while few were refused, blames the bundles; else the export is."""
    known = CreateRefusals()
    if taken is not None:
        known.accepted(BUNDLES[taken])
    for number in refused:
        known.refused(BUNDLES[number], "404")
    known.no_bundle_left()
    assert known.newest_refused is is_exports
    assert bool(known.undecided) is is_exports
