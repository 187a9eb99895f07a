"""How the program was called, and the commands that hints tell the user to type next."""

import re
import shlex
from pathlib import Path

from asyncexport.core.masking import MASK

PROGRAM = "asyncexport"

PASTED = re.compile(rf"`{PROGRAM} (verify(?: --rebuild| --adopt)?|segments|status)`")
"""Commands that errors and closing words name without knowing how this one was called."""

SECRET = {"api.headers"}
"""Settings whose values nobody else may see."""

LOOKING = ("budget", "concurrency", "polling", "retry", "download")

WITHOUT_MEANING = {
    "retry": ("nightly",),
    "verify": ("nightly",),
    "status": LOOKING,
    "segments": ("nightly", "concurrency", "polling", "download"),
}
"""Tables of the configuration that make no difference to a command."""


class Invocation:
    """How this program was called.

    Attributes:
        config: The file that `-c` names.
        directory: What `-d` names.
        settings: What `--set` says, each time.
    """

    def __init__(self) -> None:
        self.config: Path | None = None
        self.directory: Path | None = None
        self.settings: list[str] = []

    def again(self, command: str, *arguments: str) -> str:
        """A command for the same settings and the same directory, to be pasted."""
        config = ["-c", str(self.config)] if self.config else []
        directory = ["-d", str(self.directory)] if self.directory else []
        sets = [word for one in self.settings if _matters(one, command) for word in ("--set", _shown(one))]
        return shlex.join([PROGRAM, *config, command, *arguments, *directory, *sets])

    def pasteable(self, text: str) -> str:
        """A text whose commands are for the settings and the directory of this one, as `again` has them."""
        return PASTED.sub(lambda found: f"`{self.again(*found[1].split())}`", text)


def _shown(setting: str) -> str:
    """A `--set` without what only its user may know; of a proxy's URL the password alone is masked, on the way out."""
    key, equals, _ = setting.partition("=")
    return f"{key}{equals}{MASK}" if key.strip() in SECRET else setting


def _matters(setting: str, command: str) -> bool:
    """Whether a `--set` makes a difference to a command; what belongs to nights does not to most."""
    return setting.strip().partition(".")[0] not in WITHOUT_MEANING.get(command, ())
