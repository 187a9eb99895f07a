"""An Airflow DAG: one task a night, or one task for each data interval.

It starts asyncexport as a process of its own and not as a library, because Airflow pins other versions of the same
dependencies, and because a process gets SIGTERM when Airflow stops the task. Its exit code decides whether Airflow
retries the task.
"""

import json
import math

from asyncexport.deploy.deployment import FINAL_CODES, KEY_VARIABLE, MARGIN_SECONDS, Deployment, PrintedFile
from asyncexport.deploy.templates import filled

LEAST_SHIFT_DAYS = 2
DAY_SECONDS = 86_400

ENVIRONMENT_STEP = """

The process gets the environment of the Airflow worker. Set there what the object store and the databases need:
{names}."""


def airflow_files(deployment: Deployment, *, start: str = "") -> tuple[PrintedFile, ...]:
    """Return the DAG.

    Args:
        deployment: What it starts.
        start: The first day to export, for one task per data interval. "": one task a night.
    """
    interval = bool(start)
    words = ("backfill",) if interval else ("nightly", "--success-exit", "9")
    text = filled(
        "dag_of_intervals.template" if interval else "dag.template",
        environment_step=ENVIRONMENT_STEP.format(names=deployment.named_variables) if deployment.variables else "",
        command=_lines(deployment.command(*words)),
        key_file=_literal(str(deployment.key_file)),
        key_variable=KEY_VARIABLE,
        final_codes=", ".join(map(str, FINAL_CODES)),
        hour=deployment.hour,
        minute=deployment.minute,
        most_seconds=round(deployment.max_duration_seconds) + MARGIN_SECONDS,
        name=deployment.name,
        shift_days=max(LEAST_SHIFT_DAYS, math.ceil(deployment.settle_seconds / DAY_SECONDS)),
        start=start,
        stop_seconds=deployment.stop_seconds,
        working_directory=_literal(str(deployment.working_directory)),
    )
    return (PrintedFile(f"{deployment.name}_dag.py", text),)


def _lines(words: list[str]) -> str:
    """Return a list of words as Python, one word per line."""
    return "[" + "".join(f"\n    {_literal(word)}," for word in words) + "\n]"


def _literal(text: str) -> str:
    """Return a text as Python."""
    return json.dumps(text, ensure_ascii=False)
