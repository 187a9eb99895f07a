"""The progress of a run in words, for the live view and the status line."""

from asyncexport.core.covered_range import CoveredRange
from asyncexport.core.summary import Snapshot
from asyncexport.core.text import show_bytes, show_duration
from asyncexport.display.formatting import show_count, show_minute, show_rate

Wordings = tuple[str, ...]
"""The same information in decreasing length, for narrow terminals; the shortest one has what matters most."""

COUNTED = {
    "create": "only creates count",
    "create?": "only creates count, it seems",
    "all": "every request counts",
}
"""What the rate limit counts, by the scope in a snapshot."""


def sentence(snapshot: Snapshot, *, now: float) -> str:
    """Return everything in one line, for the status line."""
    parts = [
        f"{show_count(snapshot.have)} of {show_count(snapshot.planned)} bundles stored",
        bundles(snapshot)[0],
        files(snapshot)[0],
        budget(snapshot)[0],
        stored_and_received(snapshot),
    ]
    if snapshot.down_seconds is not None:
        parts.append(f"the service is {outage(snapshot.down_seconds)[0]}")
    elif snapshot.expected_seconds is not None:
        parts.append(f"ends {when(snapshot.expected_seconds, now)[0]}")
    return "; ".join(parts)


def bundles(snapshot: Snapshot) -> Wordings:
    """Describe the bundles that are not stored yet."""
    running, queued, waiting, parked = map(
        show_count, (snapshot.running, snapshot.queued, snapshot.waiting, snapshot.parked)
    )
    return (
        f"{running} running, {queued} queued for a request, {waiting} waiting, {parked} parked",
        f"{running} running, {queued} queued, {waiting} waiting, {parked} parked",
        f"{running} running, {show_count(snapshot.queued + snapshot.waiting)} to come, {parked} parked",
        f"{running} running, {parked} parked",
        f"{parked} parked",
    )


def files(snapshot: Snapshot) -> Wordings:
    """Describe the downloads."""
    coming = f"{show_count(snapshot.downloading)} downloading"
    ready = show_count(max(0, snapshot.fetching - snapshot.downloading))
    return f"{coming}, {ready} ready to be fetched", f"{coming}, {ready} ready", coming


def budget(snapshot: Snapshot) -> Wordings:
    """Describe the requests that may be sent now, when the next one may be sent, and what the limit counts."""
    wait = snapshot.next_request_seconds
    counted = f"; {COUNTED.get(snapshot.scope, snapshot.scope)}" if snapshot.scope else ""
    if snapshot.paused_seconds > 0:
        paused = show_duration(max(round(snapshot.paused_seconds), 1))
        text = f"paused by the service for {paused} (429: too many requests)"
        return f"{text}{counted}", text, f"paused by the service for {paused}", f"paused for {paused} (429)"
    left = f"{snapshot.tokens} of {snapshot.burst} requests left"
    short = f"{snapshot.tokens} of {snapshot.burst} left"
    if snapshot.down_seconds is not None:
        return f"{left}{counted}", left, short
    now = "next one now" if snapshot.tokens else "next one soon"
    following = now if wait < 0.5 else f"next in {show_duration(max(round(wait), 1))}"
    return f"{left}, {following}{counted}", f"{left}, {following}", f"{short}, {following}", short


def data(snapshot: Snapshot, *, bytes_a_second: float, rows_a_second: float) -> Wordings:
    """Describe the data received so far and the recent rates."""
    lately = f"recently {show_rate(rows_a_second)} rows/s, {show_bytes(bytes_a_second)}/s"
    stored = f"{show_count(snapshot.rows)} rows, {show_bytes(snapshot.bytes)}"
    coming = stored_and_received(snapshot)
    return f"{coming}; {lately}", f"{stored}; {lately}", coming, stored, show_bytes(snapshot.bytes)


def stored_and_received(snapshot: Snapshot) -> str:
    """Describe the data stored, and the bytes received of incomplete files."""
    partial = f" and {show_bytes(snapshot.received)} partial" if snapshot.received else ""
    return f"{show_count(snapshot.rows)} rows, {show_bytes(snapshot.bytes)}{partial}"


def outage(seconds: float) -> Wordings:
    """Describe an outage of the service."""
    text = f"unreachable for {show_duration(max(seconds, 1))}"
    return f"{text}; retrying", text


def when(seconds: float, now: float) -> Wordings:
    """Describe when the run will end, as a duration and as a time."""
    if seconds < 60:
        return ("in less than a minute",)
    duration, time = f"in about {show_duration(seconds)}", show_minute(now + seconds)
    return f"{duration}, {time}", duration


def covered(span: CoveredRange) -> Wordings:
    """Describe the range of a run that ends where settled data ends."""
    end = show_minute(span.end)
    whole = f"{show_minute(span.start).removesuffix(' UTC')} to {end}"
    return f"{whole}, where settled data ends", f"{whole} (settled)", whole, f"to {end}"


def fitting(wordings: Wordings, columns: int) -> str:
    """Return the first wording that fits into this many columns, else the last one."""
    return next((one for one in wordings if len(one) <= columns), wordings[-1])
