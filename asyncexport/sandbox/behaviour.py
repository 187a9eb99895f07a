"""Every switch of the sandbox: its default, and how sure it is that the real service does the same.

1. `SandboxBehaviour()` is the service as far as it is known, in real time. What the vendor says is marked DOCUMENTED,
   what follows from clients or reason INFERRED. What nobody says is a GUESS: the sandbox has to do something. OURS are
   the switches that the real service has no equal of.
2. No default is a promise of how the real service behaves, unless it is marked DOCUMENTED.
3. Durations are in seconds as they would be at the real service; `speed` divides those of operations, of the limit's
   refill and of the three expiries, and nothing else. Time stamps stay those of the wall clock.
"""
# ruff: noqa: RUF009 - each call makes a field of the dataclass, with what is known of its default

import difflib
from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields, replace
from enum import StrEnum
from functools import cache
from typing import Any, Literal, TypeVar, get_args, get_type_hints

from asyncexport.sandbox.faults import SandboxFault
from asyncexport.sandbox.rows import SandboxRows


class SandboxCertainty(StrEnum):
    """How sure it is that the real service does what the default of a switch does."""

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
    """A field of `SandboxBehaviour`: its default, how sure that is, and what the switch does."""
    made: T = field(default=default, metadata={"basis": basis, "says": says})
    return made


@dataclass(frozen=True, slots=True)
class SandboxBehaviour:
    """How the sandbox behaves; `describe` lists the switches with their marks.

    Raises:
        ValueError: a switch has a value that it does not know.
    """

    speed: float = _ours(1.0, "divides durations of operations, refill times and expiries")
    seed: int = _ours(1, "rows, durations and chances are the same for the same seed")
    faults: tuple[SandboxFault, ...] = _ours((), "what goes wrong, when and where: see --show-faults")
    clock_ahead_seconds: float = _ours(0.0, "how far its clock is ahead of this machine's")

    rows: SandboxRows | None = _ours(None, "where event rows come from; None: made from the seed")
    rows_per_hour: float = _ours(800.0, "rows made from the seed, on average")
    quiet: float = _ours(0.25, "the share of half-hours before six, UTC, in which nothing happens at all")
    late_share: float = _documented(0.0, "the share of rows that reach it late (reference section 7)")
    late_seconds: float = _documented(1800.0, "how long after its event a late row reaches it")
    retention_seconds: float | None = _documented(None, "rows older than this are gone; None: none are")
    everyone_seconds: float = _inferred(30 * 86_400.0, "a segment's range where no segmentTimeRange is")
    empty: Literal["usual", "plain", "nothing", "gzip-of-nothing"] = _guess(
        "usual", "an export without rows: its container, compressed or not, or no bytes, likewise"
    )

    operation_seconds: float = _guess(300.0, "the median time an operation takes")
    operation_sigma: float = _guess(0.5, "how much that varies: the sigma of a lognormal")
    slots: int | None = _guess(None, "operations that run at once, the others queue; None: all run")
    most_running: int | None = _guess(None, "operations under way beyond which a create gets a 429")
    merge_equal: bool = _guess(False, "a create equal to one that still runs answers with its operation")
    honour_idempotency_key: bool = _guess(False, "a create with a known Idempotency-Key is not repeated")
    created_at: Literal["right", "year-1", "year-9999", "missing"] = _documented(
        "right", "the createdAt of operations: when they were made, or nonsense"
    )
    finished_at_early: bool = _documented(True, "some PENDING operations have a finishedAt already")

    unknown_segment: Literal[400, 404] = _guess(400, "status of a create for a segment it does not know")
    unknown_field: Literal["ignored", "refused"] = _guess("ignored", "a field name it does not know")
    longest_range_seconds: float | None = _guess(None, "a wider timeRange is a 400; None: none is")
    ids: Literal["strict", "lenient", "plain", "numbers"] = _inferred(
        "strict",
        "operation ids: with = + / and found only if percent-encoded; found raw as well; without these; numbers",
    )
    organisation: str = _ours("ORG", "whose key it is, as /me has it")
    bearer: bool = _guess(False, "Authorization: Bearer works as Basic does")
    error_body: Literal["json", "error", "text", "html", "empty"] = _inferred(
        "json", "what an error says: as version 2 does, under the key `error`, or otherwise"
    )
    not_ready: int = _guess(404, "status of a results call for an export that is not ready")
    gone: int = _guess(404, "status where an operation or an export is unknown or has expired")

    requests_per_minute: float = _documented(2.0, "how fast the limit's bucket is refilled")
    burst: int = _documented(50, "what the bucket holds")
    scope: Literal["create", "all"] = _guess("create", "which calls of the API the limit counts")
    bucket_each: bool = _guess(False, "every endpoint that counts has a bucket of its own")
    refusal_costs: bool = _guess(False, "a refused call takes a token as well: the bucket goes below zero")
    failure_costs: bool = _guess(True, "a call that fails otherwise takes a token, like one that works")
    retry_after: RetryAfter = _documented("seconds", "the Retry-After of a 429")

    list_ids: bool = _documented(True, "listed operations have their id; older samples have none")
    list_order: Literal["newest", "oldest", "shuffled"] = _guess("newest", "the order of the list")
    list_reaches: int | None = _guess(None, "only so many of the newest are listed; None: all")
    list_moves: bool = _guess(False, "pages are counted from the top, so that items move between them")
    old_operations: int = _guess(0, "operations of others from before")
    foreign_per_operation: int = _guess(0, "operations of others made along with each of ours")

    operation_life_seconds: float = _guess(30 * 86_400.0, "how long an operation can be asked for")
    export_life_seconds: float = _inferred(6.5 * 86_400.0, "how long an export can be fetched")
    link_life_seconds: float = _documented(300.0, "how long a link is good")
    expired_link: Literal[400, 403] = _inferred(400, "status of an expired link, always as XML")
    expired_wording: Literal["old", "new"] = _inferred("old", "which of two texts goes with it")

    delivery: Delivery = _inferred(
        "gzip",
        "the file: gzip; plain; gzip of several members; gzip in gzip; plain or gzip under Content-Encoding: gzip; "
        "stored as gzip and inflated on the way, or compressed anew, under the hash of what is stored",
    )
    framing: Framing = _inferred("length", "how a download's end is told")
    etag: bool = _inferred(True, "downloads have an ETag")
    ranges: bool = _inferred(True, "Range and If-Range are obeyed; else the whole file comes")
    goog_hash: Literal["both", "crc32c", "md5", "none", "wrong"] = _inferred("both", "the x-goog-hash headers")
    stored_form: bool = _inferred(False, "headers say how the file is stored, and what was done to it on the way")
    file_name: str = _documented("", "the name in Content-Disposition, raw; empty: segment and date")
    filler_bytes: int | None = _ours(None, "every export is a file of this size, uncompressed")

    segments: int = _ours(60, "how many segments there are besides those built in")

    def __post_init__(self) -> None:
        if not self.speed > 0 or not self.requests_per_minute > 0 or self.burst < 1:
            raise ValueError("speed, requests_per_minute and burst must be more than zero")
        for name, known in _choices().items():
            if getattr(self, name) not in known:
                said = ", ".join(map(str, known))
                raise ValueError(f"{name} is one of {said}, not {getattr(self, name)!r}")

    def shortened(self, seconds: float) -> float:
        """A duration as it is at this speed."""
        return seconds / self.speed


@cache
def _choices() -> dict[str, tuple[Any, ...]]:
    hints = get_type_hints(SandboxBehaviour)
    return {name: get_args(hint) for name, hint in hints.items() if getattr(hint, "__origin__", None) is Literal}


def changed(behaviour: SandboxBehaviour, given: Mapping[str, Any]) -> SandboxBehaviour:
    """The behaviour with some switches set by name; values may be text, as they come from a command line.

    Raises:
        ValueError: there is no such switch, or it cannot be that.
    """
    hints = get_type_hints(SandboxBehaviour)
    return replace(behaviour, **{name: _parse_value(name, hints.get(name), value) for name, value in given.items()})


def _parse_value(name: str, hint: Any, value: Any) -> Any:
    if hint is None or name == "rows":
        near = difflib.get_close_matches(name, [one.name for one in switches()], n=1)
        raise ValueError(f"no such switch: {name!r}" + (f"; is {near[0]!r} meant?" if near else ""))
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
    """All of them, in order."""
    return fields(SandboxBehaviour)


def describe(defaults: SandboxBehaviour | None = None) -> str:
    """The switches as a table for people: name, default, mark, and what it does.

    Args:
        defaults: What they are by default; None: as those of `SandboxBehaviour()`.
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
