"""A process that loads, for tests that end it: `python -m tests.load_driver FOLDER CHANGES [BOUNDARY]`.

CHANGES are settings as JSON. With BOUNDARY, the process kills itself when it reaches the failpoint with this number.
It prints how many failpoints there were.
"""

import json
import os
import signal
import sys
from pathlib import Path

from tests.load_rig import Place


def main(folder: str, changes: str, boundary: int = 0) -> int:
    """Load; return the exit code."""
    reached = 0

    def count(_name: str) -> None:
        nonlocal reached
        reached += 1
        if reached == boundary:
            os.kill(os.getpid(), signal.SIGKILL)

    summary = Place(Path(folder), changes=json.loads(changes)).load(boundary=count)
    print(reached)  # noqa: T201 - read by the test
    return int(summary.exit_code)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])))
