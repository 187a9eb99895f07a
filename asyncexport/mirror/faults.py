"""Translates errors of obstore.

The text of such an error holds the request with its headers and the answer as it came, so it is never shown. Of an
answer only the status and the code are used, which are the service's own words for what happened.
"""

import re

from obstore import exceptions

from asyncexport.errors import MirrorError

STATUS = re.compile(r"non-2xx status code: (\d{3})")

CODE = re.compile(r"<Code>([A-Za-z0-9.]{1,60})</Code>")

NO_KEY = ("/latest/api/token", "/latest/meta-data", "/computeMetadata/", "/metadata/identity")
"""Parts of the URLs that are asked for a key on a machine in the cloud, if the environment has none."""

HINT = "check the key in the environment (AWS_ACCESS_KEY_ID and so on), its rights, and [output] mirror"

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
        return MirrorError(f"{tried}: the environment has no key for the object store", is_general=True, hint=HINT)
    if isinstance(error, exceptions.UnauthenticatedError | exceptions.PermissionDeniedError) or status in (
        "401",
        "403",
    ):
        return MirrorError(f"{tried}: {_said('refused', status, code)}", is_general=True, hint=HINT)
    if code == "NoSuchBucket" or (isinstance(error, FileNotFoundError) and doing == "list"):
        return MirrorError(f"{tried}: there is no such bucket", is_general=True, hint="create it, or check its name")
    if status:
        return MirrorError(f"{tried}: {_said('failed', status, code)}", hint="the next run or `mirror` tries again")
    if "HTTP error" in text:
        return MirrorError(
            f"{tried}: no answer",
            is_general=doing == "list",
            hint="check the network and the endpoint; the next run or `mirror` tries again",
        )
    return MirrorError(f"{tried}: {type(error).__name__}")


def _said(what: str, status: str, code: str) -> str:
    facts = ", ".join(filter(None, (f"status {status}" if status else "", code)))
    return f"{what} ({facts})" if facts else what
