"""Where a Snowflake account is, and who logs in there."""

from dataclasses import dataclass, field
from urllib.parse import urlsplit

DOMAIN = ".snowflakecomputing."
"""In the host of every account; the rest of the domain depends on the region."""

LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class SnowflakeAddress:
    """Where an account is.

    Attributes:
        account: Its identifier.
        host: Its host; "" if it follows from the identifier.
        port: The port; 0 for the protocol's own.
        protocol: https, or http for a server on this machine.
    """

    account: str
    host: str = ""
    port: int = 0
    protocol: str = "https"


def address(text: str) -> SnowflakeAddress:
    """Return where an account is, from its identifier or its URL.

    Raises:
        ValueError: it is neither.
    """
    text = text.strip()
    if not text or not text.isprintable() or " " in text:
        raise ValueError("must be the identifier of an account or its URL")
    if "://" not in text and DOMAIN not in text:
        if any(character in text for character in "/:@"):
            raise ValueError("must be the identifier of an account or its URL")
        return SnowflakeAddress(text)
    parts = urlsplit(text if "://" in text else f"https://{text}")
    host = parts.hostname or ""
    is_local = host in LOOPBACK
    if not host or parts.username or parts.scheme not in (("https", "http") if is_local else ("https",)):
        raise ValueError("must be an https URL without a user (http only for localhost)")
    account = host.partition(DOMAIN)[0]
    return SnowflakeAddress("local" if is_local else account, host, parts.port or 0, parts.scheme)


@dataclass(frozen=True, slots=True)
class SnowflakeLogin:
    """Who logs in, and where.

    Attributes:
        address: Where the account is.
        user: The user.
        key_file: The path of the file with the user's private key.
        database: The database, as it is stored.
        warehouse: The virtual warehouse; "" for the user's own.
    """

    address: SnowflakeAddress = field(repr=False)
    user: str = field(repr=False)
    key_file: str = field(repr=False)
    database: str
    warehouse: str = ""
