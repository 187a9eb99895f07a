"""What both clients guarantee about the key, connections, certificates and proxies."""

import datetime as dt
import os
import ssl
from base64 import b64encode
from dataclasses import fields
from inspect import signature
from pathlib import Path
from typing import Any

import pytest
import trustme

from asyncexport.client.api import ApiClient
from asyncexport.client.key_log import check_key_log
from asyncexport.client.session import ConnectionSettings
from asyncexport.client.storage_host import StorageHost
from asyncexport.core.service.resources import DownloadLink
from asyncexport.errors import ConfigError, ExportError, ServiceError, UnavailableError
from tests.client_rig import KEY, SIGNED, Gate, client, create, fetch, link, read, shown, storage
from tests.raw_server import Answer, http, sends, serving
from tests.tunnel import tunnelling

pytestmark = pytest.mark.usefixtures("nothing_secret_is_logged")


def server_tls(authority: trustme.CA, name: str = "localhost", **dates: Any) -> ssl.SSLContext:
    """Return a TLS context for a server with a certificate for this name."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name, **dates).configure_cert(context)
    return context


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """Create a certificate authority that is not trusted by default."""
    return trustme.CA()


@pytest.fixture(scope="module")
def ca_file(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the certificate of that authority to a file."""
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return path


async def test_a_private_authority_can_be_trusted(authority: trustme.CA, ca_file: Path) -> None:
    """`[api] ca_file` is trusted for both the API and the storage host."""
    async with (
        serving(sends(http(b"{}")), tls=server_tls(authority)) as server,
        client(server, ca_file=ca_file) as api,
        storage(ca_file=ca_file) as host,
    ):
        await api.me()
        async with host.open(link(server)) as body:
            assert await read(body) == b"{}"


LONG_AGO = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("name", "dates", "why"),
    [
        ("localhost", {}, "unable to get"),
        ("other.example", {}, "not valid for"),
        ("localhost", {"not_before": LONG_AGO, "not_after": LONG_AGO + dt.timedelta(days=1)}, "expired"),
    ],
)
async def test_a_bad_certificate_is_not_an_outage(
    authority: trustme.CA, ca_file: Path, name: str, dates: dict[str, Any], why: str
) -> None:
    """An untrusted, wrong or expired certificate fails immediately with a hint, because waiting does not help."""
    gate = Gate()
    settings: dict[str, Any] = {"ca_file": ca_file} if why != "unable to get" else {}
    async with (
        serving(sends(http()), tls=server_tls(authority, name, **dates)) as server,
        client(server, gate, **settings) as api,
    ):
        for call in (api.me(), fetch(server, **settings)):
            with pytest.raises(ServiceError, match=why) as caught:
                await call
            assert type(caught.value) is ServiceError
            assert not caught.value.transient
            assert caught.value.hint
            assert "CANARY" not in shown(caught.value)
    assert server.requests == []
    assert gate.left == ["abandoned"]


async def test_a_server_without_tls_is_an_outage() -> None:
    """A TLS handshake that fails for another reason counts as an outage, which may pass."""
    answer = sends(b"HTTP/1.1 400 No\r\n\r\n")
    settings: dict[str, Any] = {"connect_timeout_seconds": 0.2}
    async with serving(answer) as plain, client(plain, base_url=f"https://127.0.0.1:{plain.port}", **settings) as api:
        with pytest.raises(UnavailableError) as caught:
            await api.me()
    assert not caught.value.unanswered


@pytest.mark.parametrize("text", [None, "no certificate"])
async def test_a_bad_ca_file_is_a_config_error(tmp_path: Path, text: str | None) -> None:
    """A CA file that is missing or invalid is an error that names the file."""
    path = tmp_path / "ca.pem"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError, match=r"ca\.pem"):
        async with ApiClient(
            base_url="https://x.example", key=KEY, gate=Gate(), connection=ConnectionSettings(ca_file=path)
        ):
            pass


async def test_a_proxy_is_used_for_both_hosts() -> None:
    """API calls and downloads go through `[api] proxy`."""
    async with (
        serving(sends(http(b"{}"))) as proxy,
        serving(sends()) as server,
        client(server, proxy=proxy.url) as api,
        storage(proxy=proxy.url) as host,
    ):
        await api.me()
        async with host.open(link(server)) as body:
            await read(body)
    assert [request.split(b" HTTP/")[0] for request in proxy.requests] == [
        f"GET {server.url}/me".encode(),
        f"GET {server.url}{SIGNED}".encode(),
    ]
    assert server.requests == []


async def test_a_proxy_of_the_environment_is_used_only_if_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    """The proxy variables, including `no_proxy`, are used only with `proxy = "environment"`."""
    async with serving(sends(http(b"{}"))) as proxy, serving(sends(http(b"{}"))) as server:
        monkeypatch.setenv("http_proxy", proxy.url.removeprefix("http://"))
        monkeypatch.delenv("no_proxy", raising=False)
        async with client(server) as api:
            await api.me()
        async with client(server, proxy="environment") as api:
            await api.me()
            monkeypatch.setenv("no_proxy", "127.0.0.1")
            await api.me()
    assert len(proxy.requests) == 1
    assert len(server.requests) == 2


@pytest.mark.parametrize("spelling", ["url", "environment"])
@pytest.mark.parametrize("user", ["", "proxyuser:p%40ss"])
async def test_a_tunnel_request_contains_only_the_host_and_user_agent(
    monkeypatch: pytest.MonkeyPatch, authority: trustme.CA, ca_file: Path, user: str, spelling: str
) -> None:
    """A proxy receives neither the key nor the user's headers, and only the credentials of its own URL."""
    headers = {"Integration-Source": "CANARYheader", "User-Agent": "CANARYagent"}
    tls = server_tls(authority, "*.fullstory.example")
    monkeypatch.delenv("no_proxy", raising=False)
    async with serving(sends(http(b"{}")), tls=tls) as server, tunnelling(server.port) as proxy:
        monkeypatch.setenv("https_proxy", proxy.url(user))
        settings: dict[str, Any] = {"base_url": "https://api.fullstory.example", "ca_file": ca_file, "headers": headers}
        chosen = proxy.url(user) if spelling == "url" else spelling
        async with client(server, proxy=chosen, **settings) as api, storage(proxy=chosen, ca_file=ca_file) as host:
            await api.me()
            async with host.open(DownloadLink(f"https://storage.fullstory.example{SIGNED}")) as body:
                await read(body)
    asked = {"Proxy-Authorization": f"Basic {b64encode(b'proxyuser:p@ss').decode()}"} if user else {}
    for head, name in zip(proxy.heads, ("api.fullstory.example", "storage.fullstory.example"), strict=True):
        first, *lines = head.decode().rstrip("\r\n").split("\r\n")
        assert first == f"CONNECT {name}:443 HTTP/1.1"
        sent = dict(line.split(": ", 1) for line in lines)
        assert sent.pop("User-Agent").startswith("asyncexport/")
        # Added by aiohttp; they reveal nothing.
        for usual in ("Accept", "Accept-Encoding", "Connection"):
            sent.pop(usual, None)
        assert sent == {"Host": name, **asked}
    assert b"CANARY" not in b"".join(proxy.received)
    assert b"Integration-Source: CANARYheader" in server.requests[0]
    assert f"Authorization: Basic {KEY}".encode() in server.requests[0]
    assert b"CANARYkey" not in server.requests[1]


@pytest.mark.parametrize("spelling", ["url", "environment"])
async def test_plain_http_never_goes_through_a_proxy_on_another_machine(
    monkeypatch: pytest.MonkeyPatch, spelling: str
) -> None:
    """Plain HTTP requests, which are only allowed on loopback, bypass remote proxies that could read the key."""
    monkeypatch.setenv("http_proxy", "http://proxy.example:3128")
    monkeypatch.delenv("no_proxy", raising=False)
    async with serving(sends(http(b"{}"))) as server:
        chosen = "http://proxy.example:3128" if spelling == "url" else spelling
        async with client(server, proxy=chosen) as api, storage(proxy=chosen) as host:
            await api.me()
            async with host.open(link(server)) as body:
                await read(body)
    assert [request.split(b" ")[1] for request in server.requests] == [b"/me", SIGNED.encode()]


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (sends(http(b"", "407 Auth")), ServiceError),
        (sends(http(b"", "503 No")), UnavailableError),
        (sends(), UnavailableError),
    ],
)
async def test_a_refusal_by_the_proxy_is_not_the_services(answer: Answer, error: type[ExportError]) -> None:
    """A proxy that refuses a tunnel is not mistaken for the service, and its password is not shown."""
    gate = Gate()
    async with serving(answer) as proxy:
        url = f"http://user:CANARYpw@127.0.0.1:{proxy.port}"
        async with ApiClient(
            base_url="https://api.example", key=KEY, gate=gate, connection=ConnectionSettings(proxy=url)
        ) as api:
            with pytest.raises(ServiceError) as caught:
                await api.me()
    assert type(caught.value) is error
    assert proxy.requests[0].startswith(b"CONNECT api.example:443 ")
    assert f"Basic {KEY}".encode() not in proxy.requests[0]
    assert "CANARY" not in shown(caught.value)


async def test_extra_headers_are_sent_but_never_replace_the_key() -> None:
    """The user's headers are sent only to the API, and cannot replace Authorization."""
    headers = {"Integration-Source": "acme", "authorization": "Bearer other", "user-agent": "mine"}
    async with serving(sends(http(b"{}"))) as server, client(server, headers=headers) as api, storage() as host:
        await api.me()
        async with host.open(link(server)) as body:
            await read(body)
    first, second = server.requests
    assert b"\r\nIntegration-Source: acme\r\n" in first
    assert b"\r\nuser-agent: mine\r\n" in first
    assert first.lower().count(b"authorization") == first.lower().count(b"user-agent") == 1
    assert f"Basic {KEY}".encode() in first
    assert b"acme" not in second


async def test_no_repr_contains_a_secret() -> None:
    """The repr of a client, body or link contains neither the key nor a signature."""
    async with (
        serving(sends(http(b"x"))) as server,
        client(server) as api,
        storage() as host,
        host.open(link(server)) as body,
    ):
        assert "CANARY" not in repr(api) + repr(host) + repr(body) + repr(link(server))


async def test_downloads_share_a_connection_and_calls_do_not() -> None:
    """Downloads reuse a connection, but each API call opens a new one, so that no call is ever sent twice."""
    async with serving(sends(http(b"{}")), keep_alive=True) as server, client(server) as api, storage() as host:
        for _ in range(3):
            async with host.open(link(server)) as body:
                await read(body)
        assert server.connections == 1
        await api.me()
        await api.me()
    assert server.connections == 3


async def test_very_long_headers_are_accepted() -> None:
    """Replies and files with very long or many headers, as some gateways add, are read."""
    long = "x" * 100_000
    answer = http(b'{"email":"o@example.com"}', X_Long=long, **{f"X_{number}": "1" for number in range(300)})
    async with serving(sends(answer)) as server, client(server) as api, storage() as host:
        assert (await api.me()).email == "o@example.com"
        async with host.open(link(server)) as body:
            assert await read(body)


def test_a_proxy_password_is_not_in_a_repr() -> None:
    """The repr of the settings does not contain the password in a proxy URL."""
    settings = ConnectionSettings(proxy="http://user:CANARY@proxy.example:3128")
    assert "CANARY" not in repr(settings)


@pytest.mark.parametrize(
    ("proxy", "url", "chosen"),
    [
        ("", "https://api.example/me", False),
        ("http://proxy.example:3128", "https://api.example/me", True),
        ("http://proxy.example:3128", "http://127.0.0.1/me", False),
        ("http://localhost.:3128", "http://127.0.0.1/me", False),
        ("http://localhost:3128", "http://127.0.0.1/me", True),
        ("http://[::1]:3128", "http://127.0.0.1/me", True),
        ("http://[::1", "http://127.0.0.1/me", False),
    ],
)
def test_plain_http_uses_only_a_proxy_on_this_machine(proxy: str, url: str, chosen: bool) -> None:  # noqa: FBT001 - a table's column
    """Unencrypted requests use only a proxy on this machine; encrypted ones may use any proxy."""
    assert ConnectionSettings(proxy=proxy).proxy_for(url) == (proxy if chosen else None)


def test_the_storage_client_has_neither_the_key_nor_extra_headers() -> None:
    """The storage client is created without the key and the user's headers, so it cannot send them."""
    taken = set(signature(StorageHost).parameters) | {one.name for one in fields(ConnectionSettings)}
    assert taken == {
        *("connection", "min_rate", "rate_window_seconds"),
        *("connect_timeout_seconds", "read_timeout_seconds", "proxy", "ca_file", "user_agent"),
    }


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"http_proxy": "http://bad host:99999"}, "HTTP_PROXY"),
        ({"ALL_PROXY": "socks5://127.0.0.1:1"}, "ALL_PROXY"),
        ({"http_proxy": "http://127.0.0.1:1", "no_proxy": "10.0.0.0/8"}, "NO_PROXY"),
    ],
)
async def test_an_unusable_proxy_of_the_environment_is_reported_before_any_request(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], named: str
) -> None:
    """An unusable proxy variable is a configuration error, but only if the environment's proxy is used."""
    monkeypatch.delenv("no_proxy", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    async with serving(sends(http(b"{}"))) as server:
        with pytest.raises(ConfigError, match=named):
            async with client(server, proxy="environment"):
                raise AssertionError
        assert server.connections == 0
        async with client(server) as api:
            await api.me()


@pytest.mark.parametrize(
    "answer", [sends(b""), sends(b"garbage\r\n\r\n"), sends(http(b"", "503 No")), sends(reset=True)]
)
async def test_a_create_without_a_tunnel_was_certainly_not_sent(
    authority: trustme.CA, ca_file: Path, answer: Answer
) -> None:
    """If the proxy opened no tunnel, the create cannot have reached the service, so it does not count as unanswered."""
    async with serving(answer) as proxy:
        settings: dict[str, Any] = {"base_url": "https://api.fullstory.example", "ca_file": ca_file}
        async with client(proxy, proxy=proxy.url, **settings) as api:
            with pytest.raises(UnavailableError) as caught:
                await create(api)
    assert not caught.value.unanswered
    assert proxy.requests[0].startswith(b"CONNECT ")


async def test_a_create_sent_through_a_tunnel_may_have_arrived(authority: trustme.CA, ca_file: Path) -> None:
    """A create that was sent through an open tunnel and not answered counts as unanswered."""
    tls = server_tls(authority, "*.fullstory.example")
    async with serving(sends(b""), tls=tls) as server, tunnelling(server.port) as proxy:
        settings: dict[str, Any] = {"base_url": "https://api.fullstory.example", "ca_file": ca_file}
        async with client(server, proxy=proxy.url(), **settings) as api:
            with pytest.raises(UnavailableError) as caught:
                await create(api)
    assert caught.value.unanswered


def test_a_key_log_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    """An SSLKEYLOGFILE that cannot be written is a configuration error that names the variable."""
    check_key_log({})
    check_key_log({"SSLKEYLOGFILE": str(tmp_path / "keys")})
    with pytest.raises(ConfigError, match="SSLKEYLOGFILE"):
        check_key_log({"SSLKEYLOGFILE": str(tmp_path / "no" / "keys")})


def test_a_key_log_that_is_a_pipe_without_a_reader_is_refused(tmp_path: Path) -> None:
    """An SSLKEYLOGFILE that is a pipe without a reader is refused, because opening it would block forever."""
    os.mkfifo(tmp_path / "keys")
    with pytest.raises(ConfigError, match=r"SSLKEYLOGFILE.*nothing reads from it"):
        check_key_log({"SSLKEYLOGFILE": str(tmp_path / "keys")})


def test_a_key_log_that_is_a_pipe_with_a_reader_stays_open(tmp_path: Path) -> None:
    """The reader sees no end of file between the check and the first connection."""
    os.mkfifo(tmp_path / "keys")
    reader = os.open(tmp_path / "keys", os.O_RDONLY | os.O_NONBLOCK)
    try:
        check_key_log({"SSLKEYLOGFILE": str(tmp_path / "keys")})
        # Reading raises BlockingIOError while a writer has the pipe open, and returns b"" after the last one left.
        with pytest.raises(BlockingIOError):
            os.read(reader, 1)
    finally:
        os.close(reader)
