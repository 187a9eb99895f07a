"""Finds secrets in outgoing text, in any encoding, and replaces them.

1. Text from other programs may hold a secret in another encoding: JSON escapes of single characters, percent-encoding,
   HTML entities, and these within each other. So a text is decoded step by step, secrets are searched for after each
   step, and the part of the original text that stands for them is replaced.
2. A text may be cut in the middle of a secret. The beginning of an API key is enough to be replaced. Another secret may
   begin like a common word, so its beginning is replaced only where the text is cut ("…").
3. A short secret is replaced only as a whole word: `test` is not replaced in `latest`.
"""

import base64
import html.entities
import re
from collections.abc import Iterable, Iterator, Mapping
from urllib.parse import unquote

from asyncexport.errors import ExportError

MASK = "***"

LEAST_CHARS = 3
"""Nothing shorter is treated as a secret."""

SHORT_CHARS = 8
"""A shorter secret is replaced only as a whole word. This many characters of an API key are replaced anywhere."""

LEAST_HEADER_CHARS = 6
"""A header with a shorter value, such as `1` or `json`, is not treated as a secret."""

LEAST_CUT_CHARS = 4
"""A secret's beginning before the place where a text is cut is replaced if it has this many characters."""

MOST_STEPS = 5
"""Encodings within each other that are decoded."""

ENCODED = re.compile(
    r"""(?:\\+|%)u([0-9a-fA-F]{4})  # JSON, Java, JavaScript's escape()
    |\\+u\{([0-9a-fA-F]{1,6})\}     # JavaScript, Rust
    |\\+U([0-9a-fA-F]{8})           # C, Python
    |\\+x([0-9a-fA-F]{2})
    |\\+([0-3][0-7]{2})             # C, shells
    |%([0-9a-fA-F]{2})              # a URL
    |&\#[xX]([0-9a-fA-F]{1,6})(?:;|(?![0-9a-fA-F…]))  # HTML, also without the semicolon, but not cut
    |&\#([0-9]{1,7})(?:;|(?![0-9…]))
    |&([a-zA-Z][a-zA-Z0-9]{1,30});
    |\\+([^\sa-zA-Z0-9\\])          # JSON again, and shells
    """,
    re.VERBOSE,
)
"""One encoded character."""

CUT = re.compile(r"(?:(?:\\+|[%&])[a-zA-Z0-9#{]{0,30})?…")
"""The place where a text was cut, with half of an encoded character before it."""


class Mask:
    """Replaces secrets in texts. Called with a text, it returns the text without them.

    Args:
        keys: API keys. The part after a prefix such as `na1.` is a secret by itself.
        others: Other secrets.
    """

    def __init__(self, keys: Iterable[str] = (), others: Iterable[str] = ()) -> None:
        whole_keys = [key for key in keys if key]
        parts = {part for key in whole_keys for part in (key, key.partition(".")[2]) if len(part) >= SHORT_CHARS}
        encoded = {_base64(text) for key in whole_keys for text in (key, f"{key}:") if len(key) >= SHORT_CHARS}
        self._beginnings = tuple(sorted(parts | encoded))
        self._wholes = tuple(sorted({one for one in others if len(one) >= LEAST_CHARS}, key=len, reverse=True))

    def __call__(self, text: str) -> str:
        """Return the text with all secrets replaced."""
        if not (self._beginnings or self._wholes):
            return text
        spans: list[tuple[int, int]] = []
        letters, places = text, None
        for _ in range(MOST_STEPS):
            for start, end in self._found(letters):
                spans.append((start, end) if places is None else (places[start][0], places[end - 1][1]))
            found = [one for one in ENCODED.finditer(letters) if _character(one)]
            if not found:
                break
            letters, places = _decoded(letters, places, found)
        return _replaced(text, spans)

    def hide_in(self, error: ExportError) -> None:
        """Replace the secrets in an error's message and hint."""
        error.args = (self(str(error)),)
        error.hint = self(error.hint)

    def _found(self, text: str) -> Iterator[tuple[int, int]]:
        for secret in self._beginnings:
            start = text.find(secret[:SHORT_CHARS])
            while start >= 0:
                end = start + SHORT_CHARS
                while end - start < len(secret) and text[end : end + 1] == secret[end - start]:
                    end += 1
                yield start, end
                start = text.find(secret[:SHORT_CHARS], end)
        for secret in self._wholes:
            start = text.find(secret)
            while start >= 0:
                end = start + len(secret)
                if len(secret) >= SHORT_CHARS or _is_word(text, start, end):
                    yield start, end
                start = text.find(secret, end)
        for cut in CUT.finditer(text):
            yield from self._found_before(text, cut.start(), cut.end() - 1)

    def _found_before(self, text: str, half_encoded: int, cut: int) -> Iterator[tuple[int, int]]:
        """Yield beginnings of secrets that end where a text is cut, or before half of an encoded character there."""
        for end in {half_encoded, cut}:
            for secret in (*self._beginnings, *self._wholes):
                for length in range(min(len(secret) - 1, end), LEAST_CUT_CHARS - 1, -1):
                    if text.endswith(secret[:length], 0, end):
                        yield end - length, cut
                        break


def secrets_of_headers(headers: Mapping[str, str]) -> list[str]:
    """Return the values of headers that may be secret: those of `LEAST_HEADER_CHARS` or more."""
    return [value for value in headers.values() if len(value) >= LEAST_HEADER_CHARS]


def looks_secret(value: str) -> bool:
    """Whether a header's value looks unlike the words and dates in asyncexport's own messages."""
    has_mixed_letters = value != value.lower() or re.search(r"[0-9]", value) is not None
    is_date = re.match(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", value) is not None
    return len(value) >= SHORT_CHARS and has_mixed_letters and not is_date and re.search("[a-zA-Z]", value) is not None


def secrets_of_url(url: str) -> list[str]:
    """Return a URL's user and password, as in a URL and in Proxy-Authorization, and a long password alone."""
    authority = url.partition("://")[2] or url
    user_info, at, _ = re.split(r"[/?#]", authority, maxsplit=1)[0].rpartition("@")
    if not at or ":" not in user_info:
        return []
    decoded = unquote(user_info)
    password = decoded.partition(":")[2]
    found = [user_info, decoded, _base64(decoded)]
    return [*found, password] if len(password) >= SHORT_CHARS else found


def secrets_of_ping_url(url: str) -> list[str]:
    """Return the URL of a monitoring service, and the parts of its path and query that look secret."""
    _, _, hidden = url.partition("://")[2].partition("/")
    return [url, *(part for part in (hidden, *re.split(r"[/?&=]", hidden)) if looks_secret(part))] if url else []


def secrets_of_dsn(dsn: str) -> list[str]:
    """Return the connection string of a database, in either of libpq's two forms, and the password in it."""
    quoted, plain = r"'((?:[^'\\]|\\.)*)'", r"([^\s'&]+)"
    found = [one for pair in re.findall(rf"password\s*=\s*(?:{quoted}|{plain})", dsn) for one in pair if one]
    decoded = [unquote(re.sub(r"\\(.)", r"\1", one)) for one in found]
    return [dsn, *found, *decoded, *secrets_of_url(dsn)] if dsn else []


def _base64(text: str) -> str:
    """Encode a text, without the last characters, which depend on what follows."""
    return base64.b64encode(text.encode()).decode().rstrip("=")[:-2]


def _is_word(text: str, start: int, end: int) -> bool:
    return not (text[max(0, start - 1) : start].isalnum() or text[end : end + 1].isalnum())


def _character(found: "re.Match[str]") -> str:
    """Return the character that an encoded one stands for; "" if it stands for none."""
    four, braced, eight, two, octal, percent, hexadecimal, decimal, name, plain = found.groups()
    if plain is not None:
        return str(plain)
    if name is not None:
        return html.entities.html5.get(f"{name};", "")
    if octal is not None:
        return chr(int(octal, 8))
    code = int(decimal) if decimal is not None else int(four or braced or eight or two or percent or hexadecimal, 16)
    return chr(code) if code < 0x110000 else ""


def _decoded(
    text: str, places: list[tuple[int, int]] | None, found: "list[re.Match[str]]"
) -> tuple[str, list[tuple[int, int]]]:
    """Return the text with these characters decoded, and the original place of each of its characters."""
    if places is None:
        places = [(at, at + 1) for at in range(len(text))]
    letters: list[str] = []
    origins: list[tuple[int, int]] = []
    at = 0
    for one in found:
        letters.append(text[at : one.start()])
        origins += places[at : one.start()]
        character = _character(one)
        letters.append(character)
        origins += [(places[one.start()][0], places[one.end() - 1][1])] * len(character)
        at = one.end()
    letters.append(text[at:])
    origins += places[at:]
    return "".join(letters), origins


def _replaced(text: str, spans: list[tuple[int, int]]) -> str:
    parts: list[str] = []
    at = 0
    for start, end in sorted(spans):
        if start >= at:
            parts += [text[at:start], MASK]
        at = max(at, end)
    return "".join([*parts, text[at:]]) if spans else text
