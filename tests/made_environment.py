"""Environments that tests make for programs which cannot be installed beside ours, and keep for the next run."""

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path

SECONDS = 600
"""How long an installation may take."""

PIP = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--retries", "1", "--timeout", "30")


def kept() -> Path:
    """Return where environments are kept: in the folder for temporary files, so that fresh clones find them as well.

    Raises:
        NotMadeError: the folder is another user's.
    """
    cache = Path(tempfile.gettempdir()) / f"asyncexport-test-environments-{os.getuid()}"
    cache.mkdir(mode=0o700, exist_ok=True)
    if cache.lstat().st_uid != os.getuid():
        raise NotMadeError(f"{cache} is another user's")
    return cache


class NotMadeError(Exception):
    """An environment cannot be made here; the text says why."""


def environment(
    packages: Sequence[str],
    *,
    cache: Path | None = None,
    python: str = sys.executable,
    alone: Sequence[str] = (),
    finish: Callable[[Path], None] = lambda _folder: None,
) -> Path:
    """Return an environment with these packages, which is made if it is not there yet. `bin/python` is its Python.

    Args:
        packages: What to install, for pip.
        cache: Where it is kept, by default with the others.
        python: The Python to make it with.
        alone: What to install afterwards without what it depends on.
        finish: Called with the folder of a new environment.

    Raises:
        NotMadeError: it cannot be made; without a network, for example.
    """
    cache, python = cache or kept(), os.path.realpath(python)  # that of a clone's environment leads to the system's
    name = sha256("\n".join((python, *packages, *alone)).encode()).hexdigest()[:16]
    folder, done = cache / name, cache / f"{name}.done"
    with (cache / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another process of the test run may make the same one
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)
            made = str(folder / "bin" / "python")
            _run([python, "-m", "venv", str(folder)])
            _run([made, *PIP, *packages])
            if alone:
                _run([made, *PIP, "--no-deps", *alone])
            finish(folder)
            done.touch()
    return folder


def _run(command: list[str]) -> None:
    try:
        subprocess.run(
            command,
            check=True,
            timeout=SECONDS,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
    except subprocess.CalledProcessError as error:
        lines = error.output.decode(errors="replace").strip().splitlines()
        raise NotMadeError(f"{' '.join(command[1:4])} failed: {lines[-1] if lines else 'no output'}") from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotMadeError(str(error)) from None
