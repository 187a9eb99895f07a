"""The variables that a run usually needs besides the API key: what its object store and its databases read."""

from asyncexport.config.model import Settings
from asyncexport.core.warehouse.choices import SinkName

GOOGLE = "GOOGLE_APPLICATION_CREDENTIALS"

OF_MIRRORS = {
    "s3": ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"),
    "gs": (GOOGLE,),
    "az": ("AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT_KEY"),
}
"""The variables of object stores, by the scheme of `[output] mirror`."""

SNOWFLAKE = "ASYNCEXPORT_LOAD__SNOWFLAKE__"


def needed_variables(settings: Settings, *, loads: bool) -> tuple[str, ...]:
    """Return the names of the variables.

    Args:
        settings: The settings.
        loads: Whether the run loads days into the destinations of `[load] to`.
    """
    names = list(OF_MIRRORS.get(settings.output.mirror.partition(":")[0], ()))
    destinations = settings.load.to if loads else ()
    if SinkName.POSTGRES in destinations and settings.load.postgres.dsn_file is None:
        names.append("ASYNCEXPORT_LOAD__POSTGRES__DSN")
    if SinkName.BIGQUERY in destinations:
        names.append(GOOGLE)
    if SinkName.SNOWFLAKE in destinations:
        names += [f"{SNOWFLAKE}{one}" for one in ("ACCOUNT", "USER", "KEY_FILE")]
    return tuple(dict.fromkeys(names))
