"""Environments that tests make for programs which cannot be installed beside ours, and keep for the next run."""

import fcntl
import shutil
import subprocess
import sys
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

SECONDS = 600
"""How long an installation may take."""


class NotMadeError(Exception):
    """An environment cannot be made here; the text says why."""


def environment(cache: Path, packages: Sequence[str], *, python: str = sys.executable) -> Path:
    """Return the Python of an environment with these packages, which is made if it is not there yet.

    Args:
        cache: Where environments are kept.
        packages: What to install, for pip.
        python: The Python to make it with.

    Raises:
        NotMadeError: it cannot be made; without a network, for example.
    """
    name = sha256("\n".join((python, *packages)).encode()).hexdigest()[:16]
    folder, done = cache / name, cache / f"{name}.done"
    with (cache / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another process of the test run may make the same one
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)
            made = folder / "bin" / "python"
            _run([python, "-m", "venv", str(folder)])
            options = ["--quiet", "--disable-pip-version-check", "--retries", "1", "--timeout", "30"]
            _run([str(made), "-m", "pip", "install", *options, *packages])
            done.touch()
    return folder / "bin" / "python"


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
