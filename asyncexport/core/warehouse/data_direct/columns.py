"""The columns of the Data Direct table, and the receipt that says what a day of it was made from.

1. A day is made from the flat table's file of that day alone, so it can be deleted and made again.
2. The columns and their order are those of the vendor's table `events`.
3. An event has an id only if all fields of its key were exported. An export without one of them has no such table.
4. Raise `RECIPE_VERSION` when the same flat file would make other rows: all days are made again.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256

from asyncexport.core.warehouse.choices import Identify, Suffixes
from asyncexport.core.warehouse.columns import Column, ColumnKind, missing_fields, missing_key_fields

RECIPE_VERSION = 2

USER_ID = "UserAppKey"
"""The field from which `identify` events are made up."""

TIMESTAMP, BIGINT = "TIMESTAMP_NTZ(9)", "NUMBER(38,0)"
"""What the vendor's types TIMESTAMP and BIGINT are in Snowflake, unless an account has another default."""

COLUMNS: tuple[Column, ...] = (
    Column("event_id", ColumnKind.TEXT, "Id of the event, the same as in the flat table. Never equal to the vendor's."),
    Column("event_time", ColumnKind.TIME, "When the event happened, by the device's clock.", in_snowflake=TIMESTAMP),
    Column(
        "processed_time",
        ColumnKind.TIME,
        "When the export was made: the latest time at which it was processed.",
        in_snowflake=TIMESTAMP,
    ),
    Column("updated_time", ColumnKind.TIME, "When the export was made.", in_snowflake=TIMESTAMP),
    Column("device_id", ColumnKind.INTEGER, "The device or browser (a cookie).", in_snowflake=BIGINT),
    Column(
        "session_id",
        ColumnKind.INTEGER,
        "The session, unique together with device_id. NULL if there is none.",
        in_snowflake=BIGINT,
    ),
    Column("view_id", ColumnKind.INTEGER, "The page load or screen.", in_snowflake=BIGINT),
    Column("event_type", ColumnKind.TEXT, "The type of the event, by the vendor's name in this table."),
    Column("event_properties", ColumnKind.JSON, "What is special to the type of event."),
    Column("source_type", ColumnKind.TEXT, "Where the event was recorded: web or mobile_app."),
    Column("source_properties", ColumnKind.JSON, "Page, browser, device and app."),
)


@dataclass(frozen=True, slots=True)
class DataDirectRecipe:
    """The settings that change rows."""

    identify: Identify = Identify.SEEN
    suffixes: Suffixes = Suffixes.KEEP

    def receipt(self, flat_receipt: str) -> str:
        """Return the receipt of a day that is made from the flat file with this receipt, in hex."""
        text = json.dumps([flat_receipt, RECIPE_VERSION, self.identify.value, self.suffixes.value])
        return sha256(text.encode()).hexdigest()


def refusal(table: str, fields: Iterable[str]) -> str:
    """Return why the table of an export with these `fields` cannot be made; "" if it can."""
    missing = missing_key_fields(fields)
    if not missing:
        return ""
    return (
        f"the table {table} cannot be made, because the export's fields lack {', '.join(missing)}, from which the ids "
        "of events are made: add them to the fields of a new export, or set enabled = false in [load.datadirect], "
        "which leaves out such tables of all exports"
    )


def unmet_identify(table: str, fields: Iterable[str], identify: Identify) -> str:
    """Return why no `identify` events can be made up although the settings ask for them; "" if they can."""
    if identify is not Identify.PER_SESSION or not missing_fields(fields, [USER_ID]):
        return ""
    return (
        f"the table {table} gets no further identify events, because the export's fields lack {USER_ID}: add it to the "
        'fields of a new export, or set identify = "seen" in [load.datadirect]'
    )
