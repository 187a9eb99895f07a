"""Names an object that was found to be right, so that a later mirror need not read its metadata again.

An ETag changes whenever an object is written. If the listing has the ETag that the object had when its metadata was
read, or when it was uploaded, then its metadata is the same.
"""

from hashlib import sha256

from asyncexport.core.mirror.objects import Held, Wanted

DIGITS = 32
"""The length of a digest, in hex digits."""


def seen_digest(url: str, wanted: Wanted, held: Held) -> str | None:
    """Return a digest of the place, the file and the version of the object; None if the version has no ETag."""
    if held.e_tag is None:
        return None
    facts = (url, wanted.path, str(wanted.bytes), wanted.sha256, held.e_tag, held.version or "")
    return sha256("\0".join(facts).encode()).hexdigest()[:DIGITS]
