"""A systemd service and its timer.

1. In unit files, `%` starts a specifier, and in command lines `$` starts a variable: both are doubled.
2. The API key comes as a credential: systemd reads the file as root and shows it to the service alone.
3. The service tells systemd that it is alive (`cli.service_manager`); one that hangs is stopped and started again.
"""

from asyncexport.deploy.deployment import MARGIN_SECONDS, Deployment, PrintedFile
from asyncexport.deploy.templates import filled

CREDENTIAL = "fullstory-api-key"


def systemd_files(deployment: Deployment) -> tuple[PrintedFile, ...]:
    """Return the service and the timer."""
    service = filled(
        "service.template",
        command=" ".join(map(quoted_word, deployment.command("nightly"))),
        credential=CREDENTIAL,
        key_file=escaped(str(deployment.key_file)),
        most_seconds=round(deployment.max_duration_seconds) + MARGIN_SECONDS,
        name=deployment.name,
        stop_seconds=deployment.stop_seconds,
        user=deployment.user,
        working_directory=escaped(str(deployment.working_directory)),
    )
    time = f"{deployment.hour:02}:{deployment.minute:02}:00"
    timer = filled("timer.template", name=deployment.name, time=time)
    return PrintedFile(f"{deployment.name}.service", service), PrintedFile(f"{deployment.name}.timer", timer)


def escaped(text: str) -> str:
    """Return a text in which systemd finds no specifier."""
    return text.replace("%", "%%")


def quoted_word(word: str) -> str:
    """Return a word of a command line, in quotes if it needs them."""
    text = escaped(word).replace("$", "$$")
    if text and not any(one in text for one in " \t'\"\\;"):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
