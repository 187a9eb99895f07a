"""Which listeners receive the events of a run, and what happens to one that raises."""

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


def test_a_listener_that_raises_is_logged_once_and_removed(caplog):
    """The run continues, its counts are right, and the other listeners receive every event in order."""
    counters, heard = RunCounters(), []
    listeners = EventListeners(
        counters,
        [lambda event: heard.append(("first", event)), raising, lambda event: heard.append(("last", event))],
    )
    events: list[Event] = [PossibleDuplicate(BUNDLE), BundleStored(BUNDLE, ARCHIVE)]
    for event in events:
        listeners.emit(event)
    assert heard == [(name, event) for event in events for name in ("first", "last")]
    assert (counters.tally.possible_duplicates, counters.tally.stored) == (1, 1)
    (logged,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert logged.getMessage() == "raising raised ValueError and will not be called again in this run"


def test_events_are_counted_before_listeners_receive_them():
    """A listener that reads the tally finds the event in it."""
    counters, counts = RunCounters(), []
    listeners = EventListeners(counters, [lambda _event: counts.append(counters.tally.stored)])
    listeners.emit(BundleStored(BUNDLE, ARCHIVE))
    assert counts == [1]


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (BundleStored(BUNDLE, ARCHIVE), f"{BUNDLE}: stored, 7 rows, 9 bytes"),
        (BundleStored(BUNDLE, ARCHIVE, BEFORE), f"{BUNDLE}: refreshed, 7 rows instead of 8, 9 bytes"),
        (BundleParked(BUNDLE, Failed("gone")), "e 2026-01-01T00:00:00Z: parked: gone"),
        (Retried(BUNDLE, "cut"), f"{BUNDLE}: cut"),
        (
            PossibleDuplicate(BUNDLE),
            f"{BUNDLE}: its create got no answer; the service may run the same export twice",
        ),
    ],
)
def test_an_event_is_logged_below_a_warning(caplog, event, line):
    """The closing text lists parked bundles, so they are not logged as warnings as well."""
    caplog.set_level(logging.INFO)
    EventListeners(RunCounters(), ()).emit(event)
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [("INFO", line)]


def test_a_listener_that_raises_cancelled_error_does_not_end_the_run(caplog):
    """Even the exception that ends an asyncio task only affects the listener."""
    heard: list[Event] = []

    def cancelled(_event):
        raise asyncio.CancelledError

    listeners = EventListeners(RunCounters(), [cancelled, heard.append])
    listeners.emit(Note("a"))
    listeners.emit(Note("b"))
    assert heard == [Note("a"), Note("b")]
    assert len([message for message in caplog.messages if "raised CancelledError" in message]) == 1


def test_a_note_is_a_warning(caplog):
    """Notes are shown at the default log level."""
    EventListeners(RunCounters(), ()).emit(Note("the end is cut back"))
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", "the end is cut back")
    ]


def test_a_repair_that_finds_fewer_rows_is_a_warning(caplog):
    """No intact archive was left, so fewer rows are stored and a warning is logged."""
    EventListeners(RunCounters(), (), repaired=frozenset({BUNDLE})).emit(BundleStored(BUNDLE, ARCHIVE, BEFORE))
    assert f"{BUNDLE}: repaired with fewer rows: 7 instead of 8" in caplog.text


@pytest.mark.parametrize(
    ("events", "open_problems"),
    [
        ([Retried(BUNDLE, "cut")], ["e 2026-01-01T00:00:00Z: cut"]),
        ([Retried(BUNDLE, "cut"), BundleStored(BUNDLE, ARCHIVE)], []),
        ([Retried(BUNDLE, "no route", concerns_all=True)], ["the service: no route"]),
        ([BundleParked(BUNDLE, Failed("gone"))], ["e 2026-01-01T00:00:00Z: parked: gone"]),
    ],
)
def test_problems_are_open_until_their_bundle_is_stored(events, open_problems):
    """The live view shows the open problems of retried and parked bundles."""
    counters = RunCounters()
    for event in events:
        counters.record(event)
    assert [problem.text for problem in counters.problems.open(service_is_well=False)] == open_problems
