"""How much a mirror does at a time, and how long it waits."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class MirrorLimits:
    """How much the mirror does at a time, and how long it waits for the object store, in seconds.

    Attributes:
        uploads: Objects that are uploaded at the same time.
        single_bytes: The largest object that is uploaded with one request. That many bytes of each are in memory.
        connect: Longest wait for a connection.
        answer: Longest wait for the answer to a small request.
        upload: Longest wait for the upload of `single_bytes`, or of one part.
        retries: How often a request is repeated.
        retry: How long after its first try a request may be repeated.
        pause: The first pause before that; it doubles, with jitter.
    """

    uploads: int = 4
    single_bytes: int = 32 << 20
    connect: float = 10.0
    answer: float = 60.0
    upload: float = 300.0
    retries: int = 8
    retry: float = 90.0
    pause: float = 0.5
