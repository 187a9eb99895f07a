"""Who may read what a run creates in the output directory.

1. Only files and folders created from now on are concerned. Existing ones keep their mode.
2. If the user has not chosen, a new directory is private. A directory with archives that others may read stays open, so
   that other users who read the files can go on doing so.
"""

from enum import StrEnum


class Access(StrEnum):
    """The values of `[output] access`."""

    PRIVATE = "private"
    """Only the owner: files 0600, folders 0700."""

    UMASK = "umask"
    """As the process's umask allows."""

    @property
    def file_mode(self) -> int:
        """The mode a file is created with, before the umask."""
        return 0o600 if self is Access.PRIVATE else 0o666

    @property
    def folder_mode(self) -> int:
        """The mode a folder is created with, before the umask."""
        return 0o700 if self is Access.PRIVATE else 0o777


ACCESS_NOTE = "access"
"""The key of the ledger's note that remembers who may read new files, if the user has not chosen."""


def access_of(*, chosen: Access | None, remembered: str | None, is_open: bool) -> Access:
    """Return who may read what a run creates (rule 2).

    Args:
        chosen: The setting. None if it is not set.
        remembered: What an earlier run remembered. None if nothing.
        is_open: Whether the directory holds archives that others may read.
    """
    if chosen is not None:
        return chosen
    if remembered in list(Access):
        return Access(remembered)
    return Access.UMASK if is_open else Access.PRIVATE
