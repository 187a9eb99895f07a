"""Which property of the Data Direct table comes from which column of the flat table.

1. Names are those of the vendor's table, as far as the vendor's pages, code or views show them (`Basis`). Fields
   without a counterpart there stay in the flat table, which has the same `event_id`.
2. A path with dots stands for nested objects.
3. A type that is not listed keeps its name and gets a `target`: the vendor may add types at any time.
"""

from dataclasses import dataclass, field
from enum import Enum

from asyncexport.core.exports import Type
from asyncexport.core.warehouse.columns import Layout
from asyncexport.core.warehouse.data_direct.values import (
    Value,
    choice,
    difference,
    number,
    share,
    text,
    text_if_any,
    time,
)
from asyncexport.core.warehouse.identifiers import quoted


class Basis(Enum):
    """How sure a name is.

    `DOCUMENTED`: the vendor's pages say so. `CODE`: code that the vendor publishes uses it. `VIEWS`: it follows from
    the name of a column in the vendor's flattened views.
    """

    DOCUMENTED = "documented"
    CODE = "code"
    VIEWS = "views"


@dataclass(frozen=True, slots=True)
class Property:
    """One property, or one object that is made outside of SQL.

    Attributes:
        path: Its path within the JSON, with dots.
        value: Where it comes from.
        basis: How sure the path is.
        remark: In which way the value is only an approximation; "" if it is exact.
    """

    path: str
    value: Value
    basis: Basis
    remark: str = ""


@dataclass(frozen=True, slots=True)
class EventType:
    """What a type of event becomes.

    Attributes:
        name: Its name in the Data Direct table.
        properties: What `event_properties` holds.
        remark: In which way the event is only an approximation; "" if it is the same.
    """

    name: str
    properties: tuple[Property, ...] = field(default=())
    remark: str = ""


def url(column: str) -> Value:
    """Return the six parts of a URL; the statement joins them (`urls.py`)."""
    return Value(f"{quoted(column)}.parts", (column,))


TARGET = (
    Property("target.text", text("EventTargetText"), Basis.CODE),
    Property("target.raw_selector", text("EventTargetSelector"), Basis.CODE),
)

CUSTOM_VARIABLES = Value("variables.nested", ("evt_*",))
USER_VARIABLES = Value("variables.nested", ("user_*",))
"""Variables as nested objects; the statement joins them (`nesting.py`)."""

AS_OF_EXPORT = "as of the export, not of the moment"

IDENTIFY = EventType(
    "identify",
    (
        Property("user_id", text_if_any("UserAppKey"), Basis.CODE, AS_OF_EXPORT),
        Property("user_email", text_if_any("UserEmail"), Basis.CODE, AS_OF_EXPORT),
        Property("user_display_name", text_if_any("UserDisplayName"), Basis.CODE, AS_OF_EXPORT),
        Property("user_properties", USER_VARIABLES, Basis.CODE, AS_OF_EXPORT),
    ),
    remark="that the site's call to identify a user shows as `uservar` is a guess",
)

EVENT_TYPES: dict[str, EventType] = {
    "click": EventType(
        "click",
        (
            *TARGET,
            Property("fs_rage_count", number("EventModFrustrated"), Basis.DOCUMENTED, "a running total within a burst"),
            Property("fs_dead_count", number("EventModDead"), Basis.VIEWS),
            Property(
                "fs_error_kind",
                choice("EventModError", {1: '"unknown"', 2: '"console"', 3: '"exception"'}),
                Basis.VIEWS,
                "which number is which kind is a guess",
            ),
        ),
    ),
    "navigate": EventType("navigate", (Property("navigate_reason", text("EventSubType"), Basis.DOCUMENTED),)),
    "custom": EventType(
        "custom",
        (
            Property("event_name", text("EventCustomName"), Basis.CODE),
            Property("event_properties", CUSTOM_VARIABLES, Basis.VIEWS, "names are guesses"),
        ),
    ),
    "change": EventType("change", TARGET),
    "copy": EventType("copy", TARGET),
    "paste": EventType("paste", TARGET),
    "highlight": EventType("highlight", TARGET),
    "load": EventType(
        "load",
        (
            Property("load_time_millis", number("LoadEventTime"), Basis.CODE),
            Property("dom_content_time_millis", number("LoadDomContentTime"), Basis.VIEWS),
            Property("first_paint_time_millis", number("LoadFirstPaintTime"), Basis.VIEWS),
            Property("largest_paint_time_millis", number("LoadLargestPaintTime"), Basis.VIEWS),
        ),
    ),
    "request": EventType(
        "request",
        (
            Property("request_method", text("ReqMethod"), Basis.CODE),
            Property("request_url", url("ReqUrl"), Basis.CODE),
            Property("request_status", number("ReqStatus"), Basis.VIEWS),
            Property("request_duration_millis", number("EventDuration"), Basis.VIEWS),
        ),
        remark="only with a status of 400 or more",
    ),
    "exception": EventType(
        "exception",
        (
            Property("message", text("EventTargetText"), Basis.CODE),
            Property(
                "is_exception_handled",
                choice("EventSubType", {"uncaught": "false"}),
                Basis.CODE,
                "left out unless it is uncaught",
            ),
            Property("exception_source_file", text("EventWebSourceFileUrl", "EventMobileSourceFile"), Basis.VIEWS),
        ),
    ),
    "console_message": EventType(
        "console_message",
        (
            Property("message", text("EventTargetText"), Basis.CODE),
            Property("console_message_level", text("EventSubType"), Basis.VIEWS),
        ),
    ),
    "first_input_delay": EventType(
        "first_input_delay", (Property("first_input_delay_millis", number("EventFirstInputDelay"), Basis.CODE),)
    ),
    "cumulative_layout_shift": EventType(
        "cumulative_layout_shift",
        (Property("cumulative_layout_shift", number("EventCumulativeLayoutShift"), Basis.VIEWS),),
    ),
    "keyboard_open": EventType("keyboard_open"),
    "keyboard_close": EventType("keyboard_close"),
    "low_memory": EventType("low_memory"),
    "pinch_gesture": EventType(
        "pinch_gesture",
        (Property("pinch_gesture_type", text("EventSubType"), Basis.CODE, "the spelling of values is a guess"),),
    ),
    "seen": EventType(
        "element_seen",
        (
            *TARGET,
            Property("element_start_type", text("EventSubType"), Basis.VIEWS),
            Property("element_render_duration_millis", number("EventDuration"), Basis.VIEWS),
            Property("element_visible_duration_millis", number("EventSecondaryDuration"), Basis.VIEWS),
        ),
    ),
    "thrash": EventType("mouse_thrash", TARGET),
    "abandon": EventType("form_abandon", TARGET),
    "backgrounded": EventType("background"),
    "crashed": EventType("crash"),
    "uservar": IDENTIFY,
    "pageview": EventType(
        "page_view",
        (
            Property("page_name", text("PageName"), Basis.VIEWS),
            Property("start_time", time("PageStart"), Basis.VIEWS),
            Property("duration_millis", number("PageDuration"), Basis.VIEWS),
            Property("active_duration_millis", number("PageActiveDuration"), Basis.VIEWS),
            Property("inactive_duration_millis", difference("PageDuration", "PageActiveDuration"), Basis.VIEWS),
            Property("max_scroll_depth", share("PageMaxScrollDepthPercent"), Basis.VIEWS),
        ),
        remark="the export has it at the end of a page",
    ),
}
"""What becomes of each type of the export."""

OTHER_TYPES = TARGET
"""What `event_properties` holds for a type that is not listed."""

LEFT_OUT = ("custom_error", "click_error", "seen_error")
"""Types without a row: complaints of the service about what a site sent, next to the event itself."""

FAILED_STATUS = 400
"""The sync has only requests that failed; the export describes others, too."""

SOURCE: tuple[Property, ...] = (
    Property("user_agent.raw_user_agent", text("PageUserAgent"), Basis.DOCUMENTED),
    Property("user_agent.device", text("PageDevice"), Basis.DOCUMENTED),
    Property("user_agent.operating_system", text("PageOperatingSystem"), Basis.DOCUMENTED),
    Property("user_agent.browser", text("PageBrowser"), Basis.DOCUMENTED),
    Property("user_agent.browser_version", text("PageBrowserVersion"), Basis.DOCUMENTED),
    Property("location.ip_address", text("PageIp"), Basis.CODE),
    Property("location.lat_long", text("PageLatLong"), Basis.CODE),
    Property("url", url("PageUrl"), Basis.DOCUMENTED),
    Property(
        "initial_referrer", url("PageRefererUrl"), Basis.DOCUMENTED, "that of the session's first page of the same day"
    ),
    Property("device.screen_width", number("PageScreenWidth"), Basis.VIEWS),
    Property("device.screen_height", number("PageScreenHeight"), Basis.VIEWS),
    Property("device.viewport_width", number("PageViewportWidth"), Basis.VIEWS),
    Property("device.viewport_height", number("PageViewportHeight"), Basis.VIEWS),
    Property("device.manufacturer", text("AppDeviceVendor"), Basis.VIEWS),
    Property("device.model", text("AppDeviceModel"), Basis.VIEWS),
    Property("device.operating_system", text("AppOsVersion"), Basis.VIEWS),
    Property("app.name", text("AppName"), Basis.VIEWS),
    Property("app.package_name", text("AppPackageName"), Basis.VIEWS),
    Property("app.version", text("AppVersion"), Basis.VIEWS),
)
"""What `source_properties` holds."""

APP_COLUMNS = tuple(column.name for column in Layout(Type.EVENT).standard if column.name.startswith("App"))
"""Columns that only apps have: a value in one of them makes the source `mobile_app`."""
