"""Which proxy a request uses, which hosts need none, and what is wrong with the environment's proxies.

`proxies` is the result of `urllib.request.getproxies`: URLs by scheme, `all` for every scheme, and `no` for the hosts
that need no proxy.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from asyncexport.errors import Problem

EXPECTED = 'expected a URL such as "http://host:3128"; other kinds, such as socks5, cannot be used'

HINT = 'correct the variable, or set [api] proxy to a URL, or to "" for none'


def url_parts(text: str, *, schemes: tuple[str, ...]) -> Any:
    """Return the parts of a URL. Malformed ones are rejected, not repaired, so that every parser sees the same host.

    Raises:
        ValueError: it is not a URL with one of these schemes and a host.
    """
    if not text.isprintable() or not text.isascii() or re.search(r"[\s\\<>\"^`{|}]", text):
        raise ValueError("not a URL")
    parts = urlsplit(text)
    parts.port  # noqa: B018 - raises if it is invalid
    if parts.scheme not in schemes or not parts.hostname:
        raise ValueError("not such a URL")
    return parts


def is_proxy(text: str) -> bool:
    """Whether a URL is that of a proxy that can be used."""
    try:
        url_parts(text, schemes=("http", "https"))
    except ValueError:
        return False
    return True


def proxy_of(proxies: Mapping[str, str], *, scheme: str, host: str, port: int | None = None) -> str:
    """Return the proxy for requests to a host and port (None is the scheme's port); "" if it needs none."""
    _, found = _named(proxies, scheme)
    port = port or (80 if scheme == "http" else 443)
    return "" if not found or is_exempt(host, proxies.get("no", ""), port=port) else found


def is_exempt(host: str, no_proxy: str, *, port: int) -> bool:
    """Whether `NO_PROXY` exempts a host: by its name, a parent domain (with or without `.` or `*.` before it), or `*`.

    An entry with a port exempts that port alone.
    """
    host = host.lower().rstrip(".")
    for one in _listed(no_proxy):
        name, _, its_port = one.lower().rpartition(":")
        if not its_port.isdecimal() or (":" in name and not name.endswith("]")):
            name = one.lower()
        elif int(its_port) != port:
            continue
        name = name.removeprefix("*.").lstrip(".").partition("]")[0].removeprefix("[").rstrip(".")
        if one == "*" or (name and (host == name or (host.endswith(f".{name}") and not _is_address(host)))):
            return True
    return False


def faults(proxies: Mapping[str, str], *, schemes: Iterable[str]) -> Iterator[Problem]:
    """Yield what keeps the environment's proxies from being used for requests with these schemes."""
    no_proxy = proxies.get("no", "")
    if no_proxy.strip() == "*":
        return
    used = {variable: url for variable, url in (_named(proxies, scheme) for scheme in schemes) if url}
    for variable, url in used.items():
        if not is_proxy(url):
            yield Problem(variable, EXPECTED)
    networks = [one for one in _listed(no_proxy) if _is_network(one)]
    if used and networks:
        yield Problem("NO_PROXY", f"contains a network, {networks[0]}: list hosts or their domains instead")


def _named(proxies: Mapping[str, str], scheme: str) -> tuple[str, str]:
    """Return the variable that sets the proxy for a scheme, and its URL; ("", "") if there is none."""
    for name in (scheme, "all"):
        if found := proxies.get(name):
            return f"{name.upper()}_PROXY", found if "://" in found else f"http://{found}"
    return "", ""


def _listed(no_proxy: str) -> list[str]:
    return [one for one in re.split(r"[,\s]+", no_proxy) if one]


def _is_network(entry: str) -> bool:
    """Whether it is a network (`10.0.0.0/8`, `10.*`, `10.`): only a resolved name could be matched with it."""
    return "/" in entry or re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,3}){0,2}\.(\*(\.\*)*)?", entry) is not None


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
