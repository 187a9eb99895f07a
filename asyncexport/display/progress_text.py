"""A run as it stands, in words: what the picture and the line a minute have in common."""

from asyncexport.core.summary import Snapshot
from asyncexport.core.text import show_duration
from asyncexport.display.formatting import show_bytes, show_count, show_minute, show_rate

Wordings = tuple[str, ...]
"""The same in ever fewer words, for terminals that are narrow; what matters most is left."""

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
        bundles(snapshot)[0],
        files(snapshot)[0],
        budget(snapshot)[0],
        stored_and_received(snapshot),
    ]
    if snapshot.down_seconds is not None:
        parts.append(f"the service is {away(snapshot.down_seconds)[0]}")
    elif snapshot.expected_seconds is not None:
        parts.append(f"ends {when(snapshot.expected_seconds, now)[0]}")
    return "; ".join(parts)


def bundles(snapshot: Snapshot) -> Wordings:
    """Where the bundles are that are not stored yet."""
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
    """Where the files of finished exports are."""
    coming = f"{show_count(snapshot.downloading)} downloading"
    ready = show_count(max(0, snapshot.fetching - snapshot.downloading))
    return f"{coming}, {ready} ready to be fetched", f"{coming}, {ready} ready", coming


def budget(snapshot: Snapshot) -> Wordings:
    """What may be asked now, when the next may be, and what is counted."""
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
    """What has come, and how fast it comes."""
    lately = f"recently {show_rate(rows_a_second)} rows/s, {show_bytes(bytes_a_second)}/s"
    stored = f"{show_count(snapshot.rows)} rows, {show_bytes(snapshot.bytes)}"
    coming = stored_and_received(snapshot)
    return f"{coming}; {lately}", f"{stored}; {lately}", coming, stored, show_bytes(snapshot.bytes)


def stored_and_received(snapshot: Snapshot) -> str:
    """What lies on the disk, and what has come of files that are not whole yet."""
    on_its_way = f" and {show_bytes(snapshot.received)} on the way" if snapshot.received else ""
    return f"{show_count(snapshot.rows)} rows, {show_bytes(snapshot.bytes)}{on_its_way}"


def away(seconds: float) -> Wordings:
    """Of a service in an outage."""
    text = f"unreachable for {show_duration(max(seconds, 1))}"
    return f"{text}; retrying", text


def when(seconds: float, now: float) -> Wordings:
    """The end, as a span and as a moment."""
    if seconds < 60:
        return ("in less than a minute",)
    span, moment = f"in about {show_duration(seconds)}", show_minute(now + seconds)
    return f"{span}, {moment}", span


def fitting(wordings: Wordings, columns: int) -> str:
    """The first of the wordings that fits into so many columns, else the last one."""
    return next((one for one in wordings if len(one) <= columns), wordings[-1])
