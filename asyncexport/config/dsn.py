"""The connection string of PostgreSQL, which may contain a password and is treated as a secret."""

from asyncexport.config.load_model import PostgresSettings
from asyncexport.errors import ConfigError, Problem

MAX_FILE_BYTES = 64 << 10
"""Maximum bytes to read from the file: far more than a connection string has."""

HINT = "set ASYNCEXPORT_LOAD__POSTGRES__DSN, or name a file with it in dsn_file of [load.postgres]"


def load_dsn(settings: PostgresSettings) -> str:
    """Return the connection string: the setting, or else the first line of `dsn_file`.

    Raises:
        ConfigError: there is none, or the file cannot be read.
    """
    if settings.dsn.strip():
        return settings.dsn.strip()
    if settings.dsn_file is None:
        raise ConfigError([Problem("load.postgres.dsn", "is not set")], hint=HINT)
    try:
        with settings.dsn_file.open("rb") as file:
            line = file.readline(MAX_FILE_BYTES)
    except OSError as error:
        reason = (error.strerror or "no reason given").lower()
        raise ConfigError([Problem("load.postgres.dsn_file", f"cannot be read: {reason}")], hint=HINT) from None
    text = line.decode("utf-8-sig", errors="replace").strip()
    if not text or not text.isprintable():
        raise ConfigError([Problem("load.postgres.dsn_file", "does not have the text on its first line")], hint=HINT)
    return text
