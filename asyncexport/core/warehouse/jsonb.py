"""What jsonb cannot hold, and what is stored in its place.

jsonb holds numbers of up to 131,072 digits before the point and 16,383 after it, all characters except U+0000, and no
half of a surrogate pair. JSON may have more, so:

1. U+0000 and a half of a surrogate pair become U+FFFD.
2. A number beyond these limits becomes a string with the number as written; so do NaN and Infinity, which are not JSON.
3. JSON that is nested very deep becomes a string with the JSON as written.
"""

import json
import re

DEEPEST = 5000
"""Levels of nesting that the server accepts: with the default `max_stack_depth` its limit is above 10,000."""

LONGEST_NUMBER = 15_000
"""Digits of a number that the server certainly accepts if its exponent has at most three digits."""

LONGEST_EXPONENT = 3

ODD = r"\\u0000|\\u[dD][89a-fA-F]|[0-9][eE][+-]?[0-9]{4}|NaN|Infinity"
"""A regular expression that finds every JSON text that may need a change, except a `LONG` one."""

LONG = 1000
"""From this many characters on, a JSON text may need a change for its digits (`ODD_DIGITS`) or brackets as well."""

ODD_DIGITS = "[0-9.]{1000}"

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|-?(?:NaN|Infinity)|-?[0-9][0-9.eE+-]*|[\[\]{}]', re.DOTALL)

_PAIR_OR_ESCAPE = re.compile(r"\\u[dD][89abAB]..\\u[dD][c-fC-F]..|\\u....|\\.", re.DOTALL)


def fit_for_jsonb(text: str) -> str:
    """Return JSON that the server accepts as jsonb: the text itself, if it does not need a change."""
    if _depth(text) > DEEPEST:
        return _stored_string(json.dumps(text, ensure_ascii=False))
    return _TOKEN.sub(lambda found: _fit(found[0]), text)


def _fit(token: str) -> str:
    if token[0] == '"':
        return _stored_string(token)
    if token[-1] in "Ny" or not _is_stored(token):
        return f'"{token}"'
    return token


def _is_stored(token: str) -> bool:
    """Whether a token is a bracket or a number within the limits."""
    _, _, exponent = token.lower().partition("e")
    return len(token) <= LONGEST_NUMBER and len(exponent.lstrip("+-0")) <= LONGEST_EXPONENT


def _stored_string(token: str) -> str:
    if "\\u" not in token and "\0" not in token:
        return token
    return _PAIR_OR_ESCAPE.sub(lambda found: _stored_escape(found[0]), token).replace("\0", "\N{REPLACEMENT CHARACTER}")


def _stored_escape(escape: str) -> str:
    if len(escape) != 6:  # another escape, or a complete pair
        return escape
    code = int(escape.removeprefix("\\u"), 16)
    return r"\ufffd" if code == 0 or 0xD800 <= code <= 0xDFFF else escape


def _depth(text: str) -> int:
    deepest = depth = 0
    if text.count("[") + text.count("{") <= DEEPEST:
        return 0
    for found in _TOKEN.finditer(text):
        if found[0] in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif found[0] in "]}":
            depth -= 1
    return deepest
