"""Which URLs a secret may be sent to, and which hosts are this machine."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncexport.core.service import urls


@given(url=st.text(max_size=60).map("https://".__add__) | st.text(max_size=30))
def test_any_text_can_be_checked(url: str) -> None:
    """No text crashes the check or the way a URL is shown."""
    if urls.is_safe(url):
        assert url.isascii()
    assert "?" not in urls.without_query(url)


@pytest.mark.parametrize(
    "host", ["localhost", "LocalHost", "127.0.0.1", "127.0.0.0", "127.255.255.255", "::1", "0:0:0:0:0:0:0:1"]
)
def test_this_machine_is_recognised_by_name_and_address(host: str) -> None:
    """The name localhost, all of 127.0.0.0/8 and ::1 are this machine."""
    assert urls.is_loopback(host)


@pytest.mark.parametrize(
    "host",
    [
        "",
        "localhost.",
        "app.localhost",
        "localhost.localdomain",
        "localhost.evil.example",
        "evil.example",
        "127.0.0.1.evil.example",
        "128.0.0.1",
        "126.255.255.255",
        "0.0.0.0",
        "::",
        "::2",
        "10.0.0.1",
        "127.0.0.1.",
        "127.1",
        "2130706433",
        "0x7f.0.0.1",
        "127.0.0.01",
        "[::1]",
        "::ffff:127.0.0.1",
        "::127.0.0.1",
        "::1%lo",
        " localhost",
        "localhost\n",
        "localhost:80",
        "\uff4cocalhost",
    ],
)
def test_nothing_else_is_this_machine(host: str) -> None:
    """A name that could be resolved elsewhere, or an address that systems read differently, is not this machine."""
    assert not urls.is_loopback(host)


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://API.example:8443/a", "api.example"),
        ("http://user:pw@[::1]:9/a", "::1"),
        ("proxy:3128", ""),
        ("https://[::1/a", ""),
        ("", ""),
    ],
)
def test_the_host_is_read_from_a_url(url: str, host: str) -> None:
    """The host is returned without port, user and brackets, and is empty if there is none."""
    assert urls.host_of(url) == host


@pytest.mark.parametrize("host", ["localhost.", "app.localhost", "[::ffff:127.0.0.1]", "[::1%25lo]"])
def test_plain_http_is_safe_only_on_this_machine(host: str) -> None:
    """A host that only resembles this machine is safe over https, but not over http."""
    assert not urls.is_safe(f"http://{host}/a")
    assert urls.is_safe(f"https://{host}/a")
