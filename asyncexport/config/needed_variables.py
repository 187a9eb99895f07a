"""The variables that a run usually needs besides the API key: what its object store and its databases read."""

from asyncexport.config.model import Settings
from asyncexport.core.mirror.environment import GOOGLE, VARIABLES
from asyncexport.core.warehouse.choices import SinkName

SNOWFLAKE = "ASYNCEXPORT_LOAD__SNOWFLAKE__"


def needed_variables(settings: Settings, *, loads: bool) -> tuple[str, ...]:
    """Return the names of the variables.

    Args:
        settings: The settings.
        loads: Whether the run loads days into the destinations of `[load] to`.
    """
    names = list(VARIABLES.get(settings.output.mirror.partition(":")[0], ()))
    destinations = settings.load.to if loads else ()
    if SinkName.POSTGRES in destinations and settings.load.postgres.dsn_file is None:
        names.append("ASYNCEXPORT_LOAD__POSTGRES__DSN")
    if SinkName.BIGQUERY in destinations:
        names.append(GOOGLE)
    if SinkName.SNOWFLAKE in destinations:
        names += [f"{SNOWFLAKE}{one}" for one in ("ACCOUNT", "USER", "KEY_FILE")]
    return tuple(dict.fromkeys(names))
