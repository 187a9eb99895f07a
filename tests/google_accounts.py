"""Google's default credentials without Google: a key file of a service account, and a server that gives out tokens."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

TOKEN = "CANARYtoken"
"""The token that is given out; it must appear nowhere."""


class _Tokens(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        """Give out the token."""
        self.rfile.read(int(self.headers.get("Content-Length", "0")))
        body = json.dumps({"access_token": TOKEN, "expires_in": 3600, "token_type": "Bearer"}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Write nothing."""


@contextmanager
def key_file(path: Path) -> Iterator[Path]:
    """Write a key file whose tokens come from a server on loopback, which runs until the end."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Tokens)
    thread = Thread(target=server.serve_forever)
    thread.start()
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    account = {
        "type": "service_account",
        "project_id": "local",
        "private_key_id": "CANARYid",
        "private_key": key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode(),
        "client_email": "loader@local.example",
        "token_uri": f"http://127.0.0.1:{server.server_port}/token",
    }
    try:
        path.write_text(json.dumps(account))
        yield path
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
