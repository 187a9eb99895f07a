"""A run as it stands, in words: what the picture and the line a minute have in common."""

from asyncexport.core.summary import Snapshot
from asyncexport.core.text import show_duration
from asyncexport.display.words import show_bytes, show_count, show_minute, show_rate

COUNTED = {
    "create": "only creates count",
    "create?": "only creates count, it seems",
    "all": "every request counts",
}
"""By a snapshot's scope."""


def sentence(snapshot: Snapshot, *, now: float) -> str:
    """All of it in one line, for where nothing can be drawn."""
    parts = [
        f"{show_count(snapshot.have)} of {show_count(snapshot.planned)} bundles stored",
        f"{under_way(snapshot)}, {show_count(snapshot.parked)} parked",
        files(snapshot),
        budget(snapshot),
        stored_and_received(snapshot),
    ]
    if snapshot.down_seconds is not None:
        parts.append(f"the service was {away(snapshot.down_seconds)}")
    elif snapshot.expected_seconds is not None:
        parts.append(f"ends {when(snapshot.expected_seconds, now)}")
    return "; ".join(parts)


def under_way(snapshot: Snapshot) -> str:
    """Where the bundles are that are not stored yet."""
    return (
        f"{show_count(snapshot.running)} running, {show_count(snapshot.queued)} queued for a request, "
        f"{show_count(snapshot.waiting)} waiting"
    )


def files(snapshot: Snapshot) -> str:
    """Where the files of finished exports are."""
    ready = max(0, snapshot.fetching - snapshot.downloading)
    return f"{show_count(snapshot.downloading)} downloading, {show_count(ready)} ready to be fetched"


def budget(snapshot: Snapshot) -> str:
    """What may be asked now, when the next may be, and what is counted."""
    wait = snapshot.next_request_seconds
    counted = f"; {COUNTED.get(snapshot.scope, snapshot.scope)}" if snapshot.scope else ""
    if snapshot.paused_seconds > 0:
        paused = show_duration(max(round(snapshot.paused_seconds), 1))
        return f"paused by the service for {paused} (429: asked too often){counted}"
    if snapshot.down_seconds is not None:
        return f"{snapshot.tokens} of {snapshot.burst} requests left{counted}"
    at_once = "next at once" if snapshot.tokens else "next in a moment"
    following = at_once if wait < 0.5 else f"next in {show_duration(max(round(wait), 1))}"
    return f"{snapshot.tokens} of {snapshot.burst} requests left, {following}{counted}"


def data(snapshot: Snapshot, *, bytes_a_second: float, rows_a_second: float) -> str:
    """What has come, and how fast it comes."""
    return f"{stored_and_received(snapshot)}; lately {show_rate(rows_a_second)} rows/s, {show_bytes(bytes_a_second)}/s"


def stored_and_received(snapshot: Snapshot) -> str:
    """What lies on the disk, and what has come of files that are not whole yet."""
    on_its_way = f" and {show_bytes(snapshot.received)} on the way" if snapshot.received else ""
    return f"{show_count(snapshot.rows)} rows, {show_bytes(snapshot.bytes)}{on_its_way}"


def away(seconds: float) -> str:
    """Of a service in an outage."""
    return f"not reached for {show_duration(max(seconds, 1))}; it is tried again and again"


def when(seconds: float, now: float) -> str:
    """The end, as a span and as a moment."""
    if seconds < 60:
        return "in less than a minute"
    return f"in about {show_duration(seconds)}, {show_minute(now + seconds)}"
