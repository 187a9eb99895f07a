"""Measures contenders side by side, and tells it in one line of JSON.

1. Contenders run in turns, round after round, each round beginning with another of them: whatever slows the machine
   slows all.
2. What counts is the median over the rounds; of a ratio, the median of the ratios within each round. The quartiles
   beside it say how much of that is noise.
3. Whoever fails ends the benchmark: work that was not done has no time.
4. A smoke run is a share of the work in a few seconds, to see that the script still works; its figures mean nothing.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

Command = list[str | Path]
"""A program and its arguments."""

SAMPLE_SECONDS = 0.02
"""How often a process is asked for the most memory it has had so far."""


@dataclass(frozen=True, slots=True)
class Run:
    """What one contender did in one round; `peak_mib` is the most that was resident at once, where it was watched."""

    seconds: float
    cpu_seconds: float = 0.0
    peak_mib: float = 0.0
    output: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line asks for."""

    quick: bool
    rounds: int
    markdown: bool = False


def options(description: str | None, *, rounds: int, markdown: bool = False) -> Options:
    """Read the command line, the same for every benchmark."""
    parser = argparse.ArgumentParser(description=(description or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a share of the work in a few seconds; no figures to keep")
    parser.add_argument("--rounds", type=int, default=0, help=f"how many rounds (default: {rounds}, 1 with --quick)")
    if markdown:
        parser.add_argument("--markdown", action="store_true", help="print the table instead of JSON")
    asked = parser.parse_args()
    return Options(asked.quick, asked.rounds or (1 if asked.quick else rounds), markdown and asked.markdown)


def timed(
    command: Sequence[str | Path],
    *,
    directory: Path | None = None,
    env: Mapping[str, str] | None = None,
    codes: Iterable[int] = (0,),
    watch_memory: bool = False,
) -> Run:
    """Run a command to its end.

    Raises:
        SystemExit: it failed.
    """
    began = time.perf_counter()
    process = subprocess.Popen(
        [str(part) for part in command],
        cwd=directory,
        env={**os.environ, **(env or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    watching = Watching(process.pid) if watch_memory else None
    before = os.times()
    output, errors = process.communicate()
    seconds = time.perf_counter() - began
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    if process.returncode not in codes:
        fail(f"{command[0]} ended with {process.returncode}: {(errors or output).strip()[-2000:]}")
    return Run(seconds, cpu, watching.end() if watching else 0.0, output)


class Watching:
    """Keeps asking a process of ours how much memory it has had at most."""

    def __init__(self, pid: int) -> None:
        self._status = Path(f"/proc/{pid}/status")
        self._peak_kib = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def end(self) -> float:
        """The most it had, in MiB."""
        self._over.set()
        self._thread.join()
        return self._peak_kib / 1024

    def _watch(self) -> None:
        while not self._over.wait(SAMPLE_SECONDS):
            with suppress(OSError, StopIteration, ValueError):
                lines = self._status.read_text().splitlines()
                self._peak_kib = max(
                    self._peak_kib, int(next(one for one in lines if one.startswith("VmHWM")).split()[1])
                )


def in_turns(contenders: Mapping[str, Callable[[], Run]], rounds: int) -> dict[str, list[Run]]:
    """Rule 1."""
    names = list(contenders)
    done: dict[str, list[Run]] = {name: [] for name in names}
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            done[name].append(contenders[name]())
            note(f"round {number + 1} of {rounds}: {name} took {done[name][-1].seconds:.2f} s")
    return done


def spread(values: Sequence[float], *, digits: int = 3) -> dict[str, Any]:
    """The median, and the quartiles around it."""
    if len(values) < 2:
        low = high = values[0]
    else:
        low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return {
        "median": round(statistics.median(values), digits),
        "quartiles": [round(low, digits), round(high, digits)],
    }


def seconds_of(runs: Sequence[Run]) -> dict[str, Any]:
    """How long it took, and how much of the processor."""
    return {**spread([run.seconds for run in runs]), "cpu": spread([run.cpu_seconds for run in runs])["median"]}


def ratio(ours: Sequence[Run], *theirs: Sequence[Run]) -> dict[str, Any]:
    """Rule 2: our time over theirs, one after another where they are several."""
    return spread(
        [run.seconds / sum(one.seconds for one in others) for run, *others in zip(ours, *theirs, strict=True)], digits=2
    )


def say(
    benchmark: str, asked: Options, *, packages: Iterable[str] = (), programs: Iterable[str] = (), **facts: Any
) -> None:
    """Print the line."""
    line = {
        "benchmark": benchmark,
        "quick": asked.quick,
        "rounds": asked.rounds,
        **facts,
        "machine": machine(),
        "versions": versions(packages, programs),
    }
    print(json.dumps(line), flush=True)


def machine() -> dict[str, Any]:
    """Where it was measured, and how busy that was when it ended."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cores": len(os.sched_getaffinity(0)),
        "processor": _processor(),
        "memory_gib": round(memory / 2**30),
        "system": platform.platform(terse=True),
        "load": round(os.getloadavg()[0], 1),
    }


def versions(packages: Iterable[str], programs: Iterable[str]) -> dict[str, str]:
    """Of Python, of packages and of programs; a program that is not installed says so."""
    found = {"python": platform.python_version()}
    for package in ("asyncexport", *packages):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return {**found, **{name: program_version(name) for name in programs}}


def program_version(name: str) -> str:
    """What a program says of itself in its first line."""
    if not shutil.which(name):
        return "not installed"
    done = subprocess.run([name, "-v" if name == "nginx" else "--version"], capture_output=True, text=True, check=False)
    return (done.stdout or done.stderr).partition("\n")[0].strip()


def fresh(folder: Path) -> Path:
    """An empty folder in the place of whatever was there."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def settle() -> None:
    """Let nobody wait for the disk on account of the one before."""
    os.sync()


def note(text: str) -> None:
    """For whoever waits."""
    print(text, file=sys.stderr, flush=True)


def fail(text: str) -> None:
    """Rule 3."""
    raise SystemExit(text)


def _processor() -> str:
    with suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line for line in lines if line.startswith("model name")).partition(":")[2].strip()
    return platform.processor() or platform.machine()
