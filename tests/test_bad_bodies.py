"""The README's table of bad bodies, held to what each client really makes of them."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BEGIN, END = "<!-- bad bodies", "<!-- end of bad bodies -->"


def told() -> dict[str, dict[str, bool]]:
    """Of each body in the README's table, who is said to accept it."""
    lines = README.partition(BEGIN)[2].partition(END)[0].splitlines()
    head, _, *rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines if line.startswith("|")]
    names = [name.strip("`") for name in head[1:]]
    return {row[0]: dict(zip(names, (cell == "**accepted**" for cell in row[1:]), strict=True)) for row in rows}


@pytest.fixture(scope="module")
def found():
    """What the benchmark says."""
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "truncation.py"], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


def is_held(name: str, found) -> bool:
    """Whether the table speaks of the very version that is installed here."""
    if name == "asyncexport":
        return True
    program = name.partition(" ")[0]
    version = re.search(r"\d[\d.]*", found["versions"][program])
    words = " ".join(README.split())
    return name not in found["skipped"] and version is not None and f"{program} {version[0]}," in words


def test_the_table_has_every_body(found):
    """None is left out, and none stands there that is not sent."""
    assert list(told()) == list(found["by_case"])


def test_each_client_does_what_the_table_says(found):
    """As far as the clients here are those that the table names, each accepts what it says, and refuses the rest."""
    for title, accepted in found["by_case"].items():
        for name, says in told()[title].items():
            if is_held(name, found):
                assert says is (name in accepted), f"{name}: {title}"


def test_none_of_them_is_accepted_here():
    """Whatever others make of it, a bad body never becomes an archive."""
    assert not any(row["asyncexport"] for row in told().values())
