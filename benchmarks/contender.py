"""asyncexport as a contender: the command line in a process of its own, with a budget so high that nothing waits."""

import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from measuring import Run, fail, timed
from service import KEY

START = 1_767_225_600
"""2026-01-01T00:00:00Z."""

ENVIRONMENT = {"FULLSTORY_API_KEY": KEY}

CONFIG = """
[api]
base_url = "{api}"
ca_file = "{ca_file}"
[budget]
requests_per_minute = 1000000
burst = 1000000
[concurrency]
operations = {operations}
downloads = {downloads}
[polling]
min_interval = "100ms"
expected = "100ms"
[output]
directory = "{directory}"
[[export]]
name = "everyone-events"
bundle = "{bundle_minutes}m"
# The same few archives are served for all ranges, so their rows have other times. With this scope they are not checked.
scope = "{scope}"
"""

SCOPE = "SCOPE_SESSIONS"
"""The export's `scope`, a part of its definition."""


@dataclass(frozen=True, slots=True)
class Setup:
    """The configuration of a run; `operations` has the default of the setting."""

    api: str
    directory: Path
    ca_file: Path | None = None
    downloads: int = 8
    operations: int = 100
    bundle_minutes: int = 5

    def write(self, path: Path) -> Path:
        """Write the configuration file; return its path."""
        path.write_text(
            CONFIG.format(
                api=self.api,
                ca_file=self.ca_file or "",
                directory=self.directory,
                downloads=self.downloads,
                operations=self.operations,
                bundle_minutes=self.bundle_minutes,
                scope=SCOPE,
            )
        )
        return path


def backfill(setup: Setup, bundles: int, *, work: Path, watch_memory: bool = False) -> Run:
    """Export this many bundles to completion.

    Raises:
        SystemExit: not all of them were stored.
    """
    config = setup.write(work / "asyncexport.toml")
    end = START + bundles * setup.bundle_minutes * 60
    run = timed(
        command(config, "backfill", "--start", moment(START), "--end", moment(end)),
        env=ENVIRONMENT,
        watch_memory=watch_memory,
    )
    stored = sum(1 for _ in setup.directory.glob("*/date=*/*.gz"))
    if stored != bundles:
        fail(f"asyncexport stored {stored} of {bundles} bundles")
    return run


def command(config: Path, *arguments: str) -> list[str]:
    """Return the command line with this configuration."""
    return [sys.executable, "-m", "asyncexport", "-c", str(config), *arguments]


def moment(seconds: int) -> str:
    """Format a time as the command line expects it."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
