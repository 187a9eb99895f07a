"""Measures contenders side by side and prints one line of JSON.

1. Contenders run in turns, round after round, and each round starts with a different one: anything that slows the
   machine slows all of them.
2. The result is the median over the rounds; for a ratio, the median of the ratios within each round. The quartiles next
   to it show the noise.
3. A contender that fails ends the benchmark, because there is no time to report for work that was not done.
4. Programs run as installed ones do, with their modules compiled, even where Python is told not to write bytecode.
5. A smoke run does a share of the work in a few seconds, to check that the script still works; its figures are
   meaningless.
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
"""Interval at which the peak memory of a process is read."""


@dataclass(frozen=True, slots=True)
class Run:
    """The result of one contender in one round; `peak_mib` is its peak resident memory, if that was measured."""

    seconds: float
    cpu_seconds: float = 0.0
    peak_mib: float = 0.0
    output: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Options:
    """The command line options."""

    quick: bool
    rounds: int
    markdown: bool = False


def options(description: str | None, *, rounds: int, markdown: bool = False) -> Options:
    """Read the command line, which is the same for every benchmark."""
    parser = argparse.ArgumentParser(description=(description or "").partition("\n")[0])
    parser.add_argument(
        "--quick", action="store_true", help="smoke run: a share of the work in a few seconds, meaningless figures"
    )
    parser.add_argument("--rounds", type=int, default=0, help=f"number of rounds (default: {rounds}, 1 with --quick)")
    if markdown:
        parser.add_argument("--markdown", action="store_true", help="print the table in Markdown instead of JSON")
    asked = parser.parse_args()
    return Options(asked.quick, asked.rounds or (1 if asked.quick else rounds), markdown and asked.markdown)


def environment() -> dict[str, str]:
    """Return the environment of measured programs (rule 4)."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def timed(
    command: Sequence[str | Path],
    *,
    directory: Path | None = None,
    env: Mapping[str, str] | None = None,
    codes: Iterable[int] = (0,),
    watch_memory: bool = False,
) -> Run:
    """Run a command to completion and measure it.

    Raises:
        SystemExit: the command failed.
    """
    began = time.perf_counter()
    process = subprocess.Popen(
        [str(part) for part in command],
        cwd=directory,
        env={**environment(), **(env or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    memory = PeakMemory(process.pid) if watch_memory else None
    before = os.times()
    output, errors = process.communicate()
    seconds = time.perf_counter() - began
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    if process.returncode not in codes:
        fail(f"{command[0]} ended with exit code {process.returncode}: {(errors or output).strip()[-2000:]}")
    return Run(seconds, cpu, memory.end() if memory else 0.0, output)


class PeakMemory:
    """Reads the peak memory of a child process again and again until `end`."""

    def __init__(self, pid: int) -> None:
        self._status = Path(f"/proc/{pid}/status")
        self._peak_kib = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def end(self) -> float:
        """Stop reading; return the peak memory in MiB."""
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
    """Run the contenders in turns (rule 1); return the runs of each."""
    names = list(contenders)
    done: dict[str, list[Run]] = {name: [] for name in names}
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            done[name].append(contenders[name]())
            note(f"round {number + 1} of {rounds}: {name} took {done[name][-1].seconds:.2f} s")
    return done


def spread(values: Sequence[float], *, digits: int = 3) -> dict[str, Any]:
    """Return the median and the quartiles."""
    if len(values) < 2:
        low = high = values[0]
    else:
        low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return {
        "median": round(statistics.median(values), digits),
        "quartiles": [round(low, digits), round(high, digits)],
    }


def seconds_of(runs: Sequence[Run]) -> dict[str, Any]:
    """Return the spread of the elapsed time, and the median of the CPU time."""
    return {**spread([run.seconds for run in runs]), "cpu": spread([run.cpu_seconds for run in runs])["median"]}


def ratio(ours: Sequence[Run], *theirs: Sequence[Run]) -> dict[str, Any]:
    """Return the spread of our time over theirs in the same round (rule 2); several of theirs are added up."""
    return spread(
        [run.seconds / sum(one.seconds for one in others) for run, *others in zip(ours, *theirs, strict=True)], digits=2
    )


def report(
    benchmark: str, asked: Options, *, packages: Iterable[str] = (), programs: Iterable[str] = (), **facts: Any
) -> None:
    """Print the line of JSON."""
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
    """Describe the machine, and its load at the end of the benchmark."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cores": len(os.sched_getaffinity(0)),
        "processor": _processor(),
        "memory_gib": round(memory / 2**30),
        "system": platform.platform(terse=True),
        "load": round(os.getloadavg()[0], 1),
    }


def versions(packages: Iterable[str], programs: Iterable[str]) -> dict[str, str]:
    """Return the versions of Python, of packages and of programs, or "not installed"."""
    found = {"python": platform.python_version()}
    for package in ("asyncexport", *packages):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return {**found, **{name: program_version(name) for name in programs}}


def program_version(name: str) -> str:
    """Return the first line that a program prints about its version."""
    if not shutil.which(name):
        return "not installed"
    done = subprocess.run([name, "-v" if name == "nginx" else "--version"], capture_output=True, text=True, check=False)
    return (done.stdout or done.stderr).partition("\n")[0].strip()


def fresh(folder: Path) -> Path:
    """Create an empty folder, replacing an existing one."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def settle() -> None:
    """Flush pending writes, so that a contender does not wait for those of the one before."""
    os.sync()


def note(text: str) -> None:
    """Print progress to stderr."""
    print(text, file=sys.stderr, flush=True)


def fail(text: str) -> None:
    """End the benchmark with an error (rule 3)."""
    raise SystemExit(text)


def _processor() -> str:
    with suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line for line in lines if line.startswith("model name")).partition(":")[2].strip()
    return platform.processor() or platform.machine()
