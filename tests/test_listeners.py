"""Who is told what happens during a run, and what becomes of a listener that raises."""

import asyncio
import logging

import pytest

from asyncexport.core.bundles import Bundle, Range
from asyncexport.core.events import BundleParked, BundleStored, Event, Note, PossibleDuplicate, Retried
from asyncexport.core.states import Failed, Stored
from asyncexport.run.counters import RunCounters
from asyncexport.run.listeners import EventListeners

BUNDLE = Bundle("e", Range(1_767_225_600, 1_767_227_400))
ARCHIVE = Stored("e/a.gz", 9, 7, "", 0.0)
BEFORE = Stored("e/a.gz", 9, 8, "", 0.0)


def raising(_event: Event) -> None:
    """A listener with a bug."""
    raise ValueError("a secret")


def test_a_listener_that_raises_is_logged_once_and_dropped(caplog):
    """The run goes on, its books are right, the other listeners are told everything in their order."""
    counters, heard = RunCounters(), []
    listeners = EventListeners(
        counters,
        [lambda event: heard.append(("first", event)), raising, lambda event: heard.append(("last", event))],
    )
    events: list[Event] = [PossibleDuplicate(BUNDLE), BundleStored(BUNDLE, ARCHIVE)]
    for event in events:
        listeners.tell(event)
    assert heard == [(name, event) for event in events for name in ("first", "last")]
    assert (counters.tally.possible_duplicates, counters.tally.stored) == (1, 1)
    (logged,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert logged.getMessage() == "raising raised ValueError and is told nothing more of this run"


def test_the_books_are_kept_before_anybody_is_told():
    """A listener that looks at the tally finds the event in it."""
    counters, counts = RunCounters(), []
    listeners = EventListeners(counters, [lambda _event: counts.append(counters.tally.stored)])
    listeners.tell(BundleStored(BUNDLE, ARCHIVE))
    assert counts == [1]


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (BundleStored(BUNDLE, ARCHIVE), f"{BUNDLE}: stored, 7 rows, 9 bytes"),
        (BundleStored(BUNDLE, ARCHIVE, BEFORE), f"{BUNDLE}: refreshed, 7 rows in place of 8, 9 bytes"),
        (BundleParked(BUNDLE, Failed("gone")), "e 2026-01-01T00:00:00Z: parked: gone"),
        (Retried(BUNDLE, "cut"), f"{BUNDLE}: cut"),
        (
            PossibleDuplicate(BUNDLE),
            f"{BUNDLE}: it is not known whether its create was carried out; the service may run it twice",
        ),
    ],
)
def test_what_goes_its_way_is_logged_below_a_warning(caplog, event, line):
    """The closing text names what was given up: no warning does so as well."""
    caplog.set_level(logging.INFO)
    EventListeners(RunCounters(), ()).tell(event)
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [("INFO", line)]


def test_a_listener_that_cancels_itself_does_not_end_who_tells(caplog):
    """What it raises is its own, be it what ends a task of asyncio."""
    told: list[Event] = []

    def cancelled(_event):
        raise asyncio.CancelledError

    listeners = EventListeners(RunCounters(), [cancelled, told.append])
    listeners.tell(Note("a"))
    listeners.tell(Note("b"))
    assert told == [Note("a"), Note("b")]
    assert len([message for message in caplog.messages if "raised CancelledError" in message]) == 1


def test_a_note_is_a_warning(caplog):
    """What the user should know is shown without being asked for."""
    EventListeners(RunCounters(), ()).tell(Note("the end is cut back"))
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", "the end is cut back")
    ]


def test_a_repair_that_brings_fewer_rows_is_a_warning(caplog):
    """There was no sound archive to keep; a few rows less are told, though they are no failure."""
    EventListeners(RunCounters(), (), repaired=frozenset({BUNDLE})).tell(BundleStored(BUNDLE, ARCHIVE, BEFORE))
    assert f"{BUNDLE}: repaired with fewer rows: 7 in place of 8" in caplog.text


@pytest.mark.parametrize(
    ("events", "open_problems"),
    [
        ([Retried(BUNDLE, "cut")], ["e 2026-01-01T00:00:00Z: cut"]),
        ([Retried(BUNDLE, "cut"), BundleStored(BUNDLE, ARCHIVE)], []),
        ([Retried(BUNDLE, "no route", concerns_all=True)], ["the service: no route"]),
        ([BundleParked(BUNDLE, Failed("gone"))], ["e 2026-01-01T00:00:00Z: parked: gone"]),
    ],
)
def test_the_books_know_what_is_in_the_way(events, open_problems):
    """A problem is open until its bundle is stored."""
    counters = RunCounters()
    for event in events:
        counters.record(event)
    assert [problem.text for problem in counters.problems.open(service_is_well=False)] == open_problems
