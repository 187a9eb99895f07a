"""The service that benchmarks run against: an API whose operations finish immediately, and a storage host.

1. The storage host is nginx if it is installed, with TLS like the real one; otherwise a small server in Python. The
   line of JSON says which. Its certificate is created for the run.
2. The API answers from memory and closes each connection. It does as little as possible, since the client is what is
   measured. Every operation is done immediately; the list of operations starts with the newest.
3. Both run in processes of their own on loopback, and end with the benchmark.
"""

import asyncio
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

HERE = Path(__file__)
KEY = "na1.benchmark/KEY+for=loopback"
PAGE = 100
START_SECONDS = 15.0

NGINX = """
worker_processes 2;
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
{user}
events {{ worker_connections 1024; }}
http {{
    access_log off;
    types {{ }}
    default_type application/octet-stream;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    sendfile on;
    keepalive_requests 100000;
    server {{
        listen 127.0.0.1:{port} {ssl};
        {certificate}
        root {root};
        autoindex on;
    }}
}}
"""


@dataclass(frozen=True, slots=True)
class Storage:
    """A running storage host; `ca_file` is the CA certificate to trust, None without TLS."""

    url: str
    server: str
    ca_file: Path | None


@contextmanager
def storage(root: Path, *, work: Path, tls: bool) -> Iterator[Storage]:
    """Serve a folder."""
    ca_file, certificate = _certificate(work) if tls else (None, None)
    port = free_port()
    name = "nginx" if shutil.which("nginx") else "python"
    if name == "nginx":
        command: list[str | Path] = ["nginx", "-c", _configure_nginx(root, work, port, certificate)]
    else:
        command = [sys.executable, HERE, "storage", str(port), root, certificate or ""]
    with process(command, port):
        yield Storage(f"http{'s' if tls else ''}://localhost:{port}", name, ca_file)


@contextmanager
def api(locations: Sequence[str], *, work: Path) -> Iterator[str]:
    """Serve the API; the nth operation gets the nth location, starting again after the last one."""
    port = free_port()
    names = work / f"locations-{port}.json"
    names.write_text(json.dumps(list(locations)))
    with process([sys.executable, HERE, "api", str(port), names], port):
        yield f"http://127.0.0.1:{port}"


@contextmanager
def process(command: Sequence[str | Path], port: int) -> Iterator[None]:
    """Run a server for the duration of the block; it accepts connections on entry."""
    server = subprocess.Popen([str(part) for part in command], stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + START_SECONDS
        while not _listens(port):
            if server.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"{command[0]} did not start")
            time.sleep(0.02)
        yield
    finally:
        server.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            server.wait(5)
        server.kill()
        server.wait()


def free_port() -> int:
    """Find a port that is not in use."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _listens(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


def _certificate(work: Path) -> tuple[Path, Path]:
    """Create the CA certificate to trust and the certificate to serve with."""
    import trustme  # noqa: PLC0415 - part of the test extra, and only needed with TLS

    authority = trustme.CA()
    ca_file, certificate = work / "ca.pem", work / "server.pem"
    authority.cert_pem.write_to_path(str(ca_file))
    made = authority.issue_cert("localhost", "127.0.0.1")
    made.private_key_and_cert_chain_pem.write_to_path(str(certificate))
    return ca_file, certificate


def _configure_nginx(root: Path, work: Path, port: int, certificate: Path | None) -> Path:
    folder = work / f"nginx-{port}"
    folder.mkdir()
    config = folder / "nginx.conf"
    lines = f"ssl_certificate {certificate}; ssl_certificate_key {certificate};" if certificate else ""
    config.write_text(
        NGINX.format(
            folder=folder,
            root=root,
            port=port,
            ssl="ssl" if certificate else "",
            certificate=lines,
            user="user root;" if os.geteuid() == 0 else "",
        )
    )
    return config


class Api(asyncio.Protocol):
    """A connection to the API (rule 2), for one request."""

    operations: list[str] = []  # noqa: RUF012 - shared by all connections
    locations: list[str] = []  # noqa: RUF012

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start a connection."""
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]
        self._received = b""

    def data_received(self, data: bytes) -> None:
        """Answer once the request is complete."""
        self._received += data
        head, ended, body = self._received.partition(b"\r\n\r\n")
        if not ended:
            return
        length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
        if length and len(body) < int(length[1]):
            return
        method, path, _ = head.split(b"\r\n", 1)[0].decode().split(" ")
        text = self._answer(method, path).encode()
        date = datetime.now(UTC).strftime("%a, %d %b %Y %H:%M:%S GMT")
        self._transport.write(
            f"HTTP/1.1 200 OK\r\nDate: {date}\r\nContent-Type: application/json\r\nContent-Length: {len(text)}\r\n"
            "Connection: close\r\n\r\n".encode()
            + text
        )
        self._transport.close()

    def _answer(self, method: str, path: str) -> str:
        path, _, query = path.partition("?")
        last = path.rsplit("/", 1)[-1]
        if method == "POST":
            self.operations.append(datetime.now(UTC).isoformat().replace("+00:00", "Z"))
            return json.dumps({"operationId": f"op-{len(self.operations) - 1}"})
        if last == "results":
            number = int(path.split("/")[-2].removeprefix("ex-"))
            return json.dumps({"location": self.locations[number % len(self.locations)]})
        if last.startswith("op-"):
            return json.dumps(self._operation(int(last.removeprefix("op-"))))
        found = re.search(r"paginationToken=(\d+)", query)
        end = int(found[1]) if found else len(self.operations)
        begin = max(0, end - PAGE)
        page = [self._operation(number) for number in reversed(range(begin, end))]
        return json.dumps({"operations": page, "nextPaginationToken": str(begin) if begin else ""})

    def _operation(self, number: int) -> dict[str, object]:
        moment = self.operations[number]
        return {
            "id": f"op-{number}",
            "type": "SEARCH_EXPORT",
            "state": "COMPLETED",
            "createdAt": moment,
            "finishedAt": moment,
            "estimatePctComplete": 100,
            "results": {"searchExportId": f"ex-{number}"},
        }


async def serve_api(port: int, locations: list[str]) -> None:
    """Serve the API until killed."""
    Api.locations = locations
    server = await asyncio.get_running_loop().create_server(Api, "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


class _Files(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Log nothing."""


def serve_storage(port: int, root: Path, certificate: str) -> None:
    """Serve a folder until killed."""
    with ExitStack() as stack:
        server = stack.enter_context(ThreadingHTTPServer(("127.0.0.1", port), partial(_Files, directory=str(root))))
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        server.serve_forever()


if __name__ == "__main__" and sys.argv[1:2] == ["api"]:
    asyncio.run(serve_api(int(sys.argv[2]), json.loads(Path(sys.argv[3]).read_text())))
elif __name__ == "__main__" and sys.argv[1:2] == ["storage"]:
    serve_storage(int(sys.argv[2]), Path(sys.argv[3]), sys.argv[4])
