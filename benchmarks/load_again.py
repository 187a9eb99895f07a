"""A second load of a month that is loaded already, as a whole process: it must touch no file."""

import json
import sys
import tempfile
from pathlib import Path

import measuring

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.load_rig import Arrival, Place, events

DAYS, DAYS_QUICK = 30, 2
BUNDLES = 24
"""Per day."""
ROWS = 50
"""Per bundle. A second load reads receipts, not rows, so this changes nothing."""


def load(place: Place) -> measuring.Run:
    """Run the command, and report its number of days that were loaded already."""
    words = ["-m", "asyncexport", "--json", "-q", "load", "-d", str(place.output)]
    words += ["--set", f"load.directory={place.warehouse}"]
    return measuring.timed([sys.executable, *words], directory=place.folder, watch_memory=True)


def main() -> None:
    """Load once, then load again in each round."""
    asked = measuring.options(__doc__, rounds=7)
    days = DAYS_QUICK if asked.quick else DAYS
    with tempfile.TemporaryDirectory(prefix="asyncexport-bench-") as folder:
        place = Place(Path(folder))
        bundles = range(days * BUNDLES)
        place.store(*(Arrival((one, one + 1), events(one * ROWS, ROWS)) for one in bundles))
        first = load(place)
        files = place.states()
        again = measuring.in_turns({"again": lambda: load(place)}, asked.rounds)["again"]
        if place.states() != files:
            raise SystemExit("a second load changed files")
    summary = json.loads(again[-1].output.splitlines()[-1])["load"]
    if summary["already"] != days:
        raise SystemExit(f"a second load loaded days: {summary}")
    measuring.report(
        "load_again",
        asked,
        packages=("duckdb",),
        days=days,
        files=len(files),
        first_seconds=round(first.seconds, 2),
        seconds=measuring.seconds_of(again),
        peak_mib=measuring.spread([one.peak_mib for one in again], digits=1),
    )


if __name__ == "__main__":
    main()
