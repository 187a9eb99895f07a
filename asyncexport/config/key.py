"""The API key: where it is found, and a box that never shows it.

It is no setting: it stands in no `Settings`, no flag and no message. What people paste along with it (quotes, white
space, the word `Basic`) is taken off; what no key holds is refused before it reaches a header.
"""

import hashlib
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path

from asyncexport.errors import ConfigError, Problem, UnauthorizedError

VARIABLES = ("FULLSTORY_API_KEY", "FULLSTORY_API_TOKEN")

MAX_FILE_BYTES = 64 << 10
"""Read of a key file: many times the longest key, and the end of a file that never ends."""

HOSTS = {"eu1.": "https://api.eu1.fullstory.com"}
"""The service's host by the key's prefix (reference section 2)."""

ANY_HOST = "https://api.fullstory.com"
"""Serves every other key, those without a prefix among them (reference section 2)."""

HINT = "set FULLSTORY_API_KEY, or set [api] api_key_file to a file that contains the key"


class ApiKey:
    """The key; no `str`, `repr` or format of it shows the value.

    Args:
        value: As it is sent.
        notes: What the user should be told of the place it was found in, one line each.
    """

    __slots__ = ("_value", "notes")

    def __init__(self, value: str, *, notes: tuple[str, ...] = ()) -> None:
        self._value = value
        self.notes = notes

    def reveal(self) -> str:
        """The value itself, for the header it is sent in."""
        return self._value

    def fingerprint(self, salt: bytes) -> bytes:
        """Eight bytes by which the key is known again, and from which it cannot be found: scrypt takes 4 MiB a try."""
        return hashlib.scrypt(self._value.encode(), salt=salt, n=2**12, r=8, p=1, dklen=8)

    def base_url(self, configured: str) -> str:
        """Where to send requests with this key; `configured`: a URL, or "auto" for the host that serves the key."""
        if configured != "auto":
            return configured
        return next((host for prefix, host in HOSTS.items() if self._value.startswith(prefix)), ANY_HOST)

    def __repr__(self) -> str:
        return "ApiKey(hidden)"

    __str__ = __repr__


def load_key(environ: Mapping[str, str], *, file: Path | None) -> ApiKey:
    """The key from the environment, else from the first line of a file.

    Args:
        environ: The environment.
        file: What `[api] api_key_file` names; None: nothing.

    Raises:
        UnauthorizedError: there is none, or what is there cannot be a key.
        ConfigError: the file cannot be read.
    """
    for variable in VARIABLES:
        if environ.get(variable, "").strip():
            return clean_key(environ[variable], place=variable)
    if file is not None:
        return _from_file(file)
    raise UnauthorizedError("there is no API key", hint=HINT)


def _from_file(path: Path) -> ApiKey:
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            first = file.readline(MAX_FILE_BYTES)
    except OSError as error:
        reason = (error.strerror or "no reason given").lower()
        raise ConfigError([Problem("api.api_key_file", f"cannot be read: {reason}")], hint=HINT) from None
    text = first.decode("utf-8-sig", errors="replace")
    if not text.strip():
        raise UnauthorizedError(
            "the first line of [api] api_key_file is empty", hint="put the API key on the first line"
        )
    notes = (
        (f"every user of this machine can read the API key; to prevent that: chmod 600 {path}",)
        if _is_open(mode)
        else ()
    )
    return clean_key(text, place="[api] api_key_file", notes=notes)


def _is_open(mode: int) -> bool:
    """Pipes and the like are not looked at: their modes say nothing."""
    return os.name == "posix" and stat.S_ISREG(mode) and bool(mode & stat.S_IROTH)


def clean_key(text: str, *, place: str, notes: tuple[str, ...] = ()) -> ApiKey:
    """The key without what is pasted along with it; `place` is where it was found, `notes` are as `ApiKey` has them.

    The scheme is `Basic` followed by the key as it is, not by base64 of a name and a password (reference section 2).

    Raises:
        UnauthorizedError: it cannot be a key.
    """
    value = text.strip().strip("\"'").strip()
    value = re.sub(r"^(authorization:\s*)?basic\s+", "", value, flags=re.IGNORECASE)
    hint = "copy the key again from Fullstory: it is one word"
    if not value or re.match(r"(basic|authorization:?)\s*$|bearer\s", value, flags=re.IGNORECASE):
        raise UnauthorizedError(f"{place} does not contain an API key", hint=hint)
    if re.search(r"\s", value):
        raise UnauthorizedError(f"the API key in {place} contains white space", hint=hint)
    if not (value.isascii() and value.isprintable()):
        raise UnauthorizedError(f"the API key in {place} contains a character that is not allowed in a key", hint=hint)
    return ApiKey(value, notes=notes)
