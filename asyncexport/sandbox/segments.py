"""Segments: built-in ones, synthetic ones, and which individuals are in them.

A hash of the segment's id and the individual's decides who is in a segment other than everyone: about a third of all
individuals, always the same. It does not imitate the content of real segments.
"""

import hashlib
from collections.abc import Mapping
from functools import cache
from typing import Any

from asyncexport.sandbox.answers import SandboxAnswer, reply, stamp
from asyncexport.sandbox.reading import SandboxRefusal
from asyncexport.sandbox.rows import Row

EVERYONE = "everyone"

BUILT_IN = {
    EVERYONE: "Everyone",
    "rageClicks": "Rage clicks",
    "errorClicks": "Error clicks",
    "deadClicks": "Dead clicks",
}
"""The built-in segments with their names. The API lists them without `created`."""

PAGE, MOST = 20, 100

SUBJECTS = (
    "Checkout",
    "Search",
    "Sign-up",
    "Basket",
    "Returns",
    "Newsletter",
    "Vouchers",
    "Gift cards",
    "Ümläute & <b>",
)
WHO = ("visitors", "drop-outs", "regulars", "on phones", "with errors")


@cache
def segments(count: int) -> Mapping[str, dict[str, Any]]:
    """Return all segments by id, `count` synthetic ones among them."""
    made = [_built_in(segment_id) for segment_id in BUILT_IN] + [_made_up(number) for number in range(count)]
    return {segment["id"]: segment for segment in made}


def listed(query: Mapping[str, str], count: int) -> SandboxAnswer:
    """Return a page of the list.

    Raises:
        SandboxRefusal: The query is invalid.
    """
    limit = read_limit(query, default=PAGE, most=MOST)
    creator = query.get("creator", "")
    found = [one for one in segments(count).values() if not creator or one["creator"] == creator]
    start = _first_number(query.get("paginationToken", ""))
    data: dict[str, Any] = {"segments": found[start : start + limit]}
    if start + limit < len(found):
        data["nextPaginationToken"] = f"tok{start + limit}"
    return reply(data)


def shown(segment_id: str, count: int) -> SandboxAnswer:
    """Return one segment.

    Raises:
        SandboxRefusal: The segment does not exist.
    """
    found = segments(count).get(segment_id)
    if found is None:
        raise SandboxRefusal(404, "resource_not_found", "no such segment")
    return reply(found)


def name_of(segment_id: str, count: int) -> str:
    """Return the name of a segment, as used in the file names of its exports."""
    found = segments(count).get(segment_id)
    return str(found["name"]) if found else segment_id


def holds(segment_id: str, row: Row) -> bool:
    """Return whether a row's individual is in the segment."""
    if segment_id == EVERYONE:
        return True
    digest = hashlib.blake2b(f"{segment_id} {row.get('IndvId')}".encode(), digest_size=2).digest()
    return int.from_bytes(digest, "big") % 3 == 0


def read_limit(query: Mapping[str, str], *, default: int, most: int) -> int:
    """Return the number of items on a page, limited to the maximum.

    Raises:
        SandboxRefusal: The limit is not a number above zero.
    """
    text = query.get("limit", "")
    if not text:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text)):
        raise SandboxRefusal(400, "bad_request", "limit is not a number above zero")
    return min(int(text), most)


def _first_number(token: str) -> int:
    number = token.removeprefix("tok")
    if not token:
        return 0
    if not (token.startswith("tok") and number.isascii() and number.isdigit() and len(number) < 10):
        raise SandboxRefusal(400, "bad_request", "the paginationToken is unknown")
    return int(number)


def _built_in(segment_id: str) -> dict[str, Any]:
    return {"id": segment_id, "name": BUILT_IN[segment_id], "creator": "", "url": _segment_url(segment_id)}


def _made_up(number: int) -> dict[str, Any]:
    """Return a synthetic segment. Every third has an id of the old kind, which contains an email address."""
    creator = ("owner@example.com", "analyst@example.com")[number % 2]
    digest = hashlib.blake2b(f"segment {number}".encode(), digest_size=9).hexdigest()
    segment_id = f"{creator}:{4_100_200_300_400_500 + number}" if number % 3 == 2 else f"sg{digest[:12]}"
    name = f"{SUBJECTS[number % len(SUBJECTS)]} {WHO[number // len(SUBJECTS) % len(WHO)]}"
    created = stamp(1_707_638_744.902 + number * 86_400, digits=3)
    return {"id": segment_id, "name": name, "creator": creator, "created": created, "url": _segment_url(segment_id)}


def _segment_url(segment_id: str) -> str:
    return f"https://app.fullstory.com/ui/ORG/segments/{segment_id}"
