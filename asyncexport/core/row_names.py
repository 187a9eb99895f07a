"""The field names of rows: those that an export's rows have by default (API reference, section 8).

1. Rows are sparse, and unknown names are accepted. The lists only serve to tell rows of an export from what a proxy or
   gateway sent instead.
2. Custom variables are fields of their own. Only the prefixes of their names are known.
"""

from collections.abc import Iterable

EVENT_FIELDS: tuple[str, ...] = (
    *("IndvId", "UserId", "SessionId", "PageId", "UserCreated", "SessionStart", "EventStart", "EventType"),
    *("EventSubType", "EventCustomName", "EventTargetText", "EventTargetSelector", "EventVarErrorKind"),
    *("EventVarFields", "EventWebSourceFileUrl", "EventMobileSourceFile", "EventDuration", "EventSecondaryDuration"),
    *("EventPageOffset", "EventSessionOffset", "EventFirstInputDelay", "EventCumulativeLayoutShift"),
    *("EventModFrustrated", "EventModDead", "EventModError", "EventModSuspicious", "ReqUrl", "ReqMethod", "ReqStatus"),
    *("PageStart", "PageName", "PageDuration", "PageActiveDuration", "PageUrl", "PageRefererUrl", "PageIp"),
    *("PageUserAgent", "PageBrowser", "PageBrowserVersion", "PageDevice", "PagePlatform", "PageOperatingSystem"),
    *("PageScreenWidth", "PageScreenHeight", "PageViewportWidth", "PageViewportHeight", "PageNumInfos"),
    *("PageNumWarnings", "PageNumErrors", "PageNumEvents", "PageNumDerivedEvents", "PageClusterId"),
    *("PageMaxScrollDepthPercent", "LoadDomContentTime", "LoadFirstPaintTime", "LoadLargestPaintTime"),
    *("LoadEventTime", "AppName", "AppPackageName", "AppDeviceModel", "AppDeviceVendor", "AppVersion"),
    *("AppOsVersion", "AppViewName", "UserAppKey", "UserDisplayName", "UserEmail", "PageLatLong"),
)
"""The default fields of TYPE_EVENT, in the order of a row."""

INDIVIDUAL_FIELDS: tuple[str, ...] = (
    *("IndvId", "Created", "Uid", "DisplayName", "Email", "NumSessions", "NumPages", "NumEvents", "TotalSec"),
    *("ActiveSec", "AvgSessionSec", "AvgSessionActiveSec", "MaxSessionSec", "LastSessionStart", "LastEventStart"),
    *("LastSessionSec", "LastSessionActiveSec", "LastSessionNumPages", "LastSessionNumEvents", "LastPage", "LastIp"),
    *("LastLatLong", "LastBrowser", "LastDevice", "LastPlatform", "LastOperatingSystem", "UserVars"),
)
"""The default fields of TYPE_INDIVIDUAL."""

OLD_FIELDS: tuple[str, ...] = ("EventTargetSelectorTok", "PageAgent")
"""Former names, which the service may still use."""

EVENT_START = "EventStart"
"""The time of an event; `timeRange` refers to it."""

CUSTOM_PREFIXES = ("user_", "evt_", "page_")
"""The prefixes of custom variables."""

KNOWN_FIELDS = frozenset({*EVENT_FIELDS, *INDIVIDUAL_FIELDS, *OLD_FIELDS})


def is_known(name: str, *, asked: Iterable[str] = ()) -> bool:
    """Whether a row of an export may have this field: by default, as a custom variable, or because it was asked for.

    A field that was asked for may end in `*`, and then stands for all names with that prefix.
    """
    return (
        name in KNOWN_FIELDS
        or name.startswith(CUSTOM_PREFIXES)
        or any(matches_field(name, field=field) for field in asked)
    )


def matches_field(name: str, *, field: str) -> bool:
    """Whether a field that was asked for stands for this name."""
    return name.startswith(field[:-1]) if field.endswith("*") else name == field
