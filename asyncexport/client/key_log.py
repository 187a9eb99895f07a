"""`SSLKEYLOGFILE`: where TLS writes its keys, if that is set.

It is looked at before aiohttp is imported, which opens that file and would fail with the bare error of the system.
"""

from collections.abc import Mapping
from pathlib import Path

from asyncexport.errors import ConfigError, Problem

VARIABLE = "SSLKEYLOGFILE"


def check_key_log(environ: Mapping[str, str]) -> None:
    """Make sure that TLS can write its keys where the environment says.

    Raises:
        ConfigError: it cannot.
    """
    file = environ.get(VARIABLE)
    if not file:
        return
    try:
        with Path(file).open("ab"):
            return
    except OSError as error:
        reason = (error.strerror or "no reason given").lower()
    raise ConfigError(
        [Problem(VARIABLE, f"{file} cannot be written: {reason}")],
        hint=f"unset {VARIABLE}, unless the keys of TLS are to be written down",
    )
