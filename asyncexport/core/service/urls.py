"""URLs: which ones a secret may be sent to, which host is this machine, and what of a URL may be shown.

1. A secret (the API key, or the signature in a link) goes out over https, or over http to this machine.
2. What counts as this machine is decided without asking a resolver: a name that has to be looked up may lead anywhere.
3. A URL that two parsers may read differently is refused.
"""

import re
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Address, ip_address
from urllib.parse import urlsplit, urlunsplit

LOOPBACK_IPV4 = IPv4Network("127.0.0.0/8")

LOOPBACK_IPV6 = IPv6Address("::1")


def is_safe(url: str) -> bool:
    """Whether a secret may travel to this URL: https, or http on loopback, to a plain host, with nothing odd in it."""
    if not re.fullmatch(r"[!-~]{1,16384}", url):
        return False
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        return False
    # A backslash or an @ in the authority is read differently by different parsers.
    if "@" in parts.netloc or "\\" in url or not _is_host(host):
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host))


def is_loopback(host: str) -> bool:
    """Whether a host, written as in `urlsplit(url).hostname`, is this machine: `localhost`, 127.0.0.0/8 or ::1.

    All else is not. `localhost.` and `x.localhost` may be looked up in DNS. IPv4 within IPv6
    (`::ffff:127.0.0.1`) and an address with a zone (`::1%lo`) are taken for loopback by some systems and not by others.
    """
    if host.lower() == "localhost":
        return True
    try:
        address = ip_address(host)
    except ValueError:
        return False
    return address == LOOPBACK_IPV6 if isinstance(address, IPv6Address) else address in LOOPBACK_IPV4


def host_of(url: str) -> str:
    """The host of a URL in lower case; "" where it has none or is no URL."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def without_query(url: str) -> str:
    """A URL as it may be shown: no query, no fragment, no user name."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "(not a URL)"
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


@lru_cache(maxsize=16)
def _is_host(host: str) -> bool:
    """Whether it is an address, or a name of labels that resolvers accept; they fail in odd ways on any other."""
    try:
        ip_address(host)
    except ValueError:
        return len(host) <= 253 and bool(
            re.fullmatch(r"([a-z0-9_]([a-z0-9_-]{0,62})\.)*[a-z0-9_][a-z0-9_-]{0,62}\.?", host)
        )
    return True
