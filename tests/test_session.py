"""What both clients keep to: where the key goes, connections, certificates and proxies."""

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
    """A server's side of TLS with a certificate for this name."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name, **dates).configure_cert(context)
    return context


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """A certificate authority that nobody trusts."""
    return trustme.CA()


@pytest.fixture(scope="module")
def ca_file(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its certificate, to be trusted."""
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return path


async def test_an_own_authority_can_be_trusted(authority: trustme.CA, ca_file: Path) -> None:
    """`[api] ca_file` holds for both hosts."""
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
async def test_a_bad_certificate_is_no_outage(
    authority: trustme.CA, ca_file: Path, name: str, dates: dict[str, Any], why: str
) -> None:
    """An untrusted, wrong or expired certificate is told at once, with a hint, since waiting does not cure it."""
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
    """TLS that does not come about for another reason may pass."""
    answer = sends(b"HTTP/1.1 400 No\r\n\r\n")
    settings: dict[str, Any] = {"connect_timeout_seconds": 0.2}
    async with serving(answer) as plain, client(plain, base_url=f"https://127.0.0.1:{plain.port}", **settings) as api:
        with pytest.raises(UnavailableError) as caught:
            await api.me()
    assert not caught.value.unanswered


@pytest.mark.parametrize("text", [None, "no certificate"])
async def test_a_bad_ca_file_is_a_config_error(tmp_path: Path, text: str | None) -> None:
    """A CA file that is missing, or none, is told with its name."""
    path = tmp_path / "ca.pem"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError, match=r"ca\.pem"):
        async with ApiClient(
            base_url="https://x.example", key=KEY, gate=Gate(), connection=ConnectionSettings(ca_file=path)
        ):
            pass


async def test_a_proxy_is_used_for_both_hosts() -> None:
    """`[api] proxy` carries API calls and downloads."""
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


async def test_the_environments_proxy_is_used_only_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without `proxy = "environment"` the environment has no say; with it, `no_proxy` has, too."""
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
async def test_a_request_for_a_tunnel_holds_nothing_but_the_host_and_our_name(
    monkeypatch: pytest.MonkeyPatch, authority: trustme.CA, ca_file: Path, user: str, spelling: str
) -> None:
    """A proxy sees no key and none of the user's headers, and no credentials but those in its own URL."""
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
        # aiohttp's own; they say nothing of us.
        for usual in ("Accept", "Accept-Encoding", "Connection"):
            sent.pop(usual, None)
        assert sent == {"Host": name, **asked}
    assert b"CANARY" not in b"".join(proxy.received)
    assert b"Integration-Source: CANARYheader" in server.requests[0]
    assert f"Authorization: Basic {KEY}".encode() in server.requests[0]
    assert b"CANARYkey" not in server.requests[1]


@pytest.mark.parametrize("spelling", ["url", "environment"])
async def test_plain_http_never_goes_through_the_proxy_of_another_machine(
    monkeypatch: pytest.MonkeyPatch, spelling: str
) -> None:
    """It is for this machine alone, and a proxy could read the key."""
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
async def test_a_proxys_refusal_is_not_the_services(answer: Answer, error: type[ExportError]) -> None:
    """A proxy that says no to a tunnel is never taken for the service; its password is not shown."""
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


async def test_the_users_headers_go_along_but_never_replace_the_key() -> None:
    """Extra headers are for the API alone, and Authorization stays ours."""
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


async def test_nothing_of_a_secret_is_in_a_repr() -> None:
    """Neither client nor body nor link shows a key or a signature."""
    async with (
        serving(sends(http(b"x"))) as server,
        client(server) as api,
        storage() as host,
        host.open(link(server)) as body,
    ):
        assert "CANARY" not in repr(api) + repr(host) + repr(body) + repr(link(server))


async def test_downloads_share_a_connection_and_calls_do_not() -> None:
    """Storage connections are kept alive; an API call has a fresh one, so that none is ever sent twice."""
    async with serving(sends(http(b"{}")), keep_alive=True) as server, client(server) as api, storage() as host:
        for _ in range(3):
            async with host.open(link(server)) as body:
                await read(body)
        assert server.connections == 1
        await api.me()
        await api.me()
    assert server.connections == 3


async def test_headers_of_many_kilobytes_are_read() -> None:
    """Gateways send policies that long, with replies and with files: that is no reason to lose either."""
    long = "x" * 100_000
    answer = http(b'{"email":"o@example.com"}', X_Long=long, **{f"X_{number}": "1" for number in range(300)})
    async with serving(sends(answer)) as server, client(server) as api, storage() as host:
        assert (await api.me()).email == "o@example.com"
        async with host.open(link(server)) as body:
            assert await read(body)


def test_a_proxys_password_is_not_in_a_repr() -> None:
    """Settings may be printed; the user and the password in a proxy's URL are not."""
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
def test_a_proxy_reads_no_plain_http_unless_it_is_this_machine(proxy: str, url: str, chosen: bool) -> None:  # noqa: FBT001 - a table's column
    """What goes out in the clear stays on this machine; what is encrypted may go through any proxy."""
    assert ConnectionSettings(proxy=proxy).proxy_for(url) == (proxy if chosen else None)


def test_the_storage_host_is_made_without_the_key_and_without_the_users_headers() -> None:
    """What it does not have it cannot send."""
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
async def test_a_proxy_of_the_environment_that_cannot_be_used_is_told_before_anything_is_sent(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], named: str
) -> None:
    """It is no outage, and no request is in doubt; where the environment is not asked, it has no say."""
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
async def test_what_never_left_this_machine_is_not_in_doubt(
    authority: trustme.CA, ca_file: Path, answer: Answer
) -> None:
    """A create that a proxy opened no tunnel for cannot have made an export."""
    async with serving(answer) as proxy:
        settings: dict[str, Any] = {"base_url": "https://api.fullstory.example", "ca_file": ca_file}
        async with client(proxy, proxy=proxy.url, **settings) as api:
            with pytest.raises(UnavailableError) as caught:
                await create(api)
    assert not caught.value.unanswered
    assert proxy.requests[0].startswith(b"CONNECT ")


async def test_what_a_proxy_may_have_passed_on_is_in_doubt(authority: trustme.CA, ca_file: Path) -> None:
    """Once the tunnel stands and the head is sent, nobody knows what came of it."""
    tls = server_tls(authority, "*.fullstory.example")
    async with serving(sends(b""), tls=tls) as server, tunnelling(server.port) as proxy:
        settings: dict[str, Any] = {"base_url": "https://api.fullstory.example", "ca_file": ca_file}
        async with client(server, proxy=proxy.url(), **settings) as api:
            with pytest.raises(UnavailableError) as caught:
                await create(api)
    assert caught.value.unanswered


def test_a_key_log_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """Aiohttp would end with the system's bare error when it is imported."""
    check_key_log({})
    check_key_log({"SSLKEYLOGFILE": str(tmp_path / "keys")})
    with pytest.raises(ConfigError, match="SSLKEYLOGFILE"):
        check_key_log({"SSLKEYLOGFILE": str(tmp_path / "no" / "keys")})


def test_a_key_log_that_is_a_pipe_without_a_reader_is_refused(tmp_path: Path) -> None:
    """Opening it would wait forever."""
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
