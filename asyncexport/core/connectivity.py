"""Whether the service can be reached, and how long to wait before it is tried again.

The waits of an outage grow exponentially, with full jitter. When the service is given up is a setting, with a shorter
limit for a service that has never answered in this directory.
"""

from dataclasses import dataclass

LONGEST_PAUSE_SECONDS = 3600.0
"""A longer Retry-After is taken as a mistake: asking once an hour costs nothing."""


def backoff_seconds(failures: int, *, initial_seconds: float, max_seconds: float, jitter: float) -> float:
    """Return the wait after this many failures in a row: exponential, with full jitter (`jitter` in [0, 1))."""
    ceiling = min(max_seconds, initial_seconds * 2.0 ** min(failures - 1, 60))
    return ceiling * jitter


@dataclass(frozen=True, slots=True)
class Up:
    """The service can be reached."""


@dataclass(frozen=True, slots=True)
class Down:
    """It has not been reached since `since`; the next attempt is due at `probe_at` (both on the monotonic clock)."""

    since: float
    failures: int
    probe_at: float


Connectivity = Up | Down


@dataclass(frozen=True, slots=True)
class Backoff:
    """`[retry]`: the waits between attempts during an outage, and when to give up.

    Attributes:
        initial_seconds, max_seconds: The ceiling of the first wait, and of the longest.
        outage_seconds: When to give up.
        first_contact_seconds: When to give up a service that has never answered in this directory. None if no sooner.
    """

    initial_seconds: float
    max_seconds: float
    outage_seconds: float
    first_contact_seconds: float | None = None

    def give_up_seconds(self, *, has_answered: bool) -> float:
        """Return how long an outage may last, for a service that has, or has never, answered here."""
        first = self.first_contact_seconds
        return self.outage_seconds if has_answered or first is None else min(first, self.outage_seconds)

    def after_failure(self, line: Connectivity, *, now: float, jitter: float, retry_after: float | None = None) -> Down:
        """Return the connectivity after another failure; `retry_after`: the wait the service asks for, in seconds."""
        since, failures = (now, 1) if isinstance(line, Up) else (line.since, line.failures + 1)
        asked = min(max(retry_after or 0.0, 0.0), LONGEST_PAUSE_SECONDS)
        return Down(since, failures, now + max(self.wait_seconds(failures, jitter=jitter), asked))

    def wait_seconds(self, failures: int, *, jitter: float) -> float:
        """Return the wait after this many failures in a row."""
        return backoff_seconds(
            failures, initial_seconds=self.initial_seconds, max_seconds=self.max_seconds, jitter=jitter
        )

    def is_over(self, line: Connectivity, *, now: float, has_answered: bool = True) -> bool:
        """Whether the outage has lasted long enough to give up the service."""
        return isinstance(line, Down) and now - line.since >= self.give_up_seconds(has_answered=has_answered)


def is_outage(status: int | None) -> bool:
    """Whether an answer (None if none came) shows that the service is down or in trouble (API reference, 3.0)."""
    return status is None or status in (408, 499) or status >= 500
