"""A systemd service and its timer.

1. In unit files, `%` starts a specifier, and in command lines `$` starts a variable: both are doubled. A backslash at
   the end of a line continues it, and spaces there are ignored, so a folder whose name ends like that gets a slash.
2. systemd refuses a program whose path has a quote or a backslash, and finds none whose path has a `$`: the shell
   starts it.
3. The API key comes as a credential: systemd reads the file as root and shows it to the service alone.
4. The service tells systemd that it is alive (`cli.service_manager`); one that hangs is stopped and started again.
"""

from pathlib import Path

from asyncexport.deploy.deployment import ENVIRONMENT_FILE, MARGIN_SECONDS, Deployment, PrintedFile
from asyncexport.deploy.templates import filled

ODD_IN_PROGRAM = "$\"'\\"
"""Characters that the path of a program must not have (rule 2)."""

BY_SHELL = ("/bin/sh", "-c", 'exec "$0" "$@"')
"""Precedes a command that the shell starts; the shell's process becomes that of the command."""

CREDENTIAL = "fullstory-api-key"

ENVIRONMENT = f"""
# Variables of the object store and of databases. Without the file, the service starts as well.
EnvironmentFile=-{ENVIRONMENT_FILE}"""

ENVIRONMENT_STEP = f"""
#    Write {{names}}
#    into {ENVIRONMENT_FILE}, as lines NAME='value': owned by root, chmod 600."""


def systemd_files(deployment: Deployment) -> tuple[PrintedFile, ...]:
    """Return the service and the timer."""
    service = filled(
        "service.template",
        command=command_line(deployment.command("nightly")),
        credential=CREDENTIAL,
        environment=ENVIRONMENT if deployment.variables else "",
        environment_step=ENVIRONMENT_STEP.format(names=deployment.named_variables) if deployment.variables else "",
        key_file=escaped(str(deployment.key_file)),
        most_seconds=round(deployment.max_duration_seconds) + MARGIN_SECONDS,
        name=deployment.name,
        stop_seconds=deployment.stop_seconds,
        user=deployment.user,
        working_directory=folder(deployment.working_directory),
    )
    time = f"{deployment.hour:02}:{deployment.minute:02}:00"
    timer = filled("timer.template", name=deployment.name, time=time)
    return PrintedFile(f"{deployment.name}.service", service), PrintedFile(f"{deployment.name}.timer", timer)


def command_line(words: list[str]) -> str:
    """Return a command line (rules 1 and 2)."""
    is_odd = any(letter in words[0] for letter in ODD_IN_PROGRAM)
    return " ".join(map(quoted_word, [*BY_SHELL, *words] if is_odd else words))


def folder(path: Path) -> str:
    """Return the path of a folder at the end of a line (rule 1)."""
    text = escaped(str(path))
    return f"{text}/" if text.endswith(("\\", " ")) else text


def escaped(text: str) -> str:
    """Return a text in which systemd finds no specifier."""
    return text.replace("%", "%%")


def quoted_word(word: str) -> str:
    """Return a word of a command line, in quotes if it needs them."""
    text = escaped(word).replace("$", "$$")
    if text and not any(one in text for one in " \t'\"\\;"):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
