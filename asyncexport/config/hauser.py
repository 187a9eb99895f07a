"""Converts the configuration of hauser, Fullstory's earlier exporter, to that of asyncexport.

1. Each key is either taken over or listed with the reason why not. A value that asyncexport refuses is not taken over.
2. The API token is never copied, nor is any text that contains it, also without the word `Basic` before it. Of keys
   that are not taken over, only the names are used: their values may be passwords.
3. hauser finds keys in any case, so the same is done here. Of several spellings of a key, the first one counts.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from asyncexport.config.durations import write_duration
from asyncexport.config.fault_messages import EXPECTED
from asyncexport.config.hauser_values import describe_time, go_duration, is_placeholder
from asyncexport.config.model import Settings
from asyncexport.core.bundles import show

DEFAULT_API = "https://api.fullstory.com"

DEFAULT_SECONDS = 3600.0
"""hauser's `ExportDuration`, if it is not set."""

LEAST_SETTLE_SECONDS = 26 * 3600.0
"""The default of `settle`: what hauser waits by default (24 hours) is too short for the last rows."""

LEAST_TOKEN = 6
"""Characters of the shortest token that is looked for in the new file: no real one is as short."""

IN_FUTURE = "{time} is in the future: nightly runs would end with exit code 2"

NOT_NEEDED = {
    "warehouse": "asyncexport always writes to a local disk; see `asyncexport load` and [output] mirror",
    "provider": "asyncexport always writes to a local disk; [output] mirror makes copies in a bucket",
    "storageonly": "asyncexport always writes files, and tables only with `load` or --load",
    "backoff": "retries begin after a second and go on for hours; see [retry]",
    "backoffstepsmax": "retries go on for as long as [retry] outage says",
    "checkinterval": "asyncexport does not run all the time: a scheduler starts it (`asyncexport deploy --help`)",
    "tmpdir": "incomplete files are in the output directory",
    "listexportlimit": "it belongs to an API that no longer exists",
    "exporturl": "it belongs to an API that no longer exists; [api] base_url is that of today's",
    "includemobileappsfields": "the default fields include those of mobile apps",
    "fileprefix": "the output directory has a folder for each export",
}
"""Keys that have no counterpart, in lower case, with the reason."""

TABLES = {
    "s3": "set [output] mirror to a new place, such as s3://bucket/asyncexport: runs then copy archives to it",
    "redshift": "`asyncexport load` makes Parquet files, which COPY reads from S3 (asyncexport/warehouse/RECIPES.md)",
    "gcs": "set [output] mirror to a new place, such as gs://bucket/asyncexport: runs then copy archives to it",
    "bigquery": "`asyncexport load` fills BigQuery: set to in [load], and [load.bigquery]",
}
"""Tables that have no counterpart, in lower case, with the reason."""

TOKEN = "fsapitoken"  # noqa: S105 - the name of a key, and not its value
"""The key of the API token, in lower case."""

TAKEN = {
    TOKEN,
    "exportduration",
    "groupfilesbyday",
    "exportdelay",
    "segmentid",
    "apiurl",
    "saveasjson",
    "additionalhttpheader",
    "starttime",
    "local",
}
"""Keys that `convert` handles one by one."""

LOCAL = {"savedir", "starttime", "usestarttime"}
"""The same for the table `local`."""


@dataclass(frozen=True, slots=True)
class ConvertedKey:
    """What became of one key of hauser's.

    Attributes:
        key: The key as in hauser's file.
        setting: The setting that it became, as `[table] key`; "" if it was not taken over.
        value: The value of the setting as in the new file; "" if it was not taken over.
        why: Why it was not taken over, or was changed; "" if there is nothing to say.
    """

    key: str
    setting: str
    value: str
    why: str


@dataclass(slots=True)
class Conversion:
    """The result: what became of each key, and the settings to write, by `(table, key)`."""

    keys: list[ConvertedKey] = field(default_factory=list)
    settings: dict[tuple[str, str], Any] = field(default_factory=dict)

    def take(self, key: str, table: str, name: str, value: Any, *, why: str = "", shown: str = "") -> None:
        """Take a value over, unless it is not valid as a setting; `shown` takes its place in messages."""
        setting = f"[[{table}]] {name}" if table == "export" else f"[{table}] {name}"
        reason = refused(table, name, value)
        if reason:
            self.leave(key, f"the value is not valid as {setting}: {reason}")
            return
        self.settings[table, name] = value
        self.keys.append(ConvertedKey(key, setting, shown or literal(value), why))

    def leave(self, key: str, why: str) -> None:
        """Do not take a key over."""
        self.keys.append(ConvertedKey(key, "", "", why))


@dataclass(frozen=True, slots=True)
class HauserFile:
    """hauser's configuration: its keys in any case."""

    values: Mapping[str, Any]

    def find(self, name: str, *, table: str = "") -> tuple[str, Any]:
        """Return a key as it is written, and its value; (`name`, None) if it is not set."""
        parent, within = self.find(table) if table else ("", self.values)
        found = within.items() if isinstance(within, Mapping) else ()
        key, value = next(((key, one) for key, one in found if key.lower() == name.lower()), (name, None))
        return (f"{parent}.{key}" if parent else key), value

    def text(self, name: str, *, table: str = "") -> str:
        """Return the text of a key; "" if it has none, or only a placeholder."""
        _, value = self.find(name, table=table)
        return value if isinstance(value, str) and not is_placeholder(value) else ""

    @property
    def is_hausers(self) -> bool:
        """Whether any of its keys is one of hauser's."""
        return any(key.lower() in TAKEN | NOT_NEEDED.keys() | TABLES.keys() for key in self.values)

    @property
    def tokens(self) -> tuple[str, ...]:
        """The words of the API token, in any spelling of its key, that a text must not contain (rule 2)."""
        texts = [one for key, one in self.values.items() if key.lower() == TOKEN and isinstance(one, str)]
        words = [word for text in texts if not is_placeholder(text) for word in (text, *text.split())]
        # The part after a prefix such as `na1.` is a secret by itself.
        parts = [part for word in words for part in (word, word.partition(".")[2])]
        return tuple(dict.fromkeys(part for part in parts if len(part) >= LEAST_TOKEN))

    def has_token(self, text: str) -> bool:
        """Whether a text contains the API token."""
        return any(token in text for token in self.tokens)


def convert(file: HauserFile, *, now: float, since: str = "", since_from: str = "") -> Conversion:
    """Convert hauser's configuration.

    Args:
        file: The configuration.
        now: The current time, in seconds since 1970.
        since: The sync point: what hauser has exported ends there. "" if it is not known.
        since_from: Where the sync point comes from.
    """
    done = Conversion()
    for key, value in file.values.items():
        name = key.lower()
        if name in TABLES and isinstance(value, Mapping):
            done.leave(f"{key}: {', '.join(value)}" if value else key, TABLES[name])
        elif name in NOT_NEEDED:
            done.leave(key, NOT_NEEDED[name])
        elif name not in TAKEN:
            done.leave(key, "it is no key of hauser's")
    _token(file, done)
    _export(file, done)
    _api(file, done)
    _local(file, done)
    _since(file, done, since=since, since_from=since_from, now=show(now))
    for key, value in file.values.items():
        if isinstance(value, Mapping) and key.lower() == "local":
            _rest(value, LOCAL, done, table=f"{key}.")
    _rest(file.values, TAKEN, done)
    return done


def _rest(values: Mapping[str, Any], known: set[str], done: Conversion, *, table: str = "") -> None:
    """List the keys of a table that nothing has been said about yet (rules 1 and 3)."""
    said = [one.key for one in done.keys]
    seen: dict[str, str] = {}
    for key, value in values.items():
        first, name = seen.setdefault(key.lower(), key), f"{table}{key}"
        if any(one == name or one.startswith((f"{name} ", f"{name}.", f"{name}: ")) for one in said):
            continue
        if first != key:
            done.leave(name, f"{table}{first} is the same key and counts")
        elif key.lower() not in known:
            done.leave(name, "it is no key of hauser's")
        else:
            done.leave(name, "its value has the wrong type" if value else "it is empty")


def _token(file: HauserFile, done: Conversion) -> None:
    key, value = file.find(TOKEN)
    if value is not None:
        done.leave(key, "the key is never copied: set FULLSTORY_API_KEY (hauser's FULLSTORY_API_TOKEN works as well)")


def _export(file: HauserFile, done: Conversion) -> None:
    """Convert the width, the delay, the segment and the format."""
    key, value = file.find("ExportDuration")
    group, grouped = file.find("GroupFilesByDay")
    seconds = go_duration(value) if value is not None else 0.0
    if seconds is None:
        done.leave(key, "it is not a duration of hauser's, such as 1h")
    elif seconds:
        done.take(key, "export", "bundle", write_duration(seconds))
    elif grouped is True:
        done.take(group, "export", "bundle", "24h")
    else:
        done.take(key, "export", "bundle", write_duration(DEFAULT_SECONDS), why="hauser's default")
    if grouped is not None and (seconds != 0 or grouped is not True):
        off = "it is off" if grouped is False else "it is neither true nor false"
        done.leave(group, "ExportDuration decides" if seconds or grouped is True else off)
    _delay(file, done)
    key, value = file.find("SegmentId")
    if value:
        done.take(key, "export", "segment", value)
    key, value = file.find("SaveAsJson")
    if value is True:
        done.take(key, "export", "format", "json")
    elif value is not None:
        done.leave(key, "the format stays ndjson: the service has none like hauser's CSV with its column CustomVars")


def _delay(file: HauserFile, done: Conversion) -> None:
    key, value = file.find("ExportDelay")
    if value is None:
        return
    seconds = go_duration(value)
    if seconds is None:
        done.leave(key, "it is not a duration of hauser's, such as 24h")
    elif seconds < LEAST_SETTLE_SECONDS:
        done.leave(key, "settle stays 26h, because Fullstory adds rows until 24 h 30 min after they happened")
    else:
        done.take(key, "export", "settle", write_duration(seconds))


def _api(file: HauserFile, done: Conversion) -> None:
    """Convert the address and the headers."""
    key, value = file.find("ApiURL")
    if isinstance(value, str) and value.rstrip("/") == DEFAULT_API:
        done.leave(key, "it is hauser's default; asyncexport chooses the host by the key")
    elif value is not None:
        done.take(key, "api", "base_url", value)
    key, value = file.find("AdditionalHttpHeader")
    headers = {}
    for one in value if isinstance(value, list) else []:
        header = HauserFile(one if isinstance(one, Mapping) else {})
        name, text = header.text("Key"), header.text("Value")
        if not name or file.has_token(text):
            done.leave(f"{key} {name}".rstrip(), "it contains the API token" if name else "it has no name")
        elif refused("api", "headers", {name: text}):
            done.leave(f"{key} {name}", f"not allowed in [api] headers: {refused('api', 'headers', {name: text})}")
        else:
            headers[name] = text
    if headers:
        shown = literal(dict.fromkeys(headers, "***"))
        done.take(key, "api", "headers", headers, why="the values are treated as secrets", shown=shown)


def _local(file: HauserFile, done: Conversion) -> None:
    key, value = file.find("SaveDir", table="Local")
    if isinstance(value, str) and is_placeholder(value):
        done.leave(key, "it is a placeholder")
    elif value:
        why = "a folder of its own on the same disk: hauser's files stay as they are"
        directory = f"{value.rstrip('/')}/asyncexport" if isinstance(value, str) else value
        done.take(key, "output", "directory", directory, why=why)
    key, value = file.find("UseStartTime", table="Local")
    if value is not None:
        done.leave(key, "nightly starts at the sync point, or at StartTime if there is none")


def _since(file: HauserFile, done: Conversion, *, since: str, since_from: str, now: str) -> None:
    """Convert the start of hauser's exports; a sync point takes precedence. Times are RFC 3339 in UTC."""
    starts = [file.find("StartTime"), file.find("StartTime", table="Local")]
    times = [(key, describe_time(value)) for key, value in starts if value is not None]
    if since > now:
        done.leave(since_from, IN_FUTURE.format(time=since))
    elif since:
        done.take(since_from, "nightly", "since", since, why="what hauser has exported ends there")
        for key, _ in times:
            done.leave(key, "hauser has exported the time up to the sync point")
        return
    for number, (key, text) in enumerate(times):
        if not text:
            done.leave(key, "it is not set to a time such as 2026-01-01T00:00:00Z")
        elif text > now:
            done.leave(key, IN_FUTURE.format(time=text))
        elif number:
            done.leave(key, "the other StartTime decides")
        else:
            why = "no sync point is known, so what hauser has exported since then is exported again"
            done.take(key, "nightly", "since", text, why=why)


def refused(table: str, name: str, value: Any) -> str:
    """Return why a value is not valid as a setting, without the value; "" if it is."""
    layer: dict[str, Any] = {table: [{name: value}] if table == "export" else {name: value}}
    try:
        Settings.from_layers(layer)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        return EXPECTED.get(first["type"], str(first["msg"]).removeprefix("Value error, "))
    return ""


def literal(value: Any) -> str:
    """Return a value as TOML."""
    if isinstance(value, Mapping):
        inner = ", ".join(f"{literal(key)} = {literal(one)}" for key, one in value.items())
        return f"{{ {inner} }}" if inner else "{}"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def filled_example(example: str, settings: Mapping[tuple[str, str], Any], *, head: Iterable[str]) -> str:
    """Return the example file with other values, and with comments at its top."""
    return "\n".join([*(f"# {line}".rstrip() for line in head), "", *_lines(example, settings)]) + "\n"


def _lines(example: str, settings: Mapping[tuple[str, str], Any]) -> Iterator[str]:
    table = ""
    for line in example.splitlines():
        if line.startswith("["):
            table = line.strip("[]")
        key, equals, _ = line.partition(" = ")
        if equals and (table, key) in settings:
            yield f"{key} = {literal(settings[table, key])}"
        else:
            yield line
