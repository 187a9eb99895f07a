"""The settings, from TOML, environment and flags; and the API key, which is none of them.

Importing this brings in pydantic, which is slow: commands do so when they need it, and `--help` does not.

    durations   "1h30m" and seconds
    fields      what may stand in one field
    model       tables, keys and defaults
    layers      file, environment and flags
    fault_messages  faults in the user's words
    load        all of it together
    vary        the same with one key changed
    key         the API key
"""

from pathlib import Path

from asyncexport.config.durations import read_duration, write_duration
from asyncexport.config.key import ApiKey, clean_key, load_key
from asyncexport.config.load import load_settings
from asyncexport.config.model import Settings
from asyncexport.config.vary import varied

EXAMPLE = Path(__file__).with_name("example.toml").read_text(encoding="utf-8")
"""A file that shows every setting with its default; `init` writes it."""

__all__ = [
    "EXAMPLE",
    "ApiKey",
    "Settings",
    "clean_key",
    "load_key",
    "load_settings",
    "read_duration",
    "varied",
    "write_duration",
]
