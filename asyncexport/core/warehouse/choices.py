"""The words that the settings of `load` choose from."""

from enum import StrEnum


class SinkName(StrEnum):
    """The values of `[load] to`: the destinations of loaded days."""

    PARQUET = "parquet"
    DUCKDB = "duckdb"
    POSTGRES = "postgres"
    BIGQUERY = "bigquery"
    SNOWFLAKE = "snowflake"


class QuarantineRule(StrEnum):
    """The values of `[load] quarantine`: what happens to a day that has lines which are no rows."""

    KEEP = "keep"
    """The day is loaded without them; they are kept in a file of their own."""

    FAIL = "fail"
    """The day is not loaded."""


class Identify(StrEnum):
    """The values of `[load.datadirect] identify`: which events say who a user is."""

    SEEN = "seen"
    """Only those that were exported."""

    PER_SESSION = "per_session"
    """Also one for each session of a known user."""


class Suffixes(StrEnum):
    """The values of `[load.datadirect] suffixes`: the names of custom variables, with or without `_str` and such."""

    KEEP = "keep"
    STRIP = "strip"
