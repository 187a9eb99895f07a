"""Passes the events of a run to the counters, the log and the listeners.

1. The counters come first, then the log, then the listeners in their order.
2. If a listener raises, that is logged once and the listener is not called again. No listener stops a run.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable

from asyncexport.core.auditing import Comparison
from asyncexport.core.bundles import Bundle, show
from asyncexport.core.events import (
    BundleAudited,
    BundleParked,
    BundleSplit,
    BundleStored,
    Event,
    Listener,
    Note,
    PossibleDuplicate,
    Retried,
    RowsOutside,
    ShortfallFound,
)
from asyncexport.core.states import FewerRows
from asyncexport.core.summary import Tally, lost_reason
from asyncexport.run.counters import RunCounters

log = logging.getLogger(__name__)


class EventListeners:
    """Passes events on.

    Args:
        counters: The counters of the run.
        listeners: The functions to call with each event.
        repaired: Bundles whose archive is being repaired.
    """

    def __init__(
        self, counters: RunCounters, listeners: Iterable[Listener], *, repaired: Collection[Bundle] = ()
    ) -> None:
        self._counters = counters
        self._listeners = tuple(listeners)
        self._repaired = repaired

    def emit(self, event: Event) -> None:
        """Pass an event on; this method is itself a `Listener`."""
        self._counters.record(event)
        log_event(event, self._counters.tally, repaired=self._repaired)
        for listener in self._listeners:
            try:
                listener(event)
            except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - no listener stops a run
                # A listener awaits nothing, so it raised the CancelledError itself; it would cancel the emitting task.
                log_failed_listener(listener, error)
                self._listeners = tuple(one for one in self._listeners if one is not listener)
        compared = _comparison(event, self._counters.tally)
        if compared is not None:
            self.emit(BundleAudited(compared))


def _comparison(event: Event, tally: Tally) -> Comparison | None:
    """Return the comparison that an event completes, if its bundle is audited."""
    match event:
        case BundleStored(bundle=bundle, archive=archive) if bundle in tally.audit:
            return Comparison.of_stored(bundle, tally.audit.sample[bundle], archive)
        case BundleParked(bundle=bundle, state=FewerRows() as fewer) if bundle in tally.audit:
            return Comparison.of_kept(bundle, tally.audit.sample[bundle], fewer)
        case _:
            return None


def log_failed_listener(listener: Callable[..., object], error: BaseException) -> None:
    """Log that a listener raised; the text of its error may contain secrets, so only the traceback shows it."""
    name = getattr(listener, "__qualname__", type(listener).__name__)
    log.warning("%s raised %s and will not be called again in this run", name, type(error).__name__, exc_info=error)


def log_event(event: Event, tally: Tally, *, repaired: Collection[Bundle]) -> None:
    """Log an event that `tally` has counted already."""
    match event:
        case BundleStored():
            _log_stored(event, tally, repaired)
        case BundleParked(bundle=bundle, reason=reason):
            # Not a warning: the live view and the closing text show it anyway.
            log.info("%s %s: parked: %s", bundle.export, show(bundle.range.start), reason)
        case BundleSplit(bundle=bundle, pieces=pieces, reason=reason):
            log.info("%s: keeps failing, split into %d narrower bundles: %s", bundle, len(pieces), reason)
        case Retried(bundle=bundle, reason=reason):
            log.info("%s: %s", bundle, reason)
        case PossibleDuplicate(bundle=bundle):
            log.info("%s: its create got no answer; the service may run the same export twice", bundle)
        case RowsOutside(bundle=bundle):
            log.warning("%s: %s; the file is stored as it came", bundle, event.text)
        case ShortfallFound(shortfall=shortfall):
            log.warning(
                "%s: %s; %s; `status` lists it, and `accept` marks it as known",
                shortfall.bundle.export,
                shortfall.text,
                shortfall.advice,
            )
        case Note(message=message):
            log.warning("%s", message)


def _log_stored(event: BundleStored, tally: Tally, repaired: Collection[Bundle]) -> None:
    bundle, archive, replaced = event.bundle, event.archive, event.replaced
    rows = f"{archive.rows:,} rows" + (f" instead of {replaced.rows:,}" if replaced is not None else "")
    again = "repaired" if bundle in repaired else "audited" if bundle in tally.audit else "refreshed"
    done = "stored" if replaced is None else again
    log.info("%s: %s, %s, %s bytes", bundle, done, rows, f"{archive.bytes:,}")
    if fewer := tally.fewer.get(bundle):
        log.warning("%s: %s", bundle, lost_reason(fewer))
    elif bundle in repaired and replaced is not None and archive.rows < replaced.rows:
        log.warning("%s: repaired with fewer rows: %d instead of %d", bundle, archive.rows, replaced.rows)
