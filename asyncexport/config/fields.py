"""The type of each field, and the rules for its value that do not depend on other fields.

1. Types are strict: neither `true` nor "50" is a number. Variables and flags contain only text, so numbers are read
   from their text: see `TextValue`.
2. The message of a rule says what was expected. `fault_messages` adds the value found, if it may be shown.
"""

import re
import zoneinfo
from bisect import bisect
from collections.abc import Callable
from datetime import date
from difflib import get_close_matches
from math import isfinite
from pathlib import Path
from typing import Annotated, Any

import orjson
from pydantic import AfterValidator, BeforeValidator, Field, GetPydanticSchema, WrapValidator
from pydantic_core.core_schema import no_info_after_validator_function

from asyncexport.config.durations import read_duration, write_duration
from asyncexport.config.presence import is_file
from asyncexport.core.access import Access
from asyncexport.core.admission import BudgetScope, Prefer
from asyncexport.core.bundles import DAY, read_moment
from asyncexport.core.exports import Format, Type
from asyncexport.core.old_order import OldOrder
from asyncexport.core.refreshing import LONGEST_AGE_DAYS
from asyncexport.core.service.proxies import is_proxy, url_parts
from asyncexport.core.service.requests import REFUSED_HEADERS
from asyncexport.core.service.urls import is_loopback
from asyncexport.core.service_time import ClockTrust
from asyncexport.core.splitting import SPLIT_WIDTHS

LEAST_BUNDLE_SECONDS = 300

LEAST_ROW_BYTES = 1 << 20
"""The smallest limit for `[download] max_row`: rows up to this length are always parsed."""

LEAST_NUMBER = 1e-6

MOST = 10**9
"""The largest number accepted: more than any machine needs, and small enough for safe arithmetic."""

WIDTHS = [n * 60 for n in range(5, 1441) if 1440 % n == 0]
"""All numbers of whole minutes that divide a day, in seconds, for suggestions in a message."""

KEY_SHAPE = re.compile(r"(basic\s+)?(na|eu)\d\.", re.IGNORECASE)
"""The beginning of an API key, to recognise one in the wrong place."""


class TextValue(str):
    """Text from a variable or a flag, which each field converts to its own type."""

    __slots__ = ()


def _number_from_text(value: Any) -> Any:
    if not isinstance(value, TextValue):
        return value
    for kind in (int, float):
        try:
            number = kind(value)
        except ValueError:
            continue
        return number if isfinite(number) else value
    return value


def json_from_text(value: Any) -> Any:
    """Read a text from a variable or a flag as JSON; other values, and texts that are not JSON, are returned as is."""
    try:
        return orjson.loads(str(value)) if isinstance(value, TextValue) else value
    except orjson.JSONDecodeError:
        return value


def _in_range(number: float) -> float:
    """Refuse numbers so large or small that arithmetic with them could overflow."""
    if number <= 0:
        raise ValueError("must be more than 0")
    if not LEAST_NUMBER <= number <= MOST:
        raise ValueError(f"must be between {LEAST_NUMBER:f} and {MOST}")
    return number


def _duration_from_text(value: Any) -> float:
    if not isinstance(value, str):
        raise ValueError('expected a duration in quotes and with a unit, such as "10s"')  # noqa: TRY004 - pydantic's way
    return read_duration(value)


def _age_from_text(value: Any) -> float:
    seconds = _duration_from_text(value)
    if seconds > LONGEST_AGE_DAYS * DAY:
        raise ValueError(f"must not be longer than {LONGEST_AGE_DAYS}d")
    return seconds


def _one_age_or_a_list(value: Any, read_list: Callable[[Any], tuple[float, ...]]) -> tuple[float, ...]:
    """Read one age or a list of ages; in a variable or a flag, a list is written as JSON or with commas."""
    if isinstance(value, TextValue):
        if value.lstrip().startswith("["):
            value = json_from_text(value)
        elif "," in value:
            value = value.split(",")
    return read_list(value) if isinstance(value, list | tuple) else (_age_from_text(value),)


def _distinct_ages(ages: tuple[float, ...]) -> tuple[float, ...]:
    """Return the distinct ages, youngest first, without "0h", which means none."""
    return tuple(sorted({age for age in ages if age}))


SIZE = re.compile(r"([0-9]{1,12})\s*(KiB|MiB|GiB|TiB|B)", re.IGNORECASE)
SIZE_UNITS = {"b": 1, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "tib": 1 << 40}


def _row_bytes_from_text(value: Any) -> int:
    return size_from_text(value, least=LEAST_ROW_BYTES, most=MOST, said="1MiB and 900MiB")


def size_from_text(value: Any, *, least: int, most: int, said: str) -> int:
    """Read a size such as "64MiB"; `said` names the limits in the message.

    Raises:
        ValueError: it cannot be read, or is outside of the limits.
    """
    found = SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    if not found:
        raise ValueError('expected a size in quotes and with the unit KiB, MiB or GiB, such as "64MiB"')
    size = int(found[1]) * SIZE_UNITS[found[2].lower()]
    if not least <= size <= most:
        raise ValueError(f"must be between {said}")
    return size


def _positive(seconds: float) -> float:
    if not seconds:
        raise ValueError("must be longer than 0s")
    return seconds


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("must be one line of printable text")
    return text


def _not_empty(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be empty")
    return text


def _path_from_text(value: Any) -> Any:
    if not isinstance(value, str | Path):
        return value
    if not str(value).strip() or "\0" in str(value):
        raise ValueError("must not be blank")
    return _expand_home(Path(value))


def _expand_home(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError:
        raise ValueError("starts with the home directory of an unknown user") from None


def _valid_base_url(text: str) -> str:
    if text == "auto":
        return text
    try:
        parts = url_parts(text, schemes=("https", "http"))
    except ValueError:
        raise ValueError('expected "auto" or a URL such as "https://host"') from None
    if parts.username is not None or parts.password is not None:
        raise ValueError("must not contain a user or a password")
    if parts.query or parts.fragment or text.endswith(("?", "#")):
        raise ValueError("must not contain a query or a fragment")
    if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        raise ValueError("must be https: over http, others could read the key (http is allowed for localhost only)")
    return text.rstrip("/")


def _valid_proxy(text: str) -> str:
    if text not in ("", "environment") and not is_proxy(text):
        raise ValueError('expected "", "environment" or a URL such as "http://host:3128"')
    return text


def _valid_ping_url(text: str) -> str:
    """Accept "" or the URL of a monitoring service, which is itself a secret."""
    if not text:
        return text
    try:
        parts = url_parts(text, schemes=("https", "http"))
    except ValueError:
        raise ValueError('expected "" or a URL such as "https://hc-ping.com/UUID"') from None
    if parts.username is not None or parts.password is not None:
        raise ValueError("must not contain a user or a password")
    if parts.fragment or text.endswith("#"):
        raise ValueError("must not contain a fragment")
    if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        raise ValueError("must be https: over http, others could read the URL (http is allowed for localhost only)")
    return text


def _allowed_headers(headers: dict[str, str]) -> dict[str, str]:
    for name, value in headers.items():
        if why := REFUSED_HEADERS.get(name.lower()):
            raise ValueError(f"must not set {name}: {why}")
        if not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", name):
            raise ValueError("contains a name that no header may have")
        if not value.isprintable():
            raise ValueError("must contain one line of printable text per header")
    return headers


def _file_named(text: str) -> Path | None:
    """Return the file that a text names, or None for ""."""
    if not text:
        return None
    if KEY_SHAPE.match(text):
        raise ValueError("looks like an API key: expected a file name")
    return Path(_path_from_text(text))


def _present_file_named(text: str) -> Path | None:
    file = _file_named(text)
    if file is not None and not is_file(file):
        raise ValueError("the file does not exist, or this user cannot reach it")
    return file


def _converted_text(make: Callable[[str], Any]) -> GetPydanticSchema:
    """Annotate a field that is written as text, checked as text, and then converted."""
    return GetPydanticSchema(
        lambda _source, handler: no_info_after_validator_function(make, handler.generate_schema(Text))
    )


def _date_as_text(value: Any) -> Any:
    """Accept TOML's own dates, which are written without quotes."""
    return value.isoformat() if isinstance(value, date) else value


def _readable_date(text: str) -> str:
    try:
        read_moment(text or "today", now=0)
    except (ValueError, OverflowError):
        raise ValueError(
            'expected a date such as "2026-01-01", "2026-01-01T12:00:00Z", "90d", "12w" or "36h"'
        ) from None
    return text


def _divides_a_day(seconds: float) -> float:
    if not LEAST_BUNDLE_SECONDS <= seconds <= DAY:
        raise ValueError("must be between 5m and 24h")
    if seconds % 1 or DAY % seconds:
        at = bisect(WIDTHS, seconds)
        narrower, wider = (write_duration(w) for w in WIDTHS[at - 1 : at + 1])
        raise ValueError(f"must divide a day, as {narrower} and {wider} do")
    return seconds


def _width_of_pieces(seconds: float) -> float:
    if seconds not in SPLIT_WIDTHS:
        raise ValueError(f"must be one of {', '.join(write_duration(width) for width in SPLIT_WIDTHS)}")
    return seconds


def _whole_seconds(seconds: float) -> float:
    if seconds % 1:
        raise ValueError("must be whole seconds")
    return seconds


def _valid_name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", text):
        raise ValueError('must be up to 100 letters, digits, ".", "_" and "-", the first a letter or digit')
    return text


def _once_each(names: tuple[str, ...]) -> tuple[str, ...]:
    """Remove duplicates, because the service refuses a field that is named twice (API reference, section 3.1)."""
    return tuple(dict.fromkeys(names))


def _known_timezone(text: str) -> str:
    if not text:
        return text
    try:
        zoneinfo.ZoneInfo(text)
    except (ValueError, OSError, zoneinfo.ZoneInfoNotFoundError):
        known = zoneinfo.available_timezones()
        if not known:
            # This machine has no time zone database, so leave the check to the service.
            return text
        nearest = get_close_matches(text, known, n=1)
        suggestion = f" (did you mean {nearest[0]}?)" if nearest else ""
        raise ValueError(f"expected an IANA name such as Europe/Berlin{suggestion}") from None
    return text


Switch = Annotated[bool, BeforeValidator(json_from_text)]
Amount = Annotated[int, BeforeValidator(_number_from_text), Field(ge=0, le=MOST)]
Count = Annotated[int, BeforeValidator(_number_from_text), Field(ge=1, le=MOST)]
Number = Annotated[float, BeforeValidator(_number_from_text), AfterValidator(_in_range)]
Duration = Annotated[float, BeforeValidator(_duration_from_text)]
PositiveDuration = Annotated[Duration, AfterValidator(_positive)]
Age = Annotated[float, BeforeValidator(_age_from_text)]
Ages = Annotated[
    tuple[Age, ...], Field(strict=False), WrapValidator(_one_age_or_a_list), AfterValidator(_distinct_ages)
]
Size = Annotated[int, BeforeValidator(_row_bytes_from_text)]
Width = Annotated[Duration, AfterValidator(_divides_a_day)]
WholeSeconds = Annotated[Duration, AfterValidator(_whole_seconds)]
SplitWidth = Annotated[Duration, AfterValidator(_width_of_pieces)]
Text = Annotated[str, AfterValidator(_printable)]
Filled = Annotated[Text, AfterValidator(_not_empty)]
Fields = Annotated[tuple[Filled, ...], Field(strict=False), AfterValidator(_once_each)]
Name = Annotated[str, AfterValidator(_valid_name)]
Timezone = Annotated[Text, AfterValidator(_known_timezone)]
Date = Annotated[str, BeforeValidator(_date_as_text), AfterValidator(_readable_date)]
BaseUrl = Annotated[str, AfterValidator(_valid_base_url)]
Proxy = Annotated[str, AfterValidator(_valid_proxy)]
PingUrl = Annotated[str, AfterValidator(_valid_ping_url)]
Headers = Annotated[dict[str, str], BeforeValidator(json_from_text), AfterValidator(_allowed_headers)]
KeyFile = Annotated[Path | None, _converted_text(_file_named)]
OutputFile = Annotated[Path | None, _converted_text(_file_named)]
PresentFile = Annotated[Path | None, _converted_text(_present_file_named)]
Directory = Annotated[Path, BeforeValidator(_path_from_text)]
ClockName = Annotated[ClockTrust, Field(strict=False)]
ScopeName = Annotated[BudgetScope, Field(strict=False)]
AccessName = Annotated[Access, Field(strict=False)]
PreferName = Annotated[Prefer, Field(strict=False)]
OrderName = Annotated[OldOrder, Field(strict=False)]
TypeName = Annotated[Type, Field(strict=False)]
FormatName = Annotated[Format, Field(strict=False)]
