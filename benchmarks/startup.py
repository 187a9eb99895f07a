"""Startup time: how much longer `asyncexport --help`, `status` and `plan` take than `python -c pass`."""

import asyncio
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import contender
import measuring
import resume
from measuring import Run

BUNDLES = 1_000


def main() -> None:
    """Run the benchmark."""
    asked = measuring.options(__doc__, rounds=21)
    with tempfile.TemporaryDirectory(prefix="asyncexport-bench-") as folder:
        work = Path(folder)
        asyncio.run(resume.fill(measuring.fresh(work / "exports"), BUNDLES))
        config = contender.Setup("http://127.0.0.1:9", work / "exports").write(work / "asyncexport.toml")
        start = contender.moment(contender.START - BUNDLES * resume.WIDTH_SECONDS)
        end = contender.moment(contender.START)
        commands = {
            "pass": [sys.executable, "-c", "pass"],
            "--help": contender.command(config, "--help"),
            "status": contender.command(config, "status"),
            "plan": contender.command(config, "plan", "--start", start, "--end", end),
        }
        contenders: dict[str, Callable[[], Run]] = {
            name: partial(measuring.timed, command, env=contender.ENVIRONMENT) for name, command in commands.items()
        }
        for run in contenders.values():
            run()
        runs = measuring.in_turns(contenders, asked.rounds)
    bare = runs.pop("pass")
    measuring.report(
        "startup",
        asked,
        packages=("typer", "pydantic", "rich"),
        bundles=BUNDLES,
        bare_ms=measuring.spread([run.seconds * 1000 for run in bare], digits=1),
        more_ms={
            name: measuring.spread(
                [(run.seconds - least.seconds) * 1000 for run, least in zip(these, bare, strict=True)], digits=1
            )
            for name, these in runs.items()
        },
    )


if __name__ == "__main__":
    main()
