"""The columns of the flat table: one row per exported row, under the names that Fullstory documents.

1. The table of a type has always the same standard columns in the same order, whatever the rows hold, so that days can
   be read together. Only the columns that the user asks for in `[load] columns` differ.
2. The kinds follow the documented or observed types (API reference, section 8). A value that does not fit its kind
   becomes NULL, and its text is kept in `_rescued`.
3. A column is only ever added. `LAYOUT_VERSION` is part of each receipt: raise it when the same archives would make
   other rows, and all days are loaded again.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from asyncexport.core.exports import Type
from asyncexport.core.row_names import EVENT_FIELDS, INDIVIDUAL_FIELDS, is_known

LAYOUT_VERSION = 1


class ColumnKind(Enum):
    """What a column holds. The value is the type in DuckDB; each destination has a type of its own for it."""

    INTEGER = "BIGINT"
    TIME = "TIMESTAMP WITH TIME ZONE"
    REAL = "DOUBLE"
    SWITCH = "BOOLEAN"
    TEXT = "VARCHAR"
    JSON = "JSON"
    DAY = "DATE"


@dataclass(frozen=True, slots=True)
class Column:
    """One column.

    Attributes:
        name: Its name; for a column of a row's own field, the name of the field.
        kind: What it holds. JSON is stored as text in Parquet.
        says: What it means, for the column's comment in a database.
        in_snowflake: The type in Snowflake, if the vendor's own tables have another there than ours; else "".
    """

    name: str
    kind: ColumnKind
    says: str
    in_snowflake: str = ""


def _of(kind: ColumnKind, says: dict[str, str]) -> dict[str, Column]:
    return {name: Column(name, kind, text) for name, text in says.items()}


STANDARD: dict[str, Column] = {
    **_of(
        ColumnKind.INTEGER,
        {
            "IndvId": "The individual: one person, as far as Fullstory could tell.",
            "UserId": "The device or browser (a cookie).",
            "SessionId": "The session, unique together with UserId.",
            "PageId": "The page, unique together with UserId and SessionId.",
            "EventDuration": "Duration of the event, in milliseconds.",
            "EventSecondaryDuration": "Second duration of the event, in milliseconds.",
            "EventPageOffset": "Milliseconds since the start of the page.",
            "EventSessionOffset": "Milliseconds since the start of the session.",
            "EventFirstInputDelay": "Delay of the first input, in milliseconds.",
            "EventModFrustrated": "Running total of frustrated clicks in a burst.",
            "EventModDead": "1 if the click had no effect.",
            "EventModError": "Error that the click caused: 0 none, 1 to 3 by kind.",
            "EventModSuspicious": "1 or 2 if the input looks like an attack.",
            "ReqStatus": "HTTP status of the request.",
            "PageDuration": "Duration of the page, in milliseconds.",
            "PageActiveDuration": "Active duration of the page, in milliseconds.",
            "PageScreenWidth": "Width of the screen, in pixels.",
            "PageScreenHeight": "Height of the screen, in pixels.",
            "PageViewportWidth": "Width of the viewport, in pixels.",
            "PageViewportHeight": "Height of the viewport, in pixels.",
            "PageNumInfos": "Console messages of level info on the page.",
            "PageNumWarnings": "Console warnings on the page.",
            "PageNumErrors": "Console errors on the page.",
            "PageNumEvents": "Events on the page.",
            "PageNumDerivedEvents": "Events that Fullstory derived from others on the page.",
            "PageClusterId": "Fullstory's group of similar pages.",
            "PageMaxScrollDepthPercent": "How far the page was scrolled, in percent.",
            "LoadDomContentTime": "Time until DOMContentLoaded, in milliseconds.",
            "LoadFirstPaintTime": "Time until the first paint, in milliseconds.",
            "LoadLargestPaintTime": "Time until the largest paint, in milliseconds.",
            "LoadEventTime": "Time until the load event, in milliseconds.",
            "NumSessions": "Sessions of the individual.",
            "NumPages": "Pages of the individual.",
            "NumEvents": "Events of the individual.",
            "LastSessionNumPages": "Pages of the last session.",
            "LastSessionNumEvents": "Events of the last session.",
        },
    ),
    **_of(
        ColumnKind.REAL,
        {
            "EventCumulativeLayoutShift": "Cumulative layout shift of the page.",
            "TotalSec": "Total time, in seconds.",
            "ActiveSec": "Active time, in seconds.",
            "AvgSessionSec": "Average length of a session, in seconds.",
            "AvgSessionActiveSec": "Average active time of a session, in seconds.",
            "MaxSessionSec": "Length of the longest session, in seconds.",
            "LastSessionSec": "Length of the last session, in seconds.",
            "LastSessionActiveSec": "Active time of the last session, in seconds.",
        },
    ),
    **_of(
        ColumnKind.TIME,
        {
            "UserCreated": "When the device was first seen.",
            "SessionStart": "When the session started.",
            "EventStart": "When the event happened.",
            "PageStart": "When the page started.",
            "Created": "When the individual was first seen.",
            "LastSessionStart": "When the last session started.",
            "LastEventStart": "When the last event happened.",
        },
    ),
    **_of(
        ColumnKind.TEXT,
        {
            "EventType": "Kind of the event, such as click or navigate.",
            "EventSubType": "Kind of the event in more detail.",
            "EventCustomName": "Name of a custom event.",
            "EventTargetText": "Text of the element, or the message. Fullstory may have cut it.",
            "EventTargetSelector": "CSS selector of the element.",
            "EventVarErrorKind": "Why a variable was not accepted.",
            "EventVarFields": "Variables that were not accepted.",
            "EventWebSourceFileUrl": "Source file of an exception.",
            "EventMobileSourceFile": "Source file of an exception in an app.",
            "ReqUrl": "URL of the request.",
            "ReqMethod": "HTTP method of the request.",
            "PageName": "Name of the page.",
            "PageUrl": "URL of the page.",
            "PageRefererUrl": "URL that led to the page.",
            "PageIp": "IP address, empty unless its capture is on.",
            "PageUserAgent": "User-Agent header of the browser.",
            "PageBrowser": "Browser.",
            "PageBrowserVersion": "Version of the browser.",
            "PageDevice": "Kind of device.",
            "PagePlatform": "Platform, such as Web or iOS.",
            "PageOperatingSystem": "Operating system.",
            "PageLatLong": "Latitude and longitude, with a comma between them.",
            "AppName": "Name of the app.",
            "AppPackageName": "Package name of the app.",
            "AppDeviceModel": "Model of the device.",
            "AppDeviceVendor": "Vendor of the device.",
            "AppVersion": "Version of the app.",
            "AppOsVersion": "Version of the device's operating system.",
            "AppViewName": "Name of the app's view.",
            "UserAppKey": "Id that the site gave the user.",
            "UserDisplayName": "Name that the site gave the user.",
            "UserEmail": "E-mail address that the site gave the user.",
            "Uid": "Id that the site gave the individual.",
            "DisplayName": "Name that the site gave the individual.",
            "Email": "E-mail address that the site gave the individual.",
            "LastPage": "URL of the last page.",
            "LastIp": "Last IP address.",
            "LastLatLong": "Last latitude and longitude.",
            "LastBrowser": "Last browser.",
            "LastDevice": "Last kind of device.",
            "LastPlatform": "Last platform.",
            "LastOperatingSystem": "Last operating system.",
        },
    ),
    **_of(ColumnKind.JSON, {"UserVars": "Variables that the site set for the individual."}),
}
"""The column of each documented field."""

VARS = Column("vars", ColumnKind.JSON, "All other fields of the row, as a JSON object; custom variables among them.")

RESCUED = Column(
    "_rescued", ColumnKind.JSON, "Values that do not fit their column: an object of name and text as exported."
)

EVENT_ID = Column(
    "event_id", ColumnKind.TEXT, "Id made from the fields of the event that do not change after it happened."
)

ORIGIN: tuple[Column, ...] = (
    Column("_archive", ColumnKind.TEXT, "Archive that the row comes from, relative to the output directory."),
    Column("_bundle_start", ColumnKind.TIME, "Start of the archive's range."),
    Column("_bundle_end", ColumnKind.TIME, "End of the archive's range, exclusive."),
    Column("_exported_at", ColumnKind.TIME, "When Fullstory made the export."),
    Column("_revision", ColumnKind.INTEGER, "Revision of the bundle that wrote the archive."),
)
"""Where a row comes from."""

DATE = Column("date", ColumnKind.DAY, "UTC day of the bundle. The table is partitioned by it.")
"""Not in the Parquet files, whose folders are named by it; a column of its own elsewhere."""

FIELDS: dict[Type, tuple[str, ...]] = {Type.EVENT: EVENT_FIELDS, Type.INDIVIDUAL: INDIVIDUAL_FIELDS}
"""The standard columns by type, in order."""

SUFFIXES: dict[str, ColumnKind] = {
    "_int": ColumnKind.INTEGER,
    "_real": ColumnKind.REAL,
    "_bool": ColumnKind.SWITCH,
    "_str": ColumnKind.TEXT,
    "_date": ColumnKind.TIME,
}
"""The kind of a custom variable by the suffix of its name. Lists, such as `_strs`, and unknown suffixes are JSON."""


def custom_column(name: str) -> Column:
    """Return the column of a custom variable, with the kind that its suffix says.

    Raises:
        ValueError: it is not the name of a custom variable.
    """
    if name in STANDARD or not is_known(name):
        raise ValueError(f"{name!r} is not a custom variable: their names begin with user_, evt_ or page_")
    kind = next((kind for suffix, kind in SUFFIXES.items() if name.endswith(suffix)), ColumnKind.JSON)
    return Column(name, kind, "Custom variable.")


@dataclass(frozen=True, slots=True)
class Layout:
    """The columns of one flat table.

    Attributes:
        type: What the rows are.
        custom: The custom variables with a column of their own, in the order of the settings.
    """

    type: Type
    custom: tuple[str, ...] = ()

    @property
    def standard(self) -> tuple[Column, ...]:
        """The columns of documented fields."""
        return tuple(STANDARD[name] for name in FIELDS[self.type])

    @property
    def fields(self) -> tuple[Column, ...]:
        """The columns that hold a field of the row: the standard ones, then the custom ones."""
        return (*self.standard, *map(custom_column, self.custom))

    @property
    def columns(self) -> tuple[Column, ...]:
        """All columns in order, as in the Parquet files (without `date`)."""
        event_id = (EVENT_ID,) if self.type is Type.EVENT else ()
        return (*self.fields, VARS, RESCUED, *event_id, *ORIGIN)


EVENT_KEY: tuple[str, ...] = (
    *("UserId", "SessionId", "PageId", "EventStart", "EventType", "EventSubType", "EventCustomName"),
    *("EventTargetText", "EventTargetSelector", "ReqUrl", "ReqMethod", "ReqStatus"),
)
"""The standard fields that, with all `evt_*`, identify an event: none of them changes after the event happened."""


EVENT_VARIABLE = "evt_"
"""The prefix of an event's variables, which are part of its key."""

ALL_EVENT_VARIABLES = f"{EVENT_VARIABLE}*"
"""What stands for all variables of events in the fields of an export."""


def missing_key_fields(fields: Iterable[str]) -> tuple[str, ...]:
    """Return the fields of the key that an export with these `fields` lacks; no `fields` means all default ones.

    The variables of events belong to the key, and nobody knows all their names. So an export that names its fields must
    ask for `evt_*`, or the ids of its events would depend on the names that it asks for.
    """
    return missing_fields(fields, (*EVENT_KEY, ALL_EVENT_VARIABLES))


def missing_fields(fields: Iterable[str], names: Iterable[str]) -> tuple[str, ...]:
    """Return those of these names that an export with these `fields` lacks; no `fields` means all default ones."""
    asked = tuple(fields)
    return tuple(name for name in names if asked and not any(_stands_for(field, name) for field in asked))


def _stands_for(field: str, name: str) -> bool:
    return name.startswith(field[:-1]) if field.endswith("*") else field == name
