"""The API key: where it is read from, and a wrapper that hides it in repr and logs.

The key is not a setting: it appears in no `Settings`, no flag and no message. What people paste along with it (quotes,
white space, the word `Basic`) is removed, and characters that no key has are refused before they reach a header.
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
"""Maximum bytes to read from a key file: far more than a key has, and a limit for endless files such as devices."""

HOSTS = {"eu1.": "https://api.eu1.fullstory.com"}
"""The service's host for each prefix of a key (API reference, section 2)."""

ANY_HOST = "https://api.fullstory.com"
"""The host for all other keys, with or without a prefix (API reference, section 2)."""

HINT = "set FULLSTORY_API_KEY, or set [api] api_key_file to a file that contains the key"


class ApiKey:
    """A wrapper that hides the key in `str`, `repr` and formatted text.

    Args:
        value: The key as it is sent.
        notes: Warnings about the place where the key was found, one line each.
    """

    __slots__ = ("_value", "notes")

    def __init__(self, value: str, *, notes: tuple[str, ...] = ()) -> None:
        self._value = value
        self.notes = notes

    def reveal(self) -> str:
        """Return the key itself, for the request header."""
        return self._value

    def fingerprint(self, salt: bytes) -> bytes:
        """Return an eight-byte hash that identifies the key; scrypt makes guessing the key from it too expensive."""
        return hashlib.scrypt(self._value.encode(), salt=salt, n=2**12, r=8, p=1, dklen=8)

    def base_url(self, configured: str) -> str:
        """Return the base URL for this key; `configured` is a URL, or "auto" for the host that the key belongs to."""
        if configured != "auto":
            return configured
        return next((host for prefix, host in HOSTS.items() if self._value.startswith(prefix)), ANY_HOST)

    def __repr__(self) -> str:
        return "ApiKey(hidden)"

    __str__ = __repr__


def load_key(environ: Mapping[str, str], *, file: Path | None) -> ApiKey:
    """Read the key from the environment, or else from the first line of a file.

    Args:
        environ: The environment.
        file: The file that `[api] api_key_file` names. None if it names none.

    Raises:
        UnauthorizedError: there is no key, or the text found cannot be a key.
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
    """Return whether all users may read a file; the modes of pipes and devices are ignored."""
    return os.name == "posix" and stat.S_ISREG(mode) and bool(mode & stat.S_IROTH)


def clean_key(text: str, *, place: str, notes: tuple[str, ...] = ()) -> ApiKey:
    """Return the key in a text, without what people paste along with it.

    The header is `Basic` followed by the key itself, not by base64 of a name and a password (API reference, section 2).

    Args:
        text: The text found.
        place: Where it was found, for messages.
        notes: The notes of the `ApiKey`.

    Raises:
        UnauthorizedError: the text cannot be a key.
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
