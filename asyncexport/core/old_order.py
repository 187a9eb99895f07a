"""The values of `[nightly] order`. Help and the settings need them, and must not wait for the rest of `core.lanes`."""

from enum import StrEnum


class OldOrder(StrEnum):
    """The order in which old bundles are started."""

    NEWEST = "newest"
    OLDEST = "oldest"
