"""Secrets in what goes out: found in any spelling, and replaced.

1. What others say may hold a secret of ours in another spelling: JSON escapes of single characters, percent-encoding,
   HTML entities, and these within each other. A text is therefore decoded step by step, each secret is looked for after
   each step, and what stood for it in the text as it was is replaced.
2. A text may be cut in the middle of a secret. Of an API key the beginning alone is enough to be replaced; of any other
   secret, which may begin as a common word does, the beginning is replaced where the text is cut ("…").
3. A short secret is replaced only where it is a whole word: `test` is not replaced in `latest`.
"""

import base64
import html.entities
import re
from collections.abc import Iterable, Iterator, Mapping
from urllib.parse import unquote

from asyncexport.errors import ExportError

MASK = "***"

LEAST_CHARS = 3
"""Nothing shorter is a secret."""

SHORT_CHARS = 8
"""A secret with fewer characters is replaced only as a whole word; of an API key so many give it away."""

LEAST_HEADER_CHARS = 6
"""A header with a shorter value, such as `1` or `json`, holds no secret."""

LEAST_CUT_CHARS = 4
"""So many characters of a secret before the place where a text is cut are replaced."""

MOST_STEPS = 5
"""Spellings within each other that are followed."""

SPELT = re.compile(
    r"""(?:\\+|%)u([0-9a-fA-F]{4})  # JSON, Java, JavaScript's escape()
    |\\+u\{([0-9a-fA-F]{1,6})\}     # JavaScript, Rust
    |\\+U([0-9a-fA-F]{8})           # C, Python
    |\\+x([0-9a-fA-F]{2})
    |\\+([0-3][0-7]{2})             # C, shells
    |%([0-9a-fA-F]{2})              # a URL
    |&\#[xX]([0-9a-fA-F]{1,6})(?:;|(?![0-9a-fA-F…]))  # HTML, if need be without its end, but not cut
    |&\#([0-9]{1,7})(?:;|(?![0-9…]))
    |&([a-zA-Z][a-zA-Z0-9]{1,30});
    |\\+([^\sa-zA-Z0-9\\])          # JSON again, and shells
    """,
    re.VERBOSE,
)
"""One character in another spelling."""

CUT = re.compile(r"(?:(?:\\+|[%&])[a-zA-Z0-9#{]{0,30})?…")
"""The place where a text was cut, with half of a spelling before it."""


class Mask:
    """Replaces secrets in texts; called with a text, it returns the text as it may go out.

    Args:
        keys: API keys; the part after a prefix such as `na1.` is a secret by itself.
        others: Other secrets, as they are.
    """

    def __init__(self, keys: Iterable[str] = (), others: Iterable[str] = ()) -> None:
        whole_keys = [key for key in keys if key]
        parts = {part for key in whole_keys for part in (key, key.partition(".")[2]) if len(part) >= SHORT_CHARS}
        encoded = {_base64(text) for key in whole_keys for text in (key, f"{key}:") if len(key) >= SHORT_CHARS}
        self._beginnings = tuple(sorted(parts | encoded))
        self._wholes = tuple(sorted({one for one in others if len(one) >= LEAST_CHARS}, key=len, reverse=True))

    def __call__(self, text: str) -> str:
        """The text with each secret replaced."""
        if not (self._beginnings or self._wholes):
            return text
        spans: list[tuple[int, int]] = []
        letters, places = text, None
        for _ in range(MOST_STEPS):
            for start, end in self._found(letters):
                spans.append((start, end) if places is None else (places[start][0], places[end - 1][1]))
            found = [one for one in SPELT.finditer(letters) if _character(one)]
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

    def _found_before(self, text: str, half_spelt: int, cut: int) -> Iterator[tuple[int, int]]:
        """The beginnings of secrets that end where a text is cut, or where half of a spelling stands before that."""
        for end in {half_spelt, cut}:
            for secret in (*self._beginnings, *self._wholes):
                for length in range(min(len(secret) - 1, end), LEAST_CUT_CHARS - 1, -1):
                    if text.endswith(secret[:length], 0, end):
                        yield end - length, cut
                        break


def secrets_of_headers(headers: Mapping[str, str]) -> list[str]:
    """The values of headers that may be secret; what is shorter than `LEAST_HEADER_CHARS` is none."""
    return [value for value in headers.values() if len(value) >= LEAST_HEADER_CHARS]


def looks_secret(value: str) -> bool:
    """Whether a header's value can be told from the words and dates that our own lines are made of."""
    has_mixed_letters = value != value.lower() or re.search(r"[0-9]", value) is not None
    is_date = re.match(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", value) is not None
    return len(value) >= SHORT_CHARS and has_mixed_letters and not is_date and re.search("[a-zA-Z]", value) is not None


def secrets_of_url(url: str) -> list[str]:
    """The user and password of a URL, in the spellings of a URL and of Proxy-Authorization, and a long password."""
    authority = url.partition("://")[2] or url
    user_info, at, _ = re.split(r"[/?#]", authority, maxsplit=1)[0].rpartition("@")
    if not at or ":" not in user_info:
        return []
    decoded = unquote(user_info)
    password = decoded.partition(":")[2]
    found = [user_info, decoded, _base64(decoded)]
    return [*found, password] if len(password) >= SHORT_CHARS else found


def _base64(text: str) -> str:
    """Without its last characters, which hang on what follows."""
    return base64.b64encode(text.encode()).decode().rstrip("=")[:-2]


def _is_word(text: str, start: int, end: int) -> bool:
    return not (text[max(0, start - 1) : start].isalnum() or text[end : end + 1].isalnum())


def _character(found: "re.Match[str]") -> str:
    """The character that a spelling stands for; "" where it stands for none."""
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
    """The text with these spellings decoded, and where each of its characters stood at first."""
    if places is None:
        places = [(at, at + 1) for at in range(len(text))]
    letters: list[str] = []
    stood: list[tuple[int, int]] = []
    at = 0
    for one in found:
        letters.append(text[at : one.start()])
        stood += places[at : one.start()]
        character = _character(one)
        letters.append(character)
        stood += [(places[one.start()][0], places[one.end() - 1][1])] * len(character)
        at = one.end()
    letters.append(text[at:])
    stood += places[at:]
    return "".join(letters), stood


def _replaced(text: str, spans: list[tuple[int, int]]) -> str:
    parts: list[str] = []
    at = 0
    for start, end in sorted(spans):
        if start >= at:
            parts += [text[at:start], MASK]
        at = max(at, end)
    return "".join([*parts, text[at:]]) if spans else text
