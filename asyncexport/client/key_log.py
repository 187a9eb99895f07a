"""Checks `SSLKEYLOGFILE`, the file that TLS writes its session keys to if that variable is set.

The check runs before aiohttp is imported: the import opens the file, and fails with the bare error of the system or
waits forever for a pipe that has no reader.
"""

import errno
import os
from collections.abc import Mapping
from stat import S_ISFIFO

from asyncexport.errors import ConfigError, Problem

VARIABLE = "SSLKEYLOGFILE"


def check_key_log(environ: Mapping[str, str]) -> None:
    """Make sure that TLS can write its session keys where the environment says.

    Raises:
        ConfigError: it cannot.
    """
    file = environ.get(VARIABLE)
    if not file:
        return
    try:
        # Without O_NONBLOCK, opening a pipe waits until it has a reader.
        handle = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    except OSError as error:
        reason = "nothing reads from it" if error.errno == errno.ENXIO else (error.strerror or "unknown reason").lower()
    else:
        # A pipe stays open until the program ends: its reader would see an end of file now and leave.
        if not S_ISFIFO(os.fstat(handle).st_mode):
            os.close(handle)
        return
    raise ConfigError(
        [Problem(VARIABLE, f"cannot write TLS keys to {file}: {reason}")],
        hint=f"unset {VARIABLE}, or set it to a file that can be written",
    )
