"""The README's table of bad bodies, compared with what each client really does with them."""

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


def table() -> dict[str, dict[str, bool]]:
    """Return, for each body in the README's table, which clients it says accept the body."""
    lines = README.partition(BEGIN)[2].partition(END)[0].splitlines()
    head, _, *rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines if line.startswith("|")]
    names = [name.strip("`") for name in head[1:]]
    return {row[0]: dict(zip(names, (cell == "**accepted**" for cell in row[1:]), strict=True)) for row in rows}


@pytest.fixture(scope="module")
def found():
    """The output of the benchmark."""
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "truncation.py"], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


def is_held(name: str, found) -> bool:
    """Return whether the table is about the version that is installed here."""
    if name == "asyncexport":
        return True
    program = name.partition(" ")[0]
    version = re.search(r"\d[\d.]*", found["versions"][program])
    words = " ".join(README.split())
    return name not in found["skipped"] and version is not None and f"{program} {version[0]}," in words


def test_the_table_has_every_body(found):
    """The table has exactly the bodies that the benchmark sends."""
    assert list(table()) == list(found["by_case"])


def test_each_client_does_what_the_table_says(found):
    """Each client of the version named in the table accepts exactly the bodies that the table says."""
    for title, accepted in found["by_case"].items():
        for name, stated in table()[title].items():
            if is_held(name, found):
                assert stated is (name in accepted), f"{name}: {title}"


def test_asyncexport_accepts_no_bad_body():
    """No bad body becomes an archive, even if other clients accept it."""
    assert not any(row["asyncexport"] for row in table().values())
