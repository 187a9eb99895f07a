"""Paths in a folder that may not be entered: nothing is there, and no command ends with an unexpected error."""

import codecs
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from asyncexport.cli import main
from asyncexport.config.presence import existing_place, exists, is_directory, is_file
from asyncexport.core.exits import Exit
from tests.ledger_rig import without_permissions

HAUSER = Path(__file__).parent / "hauser" / "example.toml"


@pytest.fixture
def closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return a folder that the user of `without_permissions` may not enter, in a working directory of their own."""
    place = Path(tempfile.gettempdir())
    for one in (tmp_path, *tmp_path.parents[:-1]):
        if one not in (place, *place.parents):
            one.chmod(0o755)
    folder = tmp_path / "closed"
    folder.mkdir()
    for name in ("file", "asyncexport.toml"):
        (folder / name).touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FULLSTORY_API_KEY", raising=False)
    # The other user may not be allowed to read Python's own files, and this codec is only loaded when it is used.
    codecs.lookup("utf-8-sig")
    folder.chmod(0o700 if os.geteuid() == 0 else 0)
    with without_permissions():
        yield folder
    folder.chmod(0o755)


def test_nothing_exists_that_cannot_be_reached(closed, tmp_path):
    """What is outside the folder exists."""
    assert (exists(closed), is_directory(closed), is_file(closed)) == (True, True, False)
    for path in (closed / "file", closed / "missing", closed / "file" / "below"):
        assert [exists(path), is_directory(path), is_file(path)] == [False] * 3
    assert existing_place(closed / "a" / "b") == closed
    assert existing_place(tmp_path / "a" / "b") == tmp_path
    assert existing_place(Path("/nowhere/at/all")) == Path("/")


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        (("deploy", "cron", "--into", "closed/in"), Exit.USAGE, "--into: closed/in is not a directory"),
        (("-c", "closed/new.toml", "init", "--from-hauser", str(HAUSER)), Exit.DISK, "cannot be written: permission"),
        (("-c", "closed/new.toml", "init"), Exit.DISK, "cannot be written: permission denied"),
        (("init", "--from-hauser", "closed/hauser.toml"), Exit.USAGE, "cannot be read: permission denied"),
        (("status", "--set", "api.ca_file=closed/ca.pem"), Exit.USAGE, "or this user cannot reach it"),
        (("status", "-d", "closed/exports"), Exit.DISK, "Permission denied"),
        (("doctor", "--offline", "-d", "closed/exports"), Exit.KEY_REFUSED, "closed cannot be written"),
    ],
)
@pytest.mark.usefixtures("closed")
def test_a_command_says_what_it_cannot_reach(capsys, command, code, said):
    """It ends with the code of that fault, not with that of a bug."""
    assert main([*command]) == code
    captured = capsys.readouterr()
    assert said in captured.out + captured.err
