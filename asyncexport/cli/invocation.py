"""How the program was called, and the commands that hints suggest, with the same options."""

import re
import shlex
from pathlib import Path

from asyncexport.core.masking import MASK

PROGRAM = "asyncexport"

PASTED = re.compile(rf"`{PROGRAM} (verify(?: --rebuild| --adopt| --repair)?|segments|status)`")
"""Commands in errors and closing texts, which do not know the options of this call."""

SECRET = {"api.headers", "load.postgres.dsn", "ping.url"}
"""Settings whose values are secret."""

IRRELEVANT = {
    "accept": ("budget", "concurrency", "polling", "retry", "download", "nightly", "sentinel", "dashboard", "load"),
    "retry": ("nightly", "load"),
    "metrics": ("concurrency", "polling", "retry", "download", "metrics", "dashboard", "ping", "load"),
    "verify": ("nightly", "load"),
    "audit": ("nightly", "load"),
    "status": ("budget", "concurrency", "polling", "retry", "download", "metrics", "dashboard", "ping", "load"),
    "segments": ("nightly", "concurrency", "polling", "download", "metrics", "dashboard", "ping", "load"),
}
"""Tables of the configuration that have no effect on a command."""


class Invocation:
    """How this program was called.

    Attributes:
        config: The value of `-c`.
        directory: The value of `-d`.
        settings: The values of `--set`.
    """

    def __init__(self) -> None:
        self.config: Path | None = None
        self.directory: Path | None = None
        self.settings: list[str] = []

    def again(self, command: str, *arguments: str) -> str:
        """Return a command line for the same settings and directory, to be pasted into a shell."""
        config = ["-c", str(self.config)] if self.config else []
        directory = ["-d", str(self.directory)] if self.directory else []
        sets = [word for one in self.settings if _matters(one, command) for word in ("--set", _shown(one))]
        return shlex.join([PROGRAM, *config, command, *arguments, *directory, *sets])

    def pasteable(self, text: str) -> str:
        """Replace the commands in a text by those for the same settings and directory (see `again`)."""
        return PASTED.sub(lambda found: f"`{self.again(*found[1].split())}`", text)


def _shown(setting: str) -> str:
    """Return the value of a `--set`, masked if it is secret; passwords in proxy URLs are masked on output."""
    key, equals, _ = setting.partition("=")
    return f"{key}{equals}{MASK}" if key.strip() in SECRET else setting


def _matters(setting: str, command: str) -> bool:
    """Return whether a `--set` has an effect on a command."""
    return setting.strip().partition(".")[0] not in IRRELEVANT.get(command, ())
