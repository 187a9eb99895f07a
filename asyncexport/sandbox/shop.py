"""The fictional shop: its pages and the events on them.

Every kind of page has a pool of events, made once; a table says how many of each type. The texts contain what is
difficult for a parser: all sorts of line breaks, quotes, commas, tabs, backslashes and other scripts.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

from asyncexport.sandbox.chance import mixed, pick
from asyncexport.sandbox.rows import Row

SITE = "https://kettleandleaf.example"


@dataclass(frozen=True, slots=True)
class SandboxShopEvent:
    """An event on a page, as the members that it adds to a row.

    Attributes:
        event: `EventType` and other members whose name begins with Event.
        timing: Members that a load or a request adds.
        variables: Custom variables, `evt_…`.
        twin: Another event at the same time that always accompanies this one.
    """

    event: Row
    timing: Row = field(default_factory=dict)
    variables: Row = field(default_factory=dict)
    twin: "SandboxShopEvent | None" = None


@dataclass(frozen=True, slots=True)
class SandboxPageKind:
    """A kind of page of the site or view of the app.

    Attributes:
        addresses: Its possible URLs or view names.
        variables: Sets of custom variables, `page_…`; a page has one of them.
        table: The number of events of each type in its pool.
    """

    name: str
    cluster_id: int
    addresses: tuple[str, ...]
    variables: tuple[Row, ...]
    table: Mapping[str, int]
    in_the_app: bool = False


@cache
def boundary_events(kind: str) -> tuple[SandboxShopEvent, ...]:
    """Return the events that a page begins with (`navigate`, `load`) or ends with (`pageview`)."""
    rng = random.Random(mixed(*kind.encode()))
    return tuple(MAKERS[kind](rng) for _ in range(64))


@cache
def pool(number: int) -> tuple[SandboxShopEvent, ...]:
    """Return the events that may happen on a page of the kind with this number in KINDS."""
    rng = random.Random(mixed(number))
    return tuple(MAKERS[kind](rng) for kind, count in KINDS[number].table.items() for _ in range(count))


def _navigate(rng: random.Random) -> SandboxShopEvent:
    return SandboxShopEvent(
        {"EventType": "navigate", "EventSubType": pick(rng, ("navigate", "navigate", "reload", "back_forward"))}
    )


def _pageview(_: random.Random) -> SandboxShopEvent:
    return SandboxShopEvent({"EventType": "pageview"})


def _load(rng: random.Random) -> SandboxShopEvent:
    content = 180 + int(rng.random() ** 2 * 2400)
    paint = content + int(rng.random() * 200)
    timing = {"LoadDomContentTime": content, "LoadFirstPaintTime": paint}
    if rng.random() < 0.7:
        timing["LoadLargestPaintTime"] = paint + int(rng.random() * 900)
    return SandboxShopEvent({"EventType": "load"}, timing | {"LoadEventTime": paint + int(rng.random() * 1200)})


def _click(rng: random.Random) -> SandboxShopEvent:
    event: Row = {
        "EventType": "click",
        "EventTargetText": pick(rng, TEXTS),
        "EventTargetSelector": pick(rng, SELECTORS),
    }
    draw = rng.random()
    if draw < 0.06:
        event["EventModDead"] = 1
    elif draw < 0.1:
        event["EventModError"] = 1 + int(rng.random() * 3)
    elif draw < 0.13:
        event["EventModFrustrated"] = 1 + int(rng.random() * 6)
    elif draw < 0.15:
        event["EventModSuspicious"] = 1 + int(rng.random() * 2)
    return SandboxShopEvent(event)


def _on_target(kind: str) -> Callable[[random.Random], SandboxShopEvent]:
    """Return a maker of events of this type on an element of the page, with or without text."""

    def make(rng: random.Random) -> SandboxShopEvent:
        event: Row = {"EventType": kind, "EventTargetText": pick(rng, TEXTS) if rng.random() < 0.9 else ""}
        event["EventTargetSelector"] = pick(rng, SELECTORS)
        if kind in {"highlight", "thrash", "seen"} and rng.random() < 0.5:
            event["EventDuration"] = int(rng.random() * 4000)
        if kind == "seen":
            event["EventSubType"] = pick(rng, ("rendered", "visible"))
            event["EventSecondaryDuration"] = int(rng.random() * 900)
        return SandboxShopEvent(event)

    return make


def _plain(kind: str, *subtypes: str) -> Callable[[random.Random], SandboxShopEvent]:
    """Return a maker of events that have little more than a type."""

    def make(rng: random.Random) -> SandboxShopEvent:
        return SandboxShopEvent({"EventType": kind} | ({"EventSubType": pick(rng, subtypes)} if subtypes else {}))

    return make


def _custom(rng: random.Random) -> SandboxShopEvent:
    name, price, unit = pick(rng, TEAS)
    variables: Row = {"evt_name_str": name, "evt_price_real": price, "evt_unit_str": unit}
    name_of_event = pick(rng, ("Tea Viewed", "Tea Added", "Tea Added", "Tea Removed", "Basket Paid"))
    if name_of_event == "Basket Paid":
        items = 1 + int(rng.random() * 5)
        variables |= {"evt_order.items_int": items, "evt_order.total_real": round(items * price, 2)}
        variables |= {"evt_order.id_str": f"{rng.getrandbits(40):010x}", "evt_order.gift_bool": rng.random() < 0.2}
    if rng.random() < 0.3:
        variables["evt_description_str"] = pick(rng, DESCRIPTIONS)
    return SandboxShopEvent({"EventType": "custom", "EventCustomName": name_of_event}, variables=variables)


def _custom_error(rng: random.Random) -> SandboxShopEvent:
    """Return an error about a custom event. As in real data, the event itself comes too and is otherwise equal."""
    custom = _custom(rng)
    names = [name.removeprefix("evt_").rpartition("_")[0] for name in custom.variables]
    event = custom.event | {"EventType": "custom_error"} | _error_members(rng, names)
    return SandboxShopEvent(event, variables=custom.variables, twin=custom)


def _element_error(kind: str) -> Callable[[random.Random], SandboxShopEvent]:
    """Return a maker of errors about the variables of an element that was clicked or seen."""

    def make(rng: random.Random) -> SandboxShopEvent:
        return SandboxShopEvent(_on_target(kind)(rng).event | _error_members(rng, ("price", "name", "stock")))

    return make


def _error_members(rng: random.Random, names: Sequence[str]) -> Row:
    """Return the members that say which variables were wrong and why. The kinds are a guess."""
    fields = names[: 1 + int(rng.random() * len(names))]
    kind = pick(rng, ("type_mismatch", "type_mismatch", "limit_reached"))
    return {"EventVarErrorKind": kind, "EventVarFields": ",".join(fields)}


def _request(rng: random.Random) -> SandboxShopEvent:
    timing: Row = {"ReqUrl": f"{SITE}/api/{pick(rng, PATHS)}", "ReqMethod": pick(rng, ("GET", "GET", "POST", "PUT"))}
    timing["ReqStatus"] = pick(rng, (200, 200, 200, 200, 204, 304, 404, 429, 500))
    return SandboxShopEvent({"EventType": "request", "EventDuration": 20 + int(rng.random() ** 3 * 5000)}, timing)


def _console(rng: random.Random) -> SandboxShopEvent:
    event = {"EventType": "console_message", "EventSubType": "error", "EventTargetText": pick(rng, MESSAGES)}
    return SandboxShopEvent(event)


def _exception(rng: random.Random) -> SandboxShopEvent:
    event = {"EventType": "exception", "EventSubType": "uncaught", "EventTargetText": pick(rng, MESSAGES)}
    return SandboxShopEvent(event | {"EventWebSourceFileUrl": f"{SITE}/static/{pick(rng, ('basket', 'kettle'))}.js"})


def _first_input(rng: random.Random) -> SandboxShopEvent:
    return SandboxShopEvent(
        {"EventType": "first_input_delay", "EventFirstInputDelay": 1 + int(rng.random() ** 4 * 300)}
    )


def _shift(rng: random.Random) -> SandboxShopEvent:
    shift = pick(rng, (0, 0.0004, 0.0312, 0.25, 1.5))
    return SandboxShopEvent({"EventType": "cumulative_layout_shift", "EventCumulativeLayoutShift": shift})


def _crash(rng: random.Random) -> SandboxShopEvent:
    event = {"EventType": "crashed", "EventTargetText": pick(rng, MESSAGES)}
    return SandboxShopEvent(event | {"EventMobileSourceFile": pick(rng, ("BasketView.swift", "ShelfFragment.kt"))})


MAKERS: Mapping[str, Callable[[random.Random], SandboxShopEvent]] = {
    "navigate": _navigate,
    "pageview": _pageview,
    "load": _load,
    "click": _click,
    **{kind: _on_target(kind) for kind in ("change", "copy", "highlight", "paste", "seen", "thrash")},
    **{kind: _element_error(kind) for kind in ("click_error", "seen_error")},
    **{kind: _plain(kind) for kind in ("abandon", "backgrounded", "keyboard_open", "keyboard_close", "low_memory")},
    "pinch_gesture": _plain("pinch_gesture", "pinch_scale_in", "pinch_scale_out"),
    "custom": _custom,
    "custom_error": _custom_error,
    "uservar": _plain("uservar"),
    "request": _request,
    "console_message": _console,
    "exception": _exception,
    "first_input_delay": _first_input,
    "cumulative_layout_shift": _shift,
    "crashed": _crash,
}
"""The function that makes an event, by type."""

_BROWSING = {
    "click": 110,
    "seen": 60,
    "request": 40,
    "custom": 24,
    "change": 12,
    "highlight": 8,
    "uservar": 8,
    "first_input_delay": 8,
    "cumulative_layout_shift": 8,
    "console_message": 6,
    "copy": 4,
    "thrash": 4,
    "exception": 3,
    "click_error": 2,
    "custom_error": 2,
    "abandon": 1,
}
_BUYING = _BROWSING | {"change": 60, "paste": 8, "custom": 50, "custom_error": 12, "seen_error": 6, "abandon": 6}
_IN_THE_APP = {
    "click": 110,
    "seen": 40,
    "request": 40,
    "custom": 30,
    "keyboard_open": 14,
    "keyboard_close": 14,
    "backgrounded": 8,
    "pinch_gesture": 8,
    "low_memory": 2,
    "crashed": 1,
}

TEAS: Sequence[tuple[str, float, str]] = (
    ("Foggy Morning", 12.5, "100 g"),
    ("Smoke & Pine", 9, "50 g"),
    ("Grandmother's Garden", 4, "20 bags"),
    ("Número Três", 7.25, "50 g"),
    ("Blå Fjord", 11.9, "100 g"),
    ("雨前 No. 2", 64, "50 g"),
    ('The "Very Strong" One', 5.75, "20 bags"),
    ("Мята и мёд", 6.4, "50 g"),
)

KINDS: tuple[SandboxPageKind, ...] = (
    SandboxPageKind("Home", 71, (f"{SITE}/", f"{SITE}/?ref=mail&week=12", f"{SITE}/#/welcome"), ({},), _BROWSING),
    SandboxPageKind(
        "Shelf",
        72,
        (f"{SITE}/shelf", f"{SITE}/shelf?sort=price,asc&kind=green", f"{SITE}/shelf?kind=o%C3%B6long#top"),
        ({"page_sort_str": "price,asc", "page_shown_int": 24}, {"page_sort_str": ""}, {}),
        _BROWSING,
    ),
    SandboxPageKind(
        "Tea",
        73,
        tuple(f"{SITE}/tea/{number}" for number in range(1, 9)),
        tuple({"page_tea.name_str": name, "page_tea.price_real": price} for name, price, _ in TEAS),
        _BROWSING,
    ),
    SandboxPageKind(
        "Search",
        74,
        (
            f'{SITE}/search?q="first flush", please',
            f"{SITE}/search?q=th\u00e9 vert \U0001f375",
            f"{SITE}/search?q=pasted\nfrom a\r\nletter",
            f"{SITE}/search?q=tab\there\\and\\there",
        ),
        ({"page_hits_int": 0, "page_exact_bool": False}, {"page_hits_int": 12, "page_exact_bool": True}),
        _BROWSING,
    ),
    SandboxPageKind("Basket", 75, (f"{SITE}/#/basket",), ({}, {"page_coupon_str": "SPRING,10%"}), _BUYING),
    SandboxPageKind(
        "Checkout", 76, (f"{SITE}/#/checkout", f"{SITE}/#/checkout/pay"), ({}, {"page_step_int": 2}), _BUYING
    ),
    SandboxPageKind(
        "Journal", 77, (f"{SITE}/journal/how-to-warm-a-pot", f"{SITE}/journal/%E8%8C%B6"), ({},), _BROWSING
    ),
    SandboxPageKind("App home", 81, ("Home",), ({},), _IN_THE_APP, in_the_app=True),
    SandboxPageKind(
        "App shelf", 82, ("Shelf", "Shelf/Green"), ({"page_sort_str": "price,asc"}, {}), _IN_THE_APP, in_the_app=True
    ),
    SandboxPageKind("App basket", 83, ("Basket", "Basket/Pay"), ({},), _IN_THE_APP, in_the_app=True),
)

ON_THE_SITE = (0, 0, 1, 1, 1, 2, 2, 2, 2, 3, 4, 5, 6)
IN_THE_APP = (7, 8, 8, 8, 9)
"""Numbers of kinds in KINDS; a kind that occurs more often is more frequent."""

SELECTORS = (
    "main .shelf .card button.add",
    'header nav a[href="/shelf"]',
    "form.checkout label:nth-child(3) > input",
    "#basket li .remove",
    "footer .links a",
    ".hero::before",
)

TEXTS = (
    *("Add to basket", "Buy now", "Shelf", "Sign in", "Remove", "1", "true", "Next »"),
    *("In den Korb", "Añadir a la cesta", "Ajouter au panier", "カートに入れる", "أضف إلى السلة", "Добавить"),
    "Only 3 left!\nOrder soon, they say",
    'Pot, 6" wide, "as new"',
    "Copied from\r\nanother window",
    "tea\tcup\tpot",
    "\\\\nas\\tea\\orders.csv",
    "Warm the pot 🫖, then wait 👩‍🍳",
    "one line\u2028and, to some, another",
    "old\rMac",
    '"',
    " leading and trailing ",
    "null",
    "=SUM(A1:A9)",
    "",
)

DESCRIPTIONS = (
    'Picked before the rain.\nServe at 70 °C, "no more".',
    "Smells of pine, smoke, and other people's holidays.",
    "Für Kenner",
    "",
)

MESSAGES = (
    "TypeError: can't read 'leaf' of undefined\n    at steep (kettle.js:12:7)\n    at brew (kettle.js:40:3)",
    'The card was declined: "insufficient funds", code 51',
    "timeout after 30000 ms",
    "C:\\kettle\\boil.dll missing",
)

PATHS = ("teas?limit=24", "basket", "orders", "search?q=%22first%20flush%22", "stock/3")
