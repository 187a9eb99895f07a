"""What the environment says about the object store, checked before the library reads it.

The library ends a request with a crash of its own if a key has a line break or the endpoint has no scheme, and without
a key it asks for the role of the machine for more than a minute, although most machines have none.
"""

from collections.abc import Mapping
from urllib.parse import SplitResult, urlsplit

from asyncexport.errors import Problem

ENDPOINTS = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT", "AWS_METADATA_ENDPOINT")

KEY, SECRET = "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"

GOOGLE = "GOOGLE_APPLICATION_CREDENTIALS"

VARIABLES = {
    "s3": (KEY, SECRET, "AWS_REGION"),
    "gs": (GOOGLE,),
    "az": ("AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT_KEY"),
}
"""What an object store usually needs, by the scheme of its URL."""

IN_HEADERS = (KEY, SECRET, "AWS_SESSION_TOKEN", "AWS_TOKEN", "AWS_REGION", "AWS_DEFAULT_REGION", *ENDPOINTS)
"""Variables whose values become parts of requests."""

OTHER_KEYS = (
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_SKIP_SIGNATURE",
)
"""Variables that say where a key comes from, or that none is needed."""

ROLE_SERVICE = "http://169.254.169.254"
"""Gives a machine in Amazon's cloud the key of its role."""

YES = ("true", "1", "yes", "on")


def allows_http(environ: Mapping[str, str]) -> bool:
    """Whether requests may be sent without TLS."""
    return environ.get("AWS_ALLOW_HTTP", environ.get("ALLOW_HTTP", "")).strip().lower() in YES


def variable_problems(environ: Mapping[str, str]) -> list[Problem]:
    """Return what is wrong with the variables of S3; no value is in the texts."""
    found = []
    for name in IN_HEADERS:
        value = environ.get(name, "")
        if value != value.strip() or not (value.isprintable() and value.isascii()):
            found.append(Problem(name, "must be plain ASCII, without line breaks and without spaces at its ends"))
        elif name in ENDPOINTS and value:
            found += _endpoint_problems(name, value, environ)
    has_key, has_secret = (bool(environ.get(name)) for name in (KEY, SECRET))
    if has_key != has_secret:
        found.append(Problem(SECRET if has_key else KEY, f"must be set together with {KEY if has_key else SECRET}"))
    return found


def role_service(environ: Mapping[str, str]) -> tuple[str, int] | None:
    """Return the host and port that are asked for the key of the machine's role; None if no role is needed."""
    if environ.get(KEY) or any(environ.get(name) for name in OTHER_KEYS):
        return None
    parts = _split(environ.get("AWS_METADATA_ENDPOINT") or ROLE_SERVICE)
    if parts is None or not parts.hostname:
        return None
    return parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)


def _endpoint_problems(name: str, value: str, environ: Mapping[str, str]) -> list[Problem]:
    parts = _split(value)
    if parts is None or parts.scheme not in ("http", "https") or not parts.hostname:
        return [Problem(name, "must be a URL that begins with https:// or http://")]
    if parts.scheme == "http" and name != "AWS_METADATA_ENDPOINT" and not allows_http(environ):
        return [Problem(name, "begins with http://, which is allowed only with AWS_ALLOW_HTTP=true")]
    return []


def _split(text: str) -> SplitResult | None:
    try:
        parts = urlsplit(text)
        parts.port  # noqa: B018 - raises if it is no number
    except ValueError:
        return None
    return parts
