"""The login at Snowflake, from its settings."""

from pathlib import Path

from asyncexport.config.load_model import SnowflakeSettings
from asyncexport.core.warehouse.snowflake_login import SnowflakeLogin, address
from asyncexport.core.warehouse.snowflake_sql import name_of_setting
from asyncexport.errors import ConfigError, Problem

MAX_FILE_BYTES = 64 << 10
"""Maximum bytes to read from the key file: far more than a key has."""

HINT = (
    "set ASYNCEXPORT_LOAD__SNOWFLAKE__ACCOUNT, …__USER and …__KEY_FILE, and database in [load.snowflake]; the user "
    "needs the public key that belongs to the key file"
)


def load_snowflake(settings: SnowflakeSettings) -> SnowflakeLogin:
    """Return the login.

    Raises:
        ConfigError: something is not set or cannot be used.
    """
    given = {
        "account": settings.account.strip(),
        "user": settings.user.strip(),
        "key_file": str(settings.key_file or ""),
        "database": settings.database.strip(),
    }
    problems = [Problem(f"load.snowflake.{name}", "is not set") for name, text in given.items() if not text]
    if given["account"]:
        try:
            address(given["account"])
        except ValueError as error:
            problems.append(Problem("load.snowflake.account", str(error)))
    if given["key_file"] and (fault := _fault_of_key_file(given["key_file"])):
        problems.append(Problem("load.snowflake.key_file", fault))
    if problems:
        raise ConfigError(problems, hint=HINT)
    return SnowflakeLogin(
        address(given["account"]),
        given["user"],
        given["key_file"],
        name_of_setting(given["database"]),
        settings.warehouse.strip(),
    )


def _fault_of_key_file(path: str) -> str:
    try:
        with Path(path).open("rb") as file:
            content = file.read(MAX_FILE_BYTES)
    except OSError as error:
        return f"cannot be read: {(error.strerror or 'no reason given').lower()}"
    if b"ENCRYPTED" in content:
        return "is encrypted with a passphrase: name one without, which only this user can read"
    return "" if b"PRIVATE KEY-----" in content else "has no private key in the PEM format"
