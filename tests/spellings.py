"""The spellings in which a service, a proxy or a page may echo a secret."""

import html
import json
from collections.abc import Callable
from urllib.parse import quote

SPELLINGS: dict[str, Callable[[str], str]] = {
    "unchanged": str,
    "JSON escapes of every character": lambda secret: "".join(f"\\u{ord(letter):04x}" for letter in secret),
    "JSON escapes in capitals": lambda secret: "".join(f"\\u{ord(letter):04X}" for letter in secret),
    "one JSON escape, as written by Gson": lambda secret: secret.replace("=", "\\u003d"),
    "one JSON escape, as written by .NET": lambda secret: secret.replace("+", "\\u002B"),
    "escaped slashes": lambda secret: secret.replace("/", "\\/"),
    "JSON in JSON": lambda secret: json.dumps("".join(f"\\u{ord(letter):04x}" for letter in secret))[1:-1],
    "percent-encoded": lambda secret: quote(secret, safe=""),
    "percent-encoded, in lower case": lambda secret: quote(secret, safe="").replace("%2F", "%2f"),
    "percent-encoded twice": lambda secret: quote(quote(secret, safe=""), safe=""),
    "every character percent-encoded": lambda secret: "".join(f"%{ord(letter):02X}" for letter in secret),
    "HTML entities, hexadecimal": lambda secret: secret.replace("/", "&#x2F;"),
    "HTML entities, decimal": lambda secret: "".join(f"&#{ord(letter)};" for letter in secret),
    "HTML entities with names": lambda secret: secret.replace("/", "&sol;").replace("+", "&plus;"),
    "HTML entities in JSON": lambda secret: secret.replace("/", "\\u0026#x2f;"),
    "an entity of an entity": lambda secret: html.escape(secret.replace("/", "&#47;")),
    "C escapes": lambda secret: secret.replace("/", "\\x2f"),
    "C escapes, octal": lambda secret: secret.replace("/", "\\057"),
    "C escapes of eight digits": lambda secret: secret.replace("/", "\\U0000002f"),
    "escapes in braces": lambda secret: secret.replace("/", "\\u{2f}"),
    "percent escapes of four digits": lambda secret: "".join(f"%u{ord(letter):04x}" for letter in secret),
}
"""For each spelling by name, a function that converts a secret to it."""
