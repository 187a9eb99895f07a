"""Which proxies of the environment are used, and which are reported as faults."""

import pytest

from asyncexport.core.service.proxies import faults, is_exempt, is_proxy, proxy_of


@pytest.mark.parametrize(
    "url",
    ["socks5://127.0.0.1:1080", "http://bad host:3128", "http://host:99999", "http://", "ftp://host", "http:\\\\host"],
)
def test_an_invalid_proxy_url_is_refused(url):
    """An invalid proxy URL is a fault of the variable that contains it, HTTPS_PROXY or ALL_PROXY."""
    assert not is_proxy(url)
    assert [one.place for one in faults({"https": url}, schemes=["https"])] == ["HTTPS_PROXY"]
    assert [one.place for one in faults({"all": url}, schemes=["https"])] == ["ALL_PROXY"]


@pytest.mark.parametrize("url", ["http://host:3128", "https://user:p%40ss@host", "host:3128", "127.0.0.1:3128"])
def test_a_valid_proxy_url_is_used(url):
    """A proxy is used whether or not its URL has a scheme."""
    assert list(faults({"https": url}, schemes=["https"])) == []
    assert proxy_of({"https": url}, scheme="https", host="api.example").removeprefix("http://") == url.removeprefix(
        "http://"
    )


def test_only_a_proxy_that_would_be_used_is_checked():
    """An invalid proxy is no fault if it is for another scheme, overridden, or excluded by NO_PROXY."""
    bad = "socks5://127.0.0.1:1080"
    assert list(faults({"http": bad}, schemes=["https"])) == []
    assert list(faults({"https": "http://host:1", "all": bad}, schemes=["https"])) == []
    assert list(faults({"https": bad, "no": "*"}, schemes=["https"])) == []
    assert list(faults({"no": "10.0.0.0/8"}, schemes=["https"])) == []


@pytest.mark.parametrize("network", ["10.0.0.0/8", "fd00::/8", "192.168.*", "10.", "172.16.*.*", "x.example/24"])
def test_a_network_in_no_proxy_is_reported(network):
    """A network in NO_PROXY is reported, because it has no effect on host names."""
    [problem] = faults({"https": "http://host:1", "no": f"localhost, {network}"}, schemes=["https"])
    assert problem.place == "NO_PROXY"
    assert network in problem.text


@pytest.mark.parametrize(
    ("no_proxy", "exempt"),
    [
        ("api.example", True),
        ("API.Example.", True),
        (".example", True),
        ("*.example", True),
        ("example", True),
        ("other, api.example", True),
        ("other api.example", True),
        ("*", True),
        ("", False),
        ("ample", False),
        ("api.example.org", False),
        ("*.api.example", True),
        ("api.example:443", True),
        ("example:443", True),
        ("api.example:8443", False),
        ("api.example:", False),
        (",", False),
    ],
)
def test_which_hosts_need_no_proxy(no_proxy, exempt):
    """NO_PROXY exempts a host or its parent domain, with or without a leading dot or star."""
    assert is_exempt("api.example", no_proxy, port=443) is exempt
    assert proxy_of({"https": "http://p:1", "no": no_proxy}, scheme="https", host="api.example") == (
        "" if exempt else "http://p:1"
    )


@pytest.mark.parametrize(
    ("host", "no_proxy", "exempt"),
    [
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.1", "0.0.1", False),
        ("::1", "[::1]", True),
        ("::1", "::1", True),
        ("::1", "[::1]:443", True),
        ("::1", "[::1]:80", False),
    ],
)
def test_addresses_are_compared_completely(host, no_proxy, exempt):
    """An address is exempt only if NO_PROXY contains the complete address, not just its end."""
    assert is_exempt(host, no_proxy, port=443) is exempt
