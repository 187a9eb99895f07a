"""The settings, read from TOML, environment variables and flags; and the API key, which is not a setting.

Importing this package loads pydantic, which is slow: commands import it when they need it, and `--help` does not.

    durations       converts between "1h30m" and seconds
    fields          the types and rules of single fields
    table           what all tables have in common
    model           the tables, keys and defaults
    load_fields     the types and rules of the fields of `[load]`
    load_model      the table `[load]`, and the tables within it
    layers          reads the file, the environment and the flags
    presence        whether a path that a user names exists
    fault_messages  turns pydantic's errors into messages for users
    load            loads the settings and reports all faults together
    vary            settings with one key changed
    key             the API key
    needed_variables  the variables that object stores and databases read
    dsn             the connection string of PostgreSQL
    snowflake       the login at Snowflake
    hauser          converts the configuration of hauser, Fullstory's earlier exporter
    hauser_values   reads the values in it
    hauser_sync     finds how far hauser has exported
"""

from pathlib import Path

from asyncexport.config.dsn import load_dsn
from asyncexport.config.durations import read_duration, write_duration
from asyncexport.config.key import ApiKey, clean_key, load_key
from asyncexport.config.load import load_settings
from asyncexport.config.model import Settings
from asyncexport.config.snowflake import load_snowflake
from asyncexport.config.vary import varied

EXAMPLE = Path(__file__).with_name("example.toml").read_text(encoding="utf-8")
"""The example file that shows every setting with its default; `init` writes it."""

__all__ = [
    "EXAMPLE",
    "ApiKey",
    "Settings",
    "clean_key",
    "load_dsn",
    "load_key",
    "load_settings",
    "load_snowflake",
    "read_duration",
    "varied",
    "write_duration",
]
