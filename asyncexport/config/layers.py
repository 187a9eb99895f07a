"""The sources of settings, each as one layer: the file, the environment, the command line.

The names of variables are checked here, because pydantic-settings silently ignores a misspelt one.
"""

import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from asyncexport.config.fields import TextValue
from asyncexport.config.model import Settings
from asyncexport.errors import Problem

PREFIX = "ASYNCEXPORT_"

FILE_VARIABLE = "ASYNCEXPORT_CONFIG"

FILE_NAME = "asyncexport.toml"

MAX_NAME = 60
"""Maximum length of an unknown name in a message."""


@dataclass(frozen=True, slots=True)
class SettingsLayer:
    """The settings from one source.

    Attributes:
        values: The values, nested as in the file.
        places: The name of a key in messages, if it is not `table.key`, by its path (see `path_of_key`).
        file: The name of the file in messages; "" if the layer is not from a file.
    """

    values: dict[str, Any] = field(default_factory=dict)
    places: Mapping[tuple[str, ...], str] = field(default_factory=dict)
    file: str = ""

    def holds(self, path: tuple[str, ...]) -> bool:
        """Return whether the layer sets a table, or a key of a table."""
        value: Any = self.values
        for part in path:
            if not isinstance(value, dict) or part not in value:
                return False
            value = value[part]
        return True


def short_name(name: str) -> str:
    """Return an unknown name in a printable and short form."""
    return name if name.isprintable() and len(name) <= MAX_NAME else ascii(name)[1:-1][:MAX_NAME] + "..."


def known_keys() -> dict[str, tuple[str, ...]]:
    """Return the keys of each table, including `export` and tables within tables (`load.duckdb`), as in the file."""
    tables: dict[str, tuple[str, ...]] = {}
    for name, info in Settings.model_fields.items():
        table = type(info.default[0] if isinstance(info.default, tuple) else info.default)
        tables |= _keys_of(table, called=info.alias or name)
    return tables


def _keys_of(table: type[BaseModel], *, called: str) -> dict[str, tuple[str, ...]]:
    """Return the keys of a table, and of the tables in it."""
    fields = {info.alias or name: info for name, info in table.model_fields.items()}
    inner = {name: type(info.default) for name, info in fields.items() if isinstance(info.default, BaseModel)}
    found = {called: tuple(name for name in fields if name not in inner)}
    for name, one in inner.items():
        found |= _keys_of(one, called=f"{called}.{name}")
    return found


def path_of_key(path: Sequence[Any]) -> tuple[Any, ...]:
    """Return the part of a path that names a key, such as `("load", "duckdb", "tables")`; a longer path is within it.

    A path that only names a table is returned as it is.
    """
    depth = 2 if ".".join(map(str, path[:2])) in known_keys() else 1
    return tuple(path[: depth + 1])


INJECTED = re.compile(
    r"([A-Z0-9]+_)*?(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9]+)*|PORT(_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)"
)
"""What follows the prefix in variables that Kubernetes sets in every pod if a service is named `asyncexport` or
`asyncexport-…`. They are ignored. A setting has two underscores between table and key."""


UNCLOSED = {"Illegal character '\\n'", "Unterminated string", """Expected "'\"""", """Expected "'''\""""}
"""The messages of Python's TOML parser for a text whose quotation mark is missing."""


def called(file: Path | None, *, environ: Mapping[str, str]) -> str:
    """Return the name of the configuration file for messages."""
    return str(file or environ.get(FILE_VARIABLE) or FILE_NAME)


def find_file(
    file: Path | None, *, environ: Mapping[str, str], working_directory: Path, argument: str
) -> tuple[Path | None, str]:
    """Return the file to read and the origin of its name (`argument` if it is `file`); (None, "") if there is none."""
    if file is not None:
        return working_directory / file, argument
    if environ.get(FILE_VARIABLE):
        return working_directory / environ[FILE_VARIABLE], FILE_VARIABLE
    default = working_directory / FILE_NAME
    # A dangling link counts as a file, so that it is reported as an error.
    return (default, FILE_NAME) if os.path.lexists(default) else (None, "")


def from_file(path: Path, *, named_by: str, called: str, problems: list[Problem]) -> SettingsLayer:
    """Read the tables of a TOML file; faults are added to `problems`."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
        if named_by != FILE_NAME and not text.strip() and path != Path(os.devnull):
            # Such as the output of a program that has failed or has not written it yet. The defaults would be used
            # instead, among them the real service. The null device is empty on purpose; the demo uses it.
            problems.append(Problem(named_by, f"{path} is empty; leave the option out to use the defaults"))
        return SettingsLayer(tomllib.loads(text), file=called)
    except FileNotFoundError:
        problems.append(Problem(named_by, f"there is no file {path}"))
    except OSError as error:
        problems.append(Problem(named_by, f"{path} cannot be read: {(error.strerror or 'no reason given').lower()}"))
    except UnicodeDecodeError:
        problems.append(Problem("", f"{called} is not UTF-8 text"))
    except tomllib.TOMLDecodeError as error:
        problems.append(Problem("", f"{called} is not valid TOML: {_toml_fault(str(error))}"))
    except (ValueError, RecursionError):
        # Valid TOML, but beyond Python's limits.
        problems.append(Problem("", f"{called} contains a number that is too long or tables nested too deeply"))
    return SettingsLayer()


def from_environment(environ: Mapping[str, str], *, problems: list[Problem]) -> SettingsLayer:
    """Read the `ASYNCEXPORT_TABLE__KEY` variables; unknown ones are added to `problems`."""
    keys = {
        "__".join([*table.split("."), key]).upper(): (*table.split("."), key)
        for table, names in known_keys().items()
        if table != "export"
        for key in names
    }
    values: dict[str, Any] = {}
    places = {}
    for variable, text in environ.items():
        name = variable.upper().removeprefix(PREFIX)
        if not variable.upper().startswith(PREFIX) or variable.upper() == FILE_VARIABLE or INJECTED.fullmatch(name):
            continue
        if name not in keys:
            problems.append(Problem(short_name(variable), _unknown_variable(name, [*keys, "CONFIG"])))
            continue
        _put(values, keys[name], TextValue(text))
        places[keys[name]] = variable
    return SettingsLayer(values, places)


def from_flags(flags: Mapping[str, Any], *, place: str) -> SettingsLayer:
    """Read flags by dotted key; `place` is for messages, such as "on the command line". A flag of None is not set."""
    values: dict[str, Any] = {}
    places = {}
    for dotted, value in flags.items():
        if value is None:
            continue
        path = _path_of(dotted)
        _put(values, path, TextValue(value) if isinstance(value, str | Path) else value)
        places[path] = f"{dotted} ({place})"
    return SettingsLayer(values, places)


def _path_of(dotted: str) -> tuple[str, ...]:
    """Return the path of a dotted key: the longest table that is known, else the first part, and the rest as a key."""
    table, _, key = dotted.partition(".")
    inner, dot, rest = key.partition(".")
    return (table, inner, rest) if dot and f"{table}.{inner}" in known_keys() else (table, key)


def _put(values: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    """Set a key in nested tables. If one of the tables is set to a text, that is reported instead."""
    table = values
    for part in path[:-1]:
        inner = table.setdefault(part, {})
        if not isinstance(inner, dict):
            return
        table = inner
    if not isinstance(table.get(path[-1]), dict):
        table[path[-1]] = value


def _unknown_variable(name: str, known: list[str]) -> str:
    if name == "EXPORT" or name.startswith("EXPORT_"):
        return "exports can only be set by [[export]] in the file"
    if re.fullmatch(r"(FULLSTORY_)?(API_*)*(KEY|TOKEN)", name):
        return "unknown variable: the API key is read from FULLSTORY_API_KEY"
    nearest = get_close_matches(name, known, n=1)
    return "unknown variable" + (f" (did you mean {PREFIX}{nearest[0]}?)" if nearest else "")


def _toml_fault(text: str) -> str:
    """Return the parser's message in the form of ours.

    A line break within quotation marks, or the end of the file, is how the parser sees a missing quotation mark.
    """
    what, _, place = text.rpartition(" (at ")
    if what in UNCLOSED:
        return f"a quotation mark is not closed (at {place}"
    return text[:1].lower() + text[1:]
