"""A line for a crontab.

In a crontab, `%` ends the command unless a backslash precedes it, also within quotes. Cron takes a backslash and the
next character as a pair, so a backslash that belongs to a word must not be next to that one.
"""

import shlex

from asyncexport.deploy.deployment import KEY_VARIABLE, Deployment, PrintedFile
from asyncexport.deploy.templates import filled


def cron_files(deployment: Deployment) -> tuple[PrintedFile, ...]:
    """Return the crontab."""
    program, *words = deployment.command("nightly")
    key = f"{KEY_VARIABLE}={shlex.quote(str(deployment.key_file))}"
    command = f"cd {shlex.quote(str(deployment.working_directory))} && {key} {shlex.join([program, '-q', *words])}"
    text = filled(
        "crontab.template",
        command=command.replace("%", r"\%").replace(r"\\%", r"\''\%"),
        hour=deployment.hour,
        key_file=deployment.key_file,
        minute=deployment.minute,
        user=deployment.user,
    )
    return (PrintedFile(f"{deployment.name}.crontab", text),)
