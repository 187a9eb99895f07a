"""Archives that look like the service's: gzipped NDJSON of made-up events, about a kilobyte each.

What matters is how well they compress and how long their lines are, since decompressing and counting rows is what
costs. So rows repeat a lot within a page view, but have numbers and times that do not. The same seed gives the same
bytes.
"""

import random
import struct
import sys
import zlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import orjson

TYPES = ("click", "navigate", "load", "change", "seen", "custom", "request", "pageview", "thrash", "highlight")
WORDS = ("basket", "checkout", "account", "search", "product", "review", "order", "invoice", "team", "settings")
AGENT = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/{}.0.{}.{} Safari/537.36"
LEVEL = 6
"""gzip's default."""

GZIP_HEADER = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"

SESSIONS_TOGETHER = 200
"""Sessions that are mixed, as in half an hour of a busy site: similar rows are then rarely within gzip's window."""

ROWS_AT_ONCE = 50


def write_archive(path: Path, *, bytes_at_least: int, seed: int) -> tuple[int, int]:
    """Write an archive of at least this size; return how many rows it has and how many bytes these are."""
    packer = zlib.compressobj(LEVEL, zlib.DEFLATED, 31)
    written = count = inflated = 0
    with path.open("wb") as file:
        for rows in _blocks(seed):
            written += file.write(packer.compress(rows))
            count += rows.count(b"\n")
            inflated += len(rows)
            if written >= bytes_at_least:
                file.write(packer.flush())
                return count, inflated
    raise AssertionError("the rows never end")


def write_inflating_to(path: Path, *, inflated_at_least: int, seed: int) -> tuple[int, int]:
    """Write an archive of at least this size uncompressed; return how many rows it has and how many bytes these are.

    Compressing a gigabyte takes long, so the same rows are compressed once and repeated.
    """
    block = b"".join(islice(_blocks(seed), 400))
    packer = zlib.compressobj(LEVEL, zlib.DEFLATED, -15)
    packed = packer.compress(block) + packer.flush(zlib.Z_FULL_FLUSH)
    times = -(-inflated_at_least // len(block))
    crc = 0
    with path.open("wb") as file:
        file.write(GZIP_HEADER)
        for _ in range(times):
            file.write(packed)
            crc = zlib.crc32(block, crc)
        file.write(zlib.compressobj(LEVEL, zlib.DEFLATED, -15).flush())
        file.write(struct.pack("<II", crc, len(block) * times % 2**32))
    return block.count(b"\n") * times, len(block) * times


def _blocks(seed: int) -> Iterator[bytes]:
    """Yield rows endlessly, from a few hundred sessions at a time, in random order like the service's."""
    chance = random.Random(seed)
    while True:
        rows = [row for _ in range(SESSIONS_TOGETHER) for row in _rows_of_session(chance)]
        chance.shuffle(rows)
        for first in range(0, len(rows), ROWS_AT_ONCE):
            yield b"".join(rows[first : first + ROWS_AT_ONCE])


def _rows_of_session(chance: random.Random) -> Iterator[bytes]:
    session = _session(chance)
    for _ in range(chance.randrange(1, 8)):
        page = session | _page(chance)
        for _ in range(chance.randrange(1, 24)):
            yield orjson.dumps(page | _event(chance)) + b"\n"


def _session(chance: random.Random) -> dict[str, Any]:
    number = chance.getrandbits(40)
    major, build, patch = chance.randrange(90, 130), chance.randrange(4000, 7000), chance.randrange(200)
    return {
        "IndvId": chance.getrandbits(63),
        "UserId": chance.getrandbits(63),
        "SessionId": chance.getrandbits(63),
        "UserCreated": _moment(chance),
        "UserAppKey": f"cust-{number}",
        "UserDisplayName": f"Sample Shopper {number % 100_000}",
        "UserEmail": f"shopper{number}@example.com",
        "SessionStart": _moment(chance),
        "PageIp": ".".join(str(chance.randrange(256)) for _ in range(4)),
        "PageLatLong": f"{chance.uniform(-90, 90):.4f},{chance.uniform(-180, 180):.4f}",
        "PageUserAgent": AGENT.format(major, build, patch),
        "PageBrowser": "Chrome",
        "PageBrowserVersion": f"{major}.0.{build}.{patch}",
        "PageDevice": chance.choice(("Desktop", "Mobile", "Tablet")),
        "PagePlatform": "web",
        "PageOperatingSystem": chance.choice(("Linux", "Windows", "OS X", "Android", "iOS")),
        "PageScreenWidth": chance.choice((1280, 1440, 1920, 2560)),
        "PageScreenHeight": chance.choice((720, 900, 1080, 1440)),
        "user_plan_str": chance.choice(("trial", "team", "enterprise")),
    }


def _page(chance: random.Random) -> dict[str, Any]:
    path = "/".join(chance.choices(WORDS, k=3))
    return {
        "PageId": chance.getrandbits(53),
        "PageStart": _moment(chance),
        "PageDuration": chance.randrange(100_000),
        "PageActiveDuration": chance.randrange(50_000),
        "PageUrl": f"https://shop.example/{path}?id={chance.getrandbits(48):x}",
        "PageRefererUrl": f"https://shop.example/{chance.choice(WORDS)}",
        "PageNumInfos": chance.randrange(3),
        "PageNumWarnings": chance.randrange(9),
        "PageNumErrors": chance.randrange(3),
        "PageClusterId": chance.randrange(500),
        "PageNumEvents": chance.randrange(300),
        "PageMaxScrollDepthPercent": chance.randrange(101),
    }


def _event(chance: random.Random) -> dict[str, Any]:
    word = chance.choice(WORDS)
    return {
        "EventStart": _moment(chance),
        "EventType": chance.choice(TYPES),
        "EventTargetText": f"{word} {chance.randrange(1000)}",
        "EventTargetSelector": f"div#{word} > ul > li:nth-child({chance.randrange(40)}) > a.{chance.choice(WORDS)}",
        "EventPageOffset": chance.randrange(1_000_000),
        "EventSessionOffset": chance.randrange(10_000_000),
        "EventModFrustrated": chance.randrange(2),
        "EventModDead": chance.randrange(2),
        "evt_price_real": round(chance.uniform(0, 500), 2),
        "evt_order.items_real": chance.randrange(9),
    }


def _moment(chance: random.Random) -> str:
    """Return a random time on 2026-01-01."""
    seconds, millis = divmod(chance.randrange(86_400_000), 1000)
    return f"2026-01-01T{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}.{millis:03}Z"


if __name__ == "__main__" and len(sys.argv) == 3:
    print(*write_inflating_to(Path(sys.argv[1]), inflated_at_least=int(sys.argv[2]), seed=1))
