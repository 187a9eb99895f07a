"""A server that answers like BigQuery: local-bigquery in an environment of its own, which the tests make once.

It needs Python 3.13 or newer, which `PYTHON313` names, and a package index the first time.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.made_environment import NotMadeError, environment

SERVER = "local-bigquery==0.4.0"

DUCKDB = "1.5.5"
"""The newest version whose extensions are packages as well. The server loads these four when it starts."""

EXTENSIONS = ("icu", "ducklake", "spatial", "json")

ADDITIONS = [f"duckdb=={DUCKDB}", *(f"duckdb-extension-{name}=={DUCKDB}" for name in EXTENSIONS)]


def why_not() -> str:
    """Return why there can be no server here; empty if there can."""
    python = os.environ.get("PYTHON313", "")
    if not python:
        return "local-bigquery needs Python 3.13 or newer: set PYTHON313 to one"
    if not Path(python).is_file():
        return f"PYTHON313 names no file: {python}"
    return ""


def made() -> Path:
    """Return the server's environment; make it if there is none.

    Raises:
        NotMadeError: it cannot be made.
    """
    return environment([SERVER], alone=ADDITIONS, python=os.environ["PYTHON313"], finish=_copy_extensions)


def _copy_extensions(folder: Path) -> None:
    """Put DuckDB's extensions where it looks for them, so that it downloads none."""
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)
    system = "osx" if sys.platform == "darwin" else "linux"
    place = folder / ".duckdb" / "extensions" / f"v{DUCKDB}" / f"{system}_{machine}"
    place.mkdir(parents=True)
    for file in folder.glob(f"lib/*/site-packages/duckdb_extension_*/extensions/v{DUCKDB}/*.duckdb_extension"):
        shutil.copy(file, place)


@contextmanager
def server_or_skip(folder: Path) -> Iterator[str]:
    """Run a server as `running` does; skip the tests if its environment cannot be made."""
    try:
        made()
    except NotMadeError as error:
        pytest.skip(f"the environment of local-bigquery cannot be made: {error}")
    with running(folder) as address:
        yield address


@contextmanager
def running(folder: Path) -> Iterator[str]:
    """Run a server with its data in a folder, and return its address."""
    place = made()
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen(
            [place / "bin" / "python", Path(__file__).with_name("bigquery_emulator.py"), folder / "data"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env={"PATH": os.environ["PATH"], "HOME": str(place)},
        )
    with server:
        assert server.stdout is not None
        address = server.stdout.readline().decode().strip()
        if not address:
            raise RuntimeError(f"local-bigquery did not start: {(folder / 'server.log').read_text()}")
        yield address
