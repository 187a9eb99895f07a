"""What the printed files have in common."""

from dataclasses import dataclass
from pathlib import Path

KEY_VARIABLE = "ASYNCEXPORT_API__API_KEY_FILE"
"""The variable that names the file with the API key; it takes precedence over the configuration file."""

FINAL_CODES = (2, 3, 6, 7, 8)
"""Exit codes after which a second attempt does not help: a person has to act, or the next night retries what is due."""

ENVIRONMENT_FILE = Path("/etc/asyncexport/environment")
"""The file with the variables that a run needs besides the API key, such as the key of an object store."""

MARGIN_SECONDS = 3600
"""How much longer than its maximum duration a run may take before a scheduler stops it. A run may end later than asked
because of downloads (`[output] grace`) and the last ping."""


@dataclass(frozen=True, slots=True)
class PrintedFile:
    """One file: its name and its text."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Deployment:
    """A nightly run to be started by a scheduler.

    Attributes:
        name: The name of the service, the CronJob or the DAG.
        program: The words that start this installation of asyncexport; the first one is an absolute path.
        config: The absolute path of the configuration file. None if there is none.
        working_directory: The directory that relative paths in the configuration start from.
        directory: The absolute path of the output directory.
        key_file: The absolute path of the file with the API key.
        names: The exports to run. Empty: all.
        sets: Settings that override the configuration, as `TABLE.KEY=VALUE`.
        overrides_directory: Whether `directory` differs from that of the configuration.
        max_duration: The maximum duration of a run, as it is written on the command line.
        max_duration_seconds: The same in seconds.
        stop_seconds: How long a run may take to stop after SIGTERM.
        settle_seconds: The age at which the data of all exports is settled.
        hour: The hour at which the run starts; UTC, but for cron.
        minute: The minute at which it starts.
        user: The user who runs it.
        load_bytes: The memory that loading days beside the run takes, in bytes. None if nothing is loaded.
        variables: The names of the variables that the object store and the databases of the run usually need.
    """

    name: str
    program: tuple[str, ...]
    config: Path | None
    working_directory: Path
    directory: Path
    key_file: Path
    names: tuple[str, ...]
    sets: tuple[str, ...]
    overrides_directory: bool
    max_duration: str
    max_duration_seconds: float
    stop_seconds: int
    settle_seconds: int
    hour: int
    minute: int
    user: str
    load_bytes: int | None = None
    variables: tuple[str, ...] = ()

    @property
    def named_variables(self) -> str:
        """The names of the variables, for comments."""
        return ", ".join(self.variables)

    def command(self, *words: str, config: Path | None = None, directory: Path | None = None) -> list[str]:
        """Return the words of a command line: the program, its configuration, `words`, and the common options.

        Args:
            words: The command and its own options.
            config: A path of the configuration file on another machine; default: the path on this one.
            directory: A path of the output directory on another machine.
        """
        path = config or self.config
        directory = directory or (self.directory if self.overrides_directory else None)
        return [
            *self.program,
            *(["-c", str(path)] if path else []),
            *words,
            *(["--load"] if self.load_bytes is not None else []),
            *(["-d", str(directory)] if directory else []),
            *(word for name in self.names for word in ("--export", name)),
            *(word for one in self.sets for word in ("--set", one)),
            "--max-duration",
            self.max_duration,
        ]
