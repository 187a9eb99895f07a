"""What time it is at the service, from this host's clocks and the dates that are heard."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncexport.core.bundles import DAY
from asyncexport.core.polling import believed_start
from asyncexport.core.service.requests import Kind
from asyncexport.core.service_time import ClockCheck, ClockTrust, HostReading, ServiceTime

TRUE = 1_767_225_600.0
"""The right time when the monotonic clock says 0: 2026-01-01T00:00:00Z."""

LIST, POLL, OTHER = Kind.LIST, Kind.POLL, Kind.OTHER

FAR = [-30 * DAY, -3 * DAY, 3 * DAY, 30 * DAY, 253_402_300_799 - TRUE, -TRUE]
"""How far a clock may be off: days, in the year 9999, in 1970."""


class Host:
    """A host whose clock is so far off, and a service whose clock is right."""

    def __init__(self, off: float = 0.0, trust: ClockTrust = ClockTrust.NEITHER) -> None:
        self.off = off
        self.monotonic = 0.0
        self.slept = 0.0
        self.time = ServiceTime(self.reading, trust=trust)

    @property
    def right(self) -> float:
        """The right time."""
        return TRUE + self.monotonic + self.slept

    @property
    def reading(self) -> HostReading:
        """The clocks, which stand still in a sleep as far as they do."""
        return HostReading(self.right + self.off, self.monotonic, self.monotonic + self.slept, "boot")

    @property
    def error(self) -> float:
        """How far the time is off, as it is reckoned."""
        return self.time.now(self.monotonic) - self.right

    def hear(self, kind: Kind = LIST, *, off: float = 0.0, after: float = 1.0) -> str:
        """An answer comes after so long, with a date that is so far off."""
        self.monotonic += after
        return self.time.hear(kind, self.right + off, self.reading)


@pytest.mark.parametrize("off", [-3.0, -0.4, 0.0, 2.9])
def test_a_clock_that_is_right_is_left_alone(off):
    """A date is cut to whole seconds: going by it would make the record of requests jump from run to run."""
    host = Host()
    assert host.hear(off=off) == ""
    assert (host.error, host.time.is_known, host.time.in_doubt) == (0.0, True, False)


@pytest.mark.parametrize("off", [-300.0, -4.0, 59.0, 299.0])
def test_up_to_five_minutes_are_corrected_at_once(off):
    """And told from a minute on: below that nobody has to do anything about it."""
    host = Host(off)
    told = host.hear()
    assert (host.error, host.time.is_known) == (0.0, True)
    assert bool(told) == (abs(off) > 60)
    assert ("ahead of" in told) == (off > 60)


@pytest.mark.parametrize("off", [-DAY + 60, -3600.0, 301.0, 3600.0, 20 * 3600.0])
def test_more_takes_three_answers_that_agree(off):
    """Of two kinds of call; the third corrects, and says so."""
    host = Host(off)
    assert [host.hear(LIST), host.hear(OTHER)] == ["", ""]
    assert (host.error, host.time.is_known, host.time.in_doubt) == (off, False, True)
    assert "going by the service's" in host.hear(LIST)
    assert abs(host.error) <= 60
    assert (host.time.is_known, host.time.in_doubt) == (True, False)
    assert host.hear(LIST) == ""


def test_one_kind_of_call_has_to_say_it_for_ten_seconds():
    """Three in a moment may all come from one wrong place."""
    host = Host(3600.0)
    for _ in range(4):
        host.hear(LIST, after=2.0)
    assert host.error == 3600.0
    host.hear(LIST, after=4.0)
    assert host.error == 0.0


@pytest.mark.parametrize("off", [*FAR, 3600.0])
def test_a_lone_date_is_ignored(off):
    """In the first answer, or in any later one; the next right one ends the doubt."""
    host = Host()
    for _ in range(3):
        assert host.hear(OTHER, off=off) == ""
        assert (host.error, host.time.in_doubt) == (0.0, True)
        assert host.hear(LIST) == ""
        assert (host.error, host.time.in_doubt, host.time.is_known) == (0.0, False, True)


def test_dates_that_contradict_each_other_change_nothing():
    """Three of them, each more than a minute from the others."""
    host = Host()
    for off, kind in ((3600.0, LIST), (7200.0, OTHER), (-3600.0, POLL), (3670.0, LIST)):
        host.hear(kind, off=off)
    assert (host.error, host.time.is_known) == (0.0, False)


def test_a_date_that_stands_still_is_no_opinion():
    """A box that keeps answers says the same again and again, of whatever kind of call."""
    host = Host()
    for kind in (LIST, OTHER, LIST, POLL, LIST):
        host.monotonic += 5.0
        host.time.hear(kind, TRUE - 3600.0, host.reading)
    assert (host.error, host.time.is_known) == (0.0, False)


@pytest.mark.parametrize("hours", [0.2, 8, 24 * 40])
def test_a_machine_that_slept_is_no_wrong_clock(hours):
    """Its monotonic clock stood still, and its other clock did not: one right date is enough, and nothing is told."""
    for off in (0.0, 120.0, 3600.0):
        host = Host(off)
        for kind in (LIST, OTHER, LIST):
            host.hear(kind)
        host.slept += hours * 3600
        assert host.error == pytest.approx(-hours * 3600)
        assert host.hear() == ""
        assert host.error == pytest.approx(0.0)
        assert (host.time.in_doubt, host.time.conflict) == (False, None)


def test_a_clock_that_is_set_in_the_middle_of_a_run_does_not_matter():
    """The monotonic clock goes on; and a sleep after that is still seen for what it is."""
    host = Host(3600.0)
    for kind in (LIST, OTHER, LIST):
        host.hear(kind)
    host.off = 0.0
    assert (host.hear(), host.error) == ("", 0.0)
    host.slept += 9000.0
    assert (host.hear(), host.error) == ("", 0.0)


@pytest.mark.parametrize("off", FAR)
def test_more_than_a_day_at_the_start_is_for_the_user_to_decide(off):
    """Both times are named, and the time stays that of the host."""
    host = Host(off)
    for kind in (LIST, OTHER, LIST):
        assert host.time.conflict is None
        assert host.hear(kind) == ""
    assert host.time.conflict is not None
    said = str(host.time.conflict)
    assert "the service's 2026-01-01T00:00:0" in said
    assert said.count("Z") == 2
    assert host.error == pytest.approx(off)
    assert (host.time.is_known, host.time.checked) == (False, None)


@pytest.mark.parametrize("off", FAR)
def test_whose_clock_counts_can_be_said(off):
    """It is told once, and the run begins."""
    for trust, error in ((ClockTrust.SERVICE, 0.0), (ClockTrust.HOST, off)):
        host = Host(off, trust)
        told = [host.hear(kind) for kind in (LIST, OTHER, LIST, POLL, LIST, OTHER, POLL, LIST)]
        assert [bool(one) for one in told] == [False, False, True, *[False] * 5]
        assert f"going by {'the service' if trust is ClockTrust.SERVICE else 'this machine'}'s" in "".join(told)
        assert host.error == pytest.approx(error)
        assert (host.time.conflict, host.time.is_known) == (None, True)


def test_less_than_a_day_is_put_right_whomever_the_user_trusts():
    """`[api] clock` is for what is beyond that."""
    host = Host(3600.0, ClockTrust.HOST)
    for kind in (LIST, OTHER, LIST):
        host.hear(kind)
    assert host.error == 0.0


@pytest.mark.parametrize("off", FAR)
def test_in_the_middle_of_a_run_a_far_time_is_followed_and_told_once(off):
    """It is too late to stop: what is under way is gone on with."""
    host = Host(off)
    host.time.begin()
    told = [host.hear(kind) for kind in (Kind.CREATE, POLL, Kind.RESULTS, POLL, LIST, POLL)]
    assert [bool(one) for one in told] == [False, False, True, False, False, False]
    assert host.error == pytest.approx(0.0)
    assert host.time.conflict is None


@given(
    st.lists(
        st.tuples(
            st.sampled_from(list(Kind)),
            st.floats(0.1, 600.0),
            st.one_of(st.floats(-2.0, 2.0), st.floats(-1e9, 1e9)),
        ),
        max_size=40,
    )
)
def test_whatever_lies_are_between_right_answers_the_time_stays_right(heard):
    """As long as no three lies come without a right answer between them."""
    host, lies = Host(), 0
    host.hear()
    for kind, after, off in heard:
        lies = lies + 1 if abs(off) > 2.0 else 0
        if lies > 2:
            lies = 0
            host.hear(kind)
        host.hear(kind, off=off, after=after)
        assert abs(host.error) <= 300.0 + 300.0
        assert host.time.conflict is None


@pytest.mark.parametrize("off", [-30.0 * DAY, 3600.0, 30.0 * DAY])
def test_while_it_is_in_doubt_the_earliest_time_is_known(off):
    """That of this host or of the dates: an archive must not be taken for settled that was not."""
    host = Host(off)
    assert host.time.earliest(host.monotonic) == pytest.approx(host.right + off)
    host.hear()
    assert host.time.earliest(host.monotonic) == pytest.approx(host.right + min(off, 0.0))


# What later runs go by


def checked(**changes: float | str) -> ClockCheck:
    """The clocks were compared at the right time, an hour after the machine was started."""
    values: dict[str, float | str] = {"service": TRUE, "wall": TRUE, "uptime": 3600.0, "boot": "b", **changes}
    return ClockCheck(**values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("went_on", "was_up", "boot", "holds"),
    [
        (1.0, 1.0, "b", True),
        (DAY - 1.0, DAY - 1.0, "b", True),
        (DAY, DAY, "b", False),
        (30.0 * DAY, 3600.0, "b", False),
        (0.0, 0.0, "b", False),  # it stands still
        (0.0, DAY, "b", False),
        (1.0, DAY, "b", False),  # it stood still for nearly a day
        (-1.0, 1.0, "b", False),
        (-30.0 * DAY, 1.0, "b", False),
        (20.0 * 3600, 60.0, "b", False),  # it was set
        (4000.0, 3800.0, "b", True),
        (60.0, -3500.0, "c", False),  # the machine was started anew, and nobody knows for how long it was off
    ],
)
def test_a_check_holds_for_a_day_if_the_clock_has_gone_on(went_on, was_up, boot, holds):
    """By less than a day, and by as much as the machine was up."""
    reading = HostReading(TRUE + went_on, 0.0, 3600.0 + was_up, boot)
    assert checked().holds(reading) == holds


def test_without_a_word_of_the_machines_start_its_clock_has_to_do():
    """Where the system does not say when it was started."""
    check = checked(boot="", uptime=0.0)
    assert check.holds(HostReading(TRUE + 60.0, 0.0))
    assert not check.holds(HostReading(TRUE, 0.0))
    assert not check.holds(HostReading(TRUE + DAY, 0.0))
    assert not check.holds(HostReading(TRUE + 60.0, 0.0, 60.0, "b"))


@given(st.floats(-1e12, 1e12), st.floats(-1e12, 1e12), st.floats(0, 1e9), st.text())
def test_a_check_is_read_as_it_was_written(service, wall, uptime, boot):
    """In the ledger, as a line of text."""
    check = ClockCheck(service, wall, uptime, boot)
    assert ClockCheck.read(check.to_json()) == check


@pytest.mark.parametrize("text", [None, "", "{}", "1767225600.0", '{"service": "x"}', "[]", '{"service": null}'])
def test_what_is_no_check_is_none(text):
    """Then the clocks are compared anew."""
    assert ClockCheck.read(text) is None


@pytest.mark.parametrize("ahead", [-3600.0, 0.0, 5000.0])
def test_a_later_run_goes_by_the_check(ahead):
    """A clock that is off by an hour is off by an hour today, too; one right date is enough to know it."""
    host = Host(-ahead)
    host.monotonic = 600.0
    host.time.recall(ClockCheck(TRUE, TRUE - ahead, 0.0, "boot"), host.reading)
    assert (host.error, host.time.is_known, host.time.checked is not None) == (0.0, False, True)
    host.hear()
    assert (host.error, host.time.in_doubt) == (0.0, False)


def test_a_check_of_clocks_days_apart_holds_only_for_who_trusts_the_service():
    """Whoever took the setting away is stopped, as at the first time."""
    for trust, error in ((ClockTrust.SERVICE, 0.0), (ClockTrust.NEITHER, 3.0 * DAY), (ClockTrust.HOST, 3.0 * DAY)):
        host = Host(3.0 * DAY, trust)
        host.monotonic = 600.0
        host.time.recall(ClockCheck(TRUE, TRUE + 3 * DAY, 0.0, "boot"), host.reading)
        assert (host.error, host.time.checked is not None) == (error, error == 0.0)


def test_what_is_kept_is_both_clocks_as_they_were_last_compared():
    """Of the last answer that was believed."""
    host = Host(100.0)
    host.hear(off=1.0)
    host.hear(off=1.0, after=600.0)
    host.hear(off=9000.0, after=600.0)
    assert host.time.checked == ClockCheck(TRUE + 602.0, TRUE + 701.0, 601.0, "boot")


# The moment of an export


@pytest.mark.parametrize(
    ("created_at", "asked_at", "now", "believed"),
    [
        (1000.0, 1000.0, 1600.0, 1000.0),
        (700.0, 1000.0, 1600.0, 700.0),
        (1600.0, 1000.0, 1600.0, 1600.0),
        (699.0, 1000.0, 1600.0, 1000.0),
        (1601.0, 1000.0, 1600.0, 1000.0),
        (None, 1000.0, 1600.0, 1000.0),
        (-62_135_596_800.0, 1000.0, 1600.0, 1000.0),  # 0001-01-01
        (253_402_300_799.0, 1000.0, 1600.0, 1000.0),  # the end of 9999
        (1590.0, 9000.0, 1600.0, 1590.0),  # asked when the clock was fast
        (None, 9000.0, 1600.0, 1600.0),
    ],
)
def test_when_an_operation_began_is_believed_if_it_can_be(created_at, asked_at, now, believed):
    """Between the moment of asking, less five minutes, and now."""
    assert believed_start(created_at, asked_at=asked_at, now=now) == believed
