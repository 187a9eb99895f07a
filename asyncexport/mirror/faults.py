"""Translates errors of obstore.

The text of such an error holds the request with its headers and the answer as it came, so it is never shown. Of an
answer only the status and the code are used, which are the service's own words for what happened.
"""

import re

from obstore import exceptions

from asyncexport.core.mirror.environment import VARIABLES
from asyncexport.errors import CutAnswerError, MirrorError, OddNameError

STATUS = re.compile(r"non-2xx status code: (\d{3})")

CODE = re.compile(r"<Code>([A-Za-z0-9.]{1,60})</Code>")

NO_KEY = ("/latest/api/token", "/latest/meta-data", "/computeMetadata/", "/metadata/identity")
"""Parts of the URLs that are asked for a key on a machine in the cloud, if the environment has none."""

AGAIN = "the next run or `mirror` tries again"

REGION_HINT = "set AWS_REGION to the region of the bucket; for a store that is not Amazon's, set AWS_ENDPOINT_URL"

EXPIRED_HINT = "renew the temporary key (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN)"

GENERAL_HINTS = {
    "AuthorizationHeaderMalformed": REGION_HINT,
    "ExpiredToken": EXPIRED_HINT,
    "IllegalLocationConstraintException": REGION_HINT,
    "InvalidBucketName": "check the name of the bucket in [output] mirror",
    "InvalidToken": EXPIRED_HINT,
    "NotImplemented": "use an object store that supports conditional uploads (If-None-Match) and SHA-256 checksums",
    "PermanentRedirect": REGION_HINT,
    "RequestTimeTooSkewed": "set the clock of this machine",
    "TokenRefreshRequired": EXPIRED_HINT,
}
"""What to do, for codes that any other object would be answered with as well."""

NETWORK = (
    (
        "InvalidCertificate",
        "the certificate of the endpoint is not accepted",
        "set SSL_CERT_FILE to a file with the certificate of its authority",
    ),
    ("InvalidMessage", "the endpoint does not speak TLS", "check AWS_ENDPOINT_URL, which begins with https://"),
    ("dns error", "its host cannot be found", "check AWS_ENDPOINT_URL, AWS_REGION and the network"),
)
"""What the library says, in its own words, if no other request would succeed; what happened; and what to do."""

STORE_ERRORS = (exceptions.BaseError, OSError, ValueError)
"""What obstore raises."""


def mirror_error(error: Exception, doing: str, url: str) -> MirrorError:
    """Return the error for users.

    Args:
        error: The error of obstore.
        doing: What was tried, such as `list`.
        url: The mirror, or the object.
    """
    text = str(error)
    status, code = (found[1] if (found := pattern.search(text)) else "" for pattern in (STATUS, CODE))
    tried = f"cannot {doing} {url}"
    if any(part in text for part in NO_KEY):
        return no_key(tried, url)
    if isinstance(error, exceptions.NotSupportedError):
        unsupported = "the object store does not support conditional uploads"
        return MirrorError(f"{tried}: {unsupported}", is_general=True, hint=GENERAL_HINTS["NotImplemented"])
    if code in GENERAL_HINTS:
        return MirrorError(f"{tried}: {_said('refused', status, code)}", is_general=True, hint=GENERAL_HINTS[code])
    if status.startswith("3") or "Received redirect" in text:
        return MirrorError(f"{tried}: the bucket is somewhere else", is_general=True, hint=REGION_HINT)
    if isinstance(error, exceptions.UnauthenticatedError | exceptions.PermissionDeniedError) or status in (
        "401",
        "403",
    ):
        return MirrorError(f"{tried}: {_said('refused', status, code)}", is_general=True, hint=key_hint(url))
    if code == "NoSuchBucket" or (isinstance(error, FileNotFoundError) and doing == "list"):
        return MirrorError(f"{tried}: there is no such bucket", is_general=True, hint="create it, or check its name")
    if status or code:
        return MirrorError(f"{tried}: {_said('failed', status, code)}", hint=AGAIN)
    if "HTTP error" in text:
        return _network_error(text, tried, is_general=doing == "list")
    if isinstance(error, exceptions.InvalidPathError):
        return OddNameError(f"{tried}: an object has a name that the library cannot read")
    hint = f"check that the endpoint is that of an object store; {AGAIN}"
    return MirrorError(f"{tried}: the answer cannot be understood ({type(error).__name__})", hint=hint)


def _network_error(text: str, tried: str, *, is_general: bool) -> MirrorError:
    """Return the error for a request that got no complete answer."""
    for sign, happened, hint in NETWORK:
        if sign in text:
            return MirrorError(f"{tried}: {happened}", is_general=True, hint=hint)
    hint = f"check the network and the endpoint; {AGAIN}"
    if "response body" in text:
        return CutAnswerError(f"{tried}: the connection broke", is_general=is_general, hint=hint)
    happened = "the connection was refused" if "ConnectionRefused" in text else "no answer"
    return MirrorError(f"{tried}: {happened}", is_general=is_general, hint=hint)


def no_key(tried: str, url: str) -> MirrorError:
    """Return the error for an environment without a key."""
    return MirrorError(f"{tried}: the environment has no key for the object store", is_general=True, hint=key_hint(url))


def key_hint(url: str) -> str:
    """Say where the key for a URL is looked for."""
    names = VARIABLES.get(url.partition(":")[0], ())
    said = f"{names[0]} and so on" if len(names) > 2 else " and ".join(names)
    return f"check the key in the environment ({said}), its rights, and [output] mirror"


def _said(what: str, status: str, code: str) -> str:
    facts = ", ".join(filter(None, (f"status {status}" if status else "", code)))
    return f"{what} ({facts})" if facts else what
