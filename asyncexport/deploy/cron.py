"""A line for a crontab.

In a crontab, `%` ends the command unless a backslash precedes it, also within quotes. Cron takes a backslash and the
next character as a pair, so a backslash that belongs to a word must not be next to that one.
"""

import shlex

from asyncexport.deploy.deployment import ENVIRONMENT_FILE, KEY_VARIABLE, Deployment, PrintedFile
from asyncexport.deploy.templates import filled

EXPORTING = f"set -a && {{ [ ! -r {ENVIRONMENT_FILE} ] || . {ENVIRONMENT_FILE}; }} && set +a && "
"""Reads the variables of the object store and of databases, if there is a file of them, and passes them on."""

ENVIRONMENT_STEP = f"""
#    Write {{names}}
#    into {ENVIRONMENT_FILE}, as lines NAME='value': owned by {{user}}, chmod 600."""


def cron_files(deployment: Deployment) -> tuple[PrintedFile, ...]:
    """Return the crontab."""
    program, *words = deployment.command("nightly")
    key = f"{KEY_VARIABLE}={shlex.quote(str(deployment.key_file))}"
    variables = EXPORTING if deployment.variables else ""
    words = [program, "-q", *words]
    command = f"cd {shlex.quote(str(deployment.working_directory))} && {variables}{key} {shlex.join(words)}"
    text = filled(
        "crontab.template",
        environment_step=ENVIRONMENT_STEP.format(names=deployment.named_variables, user=deployment.user)
        if deployment.variables
        else "",
        command=command.replace("%", r"\%").replace(r"\\%", r"\''\%"),
        hour=deployment.hour,
        key_file=deployment.key_file,
        minute=deployment.minute,
        user=deployment.user,
    )
    return (PrintedFile(f"{deployment.name}.crontab", text),)
