"""The visitors of the fictional shop and their devices.

1. A visitor first comes on one day and never after LIFE_DAYS days. So all events of a visitor lie within a week, and
   totals can be computed without going through years.
2. About half of the visitors are identified. An identified visitor with two devices has two `UserId`s and one `IndvId`.
   For an anonymous visitor the two ids are equal.
"""

import random
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache

from asyncexport.core.bundles import DAY
from asyncexport.sandbox.chance import identifier, mixed, pick
from asyncexport.sandbox.rows import Row

LIFE_DAYS = 7


@dataclass(frozen=True, slots=True)
class SandboxDevice:
    """A device: its members in a row, and those of the app if it runs the app."""

    facts: Row
    app: Row

    @property
    def runs_the_app(self) -> bool:
        """Whether it shows views of the app instead of pages of the site."""
        return bool(self.app)


@dataclass(frozen=True, slots=True)
class SandboxVisitor:
    """A visitor of the shop.

    Attributes:
        devices: The devices, each with its `UserId`.
        created: `UserCreated`, if the visitor is identified.
        known: `UserAppKey`, name and email.
        variables: Custom variables, `user_…`.
        place: `PageIp` and `PageLatLong`.
    """

    indv_id: int
    devices: tuple[tuple[int, SandboxDevice], ...]
    created: Row
    known: Row
    variables: Row
    place: Row


@lru_cache(maxsize=1 << 14)
def visitor(seed: int, day: int, number: int) -> SandboxVisitor:
    """Return the visitor with this number among those of this day, which is counted from 1970."""
    rng = random.Random(mixed(seed, day, number))
    place = {"PageIp": pick(rng, IPS), "PageLatLong": pick(rng, PLACES)}
    first, second = (identifier(rng), pick(rng, DEVICES)), (identifier(rng), pick(rng, DEVICES))
    if rng.random() < 0.5:
        known = {"UserAppKey": "", "UserDisplayName": f"User {rng.getrandbits(16)}", "UserEmail": ""}
        return SandboxVisitor(first[0], (first,), {}, known, {}, place)
    devices = (first, second) if rng.random() < 0.4 else (first,)
    given, family = pick(rng, GIVEN_NAMES), pick(rng, FAMILY_NAMES)
    customer = rng.getrandbits(24)
    known = {
        "UserAppKey": f"cust-{customer}",
        "UserDisplayName": f"{given} {family}",
        "UserEmail": f"{given.lower().split()[0]}.{customer}@example.com" if rng.random() < 0.9 else "",
    }
    return SandboxVisitor(
        identifier(rng), devices, {"UserCreated": _created_stamp(rng, day)}, known, _variables(rng), place
    )


def _created_stamp(rng: random.Random, day: int) -> str:
    """Return a time before the first visit, to the second."""
    moment = day * DAY - int(rng.random() ** 3 * 400 * DAY) - 1
    return datetime.fromtimestamp(max(moment, 0), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _variables(rng: random.Random) -> Row:
    """Return custom variables; visitors have different sets of them."""
    variables: Row = {"user_plan_str": pick(rng, ("trial", "leaf", "kettle & more", ""))}
    if rng.random() < 0.6:
        variables["user_newsletter_bool"] = rng.random() < 0.5
    if rng.random() < 0.5:
        variables["user_loyalty.points_int"] = int(rng.random() ** 4 * 9000)
    if rng.random() < 0.3:
        variables["user_spent_real"] = pick(rng, (0, 12.5, 48, 199.99, 1024.75))
    if rng.random() < 0.1:
        variables["user_note_str"] = pick(rng, NOTES)
    return variables


def _web(agent: str, *facts: str | int) -> SandboxDevice:
    keys = ("PageBrowser", "PageBrowserVersion", "PageDevice", "PagePlatform", "PageOperatingSystem")
    sizes = ("PageScreenWidth", "PageScreenHeight", "PageViewportWidth", "PageViewportHeight")
    return SandboxDevice({"PageUserAgent": agent} | dict(zip(keys + sizes, facts, strict=True)), {})


def _phone(vendor: str, model: str, system: str, version: str) -> SandboxDevice:
    facts = {"PageDevice": "Mobile", "PagePlatform": system, "PageOperatingSystem": system}
    app = {"AppName": "Kettle & Leaf", "AppPackageName": "example.kettleandleaf.app", "AppDeviceModel": model}
    app |= {"AppDeviceVendor": vendor, "AppVersion": "4.2.0", "AppOsVersion": version}
    return SandboxDevice(facts | {"PageScreenWidth": 412, "PageScreenHeight": 915}, app)


_MOZILLA = "Mozilla/5.0"
_KIT = "AppleWebKit/537.36 (KHTML, like Gecko)"

DEVICES = (
    *(
        _web(
            f"{_MOZILLA} (Windows NT 10.0; Win64; x64) {_KIT} Chrome/{version}.0.0.0 Safari/537.36",
            *("Chrome", f"{version}.0.0.0", "Desktop", "Web", "Windows", width, height, width - 16, height - 137),
        )
        for version, width, height in ((118, 1920, 1080), (120, 1536, 864), (121, 2560, 1440))
    ),
    _web(
        f"{_MOZILLA} (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.1 "
        "Safari/605.1.15",
        *("Safari", "17.1", "Desktop", "Web", "OS X", 1440, 900, 1440, 764),
    ),
    _web(
        f"{_MOZILLA} (X11; Linux x86_64; rv:121.0) Gecko/20100101 Firefox/121.0",
        *("Firefox", "121.0", "Desktop", "Web", "Linux", 1920, 1200, 1904, 1051),
    ),
    _web(
        f"{_MOZILLA} (iPhone; CPU iPhone OS 17_2 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.2 "
        "Mobile/15E148 Safari/604.1",
        *("Safari", "17.2", "Mobile", "Web", "iOS", 390, 844, 390, 664),
    ),
    _web(
        f"{_MOZILLA} (Linux; Android 13; SM-X200) {_KIT} Chrome/119.0.0.0 Safari/537.36",
        *("Chrome", "119.0.0.0", "Tablet", "Web", "Android", 1200, 1920, 1200, 1704),
    ),
    _web(
        f"{_MOZILLA} (Linux; Android 14; Pixel 7) {_KIT} Chrome/120.0.0.0 Mobile Safari/537.36",
        *("Chrome", "120.0.0.0", "Mobile", "Web", "Android", 412, 915, 412, 782),
    ),
    _phone("Google", "Pixel 7", "Android", "14"),
    _phone("Apple", "iPhone14,5", "iOS", "17.2"),
)
"""The devices; one in five runs the app."""

IPS = ("", "", "", "192.0.2.17", "198.51.100.8", "203.0.113.44", "2001:db8::7e:a")
"""Addresses; many are left out, the others are from ranges reserved for documentation."""

PLACES = ("38.7223,-9.1393", "35.0116,135.7681", "43.6532,-79.3832", "-1.2864,36.8172", "50.0647,19.9450", "")

GIVEN_NAMES = (
    "Ana",
    "Beatriz",
    "Chidi",
    "Dorothée",
    "Emre",
    "Fatou",
    "Günther",
    "Håkon",
    "Ivana",
    "Jun",
    "Łucja",
    "美咲",
)

FAMILY_NAMES = (
    "Almeida",
    "O'Brien",
    "Castro-Núñez",
    "Đorđević",
    "Eze",
    "Fjeld",
    "García",
    "Ἀθηναῖος",
    "Ito",
    'Jones "JJ"',
)

NOTES = ("calls back,\nmornings only", 'says "no milk"', "C:\\tea\\orders", "prefers\tloose leaf", "🫖 regular")
