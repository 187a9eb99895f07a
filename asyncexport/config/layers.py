"""Where settings come from: the file, the environment, the command line; each as one layer.

The names of variables are checked here, since pydantic-settings passes over a misspelt one without a word.
"""

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from asyncexport.config.fields import TextValue
from asyncexport.config.model import Settings
from asyncexport.errors import Problem

PREFIX = "ASYNCEXPORT_"

FILE_VARIABLE = "ASYNCEXPORT_CONFIG"

FILE_NAME = "asyncexport.toml"

MAX_NAME = 60
"""Characters of an unknown name that are shown."""


@dataclass(frozen=True, slots=True)
class SettingsLayer:
    """What one source says.

    Attributes:
        values: Nested as in the file.
        places: What a user knows a `(table, key)` by, where that is not `table.key`.
        file: What a user calls the file it comes from; "" for what comes from none.
    """

    values: dict[str, Any] = field(default_factory=dict)
    places: Mapping[tuple[str, str], str] = field(default_factory=dict)
    file: str = ""

    def holds(self, path: tuple[str, ...]) -> bool:
        """Whether it says anything of a table, or of a key."""
        table = self.values.get(path[0])
        return path[0] in self.values and (len(path) == 1 or (isinstance(table, dict) and path[1] in table))


def short_name(name: str) -> str:
    """A name that somebody else chose, on one line and not long."""
    return name if name.isprintable() and len(name) <= MAX_NAME else ascii(name)[1:-1][:MAX_NAME] + "..."


def known_keys() -> dict[str, tuple[str, ...]]:
    """Every key of every table, `export` among them, as they stand in the file."""
    tables = {}
    for name, info in Settings.model_fields.items():
        table = type(info.default[0] if isinstance(info.default, tuple) else info.default)
        tables[info.alias or name] = tuple(f.alias or n for n, f in table.model_fields.items())
    return tables


INJECTED = re.compile(
    r"([A-Z0-9]+_)*?(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9]+)*|PORT(_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)"
)
"""What follows the prefix in variables that Kubernetes sets in every pod beside a service named `asyncexport` or
`asyncexport-…`; a setting has two underscores between table and key."""


def called(file: Path | None, *, environ: Mapping[str, str]) -> str:
    """What a user calls the file that is read."""
    return str(file or environ.get(FILE_VARIABLE) or FILE_NAME)


def find_file(
    file: Path | None, *, environ: Mapping[str, str], working_directory: Path, argument: str
) -> tuple[Path | None, str]:
    """The file to read, and who named it, `argument` if it was `file`; (None, "") where there is none."""
    if file is not None:
        return working_directory / file, argument
    if environ.get(FILE_VARIABLE):
        return working_directory / environ[FILE_VARIABLE], FILE_VARIABLE
    default = working_directory / FILE_NAME
    # A link that leads nowhere is a fault to be told, not the absence of a file.
    return (default, FILE_NAME) if os.path.lexists(default) else (None, "")


def from_file(path: Path, *, named_by: str, called: str, problems: list[Problem]) -> SettingsLayer:
    """The tables of a TOML file; faults are added to `problems`."""
    try:
        return SettingsLayer(tomllib.loads(path.read_bytes().decode("utf-8-sig")), file=called)
    except FileNotFoundError:
        problems.append(Problem(named_by, f"there is no file {path}"))
    except OSError as error:
        problems.append(Problem(named_by, f"{path} cannot be read: {(error.strerror or 'no reason given').lower()}"))
    except UnicodeDecodeError:
        problems.append(Problem(str(path), "is not UTF-8 text"))
    except tomllib.TOMLDecodeError as error:
        problems.append(Problem(str(path), f"is not valid TOML: {_lowered(str(error))}"))
    except (ValueError, RecursionError):
        # Not what tomllib calls a fault of TOML, but as far as Python goes.
        problems.append(Problem(str(path), "contains a number that is too long or tables nested too deeply"))
    return SettingsLayer()


def from_environment(environ: Mapping[str, str], *, problems: list[Problem]) -> SettingsLayer:
    """`ASYNCEXPORT_TABLE__KEY` variables; unknown ones are added to `problems`."""
    keys = {f"{t}__{k}".upper(): (t, k) for t, names in known_keys().items() if t != "export" for k in names}
    values: dict[str, Any] = {}
    places = {}
    for variable, text in environ.items():
        name = variable.upper().removeprefix(PREFIX)
        if not variable.upper().startswith(PREFIX) or variable.upper() == FILE_VARIABLE or INJECTED.fullmatch(name):
            continue
        if name not in keys:
            problems.append(Problem(short_name(variable), _unknown_variable(name, [*keys, "CONFIG"])))
            continue
        table, key = keys[name]
        values.setdefault(table, {})[key] = TextValue(text)
        places[table, key] = variable
    return SettingsLayer(values, places)


def from_flags(flags: Mapping[str, Any], *, place: str) -> SettingsLayer:
    """Flags by dotted key, given in a place such as "on the command line"; one that is None was not given."""
    values: dict[str, Any] = {}
    places = {}
    for dotted, value in flags.items():
        if value is None:
            continue
        table, _, key = dotted.partition(".")
        values.setdefault(table, {})[key] = TextValue(value) if isinstance(value, str | Path) else value
        places[table, key] = f"{dotted} ({place})"
    return SettingsLayer(values, places)


def _unknown_variable(name: str, known: list[str]) -> str:
    if name == "EXPORT" or name.startswith("EXPORT_"):
        return "exports can only be set by [[export]] in the file"
    if re.fullmatch(r"(FULLSTORY_)?(API_*)*(KEY|TOKEN)", name):
        return "unknown variable: the API key is read from FULLSTORY_API_KEY"
    nearest = get_close_matches(name, known, n=1)
    return "unknown variable" + (f" (did you mean {PREFIX}{nearest[0]}?)" if nearest else "")


def _lowered(text: str) -> str:
    return text[:1].lower() + text[1:]
