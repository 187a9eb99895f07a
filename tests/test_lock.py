"""Who holds an output directory, and for how long."""

import os
import socket
import stat
import subprocess
import sys
import time
from contextlib import chdir, contextmanager
from pathlib import Path

import orjson
import pytest

from asyncexport.core.bundles import show
from asyncexport.errors import LedgerLockedError, StorageError
from asyncexport.ledger import hold, holder
from tests.ledger_rig import given_away, without_rights

ROOT = Path(__file__).parents[1]

HOLDING = """
import pathlib, sys
from asyncexport.ledger import hold

with hold(pathlib.Path(sys.argv[1]), command="nightly"):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def held_elsewhere(directory):
    """By another process, which ends when it is told to, or killed."""
    command = [sys.executable, "-c", HOLDING, str(directory)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout
            assert process.stdout.readline() == b"held\n"
            yield process
        finally:
            process.kill()


def written(directory, **holder):
    folder = directory / ".asyncexport"
    folder.mkdir()
    (folder / "lock").write_bytes(orjson.dumps(holder))


def test_a_directory_that_nobody_ever_held_has_no_holder(tmp_path):
    """Looking makes nothing."""
    assert holder(tmp_path) is None
    assert not list(tmp_path.iterdir())


def test_the_holder_is_named_while_it_holds(tmp_path):
    """While a run goes on, others are told which, since when, and by which process; afterwards nobody is named."""
    with hold(tmp_path, command="backfill"):
        found = holder(tmp_path)
        assert found is not None
        assert (found.command, found.pid, found.host) == ("backfill", os.getpid(), socket.gethostname())
        with (
            pytest.raises(LedgerLockedError, match=f"backfill, process {os.getpid()} on "),
            hold(tmp_path, command="x"),
        ):
            raise AssertionError("two hold it")
    assert holder(tmp_path) is None


def test_a_process_of_this_machine_that_has_ended_holds_nothing(tmp_path):
    """What a killed run left in the file does not pass for a run that goes on."""
    written(tmp_path, command="backfill", pid=2**22 + 7, host=socket.gethostname(), since=1.0)
    assert holder(tmp_path) is None


def test_a_process_of_another_machine_is_believed(tmp_path):
    """On a shared disk it cannot be asked."""
    written(tmp_path, command="backfill", pid=2**22 + 7, host="elsewhere.example", since=1.0)
    assert str(holder(tmp_path)) == "backfill, process 4194311 on elsewhere.example, since 1970-01-01T00:00:01Z"


@pytest.mark.parametrize("text", [b"", b"[]", b"{", b'{"pid": 1}', b'{"command":"a","pid":1,"host":"b","since":1e99}'])
def test_what_cannot_be_read_names_nobody(tmp_path, text):
    """Half a line that a crash left is no holder, and no error."""
    (tmp_path / ".asyncexport").mkdir()
    (tmp_path / ".asyncexport" / "lock").write_bytes(text)
    assert holder(tmp_path) is None


def test_the_loser_is_told_who_holds_it(tmp_path):
    """Which command, which process on which machine, and since when; and what to do."""
    before = int(time.time())
    with held_elsewhere(tmp_path) as process:
        moments = {show(at) for at in range(before, int(time.time()) + 1)}
        with pytest.raises(LedgerLockedError) as told, hold(tmp_path, command="backfill"):
            raise AssertionError("two hold it")
    told_since = str(told.value).rpartition(" since ")[2]
    assert str(told.value) == (
        f"another run holds {tmp_path}: nightly, process {process.pid} on {socket.gethostname()}, since {told_since}"
    )
    assert told_since in moments
    assert told.value.hint


def test_a_killed_holder_holds_nothing(tmp_path):
    """The lock ends with the process, whatever it left in the file; the next one is named in its place."""
    with held_elsewhere(tmp_path) as process:
        process.kill()
        process.wait()
        assert b"nightly" in (tmp_path / ".asyncexport" / "lock").read_bytes()
        with hold(tmp_path, command="backfill"):
            found = holder(tmp_path)
            assert found
            assert (found.command, found.pid) == ("backfill", os.getpid())


def test_a_holder_that_ends_leaves_the_file_and_nothing_in_it(tmp_path):
    """A file is never taken away under somebody who waits for its lock; after an error, too."""
    for error in (None, ZeroDivisionError):
        try:
            with hold(tmp_path, command="backfill"):
                number = (tmp_path / ".asyncexport" / "lock").stat().st_ino
                if error:
                    raise error
        except ZeroDivisionError:
            pass
        lock = tmp_path / ".asyncexport" / "lock"
        assert (lock.read_bytes(), lock.stat().st_ino) == (b"", number)


def test_an_old_lock_file_is_nothing(tmp_path):
    """However much it says; nor is one that is no longer readable as what we write."""
    written(tmp_path, command="a long name " * 500, pid=1, host=socket.gethostname(), since=1.0)
    with hold(tmp_path, command="backfill"):
        found = holder(tmp_path)
        assert found
        assert found.command == "backfill"


def test_the_lock_is_not_inherited(tmp_path):
    """A program that a run starts does not hold the directory after it."""
    with hold(tmp_path, command="backfill"):
        child = subprocess.Popen(["sleep", "60"], close_fds=False)
    try:
        with hold(tmp_path, command="backfill"):
            pass
    finally:
        child.kill()
        child.wait()


def test_holding_makes_the_directory(tmp_path):
    """With all above it; what is ours in it is for its owner alone."""
    directory = tmp_path / "a" / "b"
    with hold(directory, command="backfill"):
        assert stat.S_IMODE((directory / ".asyncexport").stat().st_mode) == 0o700
        assert stat.S_IMODE((directory / ".asyncexport" / "lock").stat().st_mode) == 0o600


def test_a_relative_directory_is_held_where_it_was(tmp_path):
    """Wherever the process goes meanwhile."""
    with chdir(tmp_path), hold(Path("exports"), command="backfill"), chdir("/"):
        assert holder(tmp_path / "exports")
    assert not holder(tmp_path / "exports")


def test_a_directory_that_cannot_be_written_is_an_error_of_the_disk(tmp_path):
    """It names the place."""
    (tmp_path / "exports").write_text("a file")
    with pytest.raises(StorageError, match=r"exports/\.asyncexport/lock"), hold(tmp_path / "exports", command="x"):
        raise AssertionError("held")


def test_a_directory_of_somebody_else_is_an_error_of_the_disk(tmp_path):
    """Nothing is made in it."""
    tmp_path.chmod(0o500)
    given_away(tmp_path)
    with without_rights(), pytest.raises(StorageError), hold(tmp_path, command="x"):
        raise AssertionError("held")
    tmp_path.chmod(0o700)
    assert not list(tmp_path.iterdir())
