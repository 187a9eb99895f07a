"""The README, other pages, help, hints and example settings agree with the code."""

import ast
import dataclasses
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import asyncexport
from asyncexport.cli import main
from asyncexport.cli.commands import COMMANDS, program
from asyncexport.cli.session import Session
from asyncexport.config import EXAMPLE, read_duration
from asyncexport.config.layers import known_keys
from asyncexport.core.bundles import read_when
from asyncexport.core.exits import MEANINGS
from asyncexport.core.summary import Snapshot
from tests import fault_table
from tests.json_lines import documented
from tests.test_floors import parsed

PACKAGE = Path(asyncexport.__file__).parent
ROOT = PACKAGE.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
MAP = (PACKAGE / "README.md").read_text(encoding="utf-8")
PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *PACKAGE.glob("*.md"),
        PACKAGE / "mirror" / "README.md",
        *(ROOT / ".github").glob("*.md"),
        *ROOT.glob("*/README.md"),
        ROOT / "tests" / "FAULTS.md",
        *(PACKAGE / "warehouse").glob("*.md"),
    ]
)
SOURCES = sorted(PACKAGE.rglob("*.py"))


def section(title: str) -> str:
    """Return the text below a heading, up to the next heading of its level or above."""
    level, found = title.split(" ", maxsplit=1)[0], README.split(f"\n{title}\n")
    assert len(found) == 2, f"expected one heading {title!r}"
    return re.split(rf"\n#{{1,{len(level)}}} ", found[1])[0]


def rows(text: str) -> list[list[str]]:
    """Return the cells of a table without its head."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def texts() -> Iterator[tuple[Path, str]]:
    """Yield every page and every module, each with its path from the root."""
    for path in sorted({*PAGES, *SOURCES}):
        yield path.relative_to(ROOT), path.read_text(encoding="utf-8")


def options(command: str = "") -> set[str]:
    """Return the options of a command including the global ones, or only the global ones without a command."""
    found: Any = program()
    own = [] if not command else found.get_command(SimpleNamespace(obj=None), command).params
    return {name for param in [*found.params, *own] for name in param.opts} | {"--help", "-h"}


def test_the_table_of_commands_matches_the_code():
    """The table has each command in the order of the help and with the same text."""
    table = {cells[0].strip("`").split(" ")[0]: cells[1].replace("`", "") for cells in rows(section("## Commands"))}
    written = {name: does for name, does in table.items() if name in COMMANDS}
    assert list(written.items()) == [(name, entry.does) for name, entry in COMMANDS.items()]


def test_the_options_in_the_table_of_commands_exist():
    """Each option in the table belongs to its command."""
    for first, *_ in rows(section("## Commands").split("### ")[0]):
        command, *rest = first.strip("`").split(" ")
        assert set(re.findall(r"--[a-z-]+", " ".join(rest))) <= options(command), command


def test_the_table_of_exit_codes_matches_the_code():
    """The table has each exit code with the meaning shown in the help."""
    table = {int(code): means for code, means in rows(section("## Exit codes"))}
    assert table == {int(code): means for code, means in MEANINGS.items()}


def test_each_help_has_its_examples_and_exit_codes(capsys):
    """A command's help has its own examples and exit codes; the program's help has some examples and every code."""
    for name in ("", *COMMANDS):
        main([name, "--help"] if name else ["--help"])
        text = " ".join(capsys.readouterr().out.split())
        _, _, codes = text.partition("Exit codes: ")
        listed = {int(code) for code in re.findall(r"(?<!\S)(\d+) (?=[a-z])", codes)}
        assert listed == {int(code) for code in (COMMANDS[name].exits if name else MEANINGS)}, name
        examples = COMMANDS[name].examples if name else COMMANDS["backfill"].examples[:1]
        assert examples, name
        for typed, does in examples:
            assert f"asyncexport {name or 'backfill'} {typed}".rstrip() + f" {does}" in text


def test_the_examples_in_the_help_are_valid():
    """The options, values, dates and settings of each example can be parsed."""
    found: Any = program()
    for name, entry in COMMANDS.items():
        for typed, _ in entry.examples:
            command = found.get_command(SimpleNamespace(obj=Session()), name)
            given = command.make_context(name, shlex.split(typed), obj=Session()).params
            dates = [read_when(given[option]) for option in ("start", "end") if given.get(option)]
            assert all(dates), typed
            for setting in given["sets"] or () if "sets" in given and name != "sandbox" else ():
                table, _, key = setting.partition("=")[0].rpartition(".")
                assert key in known_keys()[table], typed
            assert not given.get("max_duration") or read_duration(given["max_duration"]), typed


def test_the_table_of_json_lines_matches_the_code():
    """Each printed type is in the table, and each type and key in the table is printed somewhere."""
    texts = {node.value for path in SOURCES for node in ast.walk(parsed(path)) if isinstance(node, ast.Constant)}
    printed = {
        argument.value
        for path in SOURCES
        if path.parent.name in {"cli", "display"}
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Call)
        # The type of a record is the first constant that these functions are called with.
        if getattr(node.func, "attr", getattr(node.func, "id", "")) in {"record", "_of_bundle", "_name"}
        for argument in [one for one in node.args if isinstance(one, ast.Constant)][:1]
    }
    table = documented()
    assert printed - table.keys() == set()
    assert table.keys() - texts == set()
    fields = {field.name for field in dataclasses.fields(Snapshot)}
    keywords = {node.arg for path in SOURCES for node in ast.walk(parsed(path)) if isinstance(node, ast.keyword)}
    assert frozenset().union(*table.values()) - texts - fields - keywords == set()


def test_the_readme_is_short():
    """It has at most 300 lines; details have pages of their own."""
    assert len(README.splitlines()) <= 300


def test_links_between_pages_lead_somewhere():
    """Each relative link in a page names a file that exists."""
    links = [(page, link) for page in PAGES for link in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text("utf-8"))]
    assert links
    assert [f"{page.relative_to(ROOT)}: {link}" for page, link in links if not (page.parent / link).exists()] == []


def test_the_changes_name_every_command():
    """Every command is in the list of changes."""
    changes = (PACKAGE / "CHANGES.md").read_text(encoding="utf-8")
    assert set(COMMANDS) <= set(re.findall(r"`([a-z]+)`", changes))


def test_the_map_names_every_package_and_no_missing_file():
    """The table of packages is complete, and each file that the map mentions exists."""
    packages = MAP.partition("## Packages")[2].partition("\n## ")[0]
    named = {cells[0].strip("`") for cells in rows(packages)}
    assert named == {f"{path.parent.name}/" for path in PACKAGE.glob("*/__init__.py")} | {"errors.py"}
    files = set(re.findall(r"`([\w.-]+(?:/[\w.-]+)*\.(?:py|md|toml))`", MAP))
    assert files
    here = {name for name in files if "NAME" not in name}
    assert sorted(name for name in here if not any(_is_in(folder, name) for folder in (PACKAGE, ROOT))) == []


def _is_in(folder: Path, name: str) -> bool:
    """Return whether a file exists at this path, or under this name next to one that the same row mentions."""
    return (folder / name).exists() or ("/" not in name and any((PACKAGE / "core").rglob(name)))


def test_each_package_lists_its_modules():
    """The docstring of a package names each of its modules and packages."""
    for package in PACKAGE.glob("*/**/__init__.py"):
        named = set(re.findall(r"\w+", ast.get_docstring(parsed(package)) or ""))
        modules = {path.stem for path in package.parent.glob("*.py")} - {"__init__"}
        modules |= {path.parent.name for path in package.parent.glob("*/__init__.py")}
        assert modules <= named, f"name in {package}: {sorted(modules - named)}"


def test_the_example_settings_in_the_repository_match_init():
    """`config.example.toml` equals what `init` writes."""
    assert (ROOT / "config.example.toml").read_text(encoding="utf-8") == EXAMPLE


def test_settings_in_texts_exist():
    """Each `[table] key` in a page, message or hint is a setting."""
    tables = known_keys()
    named = [
        (path, table, key)
        for path, text in texts()
        for table, key in re.findall(r"(?<!\w)\[+([\w.]+)\]+ ([a-z_]+)", text)
        # "[[export]] in the file" is prose.
        if key != "in" and table in tables
    ]
    assert named
    assert [f"{path}: [{table}] {key}" for path, table, key in named if key not in tables[table]] == []


def test_commands_in_texts_are_valid():
    """Each `asyncexport …` in a page, example or hint is a command with options that exist."""
    named = []
    for path, text in texts():
        named += [(path, typed) for typed in re.findall(r"`asyncexport ([^`]*)`", text)]
        if path.suffix == ".md":
            for block in re.findall(r"```\n(.*?)```", text, re.DOTALL):
                lines = re.findall(r"^(?:\S*/)?asyncexport ([^\n#]+)", block, re.MULTILINE)
                named += [(path, typed) for typed in lines]
    assert named
    faults = []
    for path, typed in named:
        words = typed.split(" ")
        command = next((word for word in words if word in COMMANDS), "")
        if not command and words[0] not in {"COMMAND", "[-c", "--help", "--version"}:
            faults.append(f"{path}: {typed}: no such command")
        elif unknown := set(re.findall(r"(?<!\S)--[a-z-]+", typed)) - options(command):
            faults.append(f"{path}: {typed}: no such option: {', '.join(sorted(unknown))}")
    assert faults == []


def test_options_in_the_readme_exist():
    """Each option in the README belongs to a command."""
    every = set().union(*(options(name) for name in COMMANDS))
    own = re.findall(r"`(--[a-z-]+)", README)
    assert own
    assert set(own) <= every


def test_faults_page_is_generated_from_the_fault_table():
    """FAULTS.md has exactly the rows that are tested."""
    assert (ROOT / "tests" / "FAULTS.md").read_text(encoding="utf-8") == fault_table.as_markdown(), (
        "generate it again: python -m tests.fault_table > tests/FAULTS.md"
    )
