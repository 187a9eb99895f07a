"""Names an object that was found to be right, so that a later mirror need not read its metadata again.

An ETag changes with the content of an object. If the listing has the ETag that the object had when its metadata was
read, or when it was uploaded, then it has the same content. The version of the object is no part of this: listings do
not have it.
"""

from hashlib import sha256

from asyncexport.core.mirror.objects import Held, Wanted

DIGITS = 32
"""The length of a digest, in hex digits."""


def seen_digest(url: str, wanted: Wanted, held: Held) -> str | None:
    """Return a digest of the place, the file and the ETag of the object; None if it has no ETag."""
    if held.e_tag is None:
        return None
    facts = (url, wanted.path, str(wanted.bytes), wanted.sha256, held.e_tag)
    return sha256("\0".join(facts).encode()).hexdigest()[:DIGITS]
