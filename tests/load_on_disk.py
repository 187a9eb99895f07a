"""A process that loads onto a disk whose power may be cut.

`python -m tests.load_on_disk DEVICE FOLDER CHANGES [LEAVE_OUT]`

DEVICE is the descriptor of a `PowerCutFs`, which is mounted as the load directory of the `Place` in FOLDER. CHANGES are
settings as JSON. LEAVE_OUT is what is not flushed, as in `tests.crash_driver`. Two lines are printed: that the disk is
mounted, after which a line is read, and the exit code.
"""

import json
import os
import sys
from pathlib import Path

from tests.crash_driver import LEAVE_OUT
from tests.load_rig import Place
from tests.power_cut_fs import mount_privately


def main(device: str, folder: str, changes: str, leave_out: str = "") -> None:
    """Load, and print the exit code."""
    place = Place(Path(folder), changes=json.loads(changes))
    mount_privately(int(device), str(place.warehouse))
    os.close(int(device))
    if leave_out:
        LEAVE_OUT[leave_out]()
    sys.stdout.write("mounted\n")
    sys.stdout.flush()
    sys.stdin.readline()
    sys.stdout.write(f"{int(place.load().exit_code)}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
