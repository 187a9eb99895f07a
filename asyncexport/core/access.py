"""Who may read what a run makes in the output directory.

1. Only files and folders that are made from now on are concerned. What lies there already keeps its mode.
2. Where nobody chose, a new directory is private. One that holds archives which others may read stays open: whoever
   reads the files as another user goes on doing so.
"""

from enum import StrEnum


class Access(StrEnum):
    """As `[output] access` has it."""

    PRIVATE = "private"
    """Its owner alone: 0600, folders 0700."""

    UMASK = "umask"
    """Whoever the process's umask lets."""

    @property
    def file_mode(self) -> int:
        """What a file is made with, before the umask."""
        return 0o600 if self is Access.PRIVATE else 0o666

    @property
    def folder_mode(self) -> int:
        """What a folder is made with, before the umask."""
        return 0o700 if self is Access.PRIVATE else 0o777


ACCESS_REMARK = "access"
"""The key under which the ledger remembers who may read what is made, where nobody chose."""


def access_of(*, chosen: Access | None, remembered: str | None, is_open: bool) -> Access:
    """Who may read what a run makes (rule 2).

    Args:
        chosen: What the settings say; None: nothing.
        remembered: What an earlier run remembered; None: nothing.
        is_open: Whether the directory holds archives that others may read.
    """
    if chosen is not None:
        return chosen
    if remembered in list(Access):
        return Access(remembered)
    return Access.UMASK if is_open else Access.PRIVATE
