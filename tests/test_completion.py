"""Shell completion: what a shell offers when Tab is pressed."""

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

TIMEOUT_SECONDS = 30.0


def script_of(shell: str, capsys: pytest.CaptureFixture[str]) -> str:
    """Return what the command prints."""
    assert main(["completion", shell]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out


class Bash:
    """A real bash on a terminal, in which `asyncexport` prints the words it is called with."""

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
        """Type a line, including its Tabs, and Enter; return the resulting words."""
        os.write(self._end, f"{keys}\n".encode())
        output = b""
        while b"<end>" not in output:
            assert select.select([self._end], [], [], TIMEOUT_SECONDS)[0], output
            output += os.read(self._end, 4096)
        line = output.decode().partition("<end>")[0].splitlines()[-1]
        return re.findall(r"\[(.*?)\]", line)

    def close(self) -> None:
        """End the shell."""
        os.close(self._end)
        with suppress(ProcessLookupError):
            self._process.kill()
        self._process.wait()


@pytest.fixture
def bash(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Bash]:
    """A bash with the completion script, in a folder that contains a file and a folder."""
    (tmp_path / "my settings.toml").touch()
    (tmp_path / "archives").mkdir()
    one = Bash(tmp_path, script_of("bash", capsys))
    yield one
    one.close()


def test_a_real_bash_completes(bash):
    """Commands, options, values, files and folders are completed, before and after the command, with or without "="."""
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
def test_a_script_has_no_syntax_errors(shell, tmp_path, capsys):
    """The shell itself checks the script, if it is installed."""
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    (tmp_path / "script").write_text(script_of(shell, capsys))
    done = subprocess.run([shell, "-n", str(tmp_path / "script")], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("shell", Shell)
def test_a_script_contains_every_command_and_option(shell, capsys):
    """The script offers the options shown in the help, and the global ones after each command."""
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


def test_every_option_with_listed_values_exists():
    """No values are listed for an option that was removed."""
    names = {name for one in commands() for option in one.options for name in option.names}
    assert set(VALUES) <= names


def test_the_script_is_a_json_line_with_json(capsys):
    """With `--json` the script is a JSON line; an unknown shell is a usage error."""
    assert main(["--json", "completion", "fish"]) == 0
    first, last = map(json.loads, capsys.readouterr().out.splitlines())
    assert (first["type"], first["shell"], first["text"][:10], last["exit_code"]) == ("script", "fish", "# Completi", 0)
    assert main(["completion", "tcsh"]) == Exit.USAGE
    assert "tcsh" in capsys.readouterr().err
