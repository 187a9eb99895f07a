"""The types of the fields of `[load]` and its tables, and the rules for their values."""

import re
from collections.abc import Callable
from typing import Annotated, Any
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, BeforeValidator, Field

from asyncexport.config.fields import Filled, Text, TextValue, json_from_text, size_from_text
from asyncexport.core.warehouse.choices import Identify, QuarantineRule, SinkName, Suffixes
from asyncexport.core.warehouse.columns import custom_column

LEAST_MEMORY = 128 << 20
"""The smallest limit for `[load] memory`. With less, DuckDB cannot hold the columns of one group of rows."""

MOST_MEMORY = 1 << 40

MIRRORS = ("s3", "gs", "az")
"""The schemes of `[output] mirror`."""

ODD_IN_PREFIX = "%\\"
"""Characters that a prefix in the URL of a mirror must not have."""


def _list_from_text(value: Any) -> Any:
    """Read a list from a variable or a flag, where it is written as JSON or with commas."""
    if not isinstance(value, TextValue):
        return value
    if value.lstrip().startswith("["):
        return json_from_text(value)
    return [part.strip() for part in value.split(",") if part.strip()]


def _each_once(values: tuple[str, ...]) -> tuple[str, ...]:
    """Refuse a name that is given twice. Databases treat upper and lower case as equal."""
    seen: dict[str, str] = {}
    for name in values:
        earlier = seen.setdefault(name.lower(), name)
        if earlier == name and values.count(name) > 1:
            raise ValueError(f"must not name {name} twice")
        if earlier != name:
            raise ValueError(f"must not name both {earlier} and {name}: databases take them for the same name")
    return values


def _at_least_one(values: tuple[str, ...]) -> tuple[str, ...]:
    if not values:
        raise ValueError("must name at least one destination")
    return values


def _custom_variable(name: str) -> str:
    try:
        custom_column(name)
    except ValueError:
        raise ValueError("must be a custom variable, whose name begins with user_, evt_ or page_") from None
    if name.endswith("*"):
        raise ValueError("must be the whole name of a custom variable")
    return name


def _memory_from_text(value: Any) -> int:
    return size_from_text(value, least=LEAST_MEMORY, most=MOST_MEMORY, said="128MiB and 1TiB")


def _valid_mirror(text: str) -> str:
    """Accept "" or the URL of a place in an object store, without secrets in it."""
    if not text:
        return text
    parts = _split(text)
    if parts is None or parts.scheme not in MIRRORS or not parts.hostname:
        raise ValueError('expected "" or a URL such as "s3://bucket/prefix"')
    if "@" in parts.netloc:
        raise ValueError("must not contain a user or a password")
    if parts.query or parts.fragment or text.endswith(("?", "#")):
        raise ValueError("must not contain a query or a fragment")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", parts.netloc):
        raise ValueError("the bucket must be letters, digits and . - _")
    # Object stores, URLs and file names treat these differently, so the objects would have other names than expected.
    prefix = parts.path.removeprefix("/").removesuffix("/")
    odd = not text.isprintable() or any(one in prefix for one in ODD_IN_PREFIX) or prefix != prefix.strip()
    if prefix and (odd or any(one in ("", ".", "..") for one in prefix.split("/"))):
        raise ValueError('the prefix must be names between single slashes, without "%", "\\", "." and ".."')
    return f"{parts.scheme}://{parts.netloc}/{prefix}".rstrip("/")


def _split(text: str) -> SplitResult | None:
    try:
        return urlsplit(text)
    except ValueError:
        return None


def _named(pattern: str, says: str) -> Callable[[str], str]:
    """Return a check that a text has a pattern."""

    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(f"must be {says}")
        return text

    return check


_OneSink = Annotated[SinkName, Field(strict=False)]
Sinks = Annotated[
    tuple[_OneSink, ...],
    Field(strict=False),
    BeforeValidator(_list_from_text),
    AfterValidator(_at_least_one),
    AfterValidator(_each_once),
]
_CustomName = Annotated[Filled, AfterValidator(_custom_variable)]
Columns = Annotated[
    tuple[_CustomName, ...], Field(strict=False), BeforeValidator(_list_from_text), AfterValidator(_each_once)
]
Memory = Annotated[int, BeforeValidator(_memory_from_text)]
Mirror = Annotated[Text, AfterValidator(_valid_mirror)]
Project = Annotated[Text, AfterValidator(_named(r"([A-Za-z0-9][A-Za-z0-9.:_-]*)?", "the id of a project"))]
Dataset = Annotated[Text, AfterValidator(_named(r"[A-Za-z0-9_]{1,1024}", "letters, digits and underscores"))]
QuarantineName = Annotated[QuarantineRule, Field(strict=False)]
IdentifyName = Annotated[Identify, Field(strict=False)]
SuffixesName = Annotated[Suffixes, Field(strict=False)]
