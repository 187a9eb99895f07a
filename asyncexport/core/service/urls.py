"""URLs: which ones a secret may be sent to, which hosts are this machine, and what part of a URL may be shown.

1. A secret (the API key, or the signature in a link) is sent over https, or over http to this machine.
2. Whether a host is this machine is decided without a resolver: a name that has to be looked up may lead anywhere.
3. A URL that two parsers may read differently is rejected.
"""

import re
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Address, ip_address
from urllib.parse import urlsplit, urlunsplit

LOOPBACK_IPV4 = IPv4Network("127.0.0.0/8")

LOOPBACK_IPV6 = IPv6Address("::1")


def is_safe(url: str) -> bool:
    """Whether a secret may be sent to this URL: https, or http on loopback, to a plain host, and well-formed."""
    if not re.fullmatch(r"[!-~]{1,16384}", url):
        return False
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        return False
    # Parsers differ in how they read a backslash, or an @ in the authority.
    if "@" in parts.netloc or "\\" in url or not _is_host(host):
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host))


def is_loopback(host: str) -> bool:
    """Whether a host, as in `urlsplit(url).hostname`, is this machine: `localhost`, 127.0.0.0/8 or ::1.

    Nothing else is. `localhost.` and `x.localhost` may be looked up in DNS. IPv4 within IPv6 (`::ffff:127.0.0.1`) and
    an address with a zone (`::1%lo`) are loopback on some systems and not on others.
    """
    if host.lower() == "localhost":
        return True
    try:
        address = ip_address(host)
    except ValueError:
        return False
    return address == LOOPBACK_IPV6 if isinstance(address, IPv6Address) else address in LOOPBACK_IPV4


def host_of(url: str) -> str:
    """Return the host of a URL in lower case; "" if it has none or is not a URL."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def without_query(url: str) -> str:
    """Return a URL without its query, fragment and user name, so that it may be shown."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "(not a URL)"
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


@lru_cache(maxsize=16)
def _is_host(host: str) -> bool:
    """Whether it is an address, or a name that resolvers accept; on other names they fail in unexpected ways."""
    try:
        ip_address(host)
    except ValueError:
        return len(host) <= 253 and bool(
            re.fullmatch(r"([a-z0-9_]([a-z0-9_-]{0,62})\.)*[a-z0-9_][a-z0-9_-]{0,62}\.?", host)
        )
    return True
