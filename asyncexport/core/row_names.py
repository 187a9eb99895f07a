"""What the members of a row are called: the names that an export's rows have by default (reference section 8).

1. Rows are sparse, and names that nobody has heard of pass through. The lists serve to tell rows of an export from what
   some box on the way sent in their place.
2. Custom variables are members of their own; what they begin with is all that is known of their names.
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
"""Names of before, which the service may still use."""

EVENT_START = "EventStart"
"""When an event happened: what `timeRange` goes by."""

CUSTOM_PREFIXES = ("user_", "evt_", "page_")
"""What the names of custom variables begin with."""

KNOWN_FIELDS = frozenset({*EVENT_FIELDS, *INDIVIDUAL_FIELDS, *OLD_FIELDS})


def is_known(name: str, *, asked: Iterable[str] = ()) -> bool:
    """Whether a name is one that a row of an export has: by default, as a custom variable, or since it was asked for.

    A field that was asked for may end in `*`, and then stands for all names that begin so.
    """
    return (
        name in KNOWN_FIELDS or name.startswith(CUSTOM_PREFIXES) or any(is_meant(name, field=field) for field in asked)
    )


def is_meant(name: str, *, field: str) -> bool:
    """Whether a field that was asked for means this name."""
    return name.startswith(field[:-1]) if field.endswith("*") else name == field
