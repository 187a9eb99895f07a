"""A PostgreSQL server of the tests' own: Debian's, in a temporary directory, reached over a Unix socket only.

`initdb` and the server refuse to run as root. Tests that run as root start them as another user.
"""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PORT = 5432
"""Only part of the socket's name."""

OTHER_USERS = ("postgres", "nobody")


def programs() -> Path | None:
    """Return the folder of the server's programs, the newest version; None if there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parent.parent.name))
    if found:
        return found[-1].parent
    initdb = shutil.which("initdb")
    return None if initdb is None else Path(initdb).resolve().parent


def why_not() -> str:
    """Return why no server can be started here; empty if one can."""
    if programs() is None:
        return "there is no PostgreSQL (Debian: apt install postgresql)"
    if os.geteuid() == 0 and _other_user() is None:
        return "PostgreSQL refuses to run as root, and there is no other user"
    return ""


def _other_user() -> pwd.struct_passwd | None:
    for name in OTHER_USERS:
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    return None


class PostgresServer:
    """A server; made by `running`."""

    def __init__(self, folder: Path, bin_: Path, user: pwd.struct_passwd | None) -> None:
        self._folder = folder
        self._bin = bin_
        self._user = user

    @property
    def dsn(self) -> str:
        """The connection string of the superuser."""
        return f"host={self._folder} port={PORT} user=postgres dbname=postgres"

    def initialize(self, *, durable: bool) -> None:
        """Make the data directory."""
        data = ["-D", str(self._folder / "data"), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C"]
        self._run("initdb", *data, "--no-sync")
        options = ["listen_addresses = ''", f"unix_socket_directories = '{self._folder}'", f"port = {PORT}"]
        if not durable:
            options.append("fsync = off")  # the tests end the server, never the machine
        config = self._folder / "data" / "postgresql.conf"
        config.write_text(config.read_text() + "\n".join(options) + "\n")

    def start(self) -> None:
        """Start it and wait until it accepts connections."""
        self._run("pg_ctl", "-D", str(self._folder / "data"), "-l", str(self._folder / "log"), "-w", "start")

    def stop(self, mode: str = "fast") -> None:
        """Stop it; `immediate` is like a crash."""
        self._run("pg_ctl", "-D", str(self._folder / "data"), "-m", mode, "-w", "stop")

    def is_running(self) -> bool:
        """Whether it runs."""
        return (self._folder / "data" / "postmaster.pid").exists()

    def _run(self, program: str, *arguments: str) -> None:
        ids = {} if self._user is None else {"user": self._user.pw_uid, "group": self._user.pw_gid, "extra_groups": ()}
        output = self._folder / f"{program}.out"
        # The server inherits the output, so this must not be a pipe, which would stay open as long as it runs.
        with output.open("wb") as file:
            done = subprocess.run(
                [self._bin / program, *arguments],
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                check=False,
                env={"PATH": os.environ["PATH"], "LC_ALL": "C"},
                **ids,  # type: ignore[call-overload]
            )
        if done.returncode:
            raise RuntimeError(f"{program} failed: {output.read_text()}")


@contextmanager
def running(*, durable: bool = False) -> Iterator[PostgresServer]:
    """Run a server in a temporary directory; `durable`: as a real one, which waits until the disk has the data."""
    bin_, user = programs(), _other_user() if os.geteuid() == 0 else None
    if bin_ is None:
        raise RuntimeError(why_not())
    # Not below pytest's directories: only their owner may enter them, and a socket's path must be short.
    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    if user is not None:
        os.chown(folder, user.pw_uid, user.pw_gid)
    server = PostgresServer(folder, bin_, user)
    try:
        server.initialize(durable=durable)
        server.start()
        yield server
    finally:
        if server.is_running():
            server.stop("immediate")
        shutil.rmtree(folder)
