"""Every switch of the sandbox, with its default and how certain it is that the real service behaves like the default.

1. `SandboxBehaviour()` is the service as far as it is known, in real time. DOCUMENTED is what the vendor says. INFERRED
   is what follows from existing clients or from other facts. A GUESS has no source at all, but the sandbox has to do
   something. OURS marks switches of the sandbox that the real service does not have.
2. Only a default marked DOCUMENTED says how the real service behaves.
3. Durations are in seconds, as at the real service. `speed` divides the durations of operations, the refill time of the
   rate limit and the three expiry times, and nothing else. Time stamps are always wall-clock time.
"""
# ruff: noqa: RUF009 - each call makes a field of the dataclass

import difflib
from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields, replace
from enum import StrEnum
from functools import cache
from typing import Any, Literal, TypeVar, get_args, get_type_hints

from asyncexport.sandbox.faults import SandboxFault
from asyncexport.sandbox.rows import SandboxRows


class SandboxCertainty(StrEnum):
    """How certain it is that the real service behaves like the default of a switch."""

    DOCUMENTED = "documented"
    INFERRED = "inferred"
    GUESS = "guess"
    OURS = "ours"


T = TypeVar("T")

RetryAfter = Literal["seconds", "missing", "zero", "negative", "short", "huge", "date", "garbage"]
Delivery = Literal["gzip", "plain", "members", "nested", "encoded", "encoded-gzip", "inflated", "recompressed"]
Framing = Literal["length", "chunked", "close"]


def _documented(default: T, says: str) -> T:
    return _switch(default, SandboxCertainty.DOCUMENTED, says)


def _inferred(default: T, says: str) -> T:
    return _switch(default, SandboxCertainty.INFERRED, says)


def _guess(default: T, says: str) -> T:
    return _switch(default, SandboxCertainty.GUESS, says)


def _ours(default: T, says: str) -> T:
    return _switch(default, SandboxCertainty.OURS, says)


def _switch(default: T, basis: SandboxCertainty, says: str) -> T:
    """Return a field of `SandboxBehaviour` with its default, its certainty and what the switch does."""
    made: T = field(default=default, metadata={"basis": basis, "says": says})
    return made


@dataclass(frozen=True, slots=True)
class SandboxBehaviour:
    """How the sandbox behaves; `describe` lists the switches with their certainty.

    Raises:
        ValueError: A switch has an impossible value.
    """

    speed: float = _ours(1.0, "divides the durations of operations, refill times and expiry times")
    seed: int = _ours(1, "the same seed gives the same rows, durations and random choices")
    faults: tuple[SandboxFault, ...] = _ours((), "what goes wrong, when and where: see --show-faults")
    clock_ahead_seconds: float = _ours(0.0, "how far the sandbox's clock is ahead of this machine's")

    rows: SandboxRows | None = _ours(None, "the source of the event rows; None: made from the seed")
    rows_per_hour: float = _ours(800.0, "average number of rows an hour, if made from the seed")
    quiet: float = _ours(0.25, "share of the half-hours before 06:00 UTC that have no rows at all")
    late_share: float = _documented(0.0, "share of the rows that reach the service late")
    late_seconds: float = _documented(1800.0, "how long after its event a late row reaches the service")
    retention_seconds: float | None = _documented(None, "older rows are deleted; None: none are")
    everyone_seconds: float = _inferred(30 * 86_400.0, "how far back a create without segmentTimeRange reaches")
    empty: Literal["usual", "plain", "nothing", "gzip-of-nothing"] = _guess(
        "usual", "an export without rows: an empty container, gzipped or plain; no bytes at all; gzip of no bytes"
    )

    operation_seconds: float = _guess(300.0, "median duration of an operation")
    operation_sigma: float = _guess(0.5, "spread of that duration: the sigma of a lognormal distribution")
    slots: int | None = _guess(None, "operations that run at the same time, the others queue; None: all run")
    most_running: int | None = _guess(None, "operations in progress at which a create gets a 429; None: no limit")
    merge_equal: bool = _guess(False, "a create equal to that of a running operation returns this operation")
    honour_idempotency_key: bool = _guess(False, "a create with a known Idempotency-Key returns the same operation")
    created_at: Literal["right", "year-1", "year-9999", "missing"] = _documented(
        "right", "createdAt of operations: when they were made, or nonsense"
    )
    finished_at_early: bool = _documented(True, "some PENDING operations already have a finishedAt")

    unknown_segment: Literal[400, 404] = _guess(400, "status of a create for an unknown segment")
    unknown_field: Literal["ignored", "refused"] = _guess("ignored", "what happens to an unknown field name")
    longest_range_seconds: float | None = _guess(None, "a wider timeRange gets a 400; None: no limit")
    ids: Literal["strict", "lenient", "plain", "numbers"] = _inferred(
        "strict",
        "operation ids: with = + / and only accepted percent-encoded; also accepted raw; without = + /; numbers",
    )
    organisation: str = _ours("ORG", "organisation of the key, as /me reports it")
    bearer: bool = _guess(False, "Authorization: Bearer works like Basic")
    error_body: Literal["json", "error", "text", "html", "empty"] = _inferred(
        "json", "body of an error: JSON as in version 2 of the API, JSON with the key `error`, or other forms"
    )
    not_ready: int = _guess(404, "status of a results call for an export that is not ready")
    gone: int = _guess(404, "status for an operation or export that is unknown or has expired")

    requests_per_minute: float = _documented(2.0, "refill rate of the rate limit's bucket")
    burst: int = _documented(50, "size of the bucket")
    scope: Literal["create", "all"] = _guess("create", "which calls of the API count against the rate limit")
    bucket_each: bool = _guess(False, "every endpoint that counts has its own bucket")
    refusal_costs: bool = _guess(False, "a call refused by the limit also takes a token: the bucket goes below zero")
    failure_costs: bool = _guess(True, "a call that fails in another way takes a token, like one that succeeds")
    retry_after: RetryAfter = _documented("seconds", "Retry-After of a 429")

    list_ids: bool = _documented(True, "listed operations have an id; older samples show none")
    list_order: Literal["newest", "oldest", "shuffled"] = _guess("newest", "order of the list")
    list_reaches: int | None = _guess(None, "number of newest operations that are listed; None: all")
    list_moves: bool = _guess(False, "pages are counted from the top, so that items move between pages")
    old_operations: int = _guess(0, "operations of other clients from the week before")
    foreign_per_operation: int = _guess(0, "operations of other clients made along with each own operation")

    operation_life_seconds: float = _guess(30 * 86_400.0, "how long an operation can be polled")
    export_life_seconds: float = _inferred(6.5 * 86_400.0, "how long an export can be downloaded")
    link_life_seconds: float = _documented(300.0, "how long a signed URL is valid")
    expired_link: Literal[400, 403] = _inferred(400, "status of an expired signed URL; the body is XML")
    expired_wording: Literal["old", "new"] = _inferred("old", "which of two texts an expired signed URL gets")

    delivery: Delivery = _inferred(
        "gzip",
        "the file: gzip; plain; gzip of several members; gzip in gzip; plain or gzip under Content-Encoding: gzip; "
        "stored as gzip and, on the way, inflated or compressed again, with the hash of the stored file",
    )
    framing: Framing = _inferred("length", "how the end of a download is marked")
    etag: bool = _inferred(True, "downloads have an ETag")
    ranges: bool = _inferred(True, "Range and If-Range are obeyed; otherwise the complete file is sent")
    goog_hash: Literal["both", "crc32c", "md5", "none", "wrong"] = _inferred("both", "the x-goog-hash headers")
    stored_form: bool = _inferred(False, "headers say how the file is stored and how it was changed on the way")
    file_name: str = _documented("", "file name in Content-Disposition, unescaped; empty: segment and date")
    filler_bytes: int | None = _ours(None, "every export is a file of this size, before compression")

    segments: int = _ours(60, "number of segments besides the built-in ones")

    def __post_init__(self) -> None:
        if not self.speed > 0 or not self.requests_per_minute > 0 or self.burst < 1:
            raise ValueError("speed, requests_per_minute and burst must be more than zero")
        for name, known in _choices().items():
            if getattr(self, name) not in known:
                said = ", ".join(map(str, known))
                raise ValueError(f"{name} must be one of {said}, not {getattr(self, name)!r}")

    def shortened(self, seconds: float) -> float:
        """Return a duration at the speed of this sandbox."""
        return seconds / self.speed


@cache
def _choices() -> dict[str, tuple[Any, ...]]:
    hints = get_type_hints(SandboxBehaviour)
    return {name: get_args(hint) for name, hint in hints.items() if getattr(hint, "__origin__", None) is Literal}


def changed(behaviour: SandboxBehaviour, given: Mapping[str, Any]) -> SandboxBehaviour:
    """Return the behaviour with some switches changed by name; values may be text, as on a command line.

    Raises:
        ValueError: A switch does not exist or cannot have this value.
    """
    hints = get_type_hints(SandboxBehaviour)
    return replace(behaviour, **{name: _parse_value(name, hints.get(name), value) for name, value in given.items()})


def _parse_value(name: str, hint: Any, value: Any) -> Any:
    if hint is None or name == "rows":
        near = difflib.get_close_matches(name, [one.name for one in switches()], n=1)
        raise ValueError(f"there is no switch {name!r}" + (f" (did you mean {near[0]!r}?)" if near else ""))
    if name == "faults":
        return tuple(map(SandboxFault.parse, value.split() if isinstance(value, str) else value))
    if not isinstance(value, str):
        return value
    if value == "none" and type(None) in get_args(hint):
        return None
    if name in _choices():
        return next((known for known in _choices()[name] if str(known) == value), value)
    kind = next((one for one in (bool, int, float, str) if hint is one or one in get_args(hint)), str)
    try:
        return {"true": True, "false": False}[value] if kind is bool else kind(value)
    except (ValueError, KeyError):
        raise ValueError(f"{name} cannot be {value!r}") from None


def switches() -> tuple[Field[Any], ...]:
    """Return all switches, in order."""
    return fields(SandboxBehaviour)


def describe(defaults: SandboxBehaviour | None = None) -> str:
    """Return the switches as a table of text: name, default, certainty, and what the switch does.

    Args:
        defaults: The defaults to show; None means those of `SandboxBehaviour()`.
    """
    shown = defaults or SandboxBehaviour()
    rows = [
        (one.name, str(getattr(shown, one.name)), one.metadata["basis"].value, _explanation(one)) for one in switches()
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row[:3], widths, strict=True)) + "  " + row[3]
        for row in rows
    )


def _explanation(one: Field[Any]) -> str:
    known = _choices().get(one.name, ())
    said: str = one.metadata["says"]
    return f"{said} ({' | '.join(map(str, known))})" if known else said
