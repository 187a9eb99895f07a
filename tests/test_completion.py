"""Completion: what a shell offers when Tab is pressed."""

import json
import os
import pty
import re
import select
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from asyncexport.cli import main
from asyncexport.cli.commands import COMMANDS
from asyncexport.cli.completion import VALUES, Shell, commands
from asyncexport.core.exits import Exit

PATIENCE_SECONDS = 30.0


def script_of(shell: str, capsys: pytest.CaptureFixture[str]) -> str:
    """What the command prints."""
    assert main(["completion", shell]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    return said.out


class Bash:
    """A real bash at a terminal, in which `asyncexport` shows the words it is called with."""

    def __init__(self, folder: Path, script: str) -> None:
        (folder / "script.bash").write_text(script)
        (folder / "rc.bash").write_text(
            "source ./script.bash\nasyncexport() { printf '[%s]' \"$@\"; echo '<''end>'; }\n"
            "PS1='> '\nbind 'set bell-style none'\nbind 'set enable-bracketed-paste off'\n"
        )
        self._end, inner = pty.openpty()
        environment = {"PATH": os.environ["PATH"], "TERM": "dumb", "HOME": str(folder), "COLUMNS": "400"}
        self._process = subprocess.Popen(
            ["bash", "--noprofile", "--rcfile", "rc.bash", "-i"],
            stdin=inner,
            stdout=inner,
            stderr=inner,
            cwd=folder,
            env=environment,
            start_new_session=True,
        )
        os.close(inner)

    def type(self, keys: str) -> list[str]:
        """Type a line, Tabs in it and all, and Enter; the words that came of it."""
        os.write(self._end, f"{keys}\n".encode())
        told = b""
        while b"<end>" not in told:
            assert select.select([self._end], [], [], PATIENCE_SECONDS)[0], told
            told += os.read(self._end, 4096)
        line = told.decode().partition("<end>")[0].splitlines()[-1]
        return re.findall(r"\[(.*?)\]", line)

    def close(self) -> None:
        """End it."""
        os.close(self._end)
        with suppress(ProcessLookupError):
            self._process.kill()
        self._process.wait()


@pytest.fixture
def bash(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Bash]:
    """A bash with the script, in a folder with a file and a folder."""
    (tmp_path / "my settings.toml").touch()
    (tmp_path / "archives").mkdir()
    one = Bash(tmp_path, script_of("bash", capsys))
    yield one
    one.close()


def test_a_real_bash_completes(bash):
    """Commands, options, words, files and folders, before and after the command, with and without "="."""
    assert bash.type("asyncexport back\t") == ["backfill"]
    assert bash.type("asyncexport --js\tstat\t--dir\tarch\t") == ["--json", "status", "--directory", "archives/"]
    assert bash.type("asyncexport -c my\tnigh\t--max\t5h") == [
        "-c",
        "my settings.toml",
        "nightly",
        "--max-duration",
        "5h",
    ]
    assert bash.type("asyncexport --log-format=j\t backf\t--start yest\t--en\t12\t") == [
        "--log-format=json",
        "backfill",
        "--start",
        "yesterday",
        "--end",
        "12w",
    ]
    assert bash.type("asyncexport backfill --set budget.bu\t40 --sta\t2026-01-01T00:00:00Z --ex\t") == [
        "backfill",
        "--set",
        "budget.burst=40",
        "--start",
        "2026-01-01T00:00:00Z",
        "--export",
    ]
    assert bash.type("asyncexport completion z\t") == ["completion", "zsh"]
    assert bash.type("asyncexport help ver\t") == ["help", "verify"]
    assert bash.type("asyncexport sandbox --list-or\told\t") == ["sandbox", "--list-order", "oldest"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_has_no_faults_of_syntax(shell, tmp_path, capsys):
    """Said by the shell itself, where it is there."""
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    (tmp_path / "script").write_text(script_of(shell, capsys))
    done = subprocess.run([shell, "-n", str(tmp_path / "script")], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("shell", Shell)
def test_a_script_names_every_command_and_every_option(shell, capsys):
    """Those that stand in the help, and the global ones behind a command."""
    script = script_of(shell, capsys)
    listed = {one.name: one for one in commands()}
    assert list(listed) == ["", *COMMANDS, "help"]
    for name, one in listed.items():
        assert name in script
        names = {option_name for option in one.options for option_name in option.names}
        assert name == "help" or {"-h", "--help", "--json", "-c", "--log-format"} <= names
        for option_name in names:
            assert (f"-l {option_name[2:]} " in script) if (shell == "fish" and option_name[:2] == "--") else True
            assert shell == "fish" or option_name in script


def test_every_option_that_takes_something_special_exists():
    """None of the words is for an option that went away."""
    names = {name for one in commands() for option in one.options for name in option.names}
    assert set(VALUES) <= names


def test_the_script_is_a_json_line_where_that_is_asked_for(capsys):
    """And a shell there is no script for is a question of usage."""
    assert main(["--json", "completion", "fish"]) == 0
    first, last = map(json.loads, capsys.readouterr().out.splitlines())
    assert (first["type"], first["shell"], first["text"][:10], last["exit_code"]) == ("script", "fish", "# Completi", 0)
    assert main(["completion", "tcsh"]) == Exit.USAGE
    assert "tcsh" in capsys.readouterr().err
